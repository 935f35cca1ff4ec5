"""Reads trees from files of this version and of the one before."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from agentenv.arrays import NO_PARENT
from agentenv.errors import TreeError, TreeFileError
from agentenv.tree import EpisodeTree, Node, Prompt
from agentenv.types import to_observation

from .blobs import unpack
from .events import FORMAT, ROOT, VERSION, Key, read_action, read_key, read_node, read_prompt, root_of

__all__ = ["Journal", "iter_trees", "number_of_trees", "read_trees"]

_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
"""What reading a record of the wrong shape raises."""

Line = tuple[int, dict[str, Any]]
"""A line's number in the file, and its event."""

RecordedAttempt = list[tuple[Node, Prompt | None]]


def read_trees(path: str | Path, *, live: bool = False) -> list[EpisodeTree]:
    """Returns all trees of a file; see `iter_trees`."""
    return list(iter_trees(path, live=live))


def iter_trees(path: str | Path, *, live: bool = False) -> Iterator[EpisodeTree]:
    """Yields the trees of a file by their numbers, rollouts in order. A last line that a crash cut is not read.

    Args:
        path: the file.
        live: whether it may be being written, or goes on to be: then a last line that is cut is no news. Otherwise it
            is a warning.

    Raises:
        TreeFileError: the file is not of this format or version, or a line is broken; the message names the file, the
            line and the reason.
        FileNotFoundError: there is no such file.
    """
    lines = _lines(path)
    version = next(lines)
    if version[1]["version"] == 1:
        for number, record in lines:
            with _Blame(path, number):
                _refuse_cut(record)
                tree = _tree_of_version_1(record)
            yield tree
        return
    for record in _records(path, lines, live=live).values():
        yield record.build()


def number_of_trees(path: str | Path) -> int:
    """Returns the number that the next tree of a file gets.

    Raises:
        TreeFileError: as for `iter_trees`; or the file is of version 1, to which nothing can be added.
    """
    lines = _lines(path)
    if next(lines)[1]["version"] == 1:
        msg = f"{path}: nothing can be added to a file of version 1: write_trees(NEW_PATH, read_trees({str(path)!r}))"
        raise TreeFileError(msg)
    return max((event["tree"] for _, event in lines if "task_id" in event), default=-1) + 1


