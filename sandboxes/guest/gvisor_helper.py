"""The helper: PID 1 of a PID namespace in which all gVisor sandboxes of one parent live; when it ends, they all end.

Its mount namespace has the root that sandboxes share, and a file system in memory for images of running processes,
which are gone with it too. A sandbox is one `runsc` in a PID and mount namespace of its own below: it is PID 1 there,
so killing it ends its kernel, its file server and all else, and frees its files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from . import linux
from .helping import answer_parent
from .launch import forbid_imports
from .root import STAGE, build_root, seal_root
from .serve import close_on_exec
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["IMAGES", "GvisorHelper", "main"]

IMAGES = STAGE + "/images"
_BUNDLE = STAGE + "/bundle"
_NAME = "sandbox"
_FAILED = 126


class GvisorHelper:
    """Starts sandboxes and takes images of them.

    Args:
        wire: to the parent.
        runsc: path of the program.
        flags: what it is given every time.
    """

    def __init__(self, wire: Wire, runsc: str, flags: Sequence[str]) -> None:
        self._wire = wire
        self._command = [runsc, "--root", _BUNDLE + "/state", *flags]
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self, parent: int) -> None:
        """Answers requests until the parent, a process known by descriptor, is gone."""
        answer_parent(self._wire, parent, self._answer)

    def _answer(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes, list[int]]:
        fds: list[int] = head.pop("fds")
        try:
            return getattr(self, "do_" + head.pop("op"))(body, fds, **head)
        except Exception as error:  # noqa: BLE001  whatever it is: other sandboxes need this process
            return {"fault": "helper", "message": reason_of(error)}, b"", []
        finally:
            for fd in fds:
                os.close(fd)

    def do_start(self, body: bytes, fds: list[int], image: str) -> tuple[dict[str, Any], bytes, list[int]]:
        """Starts a sandbox; returns a descriptor of its first process.

        Args:
            body: its configuration.
            fds: its input, its output, where it complains, and the groups to join (their open `cgroup.procs`).
            image: folder of the image to start from; a fresh start without one.
        """
        verb = ["restore", "--image-path", image] if image else ["run"]
        argv = [*self._command, *verb, "--bundle", _BUNDLE, _NAME]

        def become() -> NoReturn:
            linux.unshare(linux.NEWNS)
            linux.mount("proc", "/proc", "proc", linux.NOSUID | linux.NODEV | linux.NOEXEC)
            linux.mount("tmpfs", _BUNDLE, "tmpfs", linux.NOSUID | linux.NODEV, "mode=700,size=64m")
            with open(_BUNDLE + "/config.json", "wb") as file:
                file.write(body)
            for group in fds[3:]:
                os.write(group, b"0")  # whoever writes it
            _run(argv, fds[:3])

        linux.unshare(linux.NEWPID)
        try:
            pid = _fork(become, fds[2])
        finally:
            linux.setns(self._own, linux.NEWPID)
        return {}, b"", [os.pidfd_open(pid)]

    def do_checkpoint(self, body: bytes, fds: list[int], image: str) -> tuple[dict[str, Any], bytes, list[int]]:
        """Begins to take an image of a sandbox, which goes on after it.

        Args:
            body: nothing.
            fds: the sandbox's first process; where to report complaints and, on a last line, the exit code.
            image: the folder for it, which is made.
        """
        sandbox, report = fds
        argv = [*self._command, "checkpoint", "--leave-running", "--compression=none", "--image-path", image, _NAME]

        def become() -> NoReturn:
            linux.setns(sandbox, linux.NEWNS | linux.NEWPID)
            null = os.open(os.devnull, os.O_RDWR)
            pid = _fork(lambda: _run(argv, (null, report, report)), report)
            _, status = os.waitpid(pid, 0)
            os.write(report, b"\n%d" % os.waitstatus_to_exitcode(status))
            os._exit(0)

        _fork(become, report)
        return {}, b"", []


def _fork(become: Callable[[], NoReturn], complaints: int) -> int:
    """Forks a process that becomes something else; where that fails, it says why and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        become()
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        os.write(complaints, reason_of(error).encode())
    finally:
        os._exit(_FAILED)


def _run(argv: Sequence[str], fds: Sequence[int]) -> NoReturn:
    os.setsid()
    for number, fd in enumerate([os.dup(fd) for fd in fds]):
        os.dup2(fd, number)
    os.execve(argv[0], list(argv), {"PATH": os.defpath})


def _be_helper(wire: Wire, parent: int, settings: dict[str, Any]) -> None:
    try:
        linux.die_with_parent()
        linux.make_private()
        build_root(settings["readonly"])
        seal_root()
        linux.mount("proc", "/proc", "proc", linux.NOSUID | linux.NODEV | linux.NOEXEC)
        os.mkdir(_BUNDLE)
        os.mkdir(IMAGES)
        linux.mount("tmpfs", IMAGES, "tmpfs", linux.NOSUID | linux.NODEV, "mode=700,size=100%")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended needs no reaping
        images = os.open(IMAGES, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        helper = GvisorHelper(wire, settings["runsc"], settings["flags"])
        forbid_imports()
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        wire.send({"fault": "helper", "message": reason_of(error)})
        return
    wire.send({"ready": True}, b"", [images])
    os.close(images)
    helper.serve(parent)


def main() -> None:
    """Runs a helper: `python -c ... CONTROL_FD PARENT_FD SETTINGS`."""
    control, parent = int(sys.argv[1]), int(sys.argv[2])
    close_on_exec()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = Wire(control, control)
    try:
        linux.unshare(linux.NEWNS | linux.NEWPID)
    except OSError as error:
        wire.send({"fault": "helper", "message": f"{error.filename or 'setup'}: {error.strerror}"})
        return
    pid = os.fork()
    if pid == 0:
        try:
            _be_helper(wire, parent, json.loads(sys.argv[3]))
        finally:
            os._exit(0)
    wire.close()
    os.waitpid(pid, 0)
