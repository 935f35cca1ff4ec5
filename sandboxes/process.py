"""The `process` back end: Landlock, seccomp and resource limits, where there are no namespaces and no containers.

Commands are ordinary processes of this user in a temporary folder, held by what a process can do to itself. That is
less than kernel objects of their own: it has to be asked for, with `require="process"`.
"""

from functools import cache

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .base_files import empty_archive
from .folder import FolderSandbox
from .guest.landlock import landlock_version
from .layers import archives
from .probing import NO_PROCESSES, probe_by_doing
from .shown import require_plain
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["ProcessSandbox", "probe"]

_SCOPED = 6


class ProcessSandbox(FolderSandbox):
    """A temporary folder and processes confined to it; see the module."""

    guest = "process_init"
    inherits_path = False

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        require_plain(tuple(spec.readonly), "process")
        super().__init__(spec, origin)

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced here."""
        return probe()


@cache
def probe() -> Capabilities:
    """Returns what holds on this machine, found by attacking a sandbox.

    Raises:
        SandboxError: there is no Landlock.
    """
    version = landlock_version()
    if version == 0:
        msg = "this kernel has no Landlock: it needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and `landlock` in lsm="
        raise SandboxError(msg)
    given = {
        "memory": "only that of each process is limited",
        "process_count": "the kernel counts the processes of a user, not those of a sandbox",
        "disk": "only the size of each file is limited",
        "inodes": "the number of files is not limited",
        "constant_snapshot": "a snapshot copies the workspace",
        "process_snapshot": NO_PROCESSES,
    }
    if version < _SCOPED:
        given["processes"] = f"Landlock {version} does not confine signals; version {_SCOPED} (Linux 6.12) does"

    def make(spec: SandboxSpec) -> ProcessSandbox:
        return ProcessSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)))

    return probe_by_doing("process", "process", make, given)
