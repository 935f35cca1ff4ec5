"""Tree-GRPO: returns standardized within each tree of a prompt, plus within the prompt."""

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays

from .checks import check_finite
from .groups import group_means, scaled
from .passes import assemble, branches, check_steps, mean_below
from .result import StepAdvantages
from .weights import Weights, sample_deviation, weigh

__all__ = ["tree_grpo_advantages"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def tree_grpo_advantages(tree: TreeArrays, *, epsilon: float = 1e-6, weights: Weights = "occupancy") -> StepAdvantages:
    """Computes Tree-GRPO advantages: each leaf against its own tree and against all leaves of the prompt.

        A(leaf) = (R - mean_T R) / (std_T R + epsilon) + (R - mean_x R) / (std_x R + epsilon)

    A prompt x starts several chains; each becomes a tree T when it is forked. Here all of them hang from the root
    of one episode tree, so T is the subtree below one step from the root. A leaf's advantage goes to its whole path; a
    step that several leaves share gets their mean. Sample deviations.

    Source: Tree-GRPO (arXiv 2509.21240), estimator `tree` of its code. A tree of one leaf gets an inner term of 0 (the
    code passes its raw return).

    Args:
        tree: `[N]` one or many episode trees; each is one prompt.
        epsilon: added to the deviations, at least 0; leaves without deviation get 0, whatever it is.
        weights: of the leaves in means and deviations, see `step_weights`; train with the same. The paper's code
            counts each leaf once, `"counts"`.
    """
    check_finite("epsilon", epsilon, minimum=0)
    check_steps(tree)
    below, ends = weigh(tree, weights).below, np.flatnonzero(tree.is_trajectory)
    returns, own = tree.returns[ends], below[ends]
    number, tops = np.zeros(len(tree), dtype=np.int64), np.flatnonzero(tree.depths == 1)
    number[tops] = np.arange(len(tops))
    inner, _ = _standardize(number[branches(tree)[ends]], returns, own, len(tops), epsilon)
    outer, mean = _standardize(tree.tree_ids[ends], returns, own, tree.num_trees, epsilon)
    scores = np.zeros(len(tree))
    scores[ends] = inner + outer
    return assemble(tree, mean_below(tree, scores, below), mean[tree.tree_ids], mean_below(tree, tree.returns, below))


def _standardize(
    ids: IntArray, entries: FloatArray, weights: FloatArray, size: int, epsilon: float
) -> tuple[FloatArray, FloatArray]:
    """Standardizes entries `[n]` in their groups; returns them and the means `[K]`."""
    mean = group_means(ids, entries, weights, size)
    centered = entries - mean[ids]
    deviation = sample_deviation(ids, entries, weights * centered**2, weights, weights**2, size=size)
    return scaled(centered, deviation[ids], epsilon), mean
