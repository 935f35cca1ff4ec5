"""SR-PPO's credit on token rows: the episodes of rows as sequences, and how many attempts Pass@k counts.

Letters: `B` rows, `L` tokens, `A` trained tokens in the order of `trained_prefixes`, `E` episodes.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays
from agentenv.credit import TokenAdvantages, adaptive_k, sr_ppo_advantages

from .layout import Rows
from .sr_ppo_config import SRPPOConfig

__all__ = ["Belief", "episode_credit", "success_of_others", "totals_of"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def episode_credit(rows: Rows, success: FloatArray, **options: Any) -> TokenAdvantages:
    """Computes SR-PPO's credit of the trained tokens of independent episodes.

    An episode is one sequence, though an agent's chat template may have spread it over several rows: the difference
    after the last token of a step goes to the first token of the next.

    Args:
        rows: of trees whose episodes share no step.
        success: `[A]` probability of success before every trained token, in the order of `trained_prefixes`.
        **options: of `sr_ppo_advantages`.

    Returns:
        `[B, L]` in the layout of the rows.

    Raises:
        ValueError: two episodes share a step.
    """
    arrays = rows.arrays
    if (np.bincount(arrays.parents[~arrays.is_root], minlength=len(arrays))[~arrays.is_root] > 1).any():
        msg = "rows must be of independent episodes, but some share a step: a token with two outcomes has no difference"
        raise ValueError(msg)
    row, place = np.nonzero(rows.trained)
    node = rows.nodes[row, place]
    order = np.lexsort((place, node))
    row, place, node = row[order], place[order], node[order]
    ends = np.arange(len(arrays))
    for level in reversed(arrays.levels[2:]):
        ends[arrays.parents[level]] = ends[level]
    episodes, episode = np.unique(ends[node], return_inverse=True)
    order = np.argsort(episode, kind="stable")
    counts = np.bincount(episode, minlength=len(episodes))
    turn = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    table, mask = (np.zeros((len(episodes), int(counts.max(initial=0))), dtype=kind) for kind in (np.float64, np.bool_))
    table[episode[order], turn], mask[episode[order], turn] = success[order], True
    credit = sr_ppo_advantages(table, arrays.succeeded[episodes], mask, **options)

    def spread(values: FloatArray) -> FloatArray:
        array = np.zeros(rows.trained.shape)
        array[row[order], place[order]] = values[episode[order], turn]
        return array

    return TokenAdvantages(
        spread(credit.advantages), spread(credit.values), spread(credit.differences), rows.trained.copy()
    )


def totals_of(arrays: TreeArrays) -> tuple[int, int]:
    """Counts the successes and the trajectories of all trees."""
    return int(arrays.succeeded.sum()), int(arrays.is_trajectory.sum())


def success_of_others(arrays: TreeArrays, totals: ArrayLike) -> FloatArray:
    """Computes for each of `T` trees the share of success of all trees but itself, `[T]`.

    It does not depend on what the tree itself did, so that as a baseline it costs no bias. A tree that is the only one
    with a trajectory gets its own share.

    Args:
        arrays: the trees.
        totals: successes and trajectories of all trees of a generation, those of other processes among them.
    """
    counts = arrays.num_trees
    won, tried = (
        np.bincount(arrays.tree_ids[chosen], minlength=counts) for chosen in (arrays.succeeded, arrays.is_trajectory)
    )
    all_won, all_tried = np.asarray(totals)
    others = all_tried - tried
    alone = others == 0
    return np.where(alone, won, all_won - won) / np.maximum(1, np.where(alone, tried, others))


class Belief:
    """Says which decay and which k a generation uses: those of the settings, as far as the critic is trusted.

        decay_now = 1 - trust (1 - decay)          k_now = 1 + trust (k - 1)

    Args:
        args: the settings.
    """

    def __init__(self, args: SRPPOConfig) -> None:
        self._args = args

    def __call__(self, trust: float, prompts: FloatArray, step: int) -> dict[str, float]:
        """Returns `decay` and `k`.

        Args:
            trust: in [0, 1], by outcomes of earlier generations.
            prompts: what the critic said at the prompts of this generation.
            step: optimizer steps made.
        """
        args = self._args
        if not args.critic_guard:
            trust = 1.0
        k = self._attempts(prompts, step)
        return {"decay": 1.0 - trust * (1.0 - args.decay), "k": 1.0 + trust * (k - 1.0)}

    def _attempts(self, prompts: FloatArray, step: int) -> float:
        args = self._args
        if args.k_schedule == "adaptive":
            return adaptive_k(prompts, maximum=args.k) if len(prompts) else 1.0
        if args.k_schedule == "constant":
            return args.k
        progress = min(1.0, step / max(1, args.max_steps - 1))
        return float(args.k ** (1.0 - progress) * args.k_final**progress)
