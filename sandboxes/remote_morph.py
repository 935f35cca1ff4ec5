"""Sandboxes on machines of Morph. Written against the interface of its package; never run against the service."""

import math
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentenv.errors import SandboxLost

from .remote_machines import Ran, blamed_on, package_of

__all__ = ["Morph"]

_START_S = 120.0
_GONE = 404


@dataclass(frozen=True, slots=True)
class Morph:
    """The service; `MORPH_API_KEY` is read by its package.

    Attributes:
        snapshot: that its machines start from, with `python3`.
    """

    snapshot: str

    def start(self, lease_s: float) -> "_Machine":
        """Starts a machine. It has a network, which commands have no sockets for."""
        api = package_of("morphcloud.api")
        with blamed_on("Morph"):
            machine = api.MorphCloudClient().instances.start(
                self.snapshot, ttl_seconds=math.ceil(lease_s), ttl_action="stop", timeout=_START_S
            )
        return _Machine(machine, api)


@dataclass(frozen=True, slots=True)
class _Machine:
    instance: Any
    api: Any
    patience_s: float = 20.0

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        with blamed_on("Morph"):
            try:
                ended = self.instance.exec(shlex.join(argv), timeout=timeout_s)
            except self.api.ApiError as error:
                if error.status_code != _GONE:
                    raise
                msg = f"Morph has no such machine any more: {error!s:.500}"
                raise SandboxLost(msg) from error
            return Ran(ended.exit_code, ended.stdout, ended.stderr)

    def put(self, path: str, content: bytes, timeout_s: float) -> None:
        del timeout_s  # its package has limits of its own
        with tempfile.NamedTemporaryFile() as file, blamed_on("Morph"):
            file.write(content)
            file.flush()
            self.instance.upload(file.name, path)

    def get(self, path: str, timeout_s: float) -> bytes:
        del timeout_s
        with tempfile.TemporaryDirectory() as folder, blamed_on("Morph"):
            copy = Path(folder, "copy")
            self.instance.download(path, str(copy))
            return copy.read_bytes()

    def renew(self, lease_s: float) -> None:
        with blamed_on("Morph"):
            self.instance.set_ttl(math.ceil(lease_s), ttl_action="stop")

    def delete(self) -> None:
        with blamed_on("Morph"):
            self.instance.stop()
