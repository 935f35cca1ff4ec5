"""What environments answered, as trees and nodes: rollouts and people who step by hand record alike."""

from collections.abc import Mapping
from typing import Any

from agentenv.arrays import NO_PARENT
from agentenv.jsonable import json_value
from agentenv.protocols import BranchingEnv, Transition
from agentenv.tree import Cost, EpisodeTree, Node
from agentenv.types import Action

__all__ = ["begin_tree", "failed_node", "node_after"]


def begin_tree(env: BranchingEnv, start: Transition, metadata: Mapping[str, Any]) -> EpisodeTree:
    """Returns a tree with the root that `env.begin` answered with."""
    return EpisodeTree(
        start.observation,
        task_id=str(start.info.get("task_id", "")),
        env_id=env.env_id,
        task=json_value(env.task),
        state_signature=start.state_signature,
        metadata=metadata,
        success_threshold=env.success_threshold,
        snapshot=start.snapshot,
    )


def node_after(
    action: Action,
    after: Transition,
    *,
    parent: int = NO_PARENT,
    rollout: int = 0,
    attempt: int = 0,
    truncated: bool = False,
    cost: Cost | None = None,
) -> Node:
    """Returns the node that a step leads to; `truncated` where a limit outside the environment ends the episode."""
    return Node(
        parent,
        action.without_prompt(),
        after.observation,
        float(after.reward),
        bool(after.terminated),
        bool(after.truncated) or (truncated and not after.terminated),
        after.state_signature,
        after.action_signature,
        json_value(dict(after.info)),
        rollout,
        attempt,
        cost or Cost(),
    )


def failed_node(
    action: Action | None,
    error: BaseException,
    *,
    during: str = "",
    parent: int = NO_PARENT,
    rollout: int = 0,
    attempt: int = 0,
) -> Node:
    """Returns the node of a step that infrastructure broke, or of what it broke `during`: it has no reward."""
    info = {"failure": f"{during}{': ' if during else ''}{type(error).__name__}: {error}"}
    taken = (action or Action()).without_prompt()
    return Node(parent, taken, (), None, info=info, rollout=rollout, attempt=attempt)
