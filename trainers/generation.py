"""One generation: tasks become episode trees, sampled with the current weights. No credit, no loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from agentenv.agents import TransformersAgent
from agentenv.credit import (
    Allocator,
    HiddenPredictor,
    TraceAllocator,
    check_anchors,
    check_counts,
    make_allocator,
)
from agentenv.env import Env
from agentenv.errors import TaskError
from agentenv.protocols import Agent
from agentenv.registry import make
from agentenv.rollout import Rollout, derive_seed
from agentenv.rows import read_rows
from agentenv.tree import Anchor, EpisodeTree

from .config import TreeConfig
from .hidden import HiddenStates
from .sampler_weights import sampler_weights

__all__ = ["Generation", "allocator_of", "as_maker", "read_tasks", "with_candidates"]


class Generation:
    """Grows the trees of every generation; keeps agent and environments in between.

    Args:
        args: the settings.
        make_env: returns a new environment.
        tokenizer: the model's, with a chat template.
        allocator: chooses the nodes that receive continuations. One with `roots` also chooses how many full episodes
            each task gets, one with `learn` is told what came of all; `TraceAllocator` has both. One with
            `refill(trees, rng)` is asked after every round of full episodes for more of them, a count per task, until
            it wants none; as in dynamic sampling, that may go beyond the budget, up to `num_rollouts` per candidate
            and round.
        name: of the allocator, for messages.
        gather: joins lists over all processes.
        make_rollout: makes what plays the episodes; takes the arguments of `Rollout`.
        make_agent: makes what acts, of the model and its tokenizer; a `TransformersAgent` by default. An agent with
            `update_weights` is given the weights before every generation (`sampler_weights`), any other is told by
            `weights_changed`.
        send_weights: gives an agent the weights instead, on every process at the same time.

    Attributes:
        report: what the newest generation says of its budget and of the allocator's predictions, by metric.
    """

    def __init__(
        self,
        args: TreeConfig,
        make_env: Callable[[], Env],
        tokenizer: PreTrainedTokenizerBase,
        allocator: Allocator,
        name: str,
        *,
        gather: Callable[[list[Any]], list[Any]] = list,
        make_rollout: Callable[..., Any] = Rollout,
        make_agent: Callable[[Any, PreTrainedTokenizerBase], Agent] | None = None,
        send_weights: Callable[[Any], None] | None = None,
    ) -> None:
        self._args = args
        self._make_env = make_env
        self._tokenizer = tokenizer
        self._allocator: Any = allocator
        self._name = name
        self._gather = gather
        self._make_rollout = make_rollout
        self._make_agent = make_agent or self._transformers_agent
        self._send_weights = send_weights
        self._agent: Any = None
        self._model: Any = None
        self._hidden: HiddenStates | None = None
        self._rollouts: dict[str, Rollout] = {}
        self.report: dict[str, float] = {}

    @property
    def agent(self) -> Any:
        """What acts; `None` before the first generation."""
        return self._agent

    def grow(self, model: Any, tasks: Sequence[Any], *, seed: int) -> list[EpisodeTree]:
        """Samples a tree per task, full episodes and then continuations; a task that gets no episode has no tree.

        Args:
            model: whose weights may have changed since the last call.
            tasks: the tasks, or the candidates among which the allocator chooses; the budget is that of one generation.
            seed: of all that is random in it.
        """
        args, rng = self._args, np.random.default_rng(seed)
        rollout = self._rollout(model, "train", keep_snapshots=args.num_continuations > 0)
        rollout.seed = seed
        count = min(len(tasks), args.per_device_train_batch_size * cast("int", args.steps_per_generation))
        trees = self._grow_roots(rollout, tasks, count, rng)
        budget = args.num_continuations * count
        full = sum(tree.num_rollouts for tree in trees)
        if budget:
            chosen = self._allocator(trees, budget, rng)
            rollout.extend(trees, check_anchors(trees, chosen, budget, self._name))
        everything = sum(tree.num_rollouts for tree in trees)
        self.report = {"allocator/root_share": full / max(1, everything), "allocator/opened": len(trees) / len(tasks)}
        if hasattr(self._allocator, "learn"):
            learned = self._allocator.learn(trees, gather=self._gather)
            self.report |= {f"predictor/{name}": value for name, value in learned.items()}
        self._forget()
        return trees

    def _grow_roots(
        self, rollout: Rollout, tasks: Sequence[Any], count: int, rng: np.random.Generator
    ) -> list[EpisodeTree]:
        """Samples the full episodes; every tree remembers how many were planned."""
        each = self._args.num_rollouts
        trees = rollout.begin(tasks)
        live = [i for i, tree in enumerate(trees) if tree.snapshots]
        counts = [each] * len(live)
        if hasattr(self._allocator, "roots"):
            budget = each * min(count, len(live))
            chosen = self._allocator.roots([trees[i] for i in live], budget, rng)
            counts = check_counts(chosen, len(live), budget, self._name)
        planned = dict.fromkeys(live, 0)
        while any(counts):
            rollout.extend(trees, [Anchor(i, 0, count) for i, count in zip(live, counts, strict=True) if count])
            planned = {i: planned[i] + count for i, count in zip(live, counts, strict=True)}
            if not hasattr(self._allocator, "refill"):
                break
            chosen = self._allocator.refill([trees[i] for i in live], rng)
            counts = check_counts(chosen, len(live), each * len(live), self._name)
        for i, tree in enumerate(trees):
            tree.metadata["num_rollouts"] = planned.get(i, each)
        return [tree for tree in trees if tree.metadata["num_rollouts"]]

    def evaluate(self, model: Any, tasks: Sequence[Any], *, seed: int) -> list[EpisodeTree]:
        """Samples `eval_rollouts` full episodes per task."""
        rollout = self._rollout(model, "eval", keep_snapshots=False)
        rollout.seed = seed
        trees = rollout.grow(tasks, self._args.eval_rollouts)
        self._forget()
        return trees

    def _forget(self) -> None:
        """Frees kept keys and values, up to 1 GiB: the next generation has other weights, and an update needs room."""
        if isinstance(self._agent, TransformersAgent):
            self._agent.reset()

    def close(self) -> None:
        """Closes the environments. May be called twice; the next generation opens them again."""
        for rollout in self._rollouts.values():
            rollout.close()
        self._deafen()

    def _rollout(self, model: Any, mode: str, *, keep_snapshots: bool) -> Rollout:
        if self._agent is None or self._model is not model:
            self._agent, self._model = self._make_agent(model, self._tokenizer), model
            self._check_agent()
            self._deafen()
        self._listen(self._agent)
        if self._send_weights is not None:
            self._send_weights(self._agent)
        elif hasattr(self._agent, "update_weights"):
            self._agent.update_weights(sampler_weights(model))
        else:
            self._agent.weights_changed()  # by the optimizer, or by a checkpoint, since the generation before
        if mode not in self._rollouts:
            honored = "max_tokens" in getattr(self._agent, "honors", ())
            self._rollouts[mode] = self._make_rollout(
                self._make_env,
                self._agent,
                retries=self._args.rollout_retries,
                keep_snapshots=keep_snapshots,
                max_tokens=self._args.max_episode_tokens or (_window(model) if honored else None),
            )
        rollout = self._rollouts[mode]
        rollout.agent = self._agent
        return rollout

    def _transformers_agent(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> TransformersAgent:
        return TransformersAgent(
            model,
            tokenizer,
            max_new_tokens=self._args.max_action_tokens,
            temperature=self._args.temperature,
            template_options=cast("Mapping[str, Any]", self._args.chat_template_kwargs or {}),
            history=self._args.history,
        )

    def _check_agent(self) -> None:
        """Refuses what would be sampled otherwise than the loss takes it to be, and what would be asked in vain."""
        name = type(self._agent).__name__
        for setting, needed in (("temperature", self._args.temperature), ("top_p", 1.0)):
            found = getattr(self._agent, setting, None)
            if found not in {None, needed}:
                msg = (
                    f"agent must sample with {setting}={needed:g}, {name} has {found:g}: the loss needs the "
                    "probabilities of the distribution that was sampled from"
                )
                raise ValueError(msg)
        if self._reads_hidden and not hasattr(self._agent, "listen"):
            msg = f"predictor must be 'text' with {name} as agent: only TransformersAgent shows hidden states"
            raise ValueError(msg)

    @property
    def _reads_hidden(self) -> bool:
        return getattr(getattr(self._allocator, "predictor", None), "reads_hidden", False)

    def _listen(self, agent: Any) -> None:
        """Shows the allocator's predictor what the model thinks, if it wants that."""
        if self._hidden is not None:
            self._hidden.clear()
        elif self._reads_hidden:
            self._hidden = HiddenStates(agent)
            self._allocator.read = self._hidden.prefix_at

    def _deafen(self) -> None:
        if self._hidden is not None:
            self._hidden.detach()
            self._hidden = None


