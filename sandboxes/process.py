"""The `process` back end: Landlock, seccomp and resource limits, where there are no namespaces and no containers.

Commands are ordinary processes in a temporary folder, held by what a process can do to itself: of this user, or where
this is root, of one that nobody else is. That is less than kernel objects of their own: it has to be asked for, with
`require="process"`.
"""

import os
from functools import cache
from typing import Self

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .base_files import empty_archive
from .folder import FolderSandbox
from .guest.landlock import landlock_version
from .guest_settings import new_agent
from .layers import archives
from .probing import probe_by_doing
from .shown import require_plain
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["ProcessSandbox", "probe"]


class ProcessSandbox(FolderSandbox):
    """A temporary folder and processes confined to it; see the module.

    Args:
        spec: what it shall be.
        origin: the state at opening.
        apart: whether commands shall be a user of their own, where that can be.
    """

    guest = "process_init"
    inherits_path = False

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot, *, apart: bool = True) -> None:
        require_plain(tuple(spec.readonly), "process")
        self._may_be_apart = apart
        super().__init__(spec, origin)

    @override
    def _open(self, origin: WorkspaceSnapshot) -> Self:
        return type(self)(self.spec, origin, apart=self._may_be_apart)

    @override
    def _agent(self) -> int | None:
        return new_agent() if self._may_be_apart and os.getuid() == 0 else None

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced here."""
        return probe(apart=self._apart)


@cache
def probe(*, apart: bool = True) -> Capabilities:
    """Returns what holds on this machine, found by attacking a sandbox.

    Args:
        apart: whether its commands are a user of their own, where that can be.

    Raises:
        SandboxError: there is no Landlock.
    """
    if landlock_version() == 0:
        msg = "this kernel has no Landlock: it needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and `landlock` in lsm="
        raise SandboxError(msg)

    def make(spec: SandboxSpec) -> ProcessSandbox:
        return ProcessSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)), apart=apart)

    return probe_by_doing("process", "process", make)
