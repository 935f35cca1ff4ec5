"""The `subprocess` back end: no isolation at all. For tests and teaching; it says so on every use.

Commands run as ordinary processes of this user in a temporary folder. They can read and change whatever the user can.
Limits on time, output and file size hold; those on memory, processes and disk do not.
"""

import warnings

from typing_extensions import override

from agentenv.protocols import Capabilities

from .folder import FolderSandbox
from .probing import PROMISES
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["NoIsolationWarning", "SubprocessSandbox", "probe"]

_NONE = "the subprocess back end isolates nothing"


class NoIsolationWarning(UserWarning):
    """A sandbox without isolation was opened."""


def probe() -> Capabilities:
    """Returns what holds: limits on single commands."""
    enforced = frozenset({"time", "output", "file_size"})
    return Capabilities("none", enforced, {name: _NONE for name in PROMISES if name not in enforced}, "subprocess")


class SubprocessSandbox(FolderSandbox):
    """A temporary folder and ordinary processes; see the module."""

    guest = "serve"
    inherits_path = True

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        warnings.warn(
            "the subprocess sandbox isolates nothing: commands run as you, on your files and your network. "
            "Use open_sandbox() for anything you did not write yourself",
            NoIsolationWarning,
            stacklevel=3,
        )
        super().__init__(spec, origin)

    @property
    @override
    def isolation(self) -> Capabilities:
        """Nothing but limits on single commands."""
        return probe()
