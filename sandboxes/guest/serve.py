"""The guest: serves its parent's requests beside the commands it runs. PID 1 of a sandbox where there are namespaces.

One request, one answer. A request names an `op`; an answer is either its result or
`{"fault": kind, "message", "errno"}` with kind `file` (a path of the workspace: the agent's business), `guest` (it
cannot be done) or `lost` (the guest does not know how to go on, and ends).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import files, place, trees
from .content import TreeFault
from .launch import Command, Launcher, PrepareFault
from .policy import Plain
from .run import Outcome, ReapedChildren, run
from .shell import Shell
from .wire import Body, Closed, Lost, Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    Reply = tuple[dict[str, Any], bytes | Iterator[bytes]]

__all__ = ["Guest", "close_on_exec", "main"]


_USUAL_HOME = "/workspace"
_FILE_OPS = ("read", "write")
_STREAMED = ("unpack",)
_REFILLING = ("exec", "attach")


class PathFault(OSError):
    """A path of the workspace that cannot be used."""


class GuestFault(Exception):
    """A request that cannot be served."""


class Guest:
    """Serves one sandbox.

    Args:
        wire: to the parent.
        settings: `workspace` and `tmp` (absolute paths as commands see them), `limits`, `env`.
        policy: what holds around a command.
    """

    def __init__(self, wire: Wire, settings: Mapping[str, Any], policy: Plain) -> None:
        self.wire = wire
        self.settings = settings
        self.policy = policy
        self.children = ReapedChildren(wire.reader)
        self.launcher = Launcher(policy.prepare, policy.owner if policy.hides_descriptors else None, policy.before_fork)
        self.shell: Shell | None = None
        self.commands_ran = False
        self.home: str = settings["workspace"]

    def serve(self) -> None:
        """Answers requests until the parent is gone."""
        while True:
            try:
                head, body = self.wire.receive_head()
                op = head["op"]
                reply, content = self._answer(head, body)
                self.wire.send(reply, content)
            except Closed:
                return
            if reply.get("fault") == "lost":
                return
            self.commands_ran = self.commands_ran or op in {"exec", "shell_open"}
            if op in _REFILLING and self.shell is None:
                with contextlib.suppress(OSError):  # if it cannot be now, the next command will say so
                    self.launcher.refill()

    def _answer(self, head: dict[str, Any], body: Body) -> Reply:
        """Does what a request asks; its body is read to the end, whatever comes of it."""
        op = head.pop("op")
        try:
            if op in _STREAMED:
                return getattr(self, "do_" + op)(body=body, **head)
            content = body.all()
            self.wire.receive_fds(head, None)
            return getattr(self, "do_" + op)(body=content, **head)
        except Lost as error:
            return {"fault": "guest", "message": str(error)}, b""
        except OSError as error:
            kind = "file" if op in _FILE_OPS or isinstance(error, PathFault) else "guest"
            text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
            return {"fault": kind, "message": text, "errno": error.errno}, b""
        except (TreeFault, GuestFault, PrepareFault) as error:
            return {"fault": "guest", "message": str(error)}, b""
        except Closed:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
            return {"fault": "lost", "message": f"its guest failed: {reason_of(error)}"}, b""
        finally:
            body.skip()

    # ------------------------------------------------------------------ commands

    def command(self, request: Mapping[str, Any], stdin: bytes) -> Command:
        """Returns what a request asks to run."""
        env: dict[str, str] = {**self.settings["env"], **request.get("env", {})}
        if self.home != _USUAL_HOME:
            env = {name: ":".join(map(self._own_path, value.split(":"))) for name, value in env.items()}
        cwd = self._folder_for(request.get("cwd") or ".")
        return Command(request["argv"], cwd, env, stdin, request["timeout_s"], self.settings["limits"]["output"])

    def _own_path(self, path: str) -> str:
        """Returns where a path of workspace or tmp, as other back ends have them, is in here."""
        if not _is_below(path, os.path.dirname(self.home)):
            for usual, actual in ((_USUAL_HOME, self.home), ("/tmp", self.settings["tmp"])):
                if _is_below(path, usual):
                    return actual + path[len(usual) :]
        return path

    def _folder_for(self, cwd: str) -> str:
        """Returns the absolute path of a working folder, after checking that it is one of the workspace."""
        try:
            with _Folder(self.home) as workspace:
                folder, name = files.locate(workspace, cwd, self.home)
                try:
                    os.close(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder))
                finally:
                    os.close(folder)
        except OSError as error:
            raise PathFault(error.errno, error.strerror, cwd) from error
        return cwd if cwd.startswith("/") else f"{self.home}/{cwd}"

    def do_exec(self, body: bytes, **request: Any) -> tuple[dict[str, Any], bytes]:
        """Runs a command."""
        if self.shell is not None:
            msg = "a shell is open in this sandbox: run the command in it, or close the shell first"
            raise GuestFault(msg)
        command = self.command(request, body)
        self.policy.before_command()
        self.policy.ran_out_of_memory()  # what was killed earlier was no command
        outcome = run(
            command,
            self.children,
            self.launcher,
            lambda: self.policy.kill_all(self.children),
            self.policy.over_memory,
        )
        self.policy.after_command()
        return _reply(outcome._replace(oom=outcome.oom or self.policy.ran_out_of_memory()))

    def do_shell_open(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Starts the shell."""
        if self.shell is not None:
            msg = "a shell is open in this sandbox already"
            raise GuestFault(msg)
        command = self.command({"argv": ["bash"], "timeout_s": 0}, b"")
        self.policy.before_command()
        self.shell = Shell(command, self.children, self.launcher, self.policy)
        return {}, b""

    def do_shell_run(self, body: bytes, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Runs a command in the shell."""
        if self.shell is None:
            msg = "this shell has ended: open another with sandbox.shell()"
            raise GuestFault(msg)
        self.policy.ran_out_of_memory()
        outcome = self.shell.run(body, timeout_s)
        outcome = outcome._replace(oom=outcome.oom or self.policy.ran_out_of_memory())
        alive = self.shell.alive
        if not alive:
            self.do_shell_close(b"")
        reply, content = _reply(outcome)
        return {**reply, "alive": alive}, content

    def do_shell_close(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Ends the shell and all that runs."""
        if self.shell is not None:
            self.shell.close()
            self.shell = None
        self.policy.kill_all(self.children)
        self.children.forget()
        self.policy.after_command()
        return {}, b""

    def do_stop(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Stops what runs, for a copy of the files; returns whether anything can run."""
        if self.shell is not None:
            self.policy.stop_all()
        return {"live": self.shell is not None}, b""

    def do_continue(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Lets it go on."""
        self.policy.continue_all()
        return {}, b""

    # ------------------------------------------------------------------ files

    def do_read(self, body: bytes, path: str, limit: int) -> tuple[dict[str, Any], bytes]:
        """Returns a file."""
        with _Folder(self.home) as workspace:
            return {}, files.read_file(workspace, path, self.home, limit)

    def do_write(self, body: bytes, path: str, mode: int | None) -> tuple[dict[str, Any], bytes]:
        """Writes a file."""
        with _Folder(self.home) as workspace:
            files.write_file(workspace, path, self.home, body, mode, self.policy.owner)
        return {}, b""

    def do_export(self, body: bytes, allow: list[str], limit: int) -> tuple[dict[str, Any], bytes]:
        """Returns an archive of the regular files that match."""
        with self._still(), _Folder(self.home) as workspace:
            roots = {"workspace": workspace}
            found = trees.scan(roots, force=True)
            chosen = [entry._replace(value="") for entry in found if _allowed(entry, allow)]
            total = sum(entry.size for entry in chosen)
            if total > limit:
                msg = f"the files to export have {total} bytes, more than the limit of {limit}"
                raise PathFault(errno.EFBIG, msg)
            return {}, trees.assemble(chosen, trees.contents(roots, found, {e.path for e in chosen}, force=True))

    def do_scan(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Returns the entries of workspace and tmp, with digests."""
        with self._still(), _Roots(self.settings) as roots:
            return {}, json.dumps(trees.scan(roots, digests=True, force=True)).encode()

    def do_pack(self, body: bytes) -> Reply:
        """Returns an archive of workspace and tmp, piece by piece: it may not fit into memory."""
        return {}, self._packed()

    def _packed(self) -> Iterator[bytes]:
        with self._still():
            yield from self.pack_roots()

    @contextlib.contextmanager
    def _still(self) -> Generator[None]:
        """Stops what runs meanwhile."""
        live = self.do_stop(b"")[0]["live"]
        try:
            yield
        finally:
            if live:
                self.policy.continue_all()

    def pack_roots(self) -> Iterator[bytes]:
        """Yields an archive of workspace and tmp, which nothing must write to meanwhile."""
        with _Roots(self.settings) as roots:
            yield from trees.pack(roots, force=True)

    def do_unpack(self, body: Body) -> Reply:
        """Ends what runs and replaces workspace and tmp by an archive; says so where only a new guest will do."""
        self.do_shell_close(b"")
        with _Roots(self.settings) as roots:
            for folder in roots.values():
                place.clear(folder)
            if self.policy.is_stale():
                return {"stale": True}, b""
            trees.unpack(body.read, roots, owner=self.policy.owner)
        return {"stale": False}, b""


def _is_below(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder}/")


def _reply(outcome: Outcome) -> tuple[dict[str, Any], bytes]:
    fields = outcome._asdict()
    stdout, stderr = fields.pop("stdout"), fields.pop("stderr")
    return {**fields, "split": len(stdout)}, stdout + stderr


def _allowed(entry: trees.Entry, allow: list[str]) -> bool:
    root, _, path = entry.path.partition("/")
    return entry.kind == "file" and root == "workspace" and any(fnmatchcase(path, pattern) for pattern in allow)


class _Folder:
    """An open folder, for a `with` block."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = _open_root(self._path)
        return self._fd

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


def _open_root(path: str) -> int:
    """Opens workspace or tmp; one that a command closed to its owner, this guest, is opened to it for good."""
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        os.chmod(path, 0o700)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


class _Roots:
    """The open workspace and tmp, for a `with` block."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def __enter__(self) -> dict[str, int]:
        self._fds = {name: _open_root(self._settings[name]) for name in ("tmp", "workspace")}
        return self._fds

    def __exit__(self, *error: object) -> None:
        for fd in self._fds.values():
            os.close(fd)


def close_on_exec() -> None:
    """Keeps every descriptor but 0, 1 and 2 from the programs that the guest starts."""
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            try:
                fcntl.fcntl(int(name), fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            except OSError:
                pass  # the descriptor of the listing itself


def main() -> None:
    """Runs a guest without isolation: `python -c ... FD SETTINGS`."""
    close_on_exec()
    fd, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    guest = Guest(Wire(fd, fd), settings, Plain(settings))
    guest.wire.send({"ready": os.getpid()})
    guest.serve()
    guest.do_shell_close(b"")
