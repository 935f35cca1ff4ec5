"""Starts commands. One process is kept ready to become the next: forked and without privileges before it is needed.

Making it ready takes most of the time that starting a command takes, and falls into the time after an answer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from .wire import Closed, Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Command", "Launcher", "PrepareFault", "Started", "check_prepared", "forbid_imports"]

NOT_FOUND, NOT_EXECUTABLE = 127, 126
_HIGH = 100  # above the numbers that a command's pipes take
_MACHINE = {errno.EAGAIN, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # why it, not the command, is at fault
_MISSING = {errno.ENOENT, errno.ENOTDIR}


class Command(NamedTuple):
    """What to run.

    Attributes:
        argv: program and arguments.
        cwd: absolute path of the folder.
        env: the complete environment.
        stdin: what the command reads.
        timeout_s: seconds until it is killed.
        output: bytes kept of each of its two outputs.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    stdin: bytes
    timeout_s: float
    output: int


class PrepareFault(Exception):
    """A command could not be started, for a reason that is not the command's; the message says which."""


class _NoImports:
    """A finder of modules that finds none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> NoReturn:
        """Refuses an import.

        Raises:
            ImportError: always.
        """
        msg = f"the guest needs {name!r}, and its interpreter's files are out of reach by now: import it at the start"
        raise ImportError(msg)


def forbid_imports() -> None:
    """Has every later import of a new module fail, here and in all forked children, on every machine alike.

    Commands are started where the interpreter's own files cannot be seen, and what a standard library imports late
    differs between versions of Python.
    """
    sys.meta_path[:] = [_NoImports()]


class Started(NamedTuple):
    """A command that was started, or a process that waits for the command that it shall become.

    Attributes:
        pid: its number.
        wire: to it, while it waits; it ends when this is closed.
        faults: a pipe that has a message when it could not be started, for `check_prepared`.
        stdin: a file in memory that it reads, unless it is to read nothing.
        out: a pipe that it writes to.
        err: likewise.
    """

    pid: int
    wire: Wire
    faults: int
    stdin: int
    out: int
    err: int

    def close(self) -> None:
        """Closes what leads to its output."""
        os.close(self.out)
        os.close(self.err)


class Launcher:
    """Starts commands. What they read and write is made before they are forked: nothing has to be sent to them.

    Args:
        prepare: called in the child before the program starts; gives up every privilege.
        owner: user and group of what it reads and writes, so that it can open `/dev/stderr`.
        before: called here before one is forked that is to run alone.
    """

    def __init__(
        self,
        prepare: Callable[[], None],
        owner: tuple[int, int] | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._prepare = prepare
        self._before = before
        self._owner = owner
        self._ready: Started | None = None

    def refill(self) -> None:
        """Makes a process ready, unless one is."""
        if self._ready is None:
            self._ready = self._fork_with_pipes()

    def start(self, command: Command) -> Started:
        """Starts a command.

        A program that cannot be executed ends with 126 or 127 and a message, as in a shell.
        """
        if self._ready is not None:
            ready, self._ready = self._ready, None
            if _hand_over(ready, command):
                return ready
            os.close(ready.faults)  # it was killed, together with what ran
            ready.close()
        ready = self._fork_with_pipes()
        _hand_over(ready, command)
        return ready

    def start_with(self, command: Command, fds: Sequence[int]) -> tuple[int, int]:
        """Starts a command whose descriptors 0, 1, 2, ... are `fds`; returns its pid, and the pipe with faults."""
        pid, wire, faults = _fork(self._prepare, fds)
        _send_job(wire, command, reads=True)
        return pid, faults

    def _fork_with_pipes(self) -> Started:
        opened: list[int] = []
        theirs: list[int] = []
        try:
            stdin = _file_in_memory()
            opened.append(stdin)
            for _ in range(2):
                ours, end = os.pipe2(os.O_CLOEXEC)
                opened.append(ours)
                theirs.append(end)
            if self._owner is not None:
                for fd in (stdin, *theirs):
                    os.fchown(fd, *self._owner)
            self._before()
            pid, wire, faults = _fork(self._prepare, (stdin, *theirs))
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        return Started(pid, wire, faults, *opened)


def _file_in_memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stdin")
    return os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC)


def _hand_over(ready: Started, command: Command) -> bool:
    """Tells a ready process what to become; returns whether it was there to hear it."""
    try:
        done = 0
        while done < len(command.stdin):
            done += os.pwrite(ready.stdin, memoryview(command.stdin)[done:], done)
    except OSError:
        ready.wire.close()
        raise
    finally:
        os.close(ready.stdin)
    return _send_job(ready.wire, command, reads=bool(command.stdin))


def _send_job(wire: Wire, command: Command, *, reads: bool) -> bool:
    job = {"argv": list(command.argv), "cwd": command.cwd, "env": dict(command.env), "reads": reads}
    try:
        wire.send(job)
    except Closed:
        return False
    finally:
        wire.close()
    return True


def _fork(prepare: Callable[[], None], fds: Sequence[int]) -> tuple[int, Wire, int]:
    """Forks a process that will have `fds`; returns its pid, the wire to it, and the pipe with faults."""
    ours, theirs = socket.socketpair()
    faults, faults_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        for fd in (ours.detach(), theirs.detach(), faults, faults_end):
            os.close(fd)
        raise
    if not pid:
        ours.close()
        _become(Wire(theirs.fileno(), theirs.fileno()), faults_end, prepare, fds)
    theirs.close()
    os.close(faults_end)
    talk = ours.detach()
    return pid, Wire(talk, talk), faults


def _become(wire: Wire, faults: int, prepare: Callable[[], None], fds: Sequence[int]) -> NoReturn:
    """Prepares this process, waits for the command, and executes it."""
    code = NOT_EXECUTABLE
    faults = fcntl.fcntl(faults, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    try:
        forbid_imports()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        prepare()
        job, _ = wire.receive()
        _place(fds if job["reads"] else (os.open(os.devnull, os.O_RDONLY), *fds[1:]))
        code = _execute(job["argv"], job["cwd"], job["env"])
    except Closed:
        pass  # it is not needed any more
    except BaseException as error:  # noqa: BLE001  whatever it is: nothing of the guest may run on in this child
        os.write(faults, reason_of(error).encode(errors="replace")[:4096])
    finally:
        os._exit(code)


def _execute(argv: list[str], cwd: str, env: Mapping[str, str]) -> int:
    """Becomes a program; returns the exit code, as in a shell, where the program or the folder is what prevents it.

    Raises:
        OSError: the machine prevents it.
    """
    name, code = argv[0], NOT_EXECUTABLE
    try:
        os.chdir(cwd)
        _search_and_execute(name, argv, env)
    except OSError as error:
        if error.errno in _MACHINE:
            raise
        code, why = (NOT_FOUND, "not found") if error.errno == errno.ENOENT else (NOT_EXECUTABLE, error.strerror)
        os.write(2, f"{name}: {why}\n".encode(errors="replace"))
    except ValueError as error:
        os.write(2, f"{name!r} cannot be executed: {error}\n".encode(errors="replace"))
    return code


def _search_and_execute(name: str, argv: list[str], env: Mapping[str, str]) -> None:
    """Executes a program, looked for in `PATH`; `os.execvpe` imports a module for that."""
    if "/" in name:
        os.execve(name, argv, env)
    refused: OSError | None = None
    for folder in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{name}", argv, env)
        except OSError as error:
            if error.errno not in _MISSING and refused is None:
                refused = error
    raise refused or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _place(fds: Sequence[int]) -> None:
    """Makes `fds` the descriptors 0, 1, 2, ..., in whatever order they are now."""
    high = [os.dup(fd) for fd in fds]  # above the numbers that they will take
    for number, fd in enumerate(high):
        os.dup2(fd, number)


def check_prepared(faults: int) -> None:
    """Closes the pipe with the faults of a command that was started.

    Raises:
        PrepareFault: it has a message. The command must have ended, or have been executed.
    """
    os.set_blocking(faults, False)
    try:
        text = os.read(faults, 4096)
    except BlockingIOError:
        text = b""
    finally:
        os.close(faults)
    if text:
        raise PrepareFault(text.decode(errors="replace"))
