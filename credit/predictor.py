"""Predicting success from a prefix: the protocol that TRACE's allocators need, and a small default without a GPU."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from typing_extensions import override

from agentenv.arrays import TreeArrays
from agentenv.tree import EpisodeTree
from agentenv.types import message_text

from .allocation import check_shares
from .checks import check_number, check_weights
from .trace import success_shares
from .words import hash_code, words_of

__all__ = [
    "HashedPredictor",
    "HiddenPredictor",
    "Prefix",
    "PrefixReader",
    "SuccessPredictor",
    "predictor_targets",
    "prefix_at",
]

FloatArray = NDArray[np.float64]

_NEWTON = 20
_LEAST_SHARE = 1e-6
_STATE = ("weights", "squares", "recent", "slope", "shift")


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a predictor may look at: the history up to a node, in text and numbers.

    Attributes:
        task: the task's id, or its text.
        depth: number of steps so far, 0 at the root.
        state: signature of the state at the node.
        action: signature of the last action, `""` at the root.
        text: the newest messages.
        reward: sum of rewards so far.
        revisits: steps that led to a state the history had already been in.
        failures: observations so far that report an error.
        token_ids: what the policy read before it acted here; empty where nothing has acted yet, or tokens are unknown.
        hidden: `[H]` the policy's last hidden state after reading those, where it is kept.
    """

    task: str = ""
    depth: int = 0
    state: str = ""
    action: str = ""
    text: str = ""
    reward: float = 0.0
    revisits: int = 0
    failures: int = 0
    token_ids: Sequence[int] = ()
    hidden: FloatArray | None = field(default=None, compare=False, repr=False)


class SuccessPredictor(Protocol):
    """Predicts the success rate of continuations; shared by prompts (depth 0) and prefixes."""

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Returns `[A]` probabilities, one per prefix."""
        ...

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Learns from shares of successes `[A]` below prefixes, each backed by `weights [A]` trajectories, if any."""
        ...


def prefix_at(tree: EpisodeTree, node: int) -> Prefix:
    """Reads the prefix that ends at a node of an episode tree."""
    path = [tree.nodes[i] for i in tree.path(node)]
    last = path[-1]
    seen = [step.state_signature for step in path]
    newest = " ".join(message_text(message) for message in last.observation)
    spoken = last.action.content if last.action is not None else ""
    errors = sum("error" in message_text(message).lower() for step in path[1:] for message in step.observation)
    return Prefix(
        task=tree.task_id or " ".join(message_text(message) for message in path[0].observation),
        depth=len(path) - 1,
        state=last.state_signature,
        action=last.action_signature,
        text=f"{spoken} {newest}"[-2000:],
        reward=tree.episode_return(node) or 0.0,
        revisits=len(seen) - len(set(seen)),
        failures=errors,
        token_ids=tree.prompt_token_ids(node) or (),
    )


PrefixReader = Callable[[EpisodeTree, int], Prefix]
"""Makes the prefix of a node, as `prefix_at` does."""


def predictor_targets(
    trees: Sequence[EpisodeTree], *, threshold: float | None = None, read: PrefixReader = prefix_at
) -> tuple[list[Prefix], FloatArray, FloatArray]:
    """Lists what a predictor should learn from realized trees: prefixes, backed-up success shares, leaf counts.

    The targets are `success_shares`, TRACE's V-hat; the loss it suggests weighs each by its number of leaves.

    Args:
        trees: realized episode trees.
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.
        read: makes the prefix of a node.

    Returns:
        The prefixes that are not leaves and have a valid trajectory below, targets `[A]`, weights `[A]`.
    """
    arrays = TreeArrays.from_trees(trees)
    shares = success_shares(arrays, threshold=threshold)
    nodes = np.flatnonzero(~arrays.is_leaf & (arrays.leaf_counts > 0))
    starts = np.searchsorted(arrays.tree_ids, np.arange(arrays.num_trees))
    owner = arrays.tree_ids[nodes]
    local = nodes - starts[owner]
    prefixes = [read(trees[int(t)], int(i)) for t, i in zip(owner, local, strict=True)]
    return prefixes, shares[nodes], arrays.leaf_counts[nodes].astype(np.float64)


