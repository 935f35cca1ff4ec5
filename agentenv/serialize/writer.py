"""Writes trees as append-only events."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, Self

from agentenv.errors import TreeFileError
from agentenv.tree import EpisodeTree, Node, Prompt, different_prompts

from .blobs import pack
from .events import FORMAT, ROOT, VERSION, Key, node_event, tree_event, tree_events
from .reader import number_of_trees

__all__ = ["TreeWriter", "write_trees"]

Seen = tuple[int, int, int]
"""Of a prompt: the tokens that it keeps, all of its tokens, and a hash of those that follow."""


class TreeWriter:
    """Adds events to a file, each call at once and whole: what was written before a crash stays readable.

    A call that fails, on a full disk for instance, leaves the file as it was before it. Any thread may call.

    Args:
        path: the file; its folder is made.
        append: goes on with an existing file instead of replacing it; a last line that a crash cut is dropped.
        journal: says in every tree that only rollouts that ended shall be read.

    Attributes:
        path: the file.
        num_trees: trees in it; the next gets this number.

    Raises:
        TreeFileError: the file to add to is of another format or version.
    """

    def __init__(self, path: str | Path, *, append: bool = False, journal: bool = False) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        old = append and self.path.exists() and self.path.stat().st_size > 0
        self._journal = journal
        self._lock = Lock()
        self._blobs: set[str] = set()
        self._prompts: dict[tuple[int, Key], Seen] = {}
        self._file = self.path.open("r+b" if self.path.exists() else "wb", buffering=0)
        try:
            _lock_alone(self._file, self.path)
            self.num_trees = number_of_trees(self.path) if old else 0
            if old:
                _drop_cut_line(self._file)
            else:
                if os.fstat(self._file.fileno()).st_size:
                    self._file.truncate()
                self._write([{"format": FORMAT, "version": VERSION}])
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. May be called twice."""
        if not self._file.closed:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)  # forked processes may have it open, too
        self._file.close()

    def add_tree(self, tree: EpisodeTree) -> int:
        """Writes a tree with all its nodes, and returns its number."""
        with self._lock:
            number = self.num_trees
            self._write(tree_events(tree, number))
            self.num_trees = number + 1
        return number

    def begin_tree(self, tree: EpisodeTree) -> int:
        """Writes the root of a tree, and returns the tree's number; its rollouts come by `add_rollout`."""
        with self._lock:
            number = self.num_trees
            self._write([tree_event(number, tree, journal=self._journal)])
            self.num_trees = number + 1
        return number

    def add_rollout(self, number: int, start: Key, attempts: Iterable[Sequence[tuple[Node, Prompt | None]]]) -> None:
        """Writes what a rollout did, attempt by attempt.

        Args:
            number: of the tree.
            start: key of the node that it starts from.
            attempts: the nodes in order, each with what its action saw.

        Raises:
            TreeError: another action from the same node saw other tokens.
        """
        with self._lock:
            seen: dict[tuple[int, Key], Seen] = {}
            events = [event for nodes in attempts for event in self._events(number, start, nodes, seen)]
            if events:
                events[-1]["last"] = True
            self._write(events)
            self._prompts |= seen

    def add_node(self, number: int, start: Key, node: Node, prompt: Prompt | None = None) -> None:
        """Writes one node of a tree that grows step by step.

        Args:
            number: of the tree.
            start: key of the node before.
            node: the node.
            prompt: what its action saw.

        Raises:
            TreeError: as for `add_rollout`.
        """
        with self._lock:
            seen: dict[tuple[int, Key], Seen] = {}
            self._write(self._events(number, start, [(node, prompt)], seen))
            self._prompts |= seen

    def _events(
        self, number: int, before: Key, nodes: Sequence[tuple[Node, Prompt | None]], seen: dict[tuple[int, Key], Seen]
    ) -> list[dict[str, Any]]:
        """Events of nodes that follow each other; a prompt is written with the first action that saw it.

        It is written again where it keeps more of the path, which may have become known since: a reader compares them.
        """
        events: list[dict[str, Any]] = []
        for step, (node, prompt) in enumerate(nodes, before[2] + 1):
            goes_on = before != ROOT and before[:2] == (node.rollout, node.attempt)
            new = prompt is not None and self._is_new(number, before, prompt, seen)
            events.append(
                node_event(number, step, node, start=None if goes_on else before, prompt=prompt if new else None)
            )
            before = (node.rollout, node.attempt, step)
        return events

    def _is_new(self, number: int, before: Key, prompt: Prompt, seen: dict[tuple[int, Key], Seen]) -> bool:
        """Whether a prompt is not in the file as it is; then it is put into `seen`."""
        place, now = (number, before), (prompt.kept, len(prompt), hash(prompt.token_ids))
        known = seen.get(place) or self._prompts.get(place)
        if known is not None and now != known and (now[0] == known[0] or now[1] != known[1]):
            where = f"the node of tree {number} with rollout, attempt and step {list(before)}"
            raise different_prompts(where, known[1], now[1])
        seen[place] = now
        return now != known

    def _write(self, events: Iterable[dict[str, Any]]) -> None:
        blobs: dict[str, str] = {}
        lines = [_dumps(pack(event, blobs.__setitem__)) for event in events]
        fresh = {name: url for name, url in blobs.items() if name not in self._blobs}
        data = memoryview(b"".join([*(_dumps({"blob": name, "url": url}) for name, url in fresh.items()), *lines]))
        where = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
        except BaseException:
            with suppress(OSError):
                self._file.seek(where)
                self._file.truncate()
            raise
        self._blobs.update(fresh)


def write_trees(path: str | Path, trees: Iterable[EpisodeTree], *, append: bool = False) -> None:
    """Writes trees to a file that appears complete or, where something fails, not at all.

    Args:
        path: the file; its folder is made.
        trees: what to write.
        append: adds to an existing file instead of replacing it.

    Raises:
        TreeFileError: the file to add to is of another format or version, or its last line was cut.
    """
    path = Path(path)
    if append and path.exists() and path.stat().st_size > 0:
        _check_whole(path)
        with TreeWriter(path, append=True) as writer:
            for tree in trees:
                writer.add_tree(tree)
        return
    path = path.resolve()  # so that a link stays one
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with TreeWriter(aside) as writer:
            for tree in trees:
                writer.add_tree(tree)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_whole(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            msg = f"{path}: the last line was cut (no newline after it); delete that line before adding to the file"
            raise TreeFileError(msg)


def _lock_alone(file: IO[bytes], path: Path, *, patience_s: float = 2.0) -> None:
    """Keeps other writers off a file, until it is closed or its process ends.

    Processes that were forked meanwhile may hold the lock a moment longer than the writer that was killed.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                msg = f"{path} is being written by another rollout: wait for its end, or choose another name"
                raise TreeFileError(msg) from error
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return
        else:
            return


def _drop_cut_line(file: Any) -> None:
    """Goes to the end of the last whole line, and drops what follows."""
    end = file.seek(0, os.SEEK_END)
    size = 1 << 16
    while end:
        begin = max(0, end - size)
        file.seek(begin)
        where = file.read(end - begin).rfind(b"\n")
        if where >= 0:
            end = begin + where + 1
            break
        end = begin
    file.seek(end)
    file.truncate()


def _dumps(value: Any) -> bytes:
    """Encodes one line. Half a surrogate pair, which models do write, exists in JSON only as an escape."""
    try:
        return (json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(value, separators=(",", ":")) + "\n").encode()
