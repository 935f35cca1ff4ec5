"""Trees with their credit: what every export begins with.

Letters: `N` nodes of all trees together, numbered as in `TreeArrays.from_trees(trees)`; `n` nodes of one tree.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.serialize import read_trees
from agentenv.tree import EpisodeTree

__all__ = ["Credit", "CreditedTree", "Trees", "columns_of", "estimate", "read_credited", "trees_of"]

Trees = str | os.PathLike[str] | EpisodeTree | Sequence[EpisodeTree]
"""A trees file, a tree, or trees."""

Credit = StepAdvantages | ArrayLike | Callable[[TreeArrays], StepAdvantages | ArrayLike]
"""The credit of all nodes: an estimator, what it returned, or `[N]` numbers of one's own."""

_PARTS = {"advantage": "advantages", "value": "values", "action_value": "action_values", "count": "counts"}


@dataclass(frozen=True, eq=False)
class CreditedTree:
    """One tree, with what estimators say of its nodes.

    Attributes:
        number: its place among the trees, counted from 0.
        tree: the tree.
        credit: `[n]` by column: `NAME_advantage`, `NAME_value`, `NAME_action_value`, `NAME_count` of an estimator, and
            `NAME` of plain numbers.
    """

    number: int
    tree: EpisodeTree
    credit: Mapping[str, NDArray[Any]]

    def credit_at(self, node: int) -> dict[str, float | int | None]:
        """Returns the credit of one node by column; `None` for what is no finite number."""
        found = {name: values[node].item() for name, values in self.credit.items()}
        return {name: value if np.isfinite(value) else None for name, value in found.items()}


def trees_of(trees: Trees) -> list[EpisodeTree]:
    """Returns trees as a list; those of a file are read.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        TypeError: it is neither a path nor trees.
    """
    if isinstance(trees, str | os.PathLike):
        return read_trees(Path(trees))
    listed: list[Any] = [trees] if isinstance(trees, EpisodeTree) else list(trees)
    for entry in listed:
        if not isinstance(entry, EpisodeTree):
            msg = f"trees must be a trees file, an EpisodeTree or several, got {type(entry).__name__}: {entry!r:.80}"
            raise TypeError(msg)
    return listed


def read_credited(trees: Trees, credits: Mapping[str, Credit]) -> list[CreditedTree]:  # noqa: A002  the public word
    """Computes credit on all trees together, and divides it among them.

    Trees without a step have none: 0.

    Args:
        trees: a trees file, a tree, or several.
        credits: by name.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        ValueError: numbers of one's own are not `[N]`; or what an estimator raises.
    """
    found = trees_of(trees)
    columns: dict[str, NDArray[Any]] = {}
    for name, credit in credits.items():
        columns |= _columns(name, estimate(credit, found) if callable(credit) else credit, sum(map(len, found)))
    ends = np.cumsum([len(tree) for tree in found])[:-1]
    parts = {name: np.split(values, ends) for name, values in columns.items()}
    return [CreditedTree(i, tree, {name: part[i] for name, part in parts.items()}) for i, tree in enumerate(found)]


def columns_of(rows: Sequence[Mapping[str, Any]], names: Iterable[str] = ()) -> dict[str, list[Any]]:
    """Returns rows of equal keys as columns, in the order of the first row; without a row, empty ones of `names`."""
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else names)}


def estimate(
    estimator: Callable[[TreeArrays], StepAdvantages | ArrayLike], trees: Sequence[EpisodeTree]
) -> StepAdvantages | ArrayLike:
    """Asks an estimator; trees without a step, which estimators refuse, are left out and get 0."""
    grown = np.repeat([len(tree) > 1 for tree in trees], [len(tree) for tree in trees]).astype(np.bool_)
    nothing = np.zeros(len(grown))
    if not grown.any():
        return StepAdvantages(nothing, nothing, nothing, np.zeros(len(grown), dtype=np.int64))
    credit = estimator(TreeArrays.from_trees([tree for tree in trees if len(tree) > 1]))
    if grown.all():
        return credit

    def spread(values: ArrayLike) -> NDArray[Any]:
        array = np.asarray(values)
        out = np.zeros(len(grown), dtype=array.dtype)
        out[grown] = array
        return out

    if isinstance(credit, StepAdvantages):
        return StepAdvantages(**{name: spread(getattr(credit, name)) for name in _PARTS.values()})
    return spread(credit)


def _columns(name: str, credit: StepAdvantages | ArrayLike, count: int) -> dict[str, NDArray[Any]]:
    if isinstance(credit, StepAdvantages):
        columns = {f"{name}_{part}": np.asarray(getattr(credit, field)) for part, field in _PARTS.items()}
    else:
        columns = {name: np.asarray(credit)}
    for column, values in columns.items():
        if values.shape != (count,) or (count and values.dtype.kind not in "fiub"):
            msg = (
                f"the credit {name!r} must be StepAdvantages or numbers of shape [N] = [{count}], one per node of all "
                f"trees; {column} is {values.dtype} {list(values.shape)}"
            )
            raise ValueError(msg)
    return columns
