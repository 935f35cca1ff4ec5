"""Predicting success from a prefix: the protocol that TRACE's allocators need, and a small default without a GPU."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays
from agentenv.tree import EpisodeTree
from agentenv.types import message_text

from .allocation import check_shares
from .groups import group_sums
from .trace import success_shares

__all__ = ["HashedPredictor", "Prefix", "SuccessPredictor", "predictor_targets", "prefix_at"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_STATE = ("weights", "squares", "recent", "slope", "shift")

_WORD = re.compile(r"\w+|[^\w\s]")


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
    """

    task: str = ""
    depth: int = 0
    state: str = ""
    action: str = ""
    text: str = ""
    reward: float = 0.0
    revisits: int = 0
    failures: int = 0


class SuccessPredictor(Protocol):
    """Predicts the success rate of continuations; shared by prompts (depth 0) and prefixes."""

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Returns `[A]` probabilities, one per prefix."""
        ...

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Learns from shares of successes `[A]` below prefixes, each backed by `weights [A]` trajectories."""
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
    )


def predictor_targets(
    trees: Sequence[EpisodeTree], *, threshold: float | None = None
) -> tuple[list[Prefix], FloatArray, FloatArray]:
    """Lists what a predictor should learn from realized trees: prefixes, backed-up success shares, leaf counts.

    The targets are `success_shares`, TRACE's V-hat; the loss it suggests weighs each by its number of leaves.

    Args:
        trees: realized episode trees.
        threshold: a trajectory succeeds where its undiscounted return is above; default: its tree's threshold.

    Returns:
        The prefixes that are not leaves and have a valid trajectory below, targets `[A]`, weights `[A]`.
    """
    arrays = TreeArrays.from_trees(trees)
    shares = success_shares(arrays, threshold=threshold)
    nodes = np.flatnonzero(~arrays.is_leaf & (arrays.leaf_counts > 0))
    starts = np.searchsorted(arrays.tree_ids, np.arange(arrays.num_trees))
    owner = arrays.tree_ids[nodes]
    local = nodes - starts[owner]
    prefixes = [prefix_at(trees[int(t)], int(i)) for t, i in zip(owner, local, strict=True)]
    return prefixes, shares[nodes], arrays.leaf_counts[nodes].astype(np.float64)


class HashedPredictor:
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
        return _sigmoid(self._slope * self._scores(*self._features(prefixes), len(prefixes)) + self._shift)

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Learns from shares of successes; see `SuccessPredictor`.

        Raises:
            ValueError: lengths that differ, or targets outside [0, 1].
        """
        target = check_shares("targets", targets)
        weight = np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64)
        if not len(prefixes) == len(target) == len(weight):
            msg = (
                f"prefixes, targets and weights must have one length, got {len(prefixes)}, {len(target)}, {len(weight)}"
            )
            raise ValueError(msg)
        if not len(prefixes):
            return
        rows, columns, values = self._features(prefixes)
        scores = self._scores(rows, columns, values, len(prefixes))
        self._recent = np.concatenate([self._recent, np.stack([scores, target, weight], axis=1)])[-self.memory :]
        self._weights *= 1.0 - self.decay
        for batch in np.array_split(np.arange(len(prefixes)), max(1, len(prefixes) // 64)):
            self._step(rows, columns, values, target, weight, batch)
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

    def _step(
        self,
        rows: IntArray,
        columns: IntArray,
        values: FloatArray,
        target: FloatArray,
        weight: FloatArray,
        batch: IntArray,
    ) -> None:
        inside = (rows >= batch[0]) & (rows <= batch[-1])
        r, c, x = rows[inside] - batch[0], columns[inside], values[inside]
        error = weight[batch] * (_sigmoid(self._scores(r, c, x, len(batch))) - target[batch]) / weight.mean()
        gradient = np.bincount(c, error[r] * x / len(batch), self.size)
        self._squares += gradient**2
        self._weights -= self.rate * gradient / np.sqrt(self._squares)

    def _recalibrate(self) -> None:
        """Fits slope and shift to the recent predictions by damped Newton steps on the cross-entropy."""
        score, target, weight = self._recent.T
        theta = np.array([self._slope, self._shift])
        inputs = np.stack([score, np.ones(len(score))], axis=1)
        ridge = 4.0
        for _ in range(8):
            p = _sigmoid(inputs @ theta)
            gradient = inputs.T @ (weight * (p - target)) + ridge * (theta - np.array([1.0, 0.0]))
            curvature = (inputs * (weight * p * (1 - p))[:, None]).T @ inputs + ridge * np.eye(2)
            theta = theta - np.linalg.solve(curvature, gradient)
        self._slope, self._shift = max(float(theta[0]), 0.05), float(theta[1])

    def _scores(self, rows: IntArray, columns: IntArray, values: FloatArray, count: int) -> FloatArray:
        return group_sums(rows, self._weights[columns] * values, count)

    def _features(self, prefixes: Sequence[Prefix]) -> tuple[IntArray, IntArray, FloatArray]:
        rows, columns, values = list[int](), list[int](), list[float]()
        for row, prefix in enumerate(prefixes):
            named = list(_named(prefix))
            rows += [row] * len(named)
            columns += [
                int.from_bytes(hashlib.blake2b(n.encode(), digest_size=8).digest()) % self.size for n, _ in named
            ]
            values += [value for _, value in named]
        return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64), np.array(values)


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
    words = [word.lower() for word in _WORD.findall(prefix.text)][:256]
    grams = [f"word={word}" for word in words] + [f"pair={a} {b}" for a, b in pairwise(words)]
    for gram in grams:
        yield gram, 1.0 / np.sqrt(len(grams))


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * np.clip(x, -30.0, 30.0)))