class Journal:
    """What a journal holds, for a run that goes on: the rollouts that ended, by tree and number.

    Args:
        path: the file; one that does not exist holds nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self._records: dict[int, _Record] = {}
        if Path(path).exists() and Path(path).stat().st_size:
            lines = _lines(path)
            next(lines)
            self._records = _records(path, lines, live=True)

    def root(self, tree: int) -> EpisodeTree | None:
        """Returns a tree with its root alone; `None` where there is no such tree."""
        record = self._records.get(tree)
        return None if record is None else record.root()

    def attempts(self, tree: int, rollout: int) -> list[RecordedAttempt] | None:
        """Returns the attempts of a rollout, node by node with what each action saw; `None` if it has not ended."""
        record = self._records.get(tree)
        return None if record is None else record.attempts(rollout)

    def start(self, tree: int, rollout: int) -> Key | None:
        """Returns the key of the node that a rollout starts from; `None` if it has not ended."""
        record = self._records.get(tree)
        return None if record is None else record.start(rollout)


class _Blame:
    """Says which line of which file a broken record is in."""

    def __init__(self, path: str | Path, number: int) -> None:
        self.path, self.number = path, number

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, _MALFORMED) and not isinstance(error, TreeFileError):
            reason = f"missing {error}" if isinstance(error, KeyError) else f"{error!s:.500}"
            if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
                reason = f"is no JSON ({reason}): {_remedy(self.number)}"
            msg = f"{self.path}, line {self.number}: {reason}"
            raise TreeFileError(msg) from error


def _remedy(number: int) -> str:
    """Says what to do about a line that nothing can be read from."""
    if number == 1:
        return "name a file of trees, as rollout, train or play writes them"
    return (
        "remove the line, and what the next message says has to go with it, or take the file from where it was whole; "
        "or is this a file of something else?"
    )


def _apart(event: Mapping[str, Any], reason: object) -> TreeError:
    """Returns the error of a rollout that cannot be put together, as where lines are missing: why, and what to do."""
    lines = f'"tree":{event["tree"]} and "rollout":{event["rollout"]}'
    remedy = f"to go on without the rollout remove all lines with {lines}, or take the file from where it was whole"
    return TreeError(f"{reason}; {remedy}")


def _lines(path: str | Path) -> Iterator[Line]:
    """Yields the header and then every event; for a last line without its end the event `{"cut": True}`."""
    number = 0
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1 and not line.endswith(b"\n"):
                yield number, {"cut": True}
                return
            with _Blame(path, number):
                event = json.loads(line.decode())
                if number == 1:
                    _check_header(event)
                elif not isinstance(event, dict):
                    msg = f"expected an object, got {event!r:.120}"
                    raise TreeError(msg)
            yield number, event
    if number == 0:
        msg = f"{path}, line 1: the file is empty; expected a header {{'format': {FORMAT!r}, ...}}"
        raise TreeFileError(msg)


def _refuse_cut(event: Mapping[str, Any]) -> None:
    if "cut" in event:
        msg = "the last line was cut (no newline after it): remove it, or take the file from where it was whole"
        raise TreeError(msg)


def _check_header(record: Any) -> None:
    if not isinstance(record, dict) or cast("dict[str, Any]", record).get("format") != FORMAT:
        msg = f"expected a header {{'format': {FORMAT!r}, 'version': {VERSION}}}, got {record!r:.120}"
        raise TreeError(msg)
    version = cast("dict[str, Any]", record).get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        msg = f"version must be 1 to {VERSION}, got {version!r}; read it with the release that wrote it"
        raise TreeError(msg)


@dataclass
class _Record:
    """The events of one tree."""

    path: str | Path
    begin: Line
    blobs: dict[str, str]
    rollouts: dict[int, list[Line]] = field(default_factory=dict[int, list[Line]])

    def add(self, number: int, event: dict[str, Any]) -> None:
        """Takes a node's event; the first of a rollout begins it anew."""
        rollout, attempt, _ = read_key(event)
        if attempt == 0 and "from" in event:
            self.rollouts[rollout] = []
        self.rollouts.setdefault(rollout, []).append((number, event))

    @cached_property
    def prompts(self) -> dict[Key, Prompt]:
        """What was seen at every node, by the first that was written; what was not finished is not asked."""
        prompts: dict[Key, Prompt] = {}
        for number, event in (line for rollout in self.rollouts for line in self.lines(rollout)):
            with _Blame(self.path, number):
                if (prompt := read_prompt(event.get("prompt"))) is not None:
                    prompts.setdefault(_before(event), prompt)
        return prompts

    def seen(self, event: Mapping[str, Any]) -> Prompt | None:
        """What an event's action saw: written with it, or with another from the same node."""
        own = read_prompt(event.get("prompt"))
        return self.prompts.get(_before(event)) if own is None else own

    def root(self) -> EpisodeTree:
        number, event = self.begin
        with _Blame(self.path, number):
            return root_of(unpack(event, self.blobs))

    def lines(self, rollout: int) -> Sequence[Line]:
        """The lines of a rollout; none where it was not finished."""
        lines = self.rollouts.get(rollout, [])
        unfinished = self.begin[1].get("journal") and not (lines and lines[-1][1].get("last"))
        return () if unfinished else lines

    def attempts(self, rollout: int) -> list[RecordedAttempt] | None:
        attempts: list[RecordedAttempt] = []
        for number, event in self.lines(rollout):
            with _Blame(self.path, number):
                if "from" in event:
                    attempts.append([])
                node = read_node(unpack(event, self.blobs), NO_PARENT)
                attempts[-1].append((node, self.seen(event)))
        return attempts or None

    def start(self, rollout: int) -> Key | None:
        for number, event in self.lines(rollout)[:1]:
            with _Blame(self.path, number):
                return _before(event)
        return None

    def build(self) -> EpisodeTree:
        """Rebuilds the tree, rollouts in order."""
        tree = self.root()
        places: dict[Key, int] = {ROOT: 0}
        lines = [line for rollout in sorted(self.rollouts) for line in self.lines(rollout)]
        last = ROOT
        for number, event in lines:
            with _Blame(self.path, number):
                key, before = read_key(event), _before(event)
                if "from" not in event and before != last:
                    raise _apart(event, f"step {key[2]} of rollout {key[0]} does not follow the line before")
                if key in places:
                    raise _apart(event, f"rollout {key[0]}, attempt {key[1]} has two steps {key[2]}")
                if before not in places:
                    where = f"rollout, attempt and step {list(before)}"
                    raise _apart(event, f"there is no node with {where} before it")
                node = read_node(unpack(event, self.blobs), places[before])
                try:
                    places[key] = tree.append(node, prompt=self.seen(event))
                except TreeError as error:
                    raise _apart(event, error) from error
                last = key
        for (number, event), node in ((self.begin, 0), *((line, places[read_key(line[1])]) for line in lines)):
            if "prompt_after" in event:
                with _Blame(self.path, number):
                    tree.restore_prompt(node, read_prompt(event["prompt_after"]) or Prompt(0, ()))
        return tree


