"""What an estimator returns.

Letters: `N` nodes, `B` sequences, `L` tokens. Entry `i` belongs to the step INTO node `i`; the entry of a root is 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["StepAdvantages", "TokenAdvantages"]


@dataclass(frozen=True, eq=False)
class StepAdvantages:
    """The credit of every step of a batch of episode trees.

    Unless an estimator says otherwise (scaling, a sum of two terms), `advantages == action_values - values`. A node
    merged from several trajectories holds the mean of their credits, so a loss over the flat list of trajectories
    equals the sum over nodes of `counts * advantages`. Steps without a valid trajectory below have 0 everywhere.
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
