"""What sandboxes share whose workspace is copied out: workspace and tmp each have the disk limit on top of the base."""

from typing import Self

from typing_extensions import override

from .guest_sandbox import GuestSandbox
from .guest_settings import LISTS
from .snapshots import WorkspaceSnapshot, bytes_of_base
from .spec import SandboxSpec

__all__ = ["CopiedSandbox"]


class CopiedSandbox(GuestSandbox):
    """A sandbox whose guest packs its files into archives.

    Args:
        spec: what it shall be.
        origin: the state at opening.
        base_bytes: bytes of the files at the very start, which the disk limit does not count; forks inherit it.
    """

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot, *, base_bytes: int | None = None) -> None:
        super().__init__(spec, origin)
        self._base_bytes = bytes_of_base(origin) if base_bytes is None else base_bytes

    @property
    @override
    def _archive_limit(self) -> int:
        return 2 * (self.spec.limits.disk + self._base_bytes) + LISTS

    @override
    def _open(self, origin: WorkspaceSnapshot) -> Self:
        return type(self)(self.spec, origin, base_bytes=self._base_bytes)
