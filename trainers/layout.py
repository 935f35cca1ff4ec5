"""From episode trees to token rows, before any credit; then the rows and the credit joined to a batch.

A row is the token sequence from the root to one node, normally a leaf. Where rollouts share a trunk, several rows
contain its tokens; one row owns them and trains them, in the others they are context only. A node whose tokens were
rewritten by the agent's chat template further down gets a row of its own.

Letters: `B` rows, `L` tokens, `N` nodes of `TreeArrays.from_trees(trees)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages, TokenAdvantages, check_advantages, check_token_credit
from agentenv.credit.matching import check_ids
from agentenv.tree import EpisodeTree
from agentenv.types import Action

__all__ = ["CONTEXT", "Rows", "lay_out"]

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CONTEXT = -1
"""The node number of a token that nobody sampled: prompts, observations, padding."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Token rows with their node numbers: what estimators of steps, critics of tokens and the loss have in common.

    Nothing but `with_advantages` depends on how rows are laid out, here padded on the right, one sequence each.
    """

    arrays: TreeArrays  # the trees, whose nodes `nodes` numbers
    token_ids: IntArray  # [B, L] 0 after the end of a row; L is at least 2
    nodes: IntArray  # [B, L] node whose action the token belongs to, `CONTEXT` where it belongs to none
    trained: BoolArray  # [B, L] whether this row trains the token: true in exactly one row for each sampled token
    logprobs: FloatArray  # [B, L] with which trained tokens were sampled, 0 elsewhere
    lengths: IntArray  # [B] tokens of each row
    ends: IntArray  # [B] node at which each row ends

    def __len__(self) -> int:
        return len(self.lengths)

    def with_state_ids(self, ids: ArrayLike) -> "Rows":
        """Returns the same rows of trees whose states have other numbers.

        Args:
            ids: `[N]` integers; only those of one tree are compared.

        Raises:
            TreeError: there are not as many as nodes, or they are not integers.
        """
        numbers = check_ids(self.arrays, ids, self.arrays.state_ids, "state_ids")
        return replace(self, arrays=replace(self.arrays, state_ids=numbers))

    def per_token(self, values: ArrayLike) -> FloatArray:
        """Gives every trained token the entry `[N]` of its node: `[B, L]`, 0 elsewhere."""
        return np.where(self.trained, np.asarray(values, dtype=np.float64)[self.nodes], 0.0)

    def check_tokens(self, credit: object, name: str) -> TokenAdvantages:
        """Refuses what an estimator of tokens must not return; see `check_token_credit`.

        Args:
            credit: what the estimator returned.
            name: of the estimator, for the message.
        """
        return check_token_credit(credit, self.arrays, self.nodes, self.trained, name)

    def with_advantages(
        self,
        credit: StepAdvantages | TokenAdvantages,
        weights: ArrayLike,
        *,
        pad_token_id: int,
        count: int | None = None,
        multiple_of: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Joins rows and credit to the tensors that TRL's GRPO loss reads.

        A row's completion begins at the first token that it trains; prompts are padded on the left, completions on the
        right.

        Args:
            credit: of the steps `[N]`, or of the tokens `[B, L]`.
            weights: `[N]` at least 0, of every step; its tokens' losses are multiplied by it.
            pad_token_id: fills the holes.
            count: rows of the batch; dummy rows (padding, nothing trained) fill up to it.
            multiple_of: rounds both widths up.

        Returns:
            `prompt_ids`, `prompt_mask` `[B, P]`; `completion_ids`, `completion_mask`, `tool_mask` (the weight where
            trained, 0 elsewhere), `advantages`, `old_per_token_logps` `[B, L]`.

        Raises:
            TypeError: the credit is neither.
            ValueError: credit of another shape, or not finite where it is trained.
        """
        if isinstance(credit, StepAdvantages):
            advantages = self.per_token(check_advantages(credit, self.arrays, "step advantages").advantages)
        else:
            advantages = np.where(self.trained, self.check_tokens(credit, "token advantages").advantages, 0.0)
        first, lengths = self.trained.argmax(axis=1), self.lengths
        dummies = max(0, (count or 0) - len(self))
        first, lengths = (np.pad(array, (0, dummies), constant_values=v) for array, v in ((first, 1), (lengths, 2)))
        prompt = _round_up(int(first.max(initial=0)), multiple_of)
        completion = _round_up(int((lengths - first).max(initial=0)), multiple_of)
        left = np.arange(prompt)[None, :] - prompt + first[:, None]
        right = np.arange(completion)[None, :] + first[:, None]
        seen, read = left >= 0, right < lengths[:, None]

        def take(array: NDArray[np.generic], where: IntArray, kept: BoolArray, fill: float = 0) -> torch.Tensor:
            padded = np.pad(array, ((0, dummies), (0, 0)), constant_values=fill)
            taken = np.take_along_axis(padded, np.clip(where, 0, padded.shape[1] - 1), axis=1)
            return torch.from_numpy(np.where(kept, taken, np.asarray(fill, dtype=array.dtype)))

        return {
            "prompt_ids": take(self.token_ids, left, seen, pad_token_id),
            "prompt_mask": torch.from_numpy(seen.astype(np.int64)),
            "completion_ids": take(self.token_ids, right, read, pad_token_id),
            "completion_mask": torch.from_numpy(read.astype(np.int64)),
            "tool_mask": take(self.per_token(weights), right, read).float(),
            "advantages": take(advantages, right, read).float(),
            "old_per_token_logps": take(self.logprobs, right, read).float(),
        }


