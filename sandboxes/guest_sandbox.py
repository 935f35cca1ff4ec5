"""What every sandbox shares: a guest on the other end of a wire runs the commands and touches the files."""

import contextlib
import errno
import io
import threading
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from agentenv.errors import SandboxError, SandboxLost, SandboxTimeout, SnapshotError, WorkspaceError
from agentenv.protocols import Capabilities, ExecResult, FileChange

from .arguments import (
    as_bytes,
    can_be_a_name,
    checked_env,
    checked_mode,
    checked_path,
    checked_patterns,
    checked_timeout,
    checked_words,
)
from .base_files import archive_of_files
from .guest.content import expand
from .guest.trees import Entry, parse_entries, read_entries
from .guest.wire import ANY_SIZE, Closed, Failed, Late, Wire
from .guest_settings import LISTS
from .guest_shell import GuestShell
from .layers import archives, check_archive, flatten
from .replies import check_reply, result_of, sent_by_guest
from .snapshots import ProcessSnapshot, WorkspaceSnapshot, compare
from .spec import SandboxSpec

__all__ = ["GuestSandbox"]

_CLOSED = "it is closed"
_GRACE_S = 30.0
_REQUEST_S, _SLOWEST = 120.0, 1 << 19  # and bytes a second: an archive of empty files has 100 for each


