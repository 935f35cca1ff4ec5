"""TreeRL: how far a step moves the success rate, from the root and from its parent."""

import numpy as np

from agentenv.arrays import TreeArrays

from .passes import assemble, check_steps, mean_below, tree_means
from .result import StepAdvantages
from .weights import Weights, weigh

__all__ = ["tree_rl_advantages"]


def tree_rl_advantages(tree: TreeArrays, *, weighted: bool = True, weights: Weights = "occupancy") -> StepAdvantages:
    """Computes TreeRL's process rewards from the mean return V of the leaves below every node.

        A = ([V(node) - V(root)] + [V(node) - V(parent)]) / sqrt(leaves below the node)

    Source: TreeRL (ACL 2025) and its code: global plus local advantage, `sqrt` weighting. The code also centers leaf
    scores leave-one-out and can add V(node) itself; both are left out.

    Args:
        tree: `[N]` one or many trees, with real forks; on independent chains only the first step gets a local term.
        weighted: divide by the square root, so that trunks are not reinforced once per leaf.
        weights: of the leaves in V, see `step_weights`. The paper's code counts each leaf once, `"counts"`.

    Returns:
        `values` holds the mean of V(root) and V(parent), `action_values` V(node): the advantage is twice their
        difference, divided by the square root.
    """
    check_steps(tree)
    below = weigh(tree, weights).below
    mean = mean_below(tree, tree.returns, below)
    root = tree_means(tree, tree.returns, below)[tree.tree_ids]
    baseline = (root + mean[tree.parents]) / 2.0
    advantages = 2.0 * (mean - baseline)
    if weighted:
        advantages = advantages / np.sqrt(np.maximum(tree.leaf_counts, 1))
    return assemble(tree, advantages, baseline, mean)
