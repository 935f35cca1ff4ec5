"""`TreeTrainer`: TRL's GRPO on episode trees, with credit per step.

It differs from `trl.GRPOTrainer` in four things, all inside one overridden method:

1. each task grows an episode tree in a branching environment (`num_rollouts` full episodes, `num_continuations` more
   from snapshots taken in mid-episode) instead of a group of independent completions;
2. an estimator turns the trees into one advantage per step, RTMC by default, or the token rows into one per token;
3. every token carries its own advantage, `[B, L]` instead of `[B]`, and the weight of its step;
4. shared prefixes are trained once, and weigh as `step_weights` says.

Loss, clipping, KL, optimizer, checkpoints, logging and distribution are TRL's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object, send_to_device
from numpy.typing import ArrayLike
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import use_adapter
from typing_extensions import override

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    Allocator,
    StepAdvantages,
    TokenAdvantages,
    check_advantages,
    effective_ratio,
    make_estimator,
    rtmc_advantages,
)
from agentenv.credit.weights import pool_with
from agentenv.env import Env
from agentenv.errors import InfrastructureError
from agentenv.protocols import Agent
from agentenv.rollout import Rollout, derive_seed
from agentenv.rows import Source
from agentenv.signatures import digest
from agentenv.stats import EpisodeStats, episode_stats
from agentenv.tree import EpisodeTree

from .ahead import SamplingAhead, correct
from .batches import (
    computed_tokens,
    environment_reward,
    loss_weights,
    micro_batch,
    micro_batches,
    model_for,
    pack,
    task_rows,
)
from .buffer import BEGIN, Buffer
from .checkpoint import RestoreParts, Stateful, load_parts, read_checkpoint, save_parts, whole_checkpoint
from .completions import CompletionTable, whole_table
from .config import TreeConfig, check_args
from .generation import Generation, allocator_of, as_maker, read_tasks, with_candidates
from .guards import FiniteGradients, LogRatio, check_tokens, log_ratio, reference_logprobs, remove_noise
from .layout import Rows, lay_out
from .metrics import credit_metrics, episode_metrics, means, pass_metrics
from .packable import Layout
from .packing import plan
from .run_folder import RunFolder, name_of, names_of, write_model_card
from .trl_vllm import TrlSampling, check_model, engine_of_trees

__all__ = ["Estimator", "TokenEstimator", "TreeTrainer"]

Estimator = Callable[[TreeArrays], StepAdvantages]
"""Turns trees into step advantages, e.g. `functools.partial(rtmc_advantages, discount=1.0)`."""

StateIds = Callable[[Sequence[EpisodeTree]], ArrayLike]
"""Numbers the states `[N]` of trees, e.g. `functools.partial(embedding_signatures, similarity=0.95)`."""

TokenEstimator = Callable[[Rows], TokenAdvantages]
"""Turns token rows into token advantages of the same shape, e.g. with a critic and `sr_ppo_advantages`."""


class TreeTrainer(GRPOTrainer):
    """Trains a causal language model as an agent in a branching environment.

    Args:
        model: the model, or a name or folder to load it from.
        args: the settings.
        env: a registered id, an environment class, or a function that makes environments.
        train_tasks: the tasks to train on: a sequence of whatever `reset(options={"task": ...})` accepts, or a file or
            table (see `agentenv.rows`).
        eval_tasks: held-out tasks for `evaluate`; `args.eval_rollouts` episodes each, always with the same seeds.
        estimator: turns trees into step advantages: a name of `agentenv.credit.ESTIMATORS`, or a function. One that
            pools does so with the weights of the loss, `args.step_weights`, unless it was given others.
        token_estimator: turns token rows into token advantages; takes the place of `estimator`.
        allocator: chooses where continuations start: a name of `agentenv.credit.ALLOCATORS`, or a function.
        state_ids: says which states are the same, where the environment's own signatures should not.
        agent: makes what acts, of the model and its tokenizer, e.g. an agent that asks a server; see `Generation`. By
            default the model itself.
        processing_class: the tokenizer, with a chat template; loaded with the model by default.
        callbacks: as for `transformers.Trainer`.
        optimizers: as for `transformers.Trainer`.
        peft_config: as for `GRPOTrainer`.
        rollout: makes what plays the episodes, of the arguments of `Rollout`; e.g.
            `partial(ProgramRollout, command=[...])` for an agent program.

    Attributes:
        last_trees: the trees of the last generation, on this process.
        first_log_ratio: how far the first loss was from the policy that sampled; 0 but for rounding.
        run_folder: writes `args.output_dir`, and compares the settings of a run that goes on.

    Raises:
        ValueError: there are fewer tasks than one generation needs.
        TypeError: `env` makes no environments, or `args` are another trainer's.
        TaskError: the tasks are no sequence, file or table that can be read.
        ModelError: the tokenizer has no chat template or no end token, or more tokens than the model.
        InfrastructureError: no episode went through in `max_broken_generations` generations in a row.
        FloatingPointError: a loss or a gradient is not finite; weights are left as they were.
    """

    args: TreeConfig
    settings: type[TreeConfig] = TreeConfig

    def __init__(  # noqa: PLR0913  TRL's arguments, and ours
        self,
        model: str | PreTrainedModel,
        args: TreeConfig,
        *,
        env: str | Callable[[], Env],
        train_tasks: Source,
        eval_tasks: Source | None = None,
        estimator: str | Estimator = rtmc_advantages,
        token_estimator: TokenEstimator | None = None,
        allocator: str | Allocator = "even",
        state_ids: StateIds | None = None,
        agent: Callable[[Any, PreTrainedTokenizerBase], Agent] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        rollout: Callable[..., Any] = Rollout,
    ) -> None:
        check_args(args, self.settings)
        check_model(args, model, agent=agent, adapter=peft_config)
        self._tasks = {
            "train": read_tasks("train_tasks", train_tasks, least=cast("int", args.generation_batch_size)),
            "eval": () if eval_tasks is None else read_tasks("eval_tasks", eval_tasks),
        }
        make_env, estimator = as_maker(env), make_estimator(estimator)
        allocate = allocator_of(allocator, args.predictor, args.candidates)
        if args.step_weights == "auto":
            args.step_weights = getattr(allocate, "weights", "occupancy")
        self._estimator = pool_with(estimator, args.step_weights)
        self._token_estimator, self._state_ids = token_estimator, state_ids
        self._names = {"estimator": name_of(token_estimator or estimator), "allocator": name_of(allocator)}
        peft, played = peft_config and type(peft_config), None if rollout is Rollout else rollout
        self._names |= names_of(state_ids=state_ids, agent=agent, rollout=played, peft_config=peft)
        self._stateful: dict[str, Stateful] = {}
        self._generation = (-1, 0)  # optimizer step, and how many generations it has had
        self._broken = 0  # generations in a row without a valid episode
        self._stats: dict[str, dict[object, EpisodeStats]] = {}
        self._resumed: Path | None = None
        self.last_trees: list[EpisodeTree] = []
        self.first_log_ratio: LogRatio | None = None
        with engine_of_trees(self, args):
            super().__init__(
                model=model,
                reward_funcs=environment_reward,
                args=args,
                train_dataset=task_rows(len(self._tasks["train"])),
                eval_dataset=task_rows(len(self._tasks["eval"])) if self._tasks["eval"] else None,
                processing_class=processing_class,
                callbacks=callbacks,
                optimizers=optimizers,
                peft_config=peft_config,
            )
        self.num_generations = self.num_generations_eval = 1  # of TRL's sampler: a row is a task
        if args.disable_dropout:
            remove_noise(cast("torch.nn.Module", self.model))
        tokenizer = check_tokens(self.model, self.processing_class)
        part = partial(Generation, args, make_env, tokenizer, allocate, self._names["allocator"], make_rollout=rollout)
        part = partial(part, **({"make_agent": agent} if not args.use_vllm else self._trls_vllm()))
        self._sampling = part(gather=gather_object)
        self._ahead = SamplingAhead(part()) if args.staleness else None  # in a thread, where processes cannot meet
        named: dict[str, object] = {"estimator": estimator, "token_estimator": token_estimator, "allocator": allocate}
        named["reference"] = self.ref_model if args.sync_ref_model else None
        self._stateful |= {name: part for name, part in named.items() if isinstance(part, Stateful)}
        self._stateful["generation"] = Buffer(self)
        if self._ahead is not None:
            self._stateful["ahead"] = self._ahead
        self._layout = Layout(args, self.model, balanced=self.aux_loss_enabled, gather=gather_object)
        self._table = CompletionTable(self._logs, args, gather_object, tokenizer.decode)
        description = {
            "env": name_of(env),
            **self._names,
            "train_tasks": len(self._tasks["train"]),
            "train_tasks_digest": digest(list(self._tasks["train"])),
            "processes": self.accelerator.num_processes,
        }
        self.run_folder = RunFolder(self, description, lambda: self._resumed and self._resumed.parent)
        for callback in (FiniteGradients(), self.run_folder, RestoreParts(self._stateful, lambda: self._resumed)):
            self.add_callback(callback)

    def _trls_vllm(self) -> dict[str, Any]:
        """What samples with the vLLM that TRL has made, in place of TRL's own sampling and correction."""
        self.use_vllm = False
        vllm = TrlSampling(self.vllm_generation, self.accelerator, self.args)
        return {"make_agent": vllm.make_agent, "send_weights": vllm.send}

    @override
    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains until `max_steps` steps have been made in all, those before a resumption included.

        Args:
            resume_from_checkpoint: a checkpoint, or `True` for the last one of `output_dir`.
            trial: as for `transformers.Trainer.train`.
            ignore_keys_for_eval: as for `transformers.Trainer.train`.
        """
        self._resumed = read_checkpoint(resume_from_checkpoint, str(self.args.output_dir))
        given = str(self._resumed) if self._resumed else resume_from_checkpoint  # without one, transformers says so
        self.first_log_ratio = None
        self._stateful["generation"].load_state_dict(BEGIN)
        try:
            if self._resumed and (done := self._finished(self._resumed)):
                return done
            return super().train(given, trial, ignore_keys_for_eval)
        finally:
            self.close()

    def _finished(self, checkpoint: Path) -> TrainOutput | None:
        """Loads a checkpoint after which nothing is left to do; transformers would make one more step."""
        path = checkpoint / "trainer_state.json"
        if not path.is_file() or self.args.max_steps <= 0:
            return None
        state = TrainerState.load_from_json(str(path))
        if state.global_step < self.args.max_steps:
            return None
        self._load_from_checkpoint(str(checkpoint))
        fresh = self.args.allow_changes
        load_parts(self._stateful, checkpoint, rank=self.accelerator.process_index, fresh=fresh)
        self.state = state
        return TrainOutput(state.global_step, 0.0, {})

    @override
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Computes TRL's loss.

        Raises:
            FloatingPointError: it is not finite.
        """
        inputs = micro_batch(inputs)
        fresh = self._generation[0] == self.state.global_step  # no optimizer step since it was sampled
        if self.first_log_ratio is None and fresh and cast("torch.nn.Module", self.model).training:
            with self.accelerator.autocast():
                self.first_log_ratio = log_ratio(model, inputs, temperature=self.temperature)
            self.first_log_ratio.warn_unless_rounding(model, half=self.args.bf16 or self.args.fp16)
        loss = super().compute_loss(model_for(model, inputs), inputs, return_outputs, num_items_in_batch)
        if not torch.isfinite(loss):
            msg = (
                f"the loss must be finite, got {float(loss.detach())} at step {self.state.global_step + 1}: training "
                "stops before it reaches the weights; resume from the last checkpoint with a lower learning rate"
            )
            raise FloatingPointError(msg)
        return loss

    @override
    def get_high_entropy_mask(self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float) -> torch.Tensor:
        """Says which trained tokens are among the most uncertain, whatever they weigh in the loss."""
        return super().get_high_entropy_mask(entropies, (mask > 0).to(mask.dtype), threshold)

    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        mode = "train" if cast("torch.nn.Module", self.model).training else "eval"
        numbers = [int(row["task"]) for row in inputs]
        ahead = self._ahead if mode == "train" else None
        self.last_trees = self._grow(numbers, mode) if ahead is None else self._take_ahead(ahead, numbers)
        rows = lay_out(self.last_trees, train_truncated=not self.mask_truncated_completions)
        if mode == "eval":
            self._record(numbers, rows, None, {}, mode)
            return {}
        if self._state_ids is not None:
            rows = rows.with_state_ids(self._state_ids(self.last_trees))
        credit = self._credit(rows)
        batch = self._collate(rows, credit)
        self._record(numbers, rows, credit, batch, mode)
        self._table.fill(self.last_trees, rows, credit)
        return batch

    @override
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates; training draws the same random numbers afterwards as without it."""
        with torch.random.fork_rng([device] if (device := self.accelerator.device).type == "cuda" else []):
            return super().evaluate(*args, **kwargs)

    @override
    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[None, None, None]:
        """Plays the tasks of an evaluation. There is no loss, because there is no credit."""
        self._prepare_inputs(inputs)
        return None, None, None

    def _credit(self, rows: Rows) -> StepAdvantages | TokenAdvantages:
        name = self._names["estimator"]
        if self._token_estimator is None:
            return check_advantages(self._estimator(rows.arrays), rows.arrays, name)
        return rows.check_tokens(self._token_estimator(rows), name)

    def _grow(self, numbers: Sequence[int], mode: str) -> list[EpisodeTree]:
        """Samples one tree per task with the current weights."""
        tasks, seed = self._draw_tasks(numbers, mode)
        with self._policy() as model:
            if mode == "eval":
                return self._sampling.evaluate(model, tasks, seed=seed)
            return self._sampling.grow(model, tasks, seed=seed)

    def _policy(self) -> Any:
        """Gives the model that samples, with all its weights; TRL's vLLM gathers them as it sends them."""
        if self.args.use_vllm:
            return nullcontext(self.accelerator.unwrap_model(self.model))
        gather = self.args.ds3_gather_for_generation
        return unwrap_model_for_generation(self.model_wrapped, self.accelerator, gather_deepspeed3_params=gather)

    def _take_ahead(self, ahead: SamplingAhead, numbers: Sequence[int]) -> list[EpisodeTree]:
        """Takes a generation that was sampled meanwhile, and has others sampled, of the tasks that are known now."""
        if not len(ahead):
            self._sample_ahead(ahead, numbers)
        sampled = ahead.take()
        self._sampling.report = sampled.report | {"sampling/staleness": float(self.state.global_step - sampled.step)}
        args = self.args
        parts, each = args.gradient_accumulation_steps, args.num_iterations * cast("int", args.steps_per_generation)
        to_do = (self.state.max_steps - self.state.global_step) * parts - self._step % parts
        left = math.ceil(to_do / each) - 1
        for _ in range(min(args.staleness, left) - len(ahead)):
            self._sample_ahead(ahead, numbers)
        return sampled.trees

    def _sample_ahead(self, ahead: SamplingAhead, numbers: Sequence[int]) -> None:
        tasks, seed = self._draw_tasks(numbers, "train")
        with self._policy() as model:
            ahead.ask(model, tasks, seed=seed, step=self.state.global_step)

    def _draw_tasks(self, numbers: Sequence[int], mode: str) -> tuple[list[Any], int]:
        """Returns the tasks of a generation, further candidates after them, and its seed."""
        seed, tasks = self._seed(numbers, mode), self._tasks[mode]
        each = self.args.candidates if mode == "train" else 1
        return [tasks[number] for number in with_candidates(numbers, len(tasks), each, seed)], seed

    def _seed(self, numbers: Sequence[int], mode: str) -> int:
        """A seed for each generation of each process.

        Evaluation repeats the same random numbers for the same tasks, so that its curve shows the policy and not the
        dice.
        """
        if mode == "eval":
            return derive_seed(self.args.seed, "eval", *numbers)
        step, count = self._generation
        self._generation = (self.state.global_step, count + 1 if step == self.state.global_step else 0)
        return derive_seed(self.args.seed, *self._generation, self.accelerator.process_index)

    def _collate(self, rows: Rows, credit: StepAdvantages | TokenAdvantages) -> dict[str, Any]:
        """Joins rows and credit; on every process as many rows, divisible into micro-batches."""
        parts = cast("int", self.args.steps_per_generation)
        tokenizer, multiple_of = cast("Any", self.processing_class), cast("int | None", self.pad_to_multiple_of)
        packed = self._layout.packs(self.model_wrapped, rows, vocab_size=len(tokenizer))
        budget, cost = self.args.max_packed_tokens, self._layout.token_cost
        planned = plan(rows, parts=parts, budget=budget, token_cost=cost) if packed else []
        own = [sum(map(len, micro)) for micro in planned] or [-(-len(rows) // parts)]
        most = max(*gather_object([max(own)]), 1)
        batch: dict[str, Any] = rows.with_advantages(
            credit,
            loss_weights(rows, self.args, count=most * parts, gather=self._gather),
            pad_token_id=tokenizer.pad_token_id,
            count=len(rows) + 1 if packed else most * parts,
            multiple_of=multiple_of,
        )
        if packed:
            batch = pack(rows, batch, planned, count=most, multiple_of=multiple_of)
        batch = cast("dict[str, Any]", send_to_device(batch, self.accelerator.device))
        weight = torch.stack([micro["tool_mask"].sum() for micro in micro_batches(batch)]).sum()
        for micro in micro_batches(batch):
            micro["num_items_in_batch"] = self._gather(weight).sum()
            if self.beta:
                micro["ref_per_token_logps"] = self._reference_logprobs(micro)
        if self._ahead is not None or (self.args.use_vllm and self.args.vllm_importance_sampling_correction):
            self._sampling.report |= means([self._correct(micro) for micro in micro_batches(batch)])
        return batch

    def _reference_logprobs(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities `[B, L]` of the completions under the reference model, for the KL term.

        With an adapter, that is the model without it, or with the adapter that training began with.
        """
        model = cast("Any", self.ref_model)
        if model is None:
            model = cast("Any", self.accelerator.unwrap_model(self.model))
            with use_adapter(model, adapter_name="ref" if "ref" in model.peft_config else None):
                return reference_logprobs(model, batch, self.args.per_device_train_batch_size, self.temperature)
        return reference_logprobs(model, batch, self.args.per_device_train_batch_size, self.temperature)

    @torch.no_grad()
    def _correct(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """Corrects what older weights sampled, see `correct`."""
        model = self.accelerator.unwrap_model(self.model)
        with self.accelerator.autocast():
            now = reference_logprobs(model, batch, self.args.per_device_train_batch_size, self.temperature)
        return correct(batch, now.float(), cap=self.args.importance_cap)

    def _record(
        self,
        numbers: Sequence[int],
        rows: Rows,
        credit: StepAdvantages | TokenAdvantages | None,
        batch: Mapping[str, Any],
        mode: str,
    ) -> None:
        """Adds what happened to TRL's metrics, over all processes and all generations since the last log."""
        metrics = self._metrics[mode]
        if not metrics:  # TRL has just logged
            self._stats[mode] = {}
        # A task counts once in an evaluation, though accelerate fills up the last batch of a process with others.
        process = *self._generation, self.accelerator.process_index
        keys = (
            [("eval", n) for n in numbers] if mode == "eval" else [(*process, i) for i in range(len(self.last_trees))]
        )
        planned = [tree.metadata.get("num_rollouts", self.args.eval_rollouts) for tree in self.last_trees]
        parts = zip(keys, self.last_trees, planned, strict=False)  # tasks that got no episode have no tree
        own = [(key, episode_stats([tree], num_rollouts=count)) for key, tree, count in parts]
        new = dict(gather_object(own))
        if mode == "train":
            self._stop_outage(sum(new.values(), EpisodeStats()))
        self._stats[mode] = new | self._stats[mode]
        total = sum(self._stats[mode].values(), EpisodeStats())
        values = episode_metrics(total) | {"tree/rows": float(len(rows))}
        if credit is None:
            values |= pass_metrics(self._stats[mode].values(), self.args.eval_rollouts)
        else:
            values |= {"tree/leaves": total.everything.episodes / max(1, len(self._stats[mode]))}
            reports = gather_object([{"effective_ratio": effective_ratio(rows.arrays)} | self._sampling.report])
            for name, value in (means(reports) | credit_metrics(rows, credit)).items():
                metrics[name].append(value)
            computed = sum(gather_object([computed_tokens(batch)]))
            self.state.num_input_tokens_seen += computed
            metrics["tree/computed_tokens"].append(computed)
        values["num_tokens"] = float(self.state.num_input_tokens_seen)
        for name, value in values.items():
            metrics[name] = [value]

    def _stop_outage(self, stats: EpisodeStats) -> None:
        self._broken = 0 if stats.trees else self._broken + 1
        if self._broken >= self.args.max_broken_generations:
            broken = [node for tree in self.last_trees for node in tree.nodes if node.reward is None]
            msg = (
                f"no episode went through in {self._broken} generations in a row (max_broken_generations); "
                f"{stats.everything.failed} failed in the last, the first of them: {broken[0].info.get('failure')}"
            )
            raise InfrastructureError(msg)

    @override
    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        with whole_table(self.args, self.state.global_step):
            super().log(logs, start_time)

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.accelerator.gather(tensor))

    @override
    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes a README.md that says how the model came about."""
        if self.is_world_process_zero():
            write_model_card(self.args, cast("PreTrainedModel", self.model), self.state)

    @override
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves the parts first: transformers ends a checkpoint with the file that says it is whole."""
        if self._ahead is not None:
            self._ahead.wait()  # so that the parts stand still
        with whole_checkpoint(self.args, self.state) as folder:
            save_parts(self._stateful, folder, rank=self.accelerator.process_index)
            self.accelerator.wait_for_everyone()  # the file that says it is whole must not come before any part
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # and what says how long all files are, not before the last

    def close(self) -> None:
        """Closes the environments. May be called twice; training opens them again."""
        self.run_folder.release()
        if self._ahead is not None:
            self._ahead.close()
        self._sampling.close()
