"""Removing what killed owners left behind. Every back end also does it for itself when it is first used."""

from .cgroups import sweep_cgroups
from .engines import sweep_containers
from .folder import sweep_folders

__all__ = ["collect_garbage"]


def collect_garbage() -> list[str]:
    """Removes control groups, containers and folders of processes that no longer live.

    Layers, mounts and processes need no collecting: the kernel frees them with the process that owned them.

    Returns:
        What was removed, one line each.
    """
    return [*sweep_cgroups(), *sweep_containers(), *sweep_folders()]
