"""The `subprocess` back end: no isolation at all. For tests and teaching; it says so on every use.

Commands run as ordinary processes of this user in a temporary folder. They can read and change whatever the user can.
Limits on time, output and file size hold; those on memory, processes and disk do not.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
import weakref
from pathlib import Path

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .cgroups import owner_lives, owner_tag
from .guest.wire import Closed, Late, Wire
from .guest_process import guest_argv
from .guest_sandbox import GuestSandbox, settings_of
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["NoIsolationWarning", "SubprocessSandbox", "probe", "sweep_folders"]

_START_S = 20.0
_PREFIX = "agentenv-subprocess-"
_NONE = "the subprocess back end isolates nothing"


class NoIsolationWarning(UserWarning):
    """A sandbox without isolation was opened."""


def probe() -> Capabilities:
    """Returns what holds: limits on single commands."""
    names = ("files", "network", "processes", "syscalls", "memory", "process_count", "disk", "inodes")
    missing: dict[str, str] = dict.fromkeys(names, _NONE)
    missing["process_snapshot"] = "only the gvisor back end can take running processes into a snapshot"
    return Capabilities("none", frozenset({"time", "output", "file_size"}), missing, "subprocess")


class SubprocessSandbox(GuestSandbox):
    """A temporary folder and ordinary processes; see the module."""

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        super().__init__(spec, origin)
        warnings.warn(
            "the subprocess sandbox isolates nothing: commands run as you, on your files and your network. "
            "Use open_sandbox() for anything you did not write yourself",
            NoIsolationWarning,
            stacklevel=3,
        )
        sweep_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{owner_tag()}-"))
        self._guest: subprocess.Popen[bytes] | None = None
        try:
            self._start()
            self._put(origin)
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for name in ("workspace", "tmp"):
            (self._folder / name).mkdir()
        settings = settings_of(self.spec, workspace=str(self._folder / "workspace"), tmp=str(self._folder / "tmp"))
        settings["env"]["PATH"] = self.spec.env.get("PATH") or os.environ.get("PATH") or settings["env"]["PATH"]
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [*guest_argv("agent"), str(theirs.fileno()), json.dumps(settings)]
            self._guest = subprocess.Popen(
                argv, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, start_new_session=True
            )
        fd = ours.detach()
        self._wire = Wire(fd, fd)
        self._finalizer = weakref.finalize(self, _end, self._guest, fd, self._folder)
        try:
            self._wire.receive(_START_S)
        except (Closed, Late) as error:
            msg = f"the guest of a subprocess sandbox did not start: {error}"
            raise SandboxError(msg) from error

    @property
    @override
    def isolation(self) -> Capabilities:
        """Nothing but limits on single commands."""
        return probe()

    @override
    def _free(self) -> None:
        assert self._guest is not None
        _end(self._guest, None, self._folder)


def sweep_folders() -> list[str]:
    """Removes the folders of owners that no longer live; returns what was removed."""
    removed: list[str] = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not owner_lives(folder.name[len(_PREFIX) :].rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(f"folder {folder}")
    return removed


def _end(guest: "subprocess.Popen[bytes]", fd: int | None, folder: Path) -> None:
    if fd is not None:
        os.close(fd)
    try:
        guest.wait(timeout=5)
    except subprocess.TimeoutExpired:
        guest.kill()
        guest.wait()
    shutil.rmtree(folder, ignore_errors=True)
