"""What an estimator returns, and the check of what somebody's estimator returned.

Letters: `N` nodes, `B` sequences, `L` tokens. Entry `i` belongs to the step INTO node `i`; the entry of a root is 0.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

__all__ = ["StepAdvantages", "TokenAdvantages", "check_advantages"]


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
    for field in fields(credit):
        array = np.asarray(getattr(credit, field.name))
        if array.shape != (len(arrays),):
            msg = f"{name}: {field.name} must have shape [N] = [{len(arrays)}], one per node, got {list(array.shape)}"
            raise ValueError(msg)
        if array.dtype.kind not in "fiu":
            msg = f"{name}: {field.name} must be numbers, got {array.dtype}"
            raise ValueError(msg)
        bad = ~np.isfinite(array)
        if bad.any():
            i = int(np.argmax(bad))
            tree = int(arrays.tree_ids[i])
            node = i - int(np.searchsorted(arrays.tree_ids, tree))
            msg = f"{name}: {field.name} must be finite; it is {array[i]} at node {node} of tree {tree}"
            raise ValueError(msg)
    return credit