class _Logistic(ABC):
    """Logistic regression, learned online and recalibrated; subclasses say what the features of a prefix are."""

    def __init__(self, size: int, rate: float, decay: float, memory: int) -> None:
        for name, value in (("size", size), ("rate", rate), ("decay", decay), ("memory", memory)):
            check_number(name, value)
        if size < 2 or rate <= 0 or not 0 <= decay < 1 or memory < 1:
            msg = f"size, rate, decay or memory out of range: {size!r}, {rate!r}, {decay!r}, {memory!r}"
            raise ValueError(msg)
        self.size, self.rate, self.decay, self.memory = size, rate, decay, memory
        self._weights = np.zeros(size)
        self._squares = np.full(size, 1e-2)
        self._recent = np.zeros((0, 3))
        self._slope, self._shift = 1.0, 0.0

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Returns `[A]` calibrated probabilities, strictly between 0 and 1."""
        if not prefixes:
            return np.zeros(0)
        return _sigmoid(self._slope * (self._features(prefixes) @ self._weights) + self._shift)

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Learns from shares of successes; see `SuccessPredictor`.

        Raises:
            ValueError: lengths that differ, targets outside [0, 1], or weights that are negative or not finite.
        """
        target, weight = _examples(prefixes, targets, weights)
        if not weight.any():
            return
        features = self._features(prefixes)
        scores = features @ self._weights
        self._recent = np.concatenate([self._recent, np.stack([scores, target, weight], axis=1)])[-self.memory :]
        self._weights *= 1.0 - self.decay
        for batch in np.array_split(np.arange(len(prefixes)), max(1, len(prefixes) // 64)):
            part = features[batch]
            error = weight[batch] * (_sigmoid(part @ self._weights) - target[batch]) / weight.mean()
            gradient = part.T @ (error / len(batch))
            self._squares += gradient**2
            self._weights -= self.rate * gradient / np.sqrt(self._squares)
        self._recalibrate()

    def state_dict(self) -> dict[str, Any]:
        """Returns what was learned, for a checkpoint."""
        return {name: np.copy(getattr(self, f"_{name}")) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned.

        Raises:
            ValueError: it belongs to a predictor of another size.
        """
        if len(state["weights"]) != self.size:
            msg = f"the state must be of size={self.size}, got {len(state['weights'])}"
            raise ValueError(msg)
        for name in _STATE:
            value = np.array(state[name], dtype=np.float64)
            setattr(self, f"_{name}", value if value.ndim else float(value))

    def _recalibrate(self) -> None:
        """Fits slope and shift to the recent predictions: cross-entropy, with a pull toward 1 and 0.

        Newton's steps, each halved until it goes down: where everything is predicted as certain the curvature is all
        but 0, and a whole step would lead so far that no later one came back.
        """
        score, target, weight = self._recent.T
        inputs = np.stack([score, np.ones(len(score))], axis=1)
        theta: FloatArray = np.array([self._slope, self._shift])
        middle, ridge = np.array([1.0, 0.0]), 4.0

        def loss(at: FloatArray) -> float:
            logits = inputs @ at
            pull = ridge * float(((at - middle) ** 2).sum()) / 2
            return float(weight @ (np.logaddexp(0.0, logits) - target * logits)) + pull

        now = loss(theta)
        for _ in range(_NEWTON):
            p = _sigmoid(inputs @ theta)
            gradient = inputs.T @ (weight * (p - target)) + ridge * (theta - middle)
            curvature = (inputs * (weight * p * (1 - p))[:, None]).T @ inputs + ridge * np.eye(2)
            step: FloatArray = np.linalg.solve(curvature, gradient).astype(np.float64)
            share = 1.0
            while (then := loss(theta - share * step)) > now and share > _LEAST_SHARE:
                share /= 2
            if then >= now:
                break
            theta, now = theta - share * step, then
        self._slope, self._shift = max(float(theta[0]), 0.05), float(theta[1])

    @abstractmethod
    def _features(self, prefixes: Sequence[Prefix]) -> Any:
        """Returns a matrix `[A, size]`, dense or sparse."""


class HashedPredictor(_Logistic):
    """Logistic regression on hashed features of the prefix, learned online and recalibrated.

    Features: task, state and action signatures (also crossed with the task), depth, reward so far, revisits,
    failures, and the words and word pairs of the newest messages, hashed into `size` weights. One pass of AdaGrad per
    update on the cross-entropy with soft targets. The raw score is recalibrated by a line (Platt) fitted to the last
    `memory` scores that were predicted *before* their outcome was learned, so overconfidence on text seen before does
    not hide.

    Args:
        size: number of weights.
        rate: AdaGrad's step size.
        decay: pull of the weights toward 0 per update.
        memory: recent predictions kept for calibration.
    """

    def __init__(self, *, size: int = 2**16, rate: float = 0.2, decay: float = 1e-3, memory: int = 4096) -> None:
        super().__init__(size, rate, decay, memory)

    @override
    def _features(self, prefixes: Sequence[Prefix]) -> Any:
        rows, columns, values = list[int](), list[int](), list[float]()
        for row, prefix in enumerate(prefixes):
            named = list(_named(prefix))
            rows += [row] * len(named)
            columns += [hash_code(name) % self.size for name, _ in named]
            values += [value for _, value in named]
        return csr_array((values, (rows, columns)), shape=(len(prefixes), self.size))


class _Probe(_Logistic):
    """Logistic regression on hidden states, each scaled to mean 0 and length 1."""

    @override
    def _features(self, prefixes: Sequence[Prefix]) -> Any:
        states = np.stack([np.asarray(prefix.hidden, dtype=np.float64) for prefix in prefixes])
        states = states - states.mean(axis=1, keepdims=True)
        length = np.linalg.norm(states, axis=1, keepdims=True)
        return np.concatenate([states / np.maximum(length, 1e-12), np.ones((len(states), 1))], axis=1)


class HiddenPredictor:
    """One linear probe on the policy's hidden state at the step boundary, where it last read before acting.

    Whoever makes prefixes gives the states (`Prefix.hidden`); sampling has computed them already. A prefix without one,
    such as a task that was not sampled yet, is predicted by hashed text, which learns from all prefixes.

    Args:
        rate: AdaGrad's step size of the probe.
        decay: pull of the probe's weights toward 0 per update; the policy moves, so what is old should fade.
        text: predicts prefixes without a hidden state; default: a `HashedPredictor`.
    """

    reads_hidden = True
    """Says that prefixes should bring hidden states."""

    def __init__(self, *, rate: float = 0.3, decay: float = 1e-2, text: HashedPredictor | None = None) -> None:
        self._rate, self._decay = rate, decay
        self._text = text or HashedPredictor()
        self._probe: _Probe | None = None

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Returns `[A]` probabilities, strictly between 0 and 1."""
        known = [i for i, prefix in enumerate(prefixes) if prefix.hidden is not None]
        values = self._text.predict(prefixes)
        if known and self._probe is not None:
            values[known] = self._probe.predict([prefixes[i] for i in known])
        return values

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Learns from shares of successes; see `SuccessPredictor`."""
        target, weight = _examples(prefixes, targets, weights)
        self._text.update(prefixes, target, weight)
        known = [i for i, prefix in enumerate(prefixes) if prefix.hidden is not None]
        if known:
            seen = [prefixes[i] for i in known]
            if self._probe is None:
                self._probe = self._make(len(np.asarray(seen[0].hidden, dtype=np.float64)) + 1)
            self._probe.update(seen, target[known], weight[known])

    def state_dict(self) -> dict[str, Any]:
        """Returns what was learned, for a checkpoint."""
        return {"text": self._text.state_dict(), "probe": self._probe and self._probe.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self._text.load_state_dict(state["text"])
        self._probe, learned = None, state["probe"]
        if learned is not None:
            self._probe = self._make(len(learned["weights"]))
            self._probe.load_state_dict(learned)

    def _make(self, size: int) -> _Probe:
        return _Probe(size, self._rate, self._decay, 4096)


def _examples(
    prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None
) -> tuple[FloatArray, FloatArray]:
    target = check_shares("targets", targets)
    weight = np.ones(len(target)) if weights is None else check_weights("weights", weights)
    if weight.shape != target.shape or len(prefixes) != len(target):
        msg = f"prefixes, targets and weights must have one length, got {len(prefixes)}, {len(target)}, {len(weight)}"
        raise ValueError(msg)
    return target, weight


def _named(prefix: Prefix) -> Iterable[tuple[str, float]]:
    """Yields features by name; the words together weigh as much as one signature."""
    yield "bias", 1.0
    yield f"task={prefix.task}", 1.0
    yield f"state={prefix.state}", 1.0
    yield f"task={prefix.task} state={prefix.state}", 1.0
    yield f"action={prefix.action}", 1.0
    yield f"depth={min(prefix.depth, 64).bit_length()}", 1.0
    yield "depth", np.log1p(prefix.depth) / 4.0
    yield "reward", float(np.tanh(prefix.reward))
    yield "revisits", np.log1p(prefix.revisits) / 4.0
    yield "failures", np.log1p(prefix.failures) / 4.0
    words = words_of(prefix.text)[:256]
    grams = [f"word={word}" for word in words] + [f"pair={a} {b}" for a, b in pairwise(words)]
    for gram in grams:
        yield gram, 1.0 / np.sqrt(len(grams))


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * np.clip(x, -30.0, 30.0)))
