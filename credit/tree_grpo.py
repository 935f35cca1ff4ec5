"""Tree-GRPO: returns standardized within each tree of a prompt, plus within the prompt."""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .groups import group_means, group_sums, ratio
from .passes import assemble, check_steps, episode_returns, mean_below
from .result import StepAdvantages

__all__ = ["tree_grpo_advantages"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def tree_grpo_advantages(tree: TreeArrays, *, epsilon: float = 1e-6) -> StepAdvantages:
    """Computes Tree-GRPO advantages: each leaf against its own tree and against all leaves of the prompt.

        A(leaf) = (R - mean_T R) / (std_T R + epsilon) + (R - mean_x R) / (std_x R + epsilon)

    A prompt x starts several chains; each becomes a tree T when it is forked. Here all of them hang from the root
    of one episode tree, so T is the subtree below one step from the root. A leaf's advantage goes to its whole path; a
    step that several leaves share gets their mean. Sample deviations.

    Source: Tree-GRPO (arXiv 2509.21240), estimator `tree` of its code. A tree of one leaf gets an inner term of 0 (the
    code passes its raw return).

    Args:
        tree: `[N]` one or many episode trees; each is one prompt.
        epsilon: added to the deviations.
    """
    check_steps(tree)
    returns = episode_returns(tree)
    top = np.arange(len(tree))
    for level in tree.levels[2:]:
        top[level] = top[tree.parents[level]]
    ends = np.flatnonzero(tree.is_trajectory)
    inner = _standardize(top[ends], returns[ends], len(tree), epsilon)
    outer = _standardize(tree.tree_ids[ends], returns[ends], tree.num_trees, epsilon)
    scores = np.zeros(len(tree))
    scores[ends] = inner + outer
    mean = group_means(tree.tree_ids[ends], returns[ends], np.ones(len(ends)), tree.num_trees)[tree.tree_ids]
    return assemble(tree, mean_below(tree, scores), mean, mean_below(tree, returns))


def _standardize(ids: IntArray, entries: FloatArray, size: int, epsilon: float) -> FloatArray:
    ones = np.ones(len(ids))
    centered = entries - group_means(ids, entries, ones, size)[ids]
    deviation = np.sqrt(ratio(group_sums(ids, centered**2, size), group_sums(ids, ones, size) - 1.0))
    return ratio(centered, deviation[ids] + epsilon)
