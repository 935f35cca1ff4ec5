"""Episode trees to and from JSON lines, lossless: one header line, then one tree a line.

    {"format": "agentenv.trees", "version": 1}
    {"task_id": ..., "env_id": ..., "task": ..., "metadata": {...}, "nodes": [{"parent": -1, ...}, ...]}

Token ids and log-probabilities are kept exactly (JSON's shortest form of a double gives back the same double).
Snapshots are not written.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pydantic_core

from agentenv.errors import TreeError, TreeFileError
from agentenv.tree import EpisodeTree, Node, Prompt
from agentenv.types import Action, ToolCall

__all__ = ["FORMAT", "VERSION", "iter_trees", "read_trees", "tree_from_dict", "tree_to_dict", "write_trees"]

FORMAT = "agentenv.trees"
VERSION = 1


def write_trees(path: str | Path, trees: Iterable[EpisodeTree], *, append: bool = False) -> None:
    """Writes trees as JSON lines.

    Args:
        path: the file; its folder is made.
        trees: what to write.
        append: adds to an existing file instead of replacing it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not (append and path.exists() and path.stat().st_size)
    with path.open("w" if new else "a", encoding="utf-8") as file:
        if new:
            file.write(json.dumps({"format": FORMAT, "version": VERSION}) + "\n")
        for tree in trees:
            file.write(_dumps(tree_to_dict(tree)) + "\n")


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
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    _check_header(record)
                else:
                    yield tree_from_dict(record)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = f"missing {error}" if isinstance(error, KeyError) else str(error)
                msg = f"{path}, line {number}: {reason}"
                raise TreeFileError(msg) from error
        if file.tell() == 0:
            msg = f"{path}, line 1: the file is empty; expected a header {{'format': {FORMAT!r}, ...}}"
            raise TreeFileError(msg)


def _check_header(record: Any) -> None:
    if not isinstance(record, dict) or cast("dict[str, Any]", record).get("format") != FORMAT:
        msg = f"expected a header {{'format': {FORMAT!r}, 'version': {VERSION}}}, got {record!r:.120}"
        raise TreeError(msg)
    version = cast("dict[str, Any]", record).get("version")
    if version != VERSION:
        msg = f"version must be {VERSION}, got {version!r}; read it with the release that wrote it"
        raise TreeError(msg)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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
        record["action"] = {k: v for k, v in asdict(node.action).items() if v is not None and v != ""}
        record["action_signature"] = node.action_signature
    for flag in ("terminated", "truncated"):
        if getattr(node, flag):
            record[flag] = True
    if node.info:
        record["info"] = dict(node.info)
    if prompt is not None:
        record["prompt"] = {"kept": prompt.kept, "token_ids": list(prompt.token_ids)}
    return record


def tree_from_dict(record: Mapping[str, Any]) -> EpisodeTree:
    """Rebuilds a tree from `tree_to_dict`'s record.

    Raises:
        TreeError: the record breaks a rule of the tree.
        KeyError: a field is missing.
    """
    if not isinstance(record, Mapping):
        msg = f"expected an object with 'nodes', got {record!r:.120}"
        raise TreeError(msg)
    root, *rest = record["nodes"]
    tree = EpisodeTree(
        tuple(root["observation"]),
        task_id=record["task_id"],
        env_id=record["env_id"],
        task=record["task"],
        state_signature=root["state"],
        metadata=record["metadata"],
    )
    _read_prompt(tree, 0, root)
    for node in rest:
        index = tree.add(
            node["parent"],
            _read_action(node["action"]),
            tuple(node["observation"]),
            reward=node["reward"],
            terminated=node.get("terminated", False),
            truncated=node.get("truncated", False),
            state_signature=node["state"],
            action_signature=node["action_signature"],
            info=node.get("info"),
        )
        _read_prompt(tree, index, node)
    return tree


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
