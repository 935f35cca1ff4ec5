"""One way to get a sandbox: `open_sandbox`, which never gives less isolation than was asked for."""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentenv.errors import SandboxError, SnapshotError
from agentenv.protocols import Capabilities

from .base_files import archive_of_files, archive_of_folder, empty_archive
from .guest_sandbox import GuestSandbox
from .layers import archives
from .snapshots import WorkspaceSnapshot
from .spec import LEVELS, SandboxSpec

__all__ = ["BACKENDS", "Backend", "Report", "open_sandbox", "origin_of", "probe_backends"]


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a back end is found.

    Attributes:
        module: inside `agentenv.sandboxes`; has a function `probe` that returns `Capabilities` or raises `SandboxError`
            with the reason and what to install.
        type: the class in it.
        level: the isolation level it promises.
    """

    module: str
    type: str
    level: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one back end can do on this machine.

    Attributes:
        backend: its name.
        level: the isolation level it promises.
        capabilities: what was found to hold; `None` where it does not work.
        reason: why it does not work, and the remedy.
    """

    backend: str
    level: str
    capabilities: Capabilities | None
    reason: str = ""


BACKENDS: Mapping[str, Backend] = {
    "namespace": Backend("namespace", "NamespaceSandbox", "namespace"),
    "docker": Backend("docker", "DockerSandbox", "container"),
    "gvisor": Backend("gvisor", "GvisorSandbox", "kernel"),
    "process": Backend("process", "ProcessSandbox", "process"),
    "subprocess": Backend("subprocess", "SubprocessSandbox", "none"),
}
"""The back ends in the order in which `"auto"` tries them."""

_ADVICE = "`agentenv sandbox probe` shows what is missing; a weaker level has to be asked for with require="


def open_sandbox(
    spec: SandboxSpec | None = None, *, backend: str = "auto", require: str = "namespace", **fields: Any
) -> GuestSandbox:
    """Opens a sandbox.

    Args:
        spec: what it shall be; an empty workspace with the default limits without one.
        backend: a name of `BACKENDS`, or `"auto"` for the first that works and promises enough.
        require: the weakest isolation level to accept, one of `LEVELS`.
        **fields: of `SandboxSpec`, in place of the spec's: `open_sandbox(backend="docker", runtime="runsc")`.

    Raises:
        SandboxError: no back end that works promises this much; the message has the table of what was found.
        SnapshotError: the base has running processes, and `backend` is not the one that took them.
        ValueError: an unknown back end or level.
        TypeError: an unknown field.
    """
    if backend != "auto" and backend not in BACKENDS:
        msg = f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {backend!r}"
        raise ValueError(msg)
    if require not in LEVELS:
        msg = f"require must be one of {', '.join(map(repr, LEVELS))}, got {require!r}"
        raise ValueError(msg)
    spec = replace(spec or SandboxSpec(), **fields)
    origin = origin_of(spec)
    names = BACKENDS if backend == "auto" else (backend,)
    refused: list[str] = []
    for name in names:
        if LEVELS.index(BACKENDS[name].level) < LEVELS.index(require):
            refused.append(f"  {name}: promises only {BACKENDS[name].level!r}")
            continue
        try:
            return getattr(_module(name), BACKENDS[name].type)(spec, origin)
        except SnapshotError as error:  # a base with running processes, which another back end took
            if backend != "auto":
                raise
            refused.append(f"  {name}: {error}")
        except (SandboxError, ImportError) as error:
            refused.append(f"  {name}: {error}")
    msg = "\n".join((f"no sandbox that promises {require!r} could be opened:", *refused, _ADVICE))
    raise SandboxError(msg)


def origin_of(spec: SandboxSpec) -> WorkspaceSnapshot:
    """Returns the state that a spec starts from."""
    base = spec.base
    if isinstance(base, WorkspaceSnapshot):
        return base
    if base is None:
        archive = empty_archive()
    elif isinstance(base, str | os.PathLike):
        archive = archive_of_folder(base)
    else:
        archive = archive_of_files(base)
    return WorkspaceSnapshot((archives.add(archive),))


def probe_backends() -> list[Report]:
    """Returns what every back end can do on this machine, found by trying it."""
    return [_report(name) for name in BACKENDS]


def _module(name: str) -> Any:
    return importlib.import_module(f"agentenv.sandboxes.{BACKENDS[name].module}")


def _report(name: str) -> Report:
    level = BACKENDS[name].level
    try:
        capabilities: Capabilities = _module(name).probe()
    except (SandboxError, ImportError) as error:
        return Report(name, level, None, str(error))
    return Report(name, level, capabilities)
