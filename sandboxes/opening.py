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
    "remote": Backend("remote", "RemoteSandbox", "process"),
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
        backend: a name of `BACKENDS`, or `"auto"` for the first that works and promises enough; with `image`, `runtime`
            or `engine` that can only be docker, with `remote` only remote.
        require: the weakest isolation level to accept, one of `LEVELS`.
        **fields: of `SandboxSpec`, in place of the spec's: `open_sandbox(backend="docker", runtime="runsc")`.

    Raises:
        SandboxError: no back end that works promises this much; the message has the table of what was found.
        SnapshotError: the base has running processes, and `backend` is not the one that took them.
        ValueError: an unknown back end or level, or a field that this back end would ignore.
        TypeError: an unknown field, or a spec that is none.
    """
    if backend != "auto" and backend not in BACKENDS:
        msg = f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, got {backend!r}"
        raise ValueError(msg)
    if require not in LEVELS:
        msg = f"require must be one of {', '.join(map(repr, LEVELS))}, got {require!r}"
        raise ValueError(msg)
    if not isinstance(spec, SandboxSpec | None):
        msg = f"spec must be a SandboxSpec, got {type(spec).__name__}: for files, open_sandbox(base={{path: content}})"
        raise TypeError(msg)
    spec = replace(spec or SandboxSpec(), **fields)
    only = _only_backend(spec)
    if backend != "auto":
        for name, why in only.items():
            if backend != name:
                msg = f"{why}, got {backend!r}"
                raise ValueError(msg)
        return _open_one(backend, require, spec)
    origin = origin_of(spec)
    refused: list[str] = []
    for name in BACKENDS:
        if why := next((why for other, why in only.items() if other != name), ""):
            refused.append(f"  {name}: {why}")
            continue
        try:
            return _open_at(name, require, spec, origin)
        except (SnapshotError, SandboxError, ImportError) as error:  # SnapshotError: another back end's processes
            refused.append(f"  {name}: {error}")
    msg = "\n".join((f"no sandbox that promises {require!r} could be opened:", *refused, _ADVICE))
    raise SandboxError(msg)


def _open_one(backend: str, require: str, spec: SandboxSpec) -> GuestSandbox:
    """Opens a sandbox of a back end that was asked for by name."""
    origin = origin_of(spec)
    try:
        return _open_at(backend, require, spec, origin)
    except (SandboxError, ImportError) as error:
        msg = f"the {backend} back end cannot open this sandbox: {error}\n{_ADVICE}"
        raise SandboxError(msg) from error


def _open_at(backend: str, require: str, spec: SandboxSpec, origin: WorkspaceSnapshot) -> GuestSandbox:
    level = BACKENDS[backend].level
    if LEVELS.index(level) < LEVELS.index(require):
        msg = f"promises only {level!r}, less than require={require!r}"
        raise SandboxError(msg)
    sandbox: GuestSandbox = getattr(_module(backend), BACKENDS[backend].type)(spec, origin)
    try:
        sandbox.require_level(require)
    except SandboxError:
        sandbox.close()
        raise
    return sandbox


def _only_backend(spec: SandboxSpec) -> dict[str, str]:
    """Returns the back ends that fields are for, each with the reason; none where any can be meant."""
    owners = {"image": "docker", "runtime": "docker", "engine": "docker", "remote": "remote"}
    given = [(name, owner) for name, owner in reversed(owners.items()) if getattr(spec, name) is not None]
    return {owner: f"{name}={getattr(spec, name)!r} needs backend={owner!r}" for name, owner in given}


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