def _before(event: Mapping[str, Any]) -> Key:
    """Key of the node that an event's action was taken from."""
    rollout, attempt, step = read_key(event)
    if "from" not in event:
        return (rollout, attempt, step - 1)
    start = tuple(event["from"])
    if len(start) != 3 or start[2] + 1 != step:
        msg = f"step {step} of rollout {rollout} does not follow 'from', which is {list(start)}"
        raise TreeError(msg)
    return (start[0], start[1], start[2]) if start[2] else ROOT


def _records(path: str | Path, lines: Iterator[Line], *, live: bool) -> "dict[int, _Record]":
    """Collects the events by tree, in the order of their numbers."""
    records: dict[int, _Record] = {}
    blobs: dict[str, str] = {}
    for number, event in lines:
        with _Blame(path, number):
            if not all(record.begin[1].get("journal") for record in records.values()):
                _refuse_cut(event)
            if "cut" in event:
                if not live:
                    told = "the last line is cut off; what had ended before it is read, and nothing of what had not"
                    warnings.warn(f"{path}, line {number}: {told}", stacklevel=4)
                break
            if "blob" in event:
                blobs[event["blob"]] = event["url"]
            elif "task_id" in event:
                if event["tree"] in records:
                    msg = f"tree {event['tree']} begins twice: were lines added by hand, or two files joined?"
                    raise TreeError(msg)
                records[event["tree"]] = _Record(path, (number, event), blobs)
            elif event["tree"] not in records:
                remedy = f'remove all lines with "tree":{event["tree"]}, or take the file from where it was whole'
                msg = f"tree {event['tree']} has not begun: its first line is missing; {remedy}"
                raise TreeError(msg)
            else:
                records[event["tree"]].add(number, event)
    return dict(sorted(records.items()))


def _tree_of_version_1(record: Mapping[str, Any]) -> EpisodeTree:
    """Rebuilds a tree from the record of version 1: a tree a line, nodes with the indices of their parents."""
    nodes = record["nodes"]
    if not isinstance(nodes, list) or not nodes:
        msg = f"'nodes' must be a list that starts with the root, got {nodes!r:.120}"
        raise TreeError(msg)
    root: Any = cast("list[Any]", nodes)[0]
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
    for index, node in enumerate(cast("list[Any]", nodes)):
        try:
            if index:
                _add_of_version_1(tree, node)
            if (prompt := read_prompt(node.get("prompt"))) is not None:
                tree.restore_prompt(index, prompt)
        except _MALFORMED as error:
            msg = f"node {index}: {f'missing {error}' if isinstance(error, KeyError) else error}"
            raise TreeError(msg) from error
    return tree


def _add_of_version_1(tree: EpisodeTree, node: Mapping[str, Any]) -> None:
    tree.add(
        node["parent"],
        read_action(node["action"]),
        to_observation(node["observation"]),
        reward=node["reward"],
        terminated=node.get("terminated", False),
        truncated=node.get("truncated", False),
        state_signature=node["state"],
        action_signature=node["action_signature"],
        info=node.get("info"),
    )
