"""Episode trees to and from files: append-only events as JSON lines, lossless.

    {"format": "agentenv.trees", "version": 2}
    {"tree": 0, "task_id": ..., "env_id": ..., "task": ..., "observation": [...], "state": ..., "metadata": {...}}
    {"tree": 0, "rollout": 3, "step": 1, "from": [0, 0, 0], "action": {...}, "observation": [...], "reward": 0.0, ...}
    {"tree": 0, "rollout": 3, "step": 2, "action": {...}, "observation": [...], "reward": 1.0, "terminated": true, ...}

One line per node, keyed by tree, rollout, attempt and step; `"from"` names the node that a rollout starts at by its
own rollout, attempt and step (`[0, 0, 0]` is the root). Lines may come in any order of trees and rollouts: a tree is
read in the order of its rollouts' numbers, whenever they ended. A journal (`"journal": true` in its trees) is written
while rollouts run: of it only rollouts that ended are read, so that a crash invents no episode.

Token ids and log-probabilities are kept exactly (JSON's shortest form of a double gives back the same double; numbers
that are not finite are written as Python's `json` does: NaN, Infinity). A long data URL in a message is written once
per file, as a line of its own. Snapshots are not written. Version 1, a tree a line, is still read.
"""

from agentenv.serialize.events import FORMAT, VERSION, tree_events
from agentenv.serialize.reader import Journal, iter_trees, read_trees
from agentenv.serialize.writer import TreeWriter, write_trees

__all__ = ["FORMAT", "VERSION", "Journal", "TreeWriter", "iter_trees", "read_trees", "tree_events", "write_trees"]