def allocator_of(rule: str | Allocator, predictor: str, candidates: int = 1) -> Allocator:
    """Returns an allocator, or makes that of a name, with a predictor of a name (`TreeConfig.predictor`).

    Raises:
        ValueError: there are several candidates per task, and the allocator does not choose among tasks; or a predictor
            is named, and the allocator has none, or one of its own.
    """
    allocator = make_allocator(rule)
    if candidates > 1 and not hasattr(allocator, "roots"):
        msg = (
            f"candidates must be 1 with allocator={rule!r}, got {candidates}: only an allocator with roots, such as "
            "'trace', chooses among tasks"
        )
        raise ValueError(msg)
    if predictor == "hidden":
        if not isinstance(rule, str) or not isinstance(allocator, TraceAllocator):
            msg = (
                f"predictor must be 'text' with allocator={rule!r}, got 'hidden': only 'trace' and 'trace_unseen' are "
                "given one; TraceAllocator(HiddenPredictor()) has its own"
            )
            raise ValueError(msg)
        allocator.predictor = HiddenPredictor()
    return allocator


def as_maker(env: Any) -> Callable[[], Env]:
    """Returns a function that makes environments, for an id, a class or such a function.

    Raises:
        TypeError: `env` is none of these, for example an environment itself.
    """
    if isinstance(env, str):
        return lambda: make(env)
    if not callable(env):
        name = type(env).__name__
        msg = (
            "env must be a registered id, an environment class or a function that makes environments, got an object "
            f"of type {name}: every episode needs its own, so pass {name} itself, or functools.partial({name}, ...)"
        )
        raise TypeError(msg)
    return cast("Callable[[], Env]", env)


