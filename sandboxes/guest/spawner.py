"""The spawner: a small process with one thread that forks every sandbox, so that its parent need not fork."""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from . import linux, namespace_init
from .launch import forbid_imports
from .wire import Closed, Lost, Wire, reason_of

__all__ = ["serve_spawns"]


def serve_spawns(link: int) -> None:
    """Answers requests `{"settings"}`, each with a wire and what `enter` takes, until the parent is gone.

    An answer brings a descriptor of the sandbox's first process.
    """
    _close_all_but(link)
    forbid_imports()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended sandboxes need no reaping
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    wire = Wire(link, link)
    while True:
        try:
            head, _ = wire.receive()
            reply, fds = _spawn(head, own, link)
        except Closed:
            return
        except Lost as error:
            reply, fds = {"fault": "lost", "message": str(error)}, []
        try:
            wire.send(reply, b"", fds)
        except Closed:
            return
        for fd in fds:
            os.close(fd)


def _spawn(head: dict[str, Any], own: int, link: int) -> tuple[dict[str, Any], list[int]]:
    fds: list[int] = head["fds"]
    try:
        linux.unshare(linux.NEWPID)
        pid = os.fork()
        if pid == 0:
            _be_sandbox(head["settings"], fds, (own, link))
        linux.setns(own, linux.NEWPID)
        return {}, [os.pidfd_open(pid)]
    except Exception as error:  # noqa: BLE001  whatever it is: other sandboxes need this process
        return {"fault": "spawner", "message": reason_of(error)}, []
    finally:
        for fd in fds:
            os.close(fd)


def _be_sandbox(settings: dict[str, Any], fds: list[int], others: tuple[int, ...]) -> NoReturn:
    try:
        for fd in others:
            os.close(fd)
        talk, *given = fds
        namespace_init.enter(Wire(talk, talk), settings, given)
    finally:
        os._exit(0)


def _close_all_but(link: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != link:
            try:
                os.close(int(name))
            except OSError:
                pass
