"""Rollout: grows episode trees by letting an agent act in environments, from roots and from snapshots.

One episode is a loop (`episode.play`); an executor drives many of them: `InStep` for a model in this process,
`Concurrent` for an agent that takes requests at any time, `ray_executor.RayExecutor` for environments on other
machines. A recorder takes each as it ends, into a journal at once and into its tree in the order of the rollouts'
numbers.

Every seed derives from (run, tree, rollout, step), so the same seed gives the same trees on every executor, whatever
the timing. All rollouts of a tree share one reset, and so one root; from there on each has random numbers of its own.
"""

from agentenv.rollout.engine import Rollout, rollout_trees
from agentenv.rollout.episode import Limits, derive_seed
from agentenv.rollout.executors import Concurrent, Executor, InStep
from agentenv.rollout.ledger import Ledger, cost_of
from agentenv.rollout.revisit import go_back, revisit

__all__ = [
    "Concurrent",
    "Executor",
    "InStep",
    "Ledger",
    "Limits",
    "Rollout",
    "cost_of",
    "derive_seed",
    "go_back",
    "revisit",
    "rollout_trees",
]
