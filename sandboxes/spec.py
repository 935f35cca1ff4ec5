"""What a sandbox shall be: its files at the start, its limits, and how strong its isolation has to be."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .arguments import checked_env, checked_timeout
from .remote_machines import RemoteService
from .snapshots import WorkspaceSnapshot

__all__ = ["LEVELS", "Limits", "SandboxSpec"]

LEVELS = ("none", "process", "namespace", "container", "kernel")
"""Isolation levels, from the weakest to the strongest. A level says what is promised, not which tool does it."""

_MIB = 1 << 20
_OWN = {(), ("tmp",), ("workspace",), ("proc",), ("dev",), ("run",)}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. Reaching a limit is reported in `ExecResult`, or is an error inside the command.

    Attributes:
        time_s: seconds on the wall clock for a command that is given no `timeout_s`.
        memory: bytes of all processes together.
        processes: processes and threads at once.
        disk: bytes of files on top of those at the start.
        files: files and folders on top of those at the start.
        file_size: bytes of one file.
        output: bytes kept of each of a command's two outputs.
        transfer: bytes that one `read` or `export` returns at most, and that one `write`, `upload` or `stdin` takes.
    """

    time_s: float = 60.0
    memory: int = 512 * _MIB
    processes: int = 128
    disk: int = 256 * _MIB
    files: int = 20_000
    file_size: int = 128 * _MIB
    output: int = 1 * _MIB
    transfer: int = 64 * _MIB

    def __post_init__(self) -> None:
        checked_timeout("Limits.time_s", self.time_s)
        for name in list(self.__slots__)[1:]:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                msg = f"Limits.{name} must be an int, got {value!r} ({type(value).__name__})"
                raise TypeError(msg)
            if not value > 0:
                msg = f"Limits.{name} must be positive, got {value!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Describes a sandbox.

    Attributes:
        base: the files at the start: a folder, a mapping from paths to contents, a snapshot, or nothing.
        limits: what it may use.
        env: environment variables of every command, besides `BASE_ENV` (`PATH`, `HOME`, ...); none is inherited.
        readonly: more folders and files of the host to show, read-only, under the same paths; not below `/tmp`.
        network: `"none"`. No back end offers a network.
        image: the container image of the docker back end; a skeleton around the host's `/usr` without one.
        runtime: the container runtime of the docker back end, e.g. `"runsc"`.
        engine: the URL of the docker back end's engine; `DOCKER_HOST`, or a socket at a usual place, without one.
        remote: the remote back end's service: its name, like `"swe-rex:http://127.0.0.1:8000"`, or a `RemoteService`;
            what `AGENTENV_REMOTE` names without one.
    """

    base: str | os.PathLike[str] | Mapping[str, bytes | str] | WorkspaceSnapshot | None = None
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    readonly: tuple[str, ...] = ()
    network: str = "none"
    image: str | None = None
    runtime: str | None = None
    engine: str | None = None
    remote: str | RemoteService | None = None

    def __post_init__(self) -> None:
        if self.network != "none":
            msg = f"SandboxSpec.network must be 'none', got {self.network!r}: no back end offers a network"
            raise ValueError(msg)
        if not isinstance(self.limits, Limits):
            msg = f"SandboxSpec.limits must be Limits, e.g. Limits(time_s=1), got {self.limits!r}"
            raise TypeError(msg)
        self._check_base()
        checked_env("SandboxSpec.env", self.env)
        for name in ("image", "runtime", "engine"):
            if not isinstance(getattr(self, name), str | None):
                msg = f"SandboxSpec.{name} must be str, got {getattr(self, name)!r}"
                raise TypeError(msg)
        if not isinstance(self.remote, str | RemoteService | None):
            msg = f"SandboxSpec.remote must be str or a RemoteService, got {self.remote!r}"
            raise TypeError(msg)
        if not isinstance(self.readonly, tuple | list):
            msg = f"SandboxSpec.readonly must be a tuple of paths, got {self.readonly!r}"
            raise TypeError(msg)
        for path in self.readonly:
            parts = Path(path).parts
            if parts[:1] != ("/",) or ".." in parts:
                msg = f"SandboxSpec.readonly needs absolute paths without '..', got {path!r}"
                raise ValueError(msg)
            if parts[1:2] in _OWN or parts[1:3] == ("var", "tmp"):
                msg = f"SandboxSpec.readonly cannot show {path!r}: the sandbox has a {path.split('/')[1]!r} of its own"
                raise ValueError(msg)

    def _check_base(self) -> None:
        if isinstance(self.base, Mapping):
            for path, content in self.base.items():
                if not isinstance(path, str) or not isinstance(content, str | bytes | bytearray | memoryview):
                    msg = f"SandboxSpec.base must map str to bytes or str, got {path!r}: {content!r:.80}"
                    raise TypeError(msg)
        elif not isinstance(self.base, str | os.PathLike | WorkspaceSnapshot | None):
            msg = (
                "SandboxSpec.base must be a folder, a mapping from paths to contents or a snapshot, "
                f"got {type(self.base).__name__}"
            )
            raise TypeError(msg)
