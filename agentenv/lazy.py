"""Packages whose names are imported when they are first used, because some of them need a large dependency."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and the `__dir__` of a package.

    Args:
        package: its full name.
        homes: the module inside it where each of its public names is.

    The `__getattr__` raises `MissingDependencyError`, with the command that installs it, where a name needs a package
    that is not there.
    """

    def getattribute(name: str) -> Any:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}; it has {', '.join(homes)}"
            raise AttributeError(msg)
        try:
            module = import_module(f"{package}.{homes[name]}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "agentenv":
                raise
            msg = f"{package}.{name} needs {error.name}: {install_module(error.name)}"
            raise MissingDependencyError(msg) from error
        return getattr(module, name)

    return getattribute, lambda: sorted(homes)
