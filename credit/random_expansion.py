"""Tree-GRPO's random expansion: continuations from nodes drawn uniformly."""

import numpy as np

from agentenv.arrays import TreeArrays

from .allocation import Allocation
from .checks import check_whole
from .trace import prefixes_of

__all__ = ["allocate_random"]


def allocate_random(tree: TreeArrays, rng: np.random.Generator, *, nodes: int, continuations: int = 1) -> Allocation:
    """Draws, in every chain that starts at a root, nodes to continue from, uniformly and without replacement.

    Source: Tree-GRPO (arXiv 2509.21240): each of M chains per prompt is a tree; in each of L rounds, N of its nodes are
    drawn and continued. Call it once per round.

    Args:
        tree: `[N]` one or many episode trees.
        rng: draws the nodes.
        nodes: N, at most; a chain with fewer inner nodes gives all it has.
        continuations: from each node drawn.
    """
    nodes, continuations = check_whole("nodes", nodes, 1), check_whole("continuations", continuations, 1)
    inner = prefixes_of(tree, mixed=True).nodes
    top = np.arange(len(tree))
    for level in tree.levels[2:]:
        top[level] = top[tree.parents[level]]
    order = inner[np.lexsort((rng.random(len(inner)), top[inner]))]
    starts = np.searchsorted(top[order], top[order])
    chosen = np.sort(order[np.arange(len(order)) - starts < nodes])
    return Allocation(chosen, np.full(len(chosen), continuations, dtype=np.int64), 0.0)
