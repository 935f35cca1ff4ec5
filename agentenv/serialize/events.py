"""Trees and nodes as the events of a file, and back."""

import dataclasses
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

import pydantic_core

from agentenv.errors import TreeError
from agentenv.tree import Cost, EpisodeTree, Fork, Node, Prompt
from agentenv.types import Action, Observation, ToolCall, Usage, to_observation

__all__ = [
    "FORMAT",
    "ROOT",
    "VERSION",
    "Key",
    "key_of",
    "node_event",
    "read_action",
    "read_key",
    "read_node",
    "read_prompt",
    "root_of",
    "tree_event",
    "tree_events",
]

FORMAT = "agentenv.trees"
VERSION = 2

Key = tuple[int, int, int]
"""Rollout, attempt and step of a node."""

ROOT: Key = (0, 0, 0)


def tree_event(number: int, tree: EpisodeTree, *, journal: bool = False) -> dict[str, Any]:
    """Returns the event that begins a tree."""
    root = tree.nodes[0]
    event: dict[str, Any] = {
        "tree": number,
        "task_id": tree.task_id,
        "env_id": tree.env_id,
        "task": pydantic_core.to_jsonable_python(tree.task),
        "metadata": tree.metadata,
        "success_threshold": tree.success_threshold,
        "observation": list(root.observation),
        "state": root.state_signature,
    }
    if journal:
        event["journal"] = True
    if not tree.children(0):
        event |= _prompt_after(tree, 0)
    return event


_Kinds = dict[str, tuple[type | tuple[type, ...], str]]
_KINDS: _Kinds = {
    "action": (dict, "an object"),
    "reward": ((int, float, NoneType), "a number or null"),
    "terminated": (bool, "true or false"),
    "truncated": (bool, "true or false"),
    "state": (str, "a text"),
    "action_signature": (str, "a text"),
    "info": ((dict, NoneType), "an object"),
    "rollout": (int, "a whole number"),
    "attempt": (int, "a whole number"),
    "task_id": (str, "a text"),
    "env_id": (str, "a text"),
    "metadata": (dict, "an object"),
}
_ACTION_KINDS: _Kinds = {
    "content": (str, "a text"),
    "tool_calls": (list, "a list"),
    "finish_reason": (str, "a text"),
    "reasoning": (str, "a text"),
}
_CALL_KINDS: _Kinds = {
    "name": (str, "a text"),
    "arguments": ((dict, str), "an object or a text"),
}


def _check_kinds(record: Mapping[str, Any], kinds: _Kinds = _KINDS, within: str = "") -> None:
    for name, (kind, said) in kinds.items():
        if name in record and (
            not isinstance(record[name], kind) or (isinstance(record[name], bool) != (kind is bool))
        ):
            msg = f"{within}{name} must be {said}, got {record[name]!r:.120}"
            raise TreeError(msg)


def root_of(event: Mapping[str, Any]) -> EpisodeTree:
    """Rebuilds a tree, its root alone, from `tree_event`'s event; raises as `read_node` does."""
    _check_kinds(event)
    return EpisodeTree(
        to_observation(event["observation"]),
        task_id=event["task_id"],
        env_id=event["env_id"],
        task=event["task"],
        state_signature=event["state"],
        metadata=event["metadata"],
        success_threshold=event["success_threshold"],
    )


def node_event(
    number: int, step: int, node: Node, *, start: Key | None = None, prompt: Prompt | None = None
) -> dict[str, Any]:
    """Returns the event of a node.

    Args:
        number: of the tree.
        step: of the node, counted from the root of its tree.
        node: the node.
        start: where its attempt starts, on the first node of an attempt.
        prompt: what its action saw; once per node that actions were taken from.
    """
    event: dict[str, Any] = {"tree": number, "rollout": node.rollout}
    if node.attempt:
        event["attempt"] = node.attempt
    event["step"] = step
    if start is not None:
        event["from"] = list(start)
    event |= {
        "action": _action_to_dict(node.action or Action()),
        "action_signature": node.action_signature,
        "observation": list(node.observation),
        "reward": node.reward,
        "state": node.state_signature,
    }
    event |= {flag: True for flag in ("terminated", "truncated") if getattr(node, flag)}
    if node.info:
        event["info"] = dict(node.info)
    if prompt is not None:
        event["prompt"] = {"kept": prompt.kept, "token_ids": list(prompt.token_ids)}
    if cost := {name: value for name, value in dataclasses.asdict(node.cost).items() if value}:
        event["cost"] = cost
    if node.fork is not None:
        event["fork"] = {
            name: value for name, value in dataclasses.asdict(node.fork).items() if value not in {"", None}
        }
    return event


