"""Hypothesis strategies for episode trees, and transformations that must not change credit.

Letters: `N` nodes.
"""

import numpy as np
from hypothesis import strategies as st

from agentenv.arrays import TreeArrays

__all__ = ["copies", "doubled", "drop_invalid", "reorder", "tree_arrays"]


@st.composite
def tree_arrays(
    draw, *, max_trees=3, max_steps=12, outcomes=False, invalid=True, num_states=3, num_actions=2, forks=True
):
    """Draws one or many small trees.

    Args:
        draw: given by Hypothesis.
        max_trees: most trees.
        max_steps: most steps in a tree.
        outcomes: rewards are 0 except at leaves, where they are 0 or 1; otherwise any step may be rewarded.
        invalid: some leaves may have failed.
        num_states: signatures of states are drawn from so many; 0 makes every node a state of its own.
        num_actions: likewise for actions.
        forks: trajectories may share more than the root.
    """
    parents, rewards, tree_ids, valid = [], [], [], []
    for tree in range(draw(st.integers(1, max_trees))):
        start, count = len(parents), draw(st.integers(1, max_steps)) + 1
        above = [-1]
        for i in range(1, count):
            options = range(i) if forks else [0, i - 1]
            above.append(draw(st.sampled_from(options)))
        leaves = set(range(count)) - set(above)
        for i in range(count):
            reward = draw(st.sampled_from([0.0, 1.0] if outcomes else [0.0, 0.5, 1.0, -1.0, 2.0]))
            parents.append(above[i] + start if i else -1)
            rewards.append(reward if i and (i in leaves or not outcomes) else 0.0)
            valid.append(not (invalid and i in leaves and draw(st.integers(0, 4)) == 0))
            if not valid[-1]:
                rewards[-1] = 0.0
            tree_ids.append(tree)
    size = len(parents)

    def signatures(count):
        return None if count == 0 else draw(st.lists(st.integers(0, count - 1), min_size=size, max_size=size))

    return TreeArrays.build(
        parents,
        rewards,
        tree_ids=tree_ids,
        valid=valid,
        state_ids=signatures(num_states),
        action_ids=signatures(num_actions),
    )


def copies(tree):
    """Splits every shared trunk: each leaf becomes a chain of its own below the root.

    Returns:
        The tree of chains, and `[N']` the node that each of its nodes is a copy of.
    """
    parents, source = [], []
    for t in range(tree.num_trees):
        nodes = np.flatnonzero(tree.tree_ids == t)
        roots = {}
        for root in nodes[tree.is_root[nodes]]:
            roots[int(root)] = len(parents)
            parents.append(-1)
            source.append(int(root))
        for leaf in nodes[tree.is_leaf[nodes] & ~tree.is_root[nodes]]:
            path, node = [], int(leaf)
            while node not in roots:
                path.append(node)
                node = int(tree.parents[node])
            above = roots[node]
            for step in reversed(path):
                parents.append(above)
                above = len(parents) - 1
                source.append(step)
    return _take(tree, np.array(parents), np.array(source)), np.array(source)


def reorder(tree, rng):
    """Renumbers the nodes of every tree at random, parents still before children.

    Returns:
        The renumbered tree, and `[N]` the node that each of its nodes was.
    """
    priority = rng.random(len(tree))
    for level in tree.levels[1:]:
        priority[level] += priority[tree.parents[level]] + 1e-9
    source = np.lexsort((priority, tree.tree_ids))
    return _renumbered(tree, source), source


def doubled(tree, node):
    """Copies everything below a node once more under the same node.

    Returns:
        The larger tree, and `[N']` the node that each of its nodes is a copy of.
    """
    below = [False] * len(tree)
    for i in range(node + 1, len(tree)):
        below[i] = tree.parents[i] == node or (tree.parents[i] > node and below[tree.parents[i]])
    source = np.concatenate([np.arange(len(tree)), np.flatnonzero(below)])
    place = np.cumsum(below) - 1 + len(tree)  # of the second copies
    parents = tree.parents[source].copy()
    for k in range(len(tree), len(source)):
        parents[k] = place[parents[k]] if parents[k] != node else node
    order = np.argsort(tree.tree_ids[source], kind="stable")
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    parents = np.where(parents >= 0, back[parents], -1)[order]
    source = source[order]
    grown = TreeArrays.build(
        parents,
        tree.rewards[source],
        tree_ids=tree.tree_ids[source],
        valid=tree.valid[source],
        state_ids=tree.state_ids[source],
        action_ids=tree.action_ids[source],
    )
    return grown, source


def drop_invalid(tree):
    """Removes every step that no valid trajectory passes.

    Returns:
        The smaller tree, and the nodes that stayed.
    """
    source = np.flatnonzero(tree.is_root | (tree.leaf_counts > 0))
    return _renumbered(tree, source), source


def _renumbered(tree, source):
    place = np.full(len(tree) + 1, -1)
    place[source] = np.arange(len(source))
    return _take(tree, place[tree.parents[source]], source)


def _take(tree, parents, source):
    return TreeArrays(
        parents=parents,
        rewards=tree.rewards[source],
        terminated=tree.terminated[source],
        truncated=tree.truncated[source],
        tree_ids=tree.tree_ids[source],
        state_ids=tree.state_ids[source],
        action_ids=tree.action_ids[source],
        valid=tree.valid[source],
    )
