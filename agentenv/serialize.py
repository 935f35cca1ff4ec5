"""Episode trees to and from JSON lines, lossless: one header line, then one tree a line.

    {"format": "agentenv.trees", "version": 1}
    {"task_id": ..., "env_id": ..., "task": ..., "metadata": {...}, "nodes": [{"parent": -1, ...}, ...]}

Token ids and log-probabilities are kept exactly (JSON's shortest form of a double gives back the same double; numbers
that are not finite are written as Python's `json` does: NaN, Infinity). Snapshots are not written.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pydantic_core

from agentenv.arrays import NO_PARENT
from agentenv.errors import TreeError, TreeFileError
from agentenv.tree import EpisodeTree, Node, Prompt
from agentenv.types import Action, ToolCall, to_observation

__all__ = ["FORMAT", "VERSION", "iter_trees", "read_trees", "tree_from_dict", "tree_to_dict", "write_trees"]

FORMAT = "agentenv.trees"
VERSION = 1


def write_trees(path: str | Path, trees: Iterable[EpisodeTree], *, append: bool = False) -> None:
    """Writes trees as JSON lines.

    Args:
        path: the file; its folder is made.
        trees: what to write.
        append: adds to an existing file instead of replacing it.

    Raises:
        TreeFileError: the file to add to is not of this format, or its last line was cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = append and path.exists() and path.stat().st_size > 0
    if old:
        _check_appendable(path)
    with path.open("ab" if old else "wb") as file:
        if not old:
            file.write(_dumps({"format": FORMAT, "version": VERSION}))
        for tree in trees:
            file.write(_dumps(tree_to_dict(tree)))


def _check_appendable(path: Path) -> None:
    with path.open("rb") as file:
        _read_line(path, 1, file.readline())
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            msg = f"{path}: the last line was cut (no newline after it); delete that line before adding to the file"
            raise TreeFileError(msg)


def read_trees(path: str | Path) -> list[EpisodeTree]:
    """Returns all trees of a file; see `iter_trees`."""
    return list(iter_trees(path))


def iter_trees(path: str | Path) -> Iterator[EpisodeTree]:
    """Yields the trees of a file, one at a time.

    Raises:
        TreeFileError: the file is not of this format or version, or a line is broken; the message names the file, the
            line and the reason.
        FileNotFoundError: there is no such file.
    """
    number = 0
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            tree = _read_line(path, number, line)
            if tree is not None:
                yield tree
    if number == 0:
        msg = f"{path}, line 1: the file is empty; expected a header {{'format': {FORMAT!r}, ...}}"
        raise TreeFileError(msg)


def _read_line(path: str | Path, number: int, line: bytes) -> EpisodeTree | None:
    """Returns the tree of a line; `None` for the header, which is line 1."""
    try:
        record = json.loads(line.decode())
        if number > 1:
            return tree_from_dict(record)
        _check_header(record)
    except _MALFORMED as error:
        msg = f"{path}, line {number}: {_reason(error)}"
        raise TreeFileError(msg) from error
    return None


_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
"""What reading a record of the wrong shape raises."""


def _reason(error: BaseException) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


def _check_header(record: Any) -> None:
    if not isinstance(record, dict) or cast("dict[str, Any]", record).get("format") != FORMAT:
        msg = f"expected a header {{'format': {FORMAT!r}, 'version': {VERSION}}}, got {record!r:.120}"
        raise TreeError(msg)
    version = cast("dict[str, Any]", record).get("version")
    if version != VERSION:
        msg = f"version must be {VERSION}, got {version!r}; read it with the release that wrote it"
        raise TreeError(msg)


