"""Sandboxes on machines of Modal. Written against the interface of its package; never run against the service.

Its containers are gVisor's, which has no Landlock: they promise only `"none"`, and have to be asked for with
`require="none"`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .remote_machines import Ran, blamed_on, package_of

__all__ = ["Modal"]

_LONGEST_S = 86_400  # that a machine may live


@dataclass(frozen=True, slots=True)
class Modal:
    """The service; its package reads who you are from `MODAL_TOKEN_ID` and `MODAL_TOKEN_SECRET` or its own file.

    Attributes:
        image: of a registry, with `python3`; Modal's Debian where it is empty.
        app: what the machines belong to; made unless it exists.
    """

    image: str = ""
    app: str = "agentenv"

    def start(self, lease_s: float) -> "_Machine":
        """Starts a machine without a network, which lives a day at most."""
        modal = package_of("modal")
        with blamed_on("Modal"):
            image = modal.Image.from_registry(self.image) if self.image else modal.Image.debian_slim()
            box = modal.Sandbox.create(
                "sleep",
                "infinity",
                app=modal.App.lookup(self.app, create_if_missing=True),
                image=image,
                timeout=_LONGEST_S,
                idle_timeout=math.ceil(lease_s),
                block_network=True,
            )
        return _Machine(box, modal)


@dataclass(frozen=True, slots=True)
class _Machine:
    box: Any
    modal: Any
    patience_s: float = 20.0

    def _blamed(self) -> Any:
        errors = self.modal.exception
        return blamed_on("Modal", errors.NotFoundError, errors.SandboxTerminatedError, errors.SandboxTimeoutError)

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        with self._blamed():
            ended = self.box.exec(*argv, timeout=math.ceil(timeout_s))
            stdout, stderr = ended.stdout.read(), ended.stderr.read()
            return Ran(ended.wait(), stdout, stderr)

    def put(self, path: str, content: bytes, timeout_s: float) -> None:
        del timeout_s  # its package has limits of its own
        with self._blamed():
            self.box.filesystem.write_bytes(content, path)

    def get(self, path: str, timeout_s: float) -> bytes:
        del timeout_s
        with self._blamed():
            return bytes(self.box.filesystem.read_bytes(path))

    def renew(self, lease_s: float) -> None:
        """Does nothing: what runs on it keeps it."""

    def delete(self) -> None:
        with self._blamed():
            self.box.terminate()
