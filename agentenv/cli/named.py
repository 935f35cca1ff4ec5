"""What `module:Name` on the command line stands for."""

import difflib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from agentenv.registry import import_named

from .command_line import mistake_in, refuse
from .env_choice import constructor_options

__all__ = ["find_named", "parameters_of"]


def find_named(spec: str, argument: str) -> Any:
    """Returns what a module has under a name; modules of the current folder count.

    Args:
        spec: `module:Name`, also `module:Outer.Inner`.
        argument: the option that it is the value of.

    Raises:
        typer.BadParameter: there is no such module, it is a path, or it has no such name.
    """
    module, _, name = spec.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_named(module, name)
    except Exception as error:  # noqa: BLE001  a module may raise anything
        refuse(argument, mistake_in(spec, error))
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            refuse(argument, f"{module} has no {name!r}{hint}")
        found = getattr(found, part)
    return found


def parameters_of(made: Any) -> Mapping[str, inspect.Parameter]:
    """Returns the named arguments of a class's constructor, or of a function."""
    if isinstance(made, type):
        return constructor_options(cast("Any", made))
    kinds = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    return {name: p for name, p in inspect.signature(made).parameters.items() if p.kind not in kinds}