def with_candidates(numbers: Sequence[int], count: int, each: int, seed: int) -> list[int]:
    """Returns the tasks of a generation, and after them others among which an allocator may choose.

    Args:
        numbers: of the generation's own.
        count: of all tasks.
        each: candidates per task of the generation, itself among them.
        seed: of the choice.
    """
    others = np.setdiff1d(np.arange(count), numbers)
    most = min(len(others), (each - 1) * len(numbers))
    return [*numbers, *np.random.default_rng(derive_seed(seed, "candidates")).permutation(others)[:most].tolist()]


def read_tasks(name: str, tasks: Any, *, least: int = 0) -> Sequence[Any]:
    """Returns tasks that can be counted and picked by number.

    Args:
        name: of the argument, for messages.
        tasks: a sequence, or a file or table that `agentenv.rows` reads.
        least: how many are needed.

    Raises:
        TaskError: they cannot be read.
        ValueError: there are fewer than `least`.
    """
    if not isinstance(tasks, Sequence) or isinstance(tasks, str | bytes):
        try:
            tasks = [row for _, row in read_rows(tasks, what="a task")]
        except TaskError as error:
            msg = f"{name}: {error}"
            raise TaskError(msg) from error
    if len(tasks) < least:
        msg = f"{name} must hold at least one generation of {least} tasks, got {len(tasks)}"
        raise ValueError(msg)
    return cast("Sequence[Any]", tasks)


def _window(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)