def _round_up(width: int, multiple_of: int | None) -> int:
    return width + -width % (multiple_of or 1)


def lay_out(trees: Sequence[EpisodeTree], *, train_truncated: bool = True) -> Rows:
    """Lays trees out as padded rows: one per leaf, more where history was rewritten.

    A step is trained when its tokens, their log-probabilities and all that came before them are known, and an episode
    below it counts: one that infrastructure did not break.

    Args:
        trees: the trees; nodes are numbered as in `TreeArrays.from_trees(trees)`.
        train_truncated: whether steps that lead only to truncated episodes are trained.

    Raises:
        ValueError: a log-probability is not finite or above 0, or no token stands before a sampled one.
    """
    arrays = TreeArrays.from_trees(trees)
    below = _counts_below(arrays, train_truncated=train_truncated)
    rows: list[_Row] = []
    start = 0
    for number, tree in enumerate(trees):
        wanted = [bool(below[start + i]) and _is_sampled(tree, i, number) for i in range(len(tree))]
        rows += _tree_rows(tree, start, wanted)
        start += len(tree)
    lengths = np.array([len(row.token_ids) for row in rows], dtype=np.int64)
    shape = len(rows), int(lengths.max(initial=2))
    token_ids, nodes = np.zeros(shape, dtype=np.int64), np.full(shape, CONTEXT, dtype=np.int64)
    trained, logprobs = np.zeros(shape, dtype=np.bool_), np.zeros(shape)
    for i, row in enumerate(rows):
        token_ids[i, : lengths[i]] = row.token_ids
        for span in row.spans:
            nodes[i, span.start : span.end] = span.node
            if span.logprobs is not None:
                trained[i, span.start : span.end] = True
                logprobs[i, span.start : span.end] = span.logprobs
    return Rows(
        arrays, token_ids, nodes, trained, logprobs, lengths, np.array([row.end for row in rows], dtype=np.int64)
    )


def _counts_below(arrays: TreeArrays, *, train_truncated: bool) -> BoolArray:
    """`[N]` whether an episode that counts goes through node i."""
    counts = arrays.is_trajectory & (train_truncated | ~arrays.truncated)
    for level in reversed(arrays.levels[1:]):
        np.logical_or.at(counts, arrays.parents[level], counts[level])
    return counts


def _is_sampled(tree: EpisodeTree, node: int, number: int) -> bool:
    """Whether the tokens of a step, their log-probabilities and their context are known."""
    action = tree.nodes[node].action
    if action is None or not action.logprobs or not tree.length(node):
        return False
    if tree.length(node) <= len(action.logprobs):
        msg = (
            f"a sampled action must follow a token, got tree {number}, node {node}, whose first token is the first of "
            "its row: nothing predicts it; give the tree's root a prompt (a system or user message)"
        )
        raise ValueError(msg)
    for token, value in enumerate(action.logprobs):
        if not -np.inf < value <= _LARGEST:
            msg = (
                f"log-probabilities must be finite and at most 0, got {value} at tree {number}, node {node}, "
                f"token {token} of its action"
            )
            raise ValueError(msg)
    return True


_LARGEST = 1e-3
"""The largest log-probability that rounding explains."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Where the tokens of an action lie in a row; with its log-probabilities where the row trains it."""

    node: int
    start: int
    end: int
    logprobs: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class _Row:
    token_ids: tuple[int, ...]
    spans: tuple[_Span, ...]
    end: int


def _tree_rows(tree: EpisodeTree, start: int, wanted: list[bool]) -> list[_Row]:
    """The rows of one tree. Later nodes come first, so that a row is begun at a leaf and owns what nobody owns yet."""
    rows = [
        _Row(tree.token_ids(node), tuple(_spans(tree, node, start, wanted)), start + node)
        for node in reversed(range(len(tree)))
        if wanted[node]
    ]
    return rows[::-1]


def _spans(tree: EpisodeTree, node: int, start: int, wanted: list[bool]) -> list[_Span]:
    """The actions on the way to `node` whose tokens are still intact there, last first; owns those still `wanted`."""
    spans: list[_Span] = []
    intact = tree.length(node)  # tokens of the row that no later prompt rewrote
    while node:
        action, end = tree.nodes[node].action or Action(), tree.length(node)
        if action.token_ids and 0 < end <= intact:
            logprobs = action.logprobs if wanted[node] else None
            wanted[node] = False
            spans.append(_Span(start + node, end - len(action.token_ids), end, logprobs))
        node = tree.nodes[node].parent
        prompt = tree.prompt(node)
        intact = 0 if prompt is None else min(intact, prompt.kept)
    return spans
