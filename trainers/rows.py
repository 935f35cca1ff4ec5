"""From episode trees to training rows: every sampled token is trained in exactly one row.

A row is the token sequence from the root to one node, normally a leaf. Where rollouts share a trunk, several rows
contain its tokens; the first row to be built owns them, and in the others they are context only. A node whose tokens
were rewritten by the agent's chat template further down gets a row of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from agentenv.tree import EpisodeTree

__all__ = ["Row", "pad_rows", "tree_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One training sequence. The completion begins at the first token that is trained.

    Attributes:
        prompt_ids: `[P]` context before the completion.
        completion_ids: `[L]` the rest, actions and observations.
        mask: `[L]` 1 where the token is trained in this row.
        advantages: `[L]` of the step that the token belongs to; 0 where the mask is 0.
        logprobs: `[L]` with which the token was sampled; 0 where the mask is 0.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    mask: tuple[int, ...]
    advantages: tuple[float, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """Where the tokens of one action lie in a sequence."""

    node: int
    start: int
    end: int


def tree_rows(tree: EpisodeTree, advantages: NDArray[np.float64], *, train_truncated: bool = True) -> list[Row]:
    """Builds the rows of one tree.

    Args:
        tree: with token ids and log-probabilities at every step that shall be trained; others are context.
        advantages: `[N]` of the step into each node.
        train_truncated: whether steps that lead only to truncated episodes are trained.

    Returns:
        One row per leaf (more where history was rewritten). Steps that lead only to failed episodes are not trained.
    """
    wanted = _trainable(tree, train_truncated=train_truncated)
    rows: list[Row] = []
    for node in reversed(range(1, len(tree))):
        if wanted[node]:
            ids, spans = _sequence(tree, node)
            owned = [span for span in spans if wanted[span.node]]
            for span in owned:
                wanted[span.node] = False
            rows.append(_row(tree, ids, owned, advantages))
    return rows[::-1]


def _trainable(tree: EpisodeTree, *, train_truncated: bool) -> list[bool]:
    """Which nodes have sampled tokens and an episode below them that counts."""
    counts = [False] * len(tree)
    for i in reversed(range(1, len(tree))):
        node = tree.nodes[i]
        leaf = not tree.children(i)
        counts[i] |= leaf and node.reward is not None and (train_truncated or not node.truncated)
        counts[node.parent] |= counts[i]
    sampled = [node.action is not None and bool(node.action.logprobs) for node in tree.nodes]
    return [count and known for count, known in zip(counts, sampled, strict=True)]


def _sequence(tree: EpisodeTree, node: int) -> tuple[list[int], list[_Span]]:
    """All tokens from the root to the action into `node`, and where the actions lie that are still intact."""
    ids: list[int] = []
    spans: list[_Span] = []
    for i in tree.path(node)[1:]:
        prompt, action = tree.prompt(tree.nodes[i].parent), tree.nodes[i].action
        if prompt is not None:
            ids = ids[: prompt.kept] + list(prompt.token_ids)
            spans = [span for span in spans if span.end <= prompt.kept]
        if action is not None and action.token_ids:
            spans.append(_Span(i, len(ids), len(ids) + len(action.token_ids)))
            ids += action.token_ids
    return ids, spans


def _row(tree: EpisodeTree, ids: list[int], owned: Sequence[_Span], advantages: NDArray[np.float64]) -> Row:
    first = owned[0].start
    mask, credit, logprobs = [0] * len(ids), [0.0] * len(ids), [0.0] * len(ids)
    for span in owned:
        action = tree.nodes[span.node].action
        if action is not None and action.logprobs is not None:
            width = span.end - span.start
            mask[span.start : span.end] = [1] * width
            credit[span.start : span.end] = [float(advantages[span.node])] * width
            logprobs[span.start : span.end] = action.logprobs
    return Row(
        tuple(ids[:first]), tuple(ids[first:]), tuple(mask[first:]), tuple(credit[first:]), tuple(logprobs[first:])
    )


def pad_rows(
    rows: Sequence[Row], *, pad_token_id: int, count: int, multiple_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Pads rows to the tensors that TRL's GRPO loss reads.

    Args:
        rows: the rows.
        pad_token_id: fills the holes; prompts are padded on the left, completions on the right.
        count: `B`; dummy rows (one padding token, nothing trained) fill up to it.
        multiple_of: rounds both widths up.

    Returns:
        `prompt_ids`, `prompt_mask` `[B, P]`; `completion_ids`, `completion_mask`, `tool_mask` (1 where trained),
        `advantages`, `old_per_token_logps` `[B, L]`.
    """
    dummy = Row((pad_token_id,), (pad_token_id,), (0,), (0.0,), (0.0,))
    rows = [*rows, *[dummy] * (count - len(rows))]

    def right(values: Iterator[Sequence[float]], fill: float, dtype: torch.dtype) -> torch.Tensor:
        return _pad([torch.tensor(v, dtype=dtype) for v in values], fill, "right", multiple_of)

    def left(values: Iterator[Sequence[float]], fill: float) -> torch.Tensor:
        return _pad([torch.tensor(v, dtype=torch.long) for v in values], fill, "left", multiple_of)

    return {
        "prompt_ids": left((row.prompt_ids for row in rows), pad_token_id),
        "prompt_mask": left(([1] * len(row.prompt_ids) for row in rows), 0),
        "completion_ids": right((row.completion_ids for row in rows), pad_token_id, torch.long),
        "completion_mask": right(([1] * len(row.completion_ids) for row in rows), 0, torch.long),
        "tool_mask": right((row.mask for row in rows), 0, torch.long),
        "advantages": right((row.advantages for row in rows), 0.0, torch.float32),
        "old_per_token_logps": right((row.logprobs for row in rows), 0.0, torch.float32),
    }


def _pad(rows: list[torch.Tensor], fill: float, side: str, multiple_of: int | None) -> torch.Tensor:
    out = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill, padding_side=side)
    missing = -out.size(1) % (multiple_of or 1)
    return torch.nn.functional.pad(out, (missing, 0) if side == "left" else (0, missing), value=fill)
