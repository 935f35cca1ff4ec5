"""What the back ends without namespaces share: a temporary folder, and a guest that is an ordinary process."""

import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from agentenv.errors import SandboxError

from .cgroups import owner_lives, owner_tag
from .guest.place import remove_path
from .guest.wire import Closed, Late, Wire
from .guest_process import end_guest, start_guest
from .guest_sandbox import GuestSandbox
from .guest_settings import settings_of
from .once import finalize_here
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["FolderSandbox", "new_folder", "sweep_folders"]

_START_S = 20.0
_PREFIX = "agentenv-folder-"


class FolderSandbox(GuestSandbox):
    """A sandbox in a temporary folder.

    Set these in ALL subclasses:
        guest: the module of `guest` whose `main` serves it.
        inherits_path: whether commands are looked for where this process looks for them.
    """

    guest: ClassVar[str]
    inherits_path: ClassVar[bool]

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        super().__init__(spec, origin)
        self._begin(origin)

    @override
    def _begin(self, origin: WorkspaceSnapshot) -> None:
        sweep_folders()
        self._folder = new_folder()
        self._guest: subprocess.Popen[bytes] | None = None
        try:
            self._start()
            self._put(origin)
        except BaseException:
            self._release()
            remove_path(str(self._folder))
            raise

    def _start(self) -> None:
        for name in ("workspace", "tmp"):
            (self._folder / name).mkdir()
        settings = settings_of(self.spec, workspace=str(self._folder / "workspace"), tmp=str(self._folder / "tmp"))
        settings["readonly"] = self.spec.readonly
        settings["agent"] = self._agent()
        if self.inherits_path and "PATH" not in self.spec.env:
            settings["env"]["PATH"] = os.environ.get("PATH") or settings["env"]["PATH"]
        ours, theirs = socket.socketpair()
        with theirs:
            self._guest = start_guest(self.guest, (theirs.fileno(),), settings)
        fd = ours.detach()
        self._wire = Wire(fd, fd)
        self._finalizer = finalize_here(self, _end, self._guest, fd, self._folder)
        try:
            reply, _ = self._wire.receive(_START_S)
        except (Closed, Late) as error:
            msg = f"the guest of a {type(self).__name__} did not start: {error}"
            raise SandboxError(msg) from error
        if "fault" in reply:
            raise SandboxError(reply["message"])
        self._apart = bool(reply.get("apart"))

    def _agent(self) -> int | None:
        """Returns the number of the user that commands shall be; `None` where they stay this one."""
        return None

    @override
    def _free(self) -> None:
        assert self._guest is not None
        _end(self._guest, None, self._folder)


def new_folder() -> Path:
    """Makes a temporary folder that is removed by `sweep_folders` of a later process if this one is killed."""
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{owner_tag()}-"))


def sweep_folders() -> list[str]:
    """Removes the folders of owners that no longer live; returns what was removed."""
    removed: list[str] = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not owner_lives(folder.name[len(_PREFIX) :].rpartition("-")[0]):
            remove_path(str(folder))
            removed.append(f"folder {folder}")
    return removed


def _end(guest: "subprocess.Popen[bytes]", fd: int | None, folder: Path) -> None:
    if fd is not None:
        os.close(fd)
    end_guest(guest)
    remove_path(str(folder))
