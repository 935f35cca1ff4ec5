"""`SRPPOTrainer`: one rollout per prompt, and the credit of every token from a critic of success.

It differs from `TreeTrainer` in three things:

1. after each generation the critic says how probable success was before every token, and only then learns the outcomes;
2. differences of Pass@k along an episode, with the outcome at its end, are the credit of its tokens;
3. how far the critic is believed follows from how its earlier predictions came out.

With `SRPPOConfig(closed_loop=True)` the critic chooses instead where TRACE continues episodes; RTMC gives the credit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from typing_extensions import override

from agentenv.credit import StepAdvantages, TokenAdvantages, TraceAllocator, rtmc_advantages
from agentenv.credit.predictor import Prefix, prefix_at
from agentenv.env import Env
from agentenv.protocols import Agent, Context
from agentenv.rollout import Rollout, derive_seed
from agentenv.rows import Source
from agentenv.tree import EpisodeTree
from agentenv.types import ToolSchema

from .config import check_args
from .critic import TokenCritic, outcome_targets, trained_prefixes
from .critic_predictor import CriticPredictor
from .critic_record import TrackRecord, draw_reliability, scores_of, thin_out
from .generation import as_maker
from .layout import Rows, lay_out
from .sr_ppo_config import SRPPOConfig
from .sr_ppo_credit import Belief, episode_credit, success_of_others, totals_of
from .tree_trainer import TreeTrainer

__all__ = ["SRPPOTrainer"]

FloatArray = NDArray[np.float64]

_POINTS = 32
"""Prefixes per tree by which the critic is judged."""


class SRPPOTrainer(TreeTrainer):
    """Trains a causal language model as an agent from one episode per prompt, with a critic.

    Source: SR-PPO (arXiv 2606.25451). Attested: one rollout per prompt, a token-level critic regressed on Monte Carlo
    outcomes, Pass@k values computed from it, differences with a terminal correction. The decay, what protects against
    an uninformed critic, and the rule for k are ours (`SRPPOConfig`).

    The critic is a head on the policy's hidden states, which it reads without changing them, or a model of its own. It
    is in no state dict of the policy, and no sampler sees it; checkpoints hold it apart, in `agentenv_state/`.

    Args:
        model: the policy, or a name or folder to load it from.
        args: the settings.
        env: as for `TreeTrainer`.
        train_tasks: as for `TreeTrainer`; the critic's warm-up draws from them, too.
        eval_tasks: as for `TreeTrainer`; the critic is scored on them as well.
        critic_model: a model of the critic's own, or a name or folder to load it from: a causal language model with
            the policy's tokenizer, all of whose weights are trained. By default the critic reads the policy.
        agent: as for `TreeTrainer`. One with a `chat` shows the critic of a closed loop the prompts of new tasks.
        processing_class: as for `TreeTrainer`.
        callbacks: as for `TreeTrainer`.
        optimizers: of the policy; the critic has its own.
        peft_config: as for `TreeTrainer`; adapters of the policy.
        rollout: as for `TreeTrainer`.

    Attributes:
        critic: the critic.
        record: its last predictions, with what came of them.

    Raises:
        ValueError: as for `TreeTrainer`; or `critic_model` is the policy itself, or knows fewer tokens.
        FloatingPointError: as for `TreeTrainer`; or what the critic says, or its loss, is not finite.
    """

    args: SRPPOConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    settings = SRPPOConfig

    def __init__(  # noqa: PLR0913  those of TreeTrainer, and a critic
        self,
        model: str | PreTrainedModel,
        args: SRPPOConfig,
        *,
        env: str | Callable[[], Env],
        train_tasks: Source,
        eval_tasks: Source | None = None,
        critic_model: str | PreTrainedModel | None = None,
        agent: Callable[[Any, PreTrainedTokenizerBase], Agent] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        rollout: Callable[..., Any] = Rollout,
    ) -> None:
        check_args(args, SRPPOConfig)
        if critic_model is model and not isinstance(model, str):
            msg = "critic_model must be a model of the critic's own, got the policy: leave it out to read the policy"
            raise ValueError(msg)
        self._success: FloatArray = np.zeros(0)
        self._tools: tuple[ToolSchema, ...] | None = None
        self._said: dict[str, float] = {}
        credit: dict[str, Any] = {"token_estimator": self.token_credit}
        if args.closed_loop:
            allocator = TraceAllocator(CriticPredictor(self._ask), outcomes="unseen")
            allocator.read = self._read_prefix
            credit = {"estimator": rtmc_advantages, "allocator": allocator}
        super().__init__(
            model,
            args,
            env=env,
            train_tasks=train_tasks,
            eval_tasks=eval_tasks,
            agent=agent,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
            rollout=rollout,
            **credit,
        )
        self.critic = self._make_critic(critic_model)
        self.record = TrackRecord(args.critic_record)
        self._belief = Belief(args)
        self._make_env = as_maker(env)
        self._stateful |= {"critic": self.critic, "critic_record": self.record}
        self.add_callback(_DrawReliability(self))

    def _ask(self, sequences: Sequence[Sequence[int]]) -> FloatArray:
        return self.critic.success_after(sequences)

    def _read_prefix(self, tree: EpisodeTree, node: int) -> Prefix:
        """Reads a prefix; at a prompt that nobody has acted on yet, with the tokens that the policy would read."""
        prefix, agent = prefix_at(tree, node), self._sampling.agent
        if node or prefix.token_ids or not hasattr(agent, "chat"):
            return prefix
        if self._tools is None:
            env: Any = self._make_env()
            self._tools = tuple(env.tools)
            env.close()
        prompt = agent.chat.prompt(Context(tuple(tree.messages(node)), self._tools))
        return replace(prefix, token_ids=tuple(prompt))

    def _make_critic(self, given: str | PreTrainedModel | None) -> TokenCritic:
        args, accelerator = self.args, self.accelerator
        own = AutoModelForCausalLM.from_pretrained(given, dtype="float32") if isinstance(given, str) else given
        if own is not None:
            _check_vocabulary(own, cast("PreTrainedTokenizerBase", self.processing_class))
            torch.nn.Module.to(own, accelerator.device)
        return TokenCritic(
            lambda: cast("torch.nn.Module", accelerator.unwrap_model(self.model) if own is None else own),
            own=own is not None,
            learning_rate=args.critic_learning_rate,
            epochs=args.critic_epochs,
            minibatches=args.critic_minibatches,
            batch_size=args.per_device_train_batch_size,
            hidden=args.critic_hidden,
            seed=args.seed,
            add_up=lambda tensor: cast("torch.Tensor", accelerator.reduce(tensor, reduction="sum")),
            precision=lambda: cast("Any", accelerator).autocast(),
        )

    def token_credit(self, rows: Rows) -> TokenAdvantages:
        """Computes the credit of tokens from what the critic said before it learned these outcomes."""
        _, nodes = trained_prefixes(rows)
        first = self._success[np.unique(rows.arrays.tree_ids[nodes], return_index=True)[1]]
        prompts = np.concatenate(gather_object([first]))
        used = self._belief(self._said["trust"], prompts, self.state.global_step)
        self._said |= used
        credit = episode_credit(rows, self._success, **used, prompt_weighted=self.args.prompt_weighted)
        trust = self._said["trust"] if self.args.critic_guard else 1.0
        if trust == 1.0:
            return credit
        totals = sum(np.array(pair) for pair in gather_object([totals_of(rows.arrays)]))
        others = success_of_others(rows.arrays, totals)[rows.arrays.tree_ids[nodes]]
        plain = episode_credit(rows, others, k=1.0, decay=1.0)
        return replace(credit, advantages=trust * credit.advantages + (1.0 - trust) * plain.advantages)

    @override
    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if cast("torch.nn.Module", self.model).training and not self.critic.updates:
            self._warm_up(len(inputs))
        return super()._generate_and_score_completions(inputs)

    def _warm_up(self, count: int) -> None:
        """Lets the critic learn from episodes of tasks drawn at random; the policy stays as it is."""
        args, rank = self.args, self.accelerator.process_index
        episodes = count * args.num_rollouts * self.accelerator.num_processes
        for number in range(-(-args.critic_warmup // episodes)):
            rng = np.random.default_rng(derive_seed(args.seed, "critic warm-up", number, rank))
            tasks = rng.permutation(len(self._tasks["train"]))[:count]
            rows = lay_out(self._grow([int(task) for task in tasks], "train"))
            self._learn(rows)
            self.state.num_input_tokens_seen += int(sum(gather_object([int(rows.lengths.sum())])))

    @override
    def _credit(self, rows: Rows) -> StepAdvantages | TokenAdvantages:
        self._learn(rows)
        return super()._credit(rows)

    def _learn(self, rows: Rows) -> None:
        """Asks the critic about every trained token, then lets it learn what came below; keeps what it said."""
        said = {"trust": self.record.trust()}  # by outcomes of earlier generations alone
        prefixes, nodes = trained_prefixes(rows)
        targets, weights = outcome_targets(rows, nodes, self.args.step_weights)
        seed = derive_seed(self.args.seed, "critic", self.critic.updates)
        self._success = self.critic.learn(prefixes, targets, weights, seed=seed)
        entries = self._thinned(rows.arrays.tree_ids[nodes], self._success, targets, weights)
        self.record.add(*entries)
        self._said = said | scores_of(*entries)

    def _thinned(self, trees: NDArray[np.int64], *arrays: FloatArray) -> FloatArray:
        """Joins prediction, outcome and weight at some prefixes of every tree, over all processes: `[3, A]`."""
        index, weights = thin_out(trees, arrays[-1], _POINTS)
        own = np.stack([*(array[index] for array in arrays[:-1]), weights])
        return np.concatenate(gather_object([own]), axis=1)

    @override
    def _record(self, numbers: Sequence[int], rows: Rows, credit: Any, batch: Mapping[str, Any], mode: str) -> None:
        super()._record(numbers, rows, credit, batch, mode)
        said = self._said
        if mode == "eval":
            prefixes, nodes = trained_prefixes(rows)
            targets, weights = outcome_targets(rows, nodes, self.args.step_weights)
            answer = self.critic.predict(prefixes)
            said = scores_of(*self._thinned(rows.arrays.tree_ids[nodes], answer, targets, weights))
        for name, value in said.items():
            self._metrics[mode][f"critic/{name}"].append(value)


class _DrawReliability(TrainerCallback):
    """Draws the critic's reliability into the run folder whenever a checkpoint is written, and at the end."""

    def __init__(self, trainer: SRPPOTrainer) -> None:
        self._trainer = trainer

    @override
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            draw_reliability(self._trainer.record, Path(str(args.output_dir)) / "critic.png")

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.on_save(args, state, control)


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    known = len(cast("Any", model.get_input_embeddings()).weight)
    if known < len(tokenizer):
        msg = f"critic_model must know the policy's {len(tokenizer)} tokens, it knows {known}: take one of its family"
        raise ValueError(msg)
