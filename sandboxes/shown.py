"""What of the host a sandbox may be shown, where its files are the host's own."""

import os
import stat
from functools import cache

from agentenv.errors import SandboxError

__all__ = ["require_plain"]


def require_plain(paths: tuple[str, ...], backend: str) -> None:
    """Checks that nothing among these files and folders leads to a process of the host. Each is searched once.

    Raises:
        SandboxError: there is a socket, a pipe or a device, which read-only does not keep from being talked to.
    """
    for path in paths:
        found, what = _first_that_leads_out(path)
        if found:
            msg = (
                f"SandboxSpec.readonly cannot show {path!r} on the {backend} back end: {found!r} is {what} "
                "by which a command could talk to the host. The namespace back end shows it without what is behind"
            )
            raise SandboxError(msg)


@cache
def _first_that_leads_out(path: str) -> tuple[str, str]:
    """Returns the path of a socket, a pipe or a device at or below a path, and which it is; empty where none is."""
    todo = [path]
    while todo:
        place = todo.pop()
        try:
            info = os.lstat(place)
            mode = info.st_mode
            if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                return place, "a socket or a pipe"
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and info.st_rdev:  # 0: what an overlay has removed
                return place, "a device"
            if stat.S_ISDIR(mode):
                with os.scandir(place) as entries:
                    todo += [entry.path for entry in entries if not entry.is_file(follow_symlinks=False)]
        except OSError:
            continue  # what this user cannot look into, a command cannot either
    return "", ""