class GuestSandbox:
    """A sandbox whose guest answers requests one at a time. Subclasses start the guest and keep the files.

    Every method may be called from any thread; calls on one sandbox wait for each other.

    Args:
        spec: what it shall be.
        origin: the state at opening.

    Attributes:
        spec: what it was asked to be.
    """

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        self.spec = spec
        self._origin = self._require_usable(origin)
        self._lock = threading.RLock()
        self._wire: Wire | None = None
        self._shell: GuestShell | None = None
        self._shell_was_open = False
        self._broken = ""
        self._ended = False
        self._finalizer: weakref.finalize[Any, Any] | None = None

    # ------------------------------------------------------------------ what back ends provide

    @property
    def isolation(self) -> Capabilities:
        """What is really enforced."""
        raise TypeError

    def require_level(self, level: str) -> None:
        """Raises `SandboxError` where it turned out to promise less than `level`, which its back end may promise."""

    @property
    def _archive_limit(self) -> int:
        """Bytes that an archive of the files may have."""
        return ANY_SIZE

    def _begin(self, origin: WorkspaceSnapshot) -> None:
        """Starts a guest at a state: the first, or the next where that is lost. Frees all that it made if it fails."""
        raise TypeError(origin)

    def _open(self, origin: WorkspaceSnapshot) -> Self:
        """Opens another sandbox of the same spec at `origin`."""
        return type(self)(self.spec, origin)

    def _open_each(self, origin: WorkspaceSnapshot, n: int) -> Iterator[Self | SandboxError]:
        """Opens `n` of them, each or the reason it could not be."""
        for _ in range(n):
            try:
                yield self._open(origin)
            except SandboxError as error:
                yield error

    def _take(self) -> WorkspaceSnapshot:
        """Returns the state as it is."""
        _, archive = self._ask({"op": "pack"})
        return self._kept(archive)

    def _put(self, snapshot: WorkspaceSnapshot) -> None:
        """Replaces the state; nothing runs afterwards.

        Raises:
            SandboxError: it could not be; a new guest may do.
        """
        archive = self._flat(snapshot)
        reply, _ = self._ask({"op": "unpack"}, archive, _REQUEST_S + len(archive) / _SLOWEST)
        if reply["stale"]:
            msg = "its kernel has counted what commands did"
            raise SandboxError(msg)

    def _take_processes(self) -> ProcessSnapshot:
        """Returns the state as it is, with what runs."""
        msg = f"{type(self).__name__} cannot take running processes into a snapshot; the gvisor back end can"
        raise SandboxError(msg)

    def _require_own(self, snapshot: ProcessSnapshot) -> None:
        """Raises `SnapshotError` unless what runs in a snapshot can be made to run in this sandbox."""
        msg = (
            f"{type(self).__name__} cannot restore running processes, which the {snapshot.backend} back end took: "
            "restore the snapshot's `files`"
        )
        raise SnapshotError(msg)

    def _free(self) -> None:
        """Frees everything; called once."""

    # ------------------------------------------------------------------ commands

    def exec(
        self,
        argv: Sequence[str] | str,
        *,
        stdin: bytes | str = b"",
        timeout_s: float | None = None,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Runs a command in the workspace and waits for it; nothing of it survives the call.

        Args:
            argv: program and arguments; text is given to `sh -c`.
            stdin: what the command reads.
            timeout_s: seconds until it is killed; `Limits.time_s` by default.
            cwd: folder, relative to the workspace.
            env: more environment variables.

        Returns:
            The outcome. A program that does not exist has exit code 127, as in a shell.

        Raises:
            SandboxError: the sandbox is closed or broken, or a shell is open in it.
            WorkspaceError: `cwd` is no folder of the workspace.
            ValueError: an empty command, a word or variable that cannot be, a timeout that is not positive or longer
                than a week, or a `stdin` beyond `Limits.transfer`.
            TypeError: an argument of the wrong type. After this and `ValueError` nothing was sent.
        """
        timeout = self._timeout(timeout_s)
        request = {
            "op": "exec",
            "argv": checked_words(argv),
            "cwd": self._path("cwd", cwd),
            "env": checked_env("env", {} if env is None else env),
            "timeout_s": timeout,
        }
        return self._run(request, self._input("stdin", stdin), timeout)[0]

    def shell(self) -> "GuestShell":
        """Starts a bash that stays: variables, the folder and background jobs live on between its commands.

        While it is open, `exec` is refused: what a command leaves running has to end with it, and could not be told
        from what the shell started. A snapshot copies the changed files instead of freezing them. Snapshots do not
        contain the shell, except those with processes; `restore` ends it. In a sandbox that was restored or forked from
        a snapshot with processes, the shell that was open there is returned, with all that it started.

        Raises:
            SandboxError: one is open already.
        """
        with self._lock:
            if self._shell is not None and self._shell_was_open:
                self._shell_was_open = False
                return self._shell
            self._ask({"op": "shell_open"})
            self._shell = GuestShell(self._run_in_shell, self._end_shell)
            return self._shell

    def _run_in_shell(self, command: str, timeout_s: float | None) -> tuple[ExecResult, bool]:
        timeout = self._timeout(timeout_s)
        body = self._input("command", checked_path("command", command))
        result, reply = self._run({"op": "shell_run", "timeout_s": timeout}, body, timeout)
        return result, bool(reply["alive"])

    def _end_shell(self) -> None:
        self._ask({"op": "shell_close"})

    def _forget_shell(self) -> None:
        if self._shell is not None:
            self._shell.alive = False
            self._shell = None

    def _find_shell(self, snapshot: WorkspaceSnapshot) -> None:
        """Forgets the shell that was; after a snapshot with processes there may be another, for `shell` to return."""
        self._forget_shell()
        self._shell_was_open = isinstance(snapshot, ProcessSnapshot) and snapshot.shell_open
        if self._shell_was_open:
            self._shell = GuestShell(self._run_in_shell, self._end_shell)

    # ------------------------------------------------------------------ files

    def read(self, path: str) -> bytes:
        """Returns the content of a regular file of the workspace.

        Raises:
            WorkspaceError: it is missing, no regular file, outside of the workspace, or beyond `Limits.transfer`.
        """
        return self._ask({"op": "read", "path": self._path("path", path), "limit": self.spec.limits.transfer})[1]

    def write(self, path: str, content: bytes | str, *, mode: int | None = None) -> None:
        """Writes a file of the workspace, making its folders. If it cannot be written, what was there before stays.

        Raises:
            WorkspaceError: it is no regular file, outside of the workspace, there is no room, or it is beyond
                `Limits.transfer` or `Limits.file_size`.
            TypeError: an argument of the wrong type; nothing was sent.
        """
        head = {"op": "write", "path": self._path("path", path), "mode": checked_mode(mode)}
        data = as_bytes("content", content)
        self._require_small(path, len(data))
        self._ask(head, data)

    def upload(self, files: Mapping[str, bytes | str]) -> None:
        """Writes many files of the workspace.

        Raises:
            WorkspaceError: as `write`; files before the one that failed are written, but none where one is beyond a
                limit or all together are beyond `Limits.transfer`.
            ValueError: a path is not relative and plain.
            TypeError: no mapping from paths to contents.
        """
        if not isinstance(files, Mapping):
            msg = f"files must be a mapping from paths to contents, got {type(files).__name__}"
            raise TypeError(msg)
        contents = {self._path("a path", path): as_bytes(f"files[{path!r}]", files[path]) for path in files}
        for path, content in contents.items():
            self._require_small(path, len(content))
        self._require_small(f"{len(contents)} files", sum(map(len, contents.values())), ("transfer",))
        archive_of_files(contents)  # checks every path before the first write
        with self._lock:
            for path, content in contents.items():
                self.write(path, content)

    def export(self, allow: Sequence[str] = ("*",)) -> dict[str, bytes]:
        """Returns the regular files of the workspace that match one of the shell patterns; `*` also matches `/`.

        Links, pipes, sockets and folders are never followed or returned, nor what is below a folder whose path is
        longer than 990 characters.

        Raises:
            WorkspaceError: together they are beyond `Limits.transfer`.
        """
        head = {"op": "export", "allow": checked_patterns(allow), "limit": self.spec.limits.transfer}
        stream = io.BytesIO(self._ask(head)[1])
        with self._reading(), sent_by_guest():
            entries = read_entries(stream.read, whole=False)
            if sum(entry.size for entry in entries) > self.spec.limits.transfer:
                msg = "they are more than was asked for"
                raise ValueError(msg)
            return {entry.path.partition("/")[2]: expand(stream.read, entry.size) for entry in entries}

    def changes(self, since: WorkspaceSnapshot | None = None) -> list[FileChange]:
        """Returns what differs in the workspace from a snapshot, or from the state at opening; sorted by path."""
        with self._lock:
            old = self._origin if since is None else _require_snapshot(since)
            return compare(old.entries, self._entries())

    def _entries(self) -> dict[str, Entry]:
        text = self._ask({"op": "scan"})[1]
        with self._reading(), sent_by_guest():
            return {entry.path: entry for entry in parse_entries(text)}

    # ------------------------------------------------------------------ states

    def snapshot(self, *, processes: bool = False) -> WorkspaceSnapshot:
        """Returns the files of workspace and tmp as they are now; changes nothing.

        Args:
            processes: include what runs, to the last bit: processes of every branch go on with the same variables and
                the same state of their random generators.

        Raises:
            SandboxError: `processes` was asked for, and this back end cannot include them.
        """
        with self._lock:
            self._require_open()
            return self._take_processes() if processes else self._take()

    def restore(self, snapshot: WorkspaceSnapshot, /) -> None:
        """Goes back to a snapshot of any sandbox; what runs ends, an open shell too. `shell` tells what may run then.

        A sandbox that was lost is replaced by a new one in that state, and so is one in which something that a command
        left prevents it.

        Raises:
            SnapshotError: not a snapshot of a workspace, or one with processes that this sandbox cannot take over.
        """
        with self._lock:
            if self._ended:
                raise SandboxError(self._why_broken())
            self._put_or_begin(self._require_usable(snapshot))
            self._find_shell(snapshot)

    def _put_or_begin(self, snapshot: WorkspaceSnapshot) -> None:
        if self._wire is not None:
            try:
                self._put(snapshot)
            except SandboxError as error:
                if isinstance(snapshot, ProcessSnapshot) and not self._broken:
                    raise  # a new guest would not do either; this one goes on as it was
                self._break(f"it could not be restored: {error}")
            else:
                return
        self._begin(snapshot)
        self._broken = ""

    def fork(self, n: int, *, processes: bool = False) -> list[Self]:
        """Returns `n` independent sandboxes in this state; this one goes on. Costs one snapshot and `n` openings.

        Args:
            n: how many.
            processes: what runs here goes on in each of them, too, see `snapshot`.

        Raises:
            SandboxError: one could not be opened; those that were are closed again.
        """
        children = self.fork_each(n, processes=processes)
        failed = [child for child in children if isinstance(child, SandboxError)]
        if failed:
            for child in children:
                if not isinstance(child, SandboxError):
                    child.close()
            msg = f"{len(failed)} of {n} forks failed, the first with: {failed[0]}"
            raise SandboxError(msg) from failed[0]
        return cast("list[Self]", children)

    def fork_each(self, n: int, *, processes: bool = False) -> list[Self | SandboxError]:
        """Returns, for each of `n` forks, the sandbox or the error that prevented it."""
        if n < 0:
            msg = f"n must be at least 0, got {n}"
            raise ValueError(msg)
        origin = self.snapshot(processes=processes)
        return list(self._open_each(origin, n))

    def close(self) -> None:
        """Ends everything in it and frees it. May be called twice; snapshots stay valid."""
        with self._lock:
            self._ended = True
            self._broken = self._broken or _CLOSED
            self._release()

    def _release(self) -> None:
        wire, self._wire = self._wire, None
        self._forget_shell()
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if wire is not None:
            wire.close()
            self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        why = "" if self._broken == _CLOSED else f": {self._broken or 'it was never opened'}"
        return f"<{type(self).__name__} {'open' if self._wire is not None else 'closed' + why}>"

    # ------------------------------------------------------------------ inside

    def _timeout(self, timeout_s: float | None) -> float:
        return self.spec.limits.time_s if timeout_s is None else checked_timeout("timeout_s", timeout_s)

    def _path(self, name: str, path: str) -> str:
        """Returns a path that the guest can be asked for."""
        if not can_be_a_name(checked_path(name, path)):
            raise WorkspaceError(errno.EILSEQ, f"{path!r}: {name} has a lone surrogate, which no name of a file has")
        return path

    def _input(self, name: str, value: bytes | str) -> bytes:
        """Returns what a command is given to read."""
        data = as_bytes(name, value)
        if len(data) > self.spec.limits.transfer:
            msg = f"{name} has {len(data)} bytes, more than Limits.transfer of {self.spec.limits.transfer}"
            raise ValueError(msg)
        return data

    def _require_small(self, what: str, size: int, names: Sequence[str] = ("transfer", "file_size")) -> None:
        """Raises `WorkspaceError` where a content is beyond one of the limits."""
        for name in names:
            limit = getattr(self.spec.limits, name)
            if size > limit:
                raise WorkspaceError(errno.EFBIG, f"{what}: {size} bytes are more than Limits.{name} of {limit}")

    def _run(self, request: dict[str, Any], body: bytes, timeout_s: float) -> tuple[ExecResult, dict[str, Any]]:
        reply, output = self._ask(request, body, timeout_s + _GRACE_S)
        return result_of(reply, output), reply

    def _ask(
        self,
        head: dict[str, Any],
        body: bytes = b"",
        timeout_s: float = _REQUEST_S,
        fds: Sequence[int] = (),
    ) -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns the answer; whatever interrupts it leaves the sandbox broken, never confused."""
        with self._lock:
            wire = self._require_open()
            try:
                with self._reading():
                    wire.send(head, body, fds)
                    reply, content = wire.receive(timeout_s, self._most_for(head["op"]))
                    check_reply(head["op"], reply, content)
            except Late as error:
                self._break(f"its guest did not answer {head['op']!r} within {timeout_s:g} s")
                raise SandboxTimeout(self._why_broken()) from error
            except Failed as error:
                msg = f"{head['op']!r} failed half way: {error}"
                raise SandboxError(msg) from error
            except SandboxLost:
                raise
            except BaseException:
                self._break(f"{head['op']!r} was interrupted")
                raise
            if reply.get("fault") == "lost":
                self._break(reply["message"])
                raise SandboxLost(self._why_broken())
        if reply.get("fault") == "file":
            raise WorkspaceError(reply["errno"] or errno.EIO, reply["message"])
        if "fault" in reply:
            raise SandboxError(reply["message"])
        return reply, content

    def _most_for(self, op: str) -> int:
        """Returns how many bytes an answer may have."""
        limits = self.spec.limits
        if op in {"pack", "hold"}:
            return self._archive_limit
        most = {"exec": 2 * limits.output, "shell_run": 2 * limits.output, "read": limits.transfer, "scan": LISTS}
        return limits.transfer + LISTS if op == "export" else most.get(op, 0)

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        """Turns what a guest that is gone, or sends nonsense, causes into `SandboxLost`."""
        try:
            yield
        except Closed as error:
            self._break(f"its guest died: {error}")
            raise SandboxLost(self._why_broken()) from error

    def _require_usable(self, value: object) -> WorkspaceSnapshot:
        snapshot = _require_snapshot(value)
        if isinstance(snapshot, ProcessSnapshot):
            self._require_own(snapshot)
        return snapshot

    def _break(self, why: str) -> None:
        self._broken = why
        with contextlib.suppress(SandboxError, OSError):
            self._release()

    def _require_open(self) -> Wire:
        if self._wire is None:
            raise SandboxError(self._why_broken())
        return self._wire

    def _why_broken(self) -> str:
        return f"this {type(self).__name__} cannot be used: {self._broken or 'it was never opened'}"

    def _kept(self, archive: bytes) -> WorkspaceSnapshot:
        with self._reading(), sent_by_guest():
            if self.spec.image is not None:  # any program may have written it
                check_archive(archive)
            return WorkspaceSnapshot((archives.add(archive),))

    def _flat(self, snapshot: WorkspaceSnapshot) -> bytes:
        return flatten(snapshot.layers)


def _require_snapshot(value: object) -> WorkspaceSnapshot:
    if not isinstance(value, WorkspaceSnapshot):
        msg = f"restore and changes need a snapshot of a sandbox, got {type(value).__name__}"
        raise SnapshotError(msg)
    return value
