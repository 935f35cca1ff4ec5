"""Sandboxes on machines of E2B. Written against the interface of its package; never run against the service."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .remote_machines import Ran, blamed_on, package_of

__all__ = ["E2B"]

_ROOT = "root"


@dataclass(frozen=True, slots=True)
class E2B:
    """The service; `E2B_API_KEY` is read by its package.

    Attributes:
        template: of its machines, with `python3`; the service's default where it is empty.
    """

    template: str = ""

    def start(self, lease_s: float) -> "_Machine":
        """Starts a machine without a network."""
        e2b = package_of("e2b")
        with blamed_on("E2B"):
            box = e2b.Sandbox.create(
                template=self.template or None, timeout=math.ceil(lease_s), allow_internet_access=False
            )
        return _Machine(box, e2b)


@dataclass(frozen=True, slots=True)
class _Machine:
    box: Any
    e2b: Any
    patience_s: float = 20.0

    def _blamed(self) -> Any:
        return blamed_on("E2B", self.e2b.SandboxNotFoundException, self.e2b.SandboxNotRunningException)

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        with self._blamed():
            try:
                ended = self.box.commands.run(
                    shlex.join(argv), user=_ROOT, timeout=timeout_s, request_timeout=timeout_s
                )
            except self.e2b.CommandExitException as error:
                ended = error
            return Ran(ended.exit_code, ended.stdout or "", ended.stderr or "")

    def put(self, path: str, content: bytes, timeout_s: float) -> None:
        with self._blamed():
            self.box.files.write(path, content, user=_ROOT, request_timeout=timeout_s)

    def get(self, path: str, timeout_s: float) -> bytes:
        with self._blamed():
            return bytes(self.box.files.read(path, format="bytes", user=_ROOT, request_timeout=timeout_s))

    def renew(self, lease_s: float) -> None:
        with self._blamed():
            self.box.set_timeout(math.ceil(lease_s))

    def delete(self) -> None:
        with self._blamed():
            self.box.kill()
