"""Files with several names, on their way from one tree to another."""

from __future__ import annotations

import os

from .content import TreeFault

__all__ = ["Aside"]


class Aside:
    """Keeps one more name of each file that will get others, in the root, and moves it to where the last one belongs.

    So there is never a name more than in the end: names are limited. Folders may be too far apart to go back to.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._prefix = f".{os.urandom(12).hex()}-"
        self._held: dict[object, tuple[str, int]] = {}
        self._count = 0

    def put(self, key: object, folder: int, name: str, more: int) -> None:
        """Holds a file that will get so many more names."""
        if more:
            self._count += 1
            held = f"{self._prefix}{self._count}"
            os.link(name, held, src_dir_fd=folder, dst_dir_fd=self._root, follow_symlinks=False)
            self._held[key] = held, more

    def has(self, key: object) -> bool:
        """Whether a file is held."""
        return key in self._held

    def give(self, key: object, folder: int, name: str) -> None:
        """Gives a file one of its names.

        Raises:
            TreeFault: it is not held.
        """
        held, more = self._held.pop(key, ("", 0))
        if not held:
            msg = f"{name!r} is another name of a file that is not there"
            raise TreeFault(msg)
        if more == 1:
            os.rename(held, name, src_dir_fd=self._root, dst_dir_fd=folder)
            return
        os.link(held, name, src_dir_fd=self._root, dst_dir_fd=folder, follow_symlinks=False)
        self._held[key] = held, more - 1

    def clear(self) -> None:
        """Removes what is left."""
        for held, _ in self._held.values():
            os.unlink(held, dir_fd=self._root)