def tree_events(tree: EpisodeTree, number: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the events of a tree."""
    yield tree_event(number, tree)
    steps = [0] * len(tree)
    written: set[int] = set()
    for i, node in enumerate(tree.nodes[1:], 1):
        steps[i] = steps[node.parent] + 1
        before = tree.nodes[node.parent]
        goes_on = node.parent and (before.rollout, before.attempt) == (node.rollout, node.attempt)
        start = None if goes_on else key_of(tree, node.parent, steps[node.parent])
        prompt = None if node.parent in written else tree.prompt(node.parent)
        written.add(node.parent)
        event = node_event(number, steps[i], node, start=start, prompt=prompt)
        yield event if tree.children(i) else event | _prompt_after(tree, i)


def key_of(tree: EpisodeTree, node: int, step: int) -> Key:
    """Returns the key of a node at depth `step`."""
    entry = tree.nodes[node]
    return (entry.rollout, entry.attempt, step) if node else ROOT


def _prompt_after(tree: EpisodeTree, node: int) -> dict[str, Any]:
    """What an agent saw at a node from which no action was taken."""
    prompt = tree.prompt(node)
    return {} if prompt is None else {"prompt_after": {"kept": prompt.kept, "token_ids": list(prompt.token_ids)}}


def read_key(event: Mapping[str, Any]) -> Key:
    """Returns the key of a node's event."""
    key = (event["rollout"], event.get("attempt", 0), event["step"])
    if not all(type(part) is int and part >= 0 for part in key):
        msg = f"rollout, attempt and step must be integers of at least 0, got {key}"
        raise TreeError(msg)
    return key


def read_node(event: Mapping[str, Any], parent: int) -> Node:
    """Rebuilds a node below `parent` from its event.

    Raises:
        TreeError: a field is of another kind than it is written with.
    """
    _check_kinds(event)
    return Node(
        parent,
        read_action(event["action"]),
        _read_observation(event["observation"]),
        event["reward"],
        event.get("terminated", False),
        event.get("truncated", False),
        event["state"],
        event["action_signature"],
        event.get("info") or {},
        event["rollout"],
        event.get("attempt", 0),
        Cost(**event.get("cost", {})),
        Fork(**event["fork"]) if "fork" in event else None,
    )


def _read_observation(messages: Any) -> Observation:
    return to_observation(messages)


def read_prompt(record: Mapping[str, Any] | None) -> Prompt | None:
    """Rebuilds a prompt."""
    return None if record is None else Prompt(record["kept"], tuple(record["token_ids"]))


def _action_to_dict(action: Action) -> dict[str, Any]:
    calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in action.tool_calls]
    record: dict[str, Any] = {"content": action.content, "tool_calls": calls}
    for name in ("token_ids", "logprobs", "finish_reason", "reasoning", "weight_version"):
        value = getattr(action, name)
        if value is not None and value != "":
            record[name] = value
    if action.usage is not None:
        record["usage"] = dataclasses.asdict(action.usage)
    return record


def read_action(record: Mapping[str, Any]) -> Action:
    """Rebuilds an action, without the prompt that it saw; raises as `read_node` does."""
    _check_kinds(record, _ACTION_KINDS, "action.")
    for i, call in enumerate(record.get("tool_calls", ())):
        _check_kinds(call, _CALL_KINDS, f"action.tool_calls[{i}].")
    ids, logprobs, usage = record.get("token_ids"), record.get("logprobs"), record.get("usage")
    return Action(
        content=record.get("content", ""),
        tool_calls=tuple(ToolCall(**call) for call in record.get("tool_calls", ())),
        token_ids=None if ids is None else tuple(ids),
        logprobs=None if logprobs is None else tuple(logprobs),
        finish_reason=record.get("finish_reason", ""),
        reasoning=record.get("reasoning", ""),
        usage=None if usage is None else Usage(**usage),
        weight_version=record.get("weight_version"),
    )
