"""What an estimator returns, and the check of what somebody's estimator returned.

Letters: `N` nodes, `B` sequences, `L` tokens. Entry `i` belongs to the step INTO node `i`; the entry of a root is 0.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

__all__ = ["StepAdvantages", "TokenAdvantages", "check_advantages", "check_token_credit"]


@dataclass(frozen=True, eq=False)
class StepAdvantages:
    """The credit of every step of a batch of episode trees.

    Unless an estimator says otherwise (scaling, a sum of two terms), `advantages == action_values - values`. A node
    merged from several trajectories holds the weighted mean of their credits; a loss sums `weights * advantages` over
    nodes, with the `step_weights` that the estimator was given. Steps without a valid trajectory below have 0
    everywhere.
    """

    advantages: NDArray[np.float64]  # [N] credit of the step into node i
    values: NDArray[np.float64]  # [N] baseline: value of the state that the step was taken from
    action_values: NDArray[np.float64]  # [N] value of having taken the step
    counts: NDArray[np.int64]  # [N] valid trajectories through node i (leaves below it)

    def __len__(self) -> int:
        return len(self.advantages)


@dataclass(frozen=True, eq=False)
class TokenAdvantages:
    """The credit of every sampled token of a batch of sequences; 0 where the mask is False."""

    advantages: NDArray[np.float64]  # [B, L] credit of each sampled token
    values: NDArray[np.float64]  # [B, L] baseline before each sampled token
    differences: NDArray[np.float64]  # [B, L] value after minus value before; they sum to outcome - values[first]
    mask: NDArray[np.bool_]  # [B, L] which tokens the policy sampled


def check_advantages(credit: object, arrays: TreeArrays, name: str) -> StepAdvantages:
    """Refuses what an estimator must not return, and returns the advantages.

    Args:
        credit: what the estimator returned.
        arrays: what it was given.
        name: of the estimator, for the message.

    Raises:
        TypeError: it returned something else than StepAdvantages.
        ValueError: an array of the wrong length, or a number that is not finite.
    """
    if not isinstance(credit, StepAdvantages):
        msg = f"{name} must return StepAdvantages, got {type(credit).__name__}"
        raise TypeError(msg)
    nodes = np.arange(len(arrays))
    for field in fields(credit):
        array = _numbers(getattr(credit, field.name), (len(arrays),), f"{name}: {field.name}", "one per node")
        _refuse(~np.isfinite(array), array, arrays, nodes, f"{name}: {field.name}")
    return credit


def check_token_credit(
    credit: object, arrays: TreeArrays, nodes: NDArray[np.int64], trained: NDArray[np.bool_], name: str
) -> TokenAdvantages:
    """Refuses what an estimator of tokens must not return, and returns the advantages.

    Args:
        credit: what the estimator returned.
        arrays: the trees that the tokens are of.
        nodes: `[B, L]` the node of every token.
        trained: `[B, L]` which tokens are trained; what stands elsewhere is not read.
        name: of the estimator, for the message.

    Raises:
        TypeError: it returned something else than TokenAdvantages.
        ValueError: an array of another shape, or a number that is not finite at a token that is trained.
    """
    if not isinstance(credit, TokenAdvantages):
        msg = f"{name} must return TokenAdvantages, got {type(credit).__name__}"
        raise TypeError(msg)
    for field in fields(credit):
        kind = "b" if field.name == "mask" else "fiu"
        label = f"{name}: {field.name}"
        array = _numbers(getattr(credit, field.name), trained.shape, label, "the shape of the rows", kind)
        if kind != "b":
            _refuse(trained & ~np.isfinite(array), array, arrays, nodes, label)
    return credit


def _numbers(value: object, shape: tuple[int, ...], label: str, rule: str, kinds: str = "fiu") -> NDArray[np.generic]:
    """Returns an array of a shape, and of numbers unless other kinds are given."""
    array: NDArray[np.generic] = np.asarray(value)
    if array.shape != shape:
        letters = "[N]" if len(shape) == 1 else "[B, L]"
        msg = f"{label} must have shape {letters} = {list(shape)}, {rule}, got {list(array.shape)}"
        raise ValueError(msg)
    if array.dtype.kind not in kinds:
        msg = f"{label} must be {'booleans' if kinds == 'b' else 'numbers'}, got {array.dtype}"
        raise ValueError(msg)
    return array


def _refuse(
    bad: NDArray[np.bool_], array: NDArray[np.generic], arrays: TreeArrays, nodes: NDArray[np.int64], label: str
) -> None:
    """Names the first bad entry: its value, its node and its tree."""
    if not bad.any():
        return
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    i = int(nodes[where])
    tree = int(arrays.tree_ids[i])
    node = i - int(np.searchsorted(arrays.tree_ids, tree))
    token = "" if len(where) == 1 else f", row {where[0]}, token {where[1]}"
    msg = f"{label} must be finite; it is {array[where]} at node {node} of tree {tree}{token}"
    raise ValueError(msg)
