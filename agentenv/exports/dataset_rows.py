"""Trees as rows of a Hugging Face data set, a row for each node, and back.

What has one shape everywhere is a column: texts, numbers, token ids, flags. What each environment shapes for itself
(`task`, `metadata`, `info`, arguments of calls, messages that are more than text) is JSON text in a column, because
Arrow gives a column one type. Both together are the whole tree: `from_dataset_rows` rebuilds it, snapshots apart.

A data set may be shuffled, filtered by tree and given further columns; a row that is missing below others is an error.
Arrow holds no halves of surrogate pairs, which models do write: in the columns of text each becomes U+FFFD, and stays
what it was in the columns of JSON.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import pydantic

from agentenv.arrays import NO_PARENT
from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError, TreeError
from agentenv.rows import Source, describe, read_rows
from agentenv.serialize.events import root_of, tree_event
from agentenv.tree import Cost, EpisodeTree, Node, Prompt
from agentenv.types import Action, Message, Observation, ToolCall, Usage, message_text, to_observation

from .credited import Credit, CreditedTree, Trees, columns_of, read_credited

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["from_dataset_rows", "to_dataset", "to_dataset_rows"]

Row = dict[str, Any]


class _Message(pydantic.BaseModel):
    """A message: readable, and in `exact` (JSON) where that is not all of it."""

    role: str
    content: str
    exact: str | None = None


class _Call(pydantic.BaseModel):
    """A call; `arguments` are JSON."""

    name: str
    arguments: str
    id: str = ""


class _NodeRow(pydantic.BaseModel):
    """The columns that make a tree; others are left alone."""

    tree: int
    node: int
    parent: int
    root: str | None = None
    rollout: int = 0
    attempt: int = 0
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] = []
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    logprobs: list[float | None] | None = None  # None is what tables make of NaN
    weight_version: int | None = None
    usage: list[int] | None = None
    observation: list[_Message] = []
    reward: float | None = None
    terminated: bool = False
    truncated: bool = False
    state_signature: str = ""
    action_signature: str = ""
    info: str = "{}"
    prompt_kept: int | None = None
    prompt_token_ids: list[int] | None = None
    cost: str = "{}"
    exact: str | None = None


def to_dataset_rows(trees: Trees, **credits: Credit) -> list[Row]:  # noqa: A002  the public word
    """Returns rows for `datasets.Dataset.from_list`, one per node, parents before children.

    Columns: `tree`, `node`, `parent`, `env_id`, `task_id`; `root` (JSON of task, metadata and threshold; at roots);
    `rollout`, `attempt`; the action's `content`, `reasoning`, `tool_calls`, `finish_reason`, `token_ids`, `logprobs`,
    `weight_version`, `usage`; `observation`; `reward`, `terminated`, `truncated`, `state_signature`,
    `action_signature`, `info` (JSON); `prompt_kept` and `prompt_token_ids`, what the actions from the node saw: so many
    tokens of the path, and then these; `cost` (JSON); `exact`, JSON of the node where its columns cannot hold it.

    Args:
        trees: a trees file, a tree, or several.
        credits: estimators, what they returned, or `[N]` numbers, by the name that their columns begin with.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        ValueError: credit that is not `[N]`, or whose name is a column's.
    """
    return [row for entry in read_credited(trees, credits) for row in _tree_rows(entry)]


def to_dataset(trees: Trees, **credits: Credit) -> "Dataset":  # noqa: A002  the public word
    """Returns trees as a `datasets.Dataset`, with the columns of `to_dataset_rows` and a type for each.

    Raises:
        MissingDependencyError: there is no datasets here.
        TreeFileError, OSError, ValueError: as for `to_dataset_rows`.
    """
    try:
        from datasets import Dataset, Features, List, Value
    except ImportError as error:
        msg = f"to_dataset needs datasets: {install_module('datasets')}"
        raise MissingDependencyError(msg) from error
    rows = to_dataset_rows(trees, **credits)
    text, number, real, flag = Value("string"), Value("int64"), Value("float64"), Value("bool")
    kinds: dict[str, Any] = dict.fromkeys(_NodeRow.model_fields, text) | {"env_id": text, "task_id": text}
    numbers = ("tree", "node", "parent", "rollout", "attempt", "weight_version", "prompt_kept")
    kinds |= dict.fromkeys(numbers, number)
    kinds |= {"reward": real, "terminated": flag, "truncated": flag, "logprobs": List(real)}
    kinds |= dict.fromkeys(("token_ids", "prompt_token_ids", "usage"), List(number))
    kinds["tool_calls"] = List({"name": text, "arguments": text, "id": text})
    kinds["observation"] = List({"role": text, "content": text, "exact": text})
    for name in rows[0].keys() - kinds.keys() if rows else ():
        kinds[name] = number if name.endswith("_count") else real
    columns = columns_of(rows, kinds)
    return cast("Any", Dataset).from_dict(columns, features=Features({name: kinds[name] for name in columns}))


def from_dataset_rows(rows: Source) -> list[EpisodeTree]:
    """Rebuilds trees from rows that `to_dataset_rows` made, in the order of their numbers.

    Args:
        rows: a data set, a table of any library, a file of it (parquet, JSON lines) or rows, in any order.

    Raises:
        TreeError: a column or a row is missing or wrong; the message names tree, node and rule.
    """
    places: dict[int, dict[int, _NodeRow]] = {}
    for where, row in read_rows(rows, what="a row of a tree", error=TreeError):
        try:
            found = _NodeRow.model_validate({name: value for name, value in row.items() if value is not None})
        except pydantic.ValidationError as error:
            msg = f"{where}: {describe(error)}"
            raise TreeError(msg) from None
        if found.node in places.setdefault(found.tree, {}):
            msg = f"{where}: tree {found.tree} has two nodes {found.node}: were two data sets joined?"
            raise TreeError(msg)
        places[found.tree][found.node] = found
    return [_build(number, places[number]) for number in sorted(places)]


# ---------------------------------------------------------------------- to rows


def _tree_rows(entry: CreditedTree) -> Iterator[Row]:
    tree = entry.tree
    for i, node in enumerate(tree.nodes):
        action, prompt = node.action, tree.prompt(i)
        usage = None if action is None or action.usage is None else list(asdict(action.usage).values())
        row: Row = {
            "tree": entry.number,
            "node": i,
            "parent": node.parent,
            "env_id": tree.env_id,
            "task_id": tree.task_id,
            "root": None if i else json.dumps(_root(tree)),
            "rollout": node.rollout,
            "attempt": node.attempt,
            "content": None if action is None else action.content,
            "reasoning": None if action is None else action.reasoning,
            "tool_calls": [] if action is None else [_call_row(call) for call in action.tool_calls],
            "finish_reason": None if action is None else action.finish_reason,
            "token_ids": None if action is None or action.token_ids is None else list(action.token_ids),
            "logprobs": None if action is None or action.logprobs is None else list(action.logprobs),
            "weight_version": None if action is None else action.weight_version,
            "usage": usage,
            "observation": [_message_row(message) for message in node.observation],
            "reward": node.reward,
            "terminated": node.terminated,
            "truncated": node.truncated,
            "state_signature": node.state_signature,
            "action_signature": node.action_signature,
            "info": json.dumps(dict(node.info)),
            "prompt_kept": None if prompt is None else prompt.kept,
            "prompt_token_ids": None if prompt is None else list(prompt.token_ids),
            "cost": json.dumps({name: value for name, value in asdict(node.cost).items() if value}),
            "exact": None,
        }
        if taken := row.keys() & entry.credit.keys():
            msg = f"credit must not be named {min(taken)!r}: that is a column of the rows"
            raise ValueError(msg)
        yield _encodable(row) | entry.credit_at(i)


def _root(tree: EpisodeTree) -> Row:
    event = tree_event(0, tree)
    return {name: event[name] for name in ("env_id", "task_id", "task", "metadata", "success_threshold")}


def _message_row(message: Message) -> Row:
    content = message_text(message)
    whole = message == {"role": message["role"], "content": content}
    return {"role": message["role"], "content": content, "exact": None if whole else json.dumps(message)}


def _call_row(call: ToolCall) -> Row:
    return {"name": call.name, "arguments": json.dumps(call.arguments), "id": call.id}


_TEXTS = ("content", "reasoning", "finish_reason", "state_signature", "action_signature", "tool_calls", "observation")


def _encodable(row: Row) -> Row:
    """Returns a row whose texts Arrow can hold; those that it cannot are kept in `exact`."""
    fixed = {name: _fix(value) for name, value in row.items()}
    changed = {name: row[name] for name in _TEXTS if fixed[name] != row[name]}
    return fixed | ({"exact": json.dumps(changed)} if changed else {})


def _fix(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _is_broken(value) else value
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    if listed and isinstance(listed[0], dict):
        return [{name: _fix(part) for name, part in entry.items()} for entry in cast("list[Row]", listed)]
    return cast("object", value)


def _is_broken(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


# ---------------------------------------------------------------------- from rows


def _build(number: int, rows: Mapping[int, _NodeRow]) -> EpisodeTree:
    tree = EpisodeTree(())
    for place in range(max(rows) + 1):
        try:
            if place not in rows:
                msg = f"its row is missing, but there is one of node {max(rows)}: keep or drop whole trees"
                raise TreeError(msg)
            row = _exact(rows[place])
            if place == 0:
                tree = _root_of(row)
            else:
                tree.append(_node(row))
            if row.prompt_kept is not None:
                tree.restore_prompt(place, Prompt(row.prompt_kept, tuple(row.prompt_token_ids or ())))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"tree {number}, node {place}: {f'missing {error}' if isinstance(error, KeyError) else error}"
            raise TreeError(msg) from error
    return tree


def _exact(row: _NodeRow) -> _NodeRow:
    return row if row.exact is None else _NodeRow.model_validate(row.model_dump() | json.loads(row.exact))


def _root_of(row: _NodeRow) -> EpisodeTree:
    if row.parent != NO_PARENT or row.root is None:
        msg = f"must be the root, with parent {NO_PARENT} and the column 'root', got parent {row.parent}"
        raise TreeError(msg)
    event = json.loads(row.root) | {"observation": _observation(row.observation), "state": row.state_signature}
    return root_of(event)


def _observation(messages: Sequence[_Message]) -> Observation:
    found = [{"role": m.role, "content": m.content} if m.exact is None else json.loads(m.exact) for m in messages]
    return to_observation(cast("Any", found))


def _node(row: _NodeRow) -> Node:
    action = Action(
        content=row.content or "",
        tool_calls=tuple(ToolCall(call.name, json.loads(call.arguments), call.id) for call in row.tool_calls),
        token_ids=None if row.token_ids is None else tuple(row.token_ids),
        logprobs=None if row.logprobs is None else tuple(math.nan if x is None else x for x in row.logprobs),
        finish_reason=row.finish_reason or "",
        reasoning=row.reasoning or "",
        usage=None if row.usage is None else Usage(*row.usage),
        weight_version=row.weight_version,
    )
    return Node(
        row.parent,
        action,
        _observation(row.observation),
        row.reward,
        row.terminated,
        row.truncated,
        row.state_signature,
        row.action_signature,
        json.loads(row.info),
        row.rollout,
        row.attempt,
        Cost(**json.loads(row.cost)),
    )
