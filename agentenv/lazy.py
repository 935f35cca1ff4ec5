"""Packages whose names are imported when they are first used, because some of them need a large dependency."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and the `__dir__` of a package.

    Args:
        package: its full name.
        homes: the module inside it where each of its public names is.
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}; it has {', '.join(homes)}"
            raise AttributeError(msg)
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return getattribute, lambda: sorted(homes)