def _dumps(value: Any) -> bytes:
    """Encodes one line. Half a surrogate pair, which models do write, exists in JSON only as an escape."""
    try:
        return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def tree_to_dict(tree: EpisodeTree) -> dict[str, Any]:
    """Returns a tree as JSON values; `tree_from_dict` gives the same tree back, without its snapshots."""
    return {
        "task_id": tree.task_id,
        "env_id": tree.env_id,
        "task": pydantic_core.to_jsonable_python(tree.task),
        "metadata": tree.metadata,
        "nodes": [_node_to_dict(node, tree.prompt(i)) for i, node in enumerate(tree.nodes)],
    }


def _node_to_dict(node: Node, prompt: Prompt | None) -> dict[str, Any]:
    record: dict[str, Any] = {
        "parent": node.parent,
        "observation": list(node.observation),
        "reward": node.reward,
        "state": node.state_signature,
    }
    if node.action is not None:
        record["action"] = _action_to_dict(node.action)
        record["action_signature"] = node.action_signature
    for flag in ("terminated", "truncated"):
        if getattr(node, flag):
            record[flag] = True
    if node.info:
        record["info"] = dict(node.info)
    if prompt is not None:
        record["prompt"] = {"kept": prompt.kept, "token_ids": list(prompt.token_ids)}
    return record


def _action_to_dict(action: Action) -> dict[str, Any]:
    calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in action.tool_calls]
    record = {
        "content": action.content,
        "tool_calls": calls,
        "token_ids": action.token_ids,
        "logprobs": action.logprobs,
        "finish_reason": action.finish_reason,
    }
    return {name: value for name, value in record.items() if value is not None and value != ""}


def tree_from_dict(record: Mapping[str, Any]) -> EpisodeTree:
    """Rebuilds a tree from `tree_to_dict`'s record.

    Raises:
        TreeError: the record has the wrong shape, or breaks a rule of the tree; the message names the node.
        KeyError: a field of the tree is missing.
    """
    if not isinstance(record, Mapping):
        msg = f"expected an object with 'nodes', got {record!r:.120}"
        raise TreeError(msg)
    if not isinstance(record["nodes"], list) or not record["nodes"]:
        msg = f"'nodes' must be a list that starts with the root, got {record['nodes']!r:.120}"
        raise TreeError(msg)
    root, *rest = cast("list[Any]", record["nodes"])
    if root["parent"] != NO_PARENT:
        msg = f"node 0 must be the root, with parent {NO_PARENT}, got parent {root['parent']!r}"
        raise TreeError(msg)
    tree = EpisodeTree(
        to_observation(root["observation"]),
        task_id=record["task_id"],
        env_id=record["env_id"],
        task=record["task"],
        state_signature=root["state"],
        metadata=record["metadata"],
    )
    _read_prompt(tree, 0, root)
    for index, node in enumerate(rest, 1):
        try:
            _read_node(tree, node)
            _read_prompt(tree, index, node)
        except _MALFORMED as error:
            msg = f"node {index}: {_reason(error)}"
            raise TreeError(msg) from error
    return tree


def _read_node(tree: EpisodeTree, node: Mapping[str, Any]) -> None:
    tree.add(
        node["parent"],
        _read_action(node["action"]),
        to_observation(node["observation"]),
        reward=node["reward"],
        terminated=node.get("terminated", False),
        truncated=node.get("truncated", False),
        state_signature=node["state"],
        action_signature=node["action_signature"],
        info=node.get("info"),
    )


def _read_prompt(tree: EpisodeTree, index: int, record: Mapping[str, Any]) -> None:
    if (prompt := record.get("prompt")) is not None:
        tree.restore_prompt(index, Prompt(prompt["kept"], tuple(prompt["token_ids"])))


def _read_action(record: Mapping[str, Any]) -> Action:
    calls = tuple(ToolCall(**call) for call in record.get("tool_calls", ()))
    ids, logprobs = record.get("token_ids"), record.get("logprobs")
    return Action(
        content=record.get("content", ""),
        tool_calls=calls,
        token_ids=None if ids is None else tuple(ids),
        logprobs=None if logprobs is None else tuple(logprobs),
        finish_reason=record.get("finish_reason", ""),
    )
