"""What the code of a function names, sets and may change. Runs inside sandboxes, too."""

import builtins
import dis
import types
from typing import Any

__all__ = ["is_full", "names_in", "only_reads", "stored_globals"]

# fmt: off
_READERS = frozenset({
    "abs", "all", "any", "bool", "bytes", "chr", "complex", "count", "dict", "divmod", "endswith", "enumerate",
    "float", "frozenset", "get", "hash", "hex", "id", "index", "int", "isdigit", "isinstance", "isalpha", "islower",
    "isspace", "issubclass", "isupper", "items", "join", "keys", "len", "list", "lower", "lstrip", "max", "min",
    "ord", "pow", "range", "repr", "reversed", "round", "rstrip", "set", "sorted", "split", "startswith", "str",
    "strip", "sum", "title", "tuple", "type", "upper", "values", "zip",
})
# fmt: on
"""Built-in functions, and methods of built-in types, that change nothing they are given."""
_SETTING = ("STORE_SUBSCR", "STORE_SLICE", "STORE_ATTR", "STORE_GLOBAL", "DELETE_SUBSCR", "DELETE_ATTR", "IMPORT_NAME")


def is_full(cell: Any) -> bool:
    """Returns whether a cell of a closure holds something yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def codes_in(code: types.CodeType) -> list[types.CodeType]:
    """Returns a code object and those inside of it."""
    found = [code]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += codes_in(constant)
    return found


def names_in(code: types.CodeType) -> set[str]:
    """Returns the globals and attributes that code names."""
    return {name for inner in codes_in(code) for name in inner.co_names}


def stored_globals(function: Any) -> list[str]:
    """Returns the globals that a function sets, of those that there are."""
    stored = {
        str(step.argval)
        for inner in codes_in(function.__code__)
        for step in dis.get_instructions(inner)
        if step.opname == "STORE_GLOBAL"
    }
    return sorted(stored & function.__globals__.keys())


def only_reads(function: Any) -> bool:
    """Returns whether what a function names, or closes over, is certain to be as it was after a call."""
    free = set(function.__code__.co_freevars)
    for inner in codes_in(function.__code__):
        for step in dis.get_instructions(inner):
            sets = step.opname in _SETTING or (step.opname == "STORE_DEREF" and step.argval in free)
            if (
                sets
                or (step.opname == "BINARY_OP" and step.argrepr.endswith("="))
                or step.opname.startswith("INPLACE_")
            ):
                return False
    return all(name in _READERS or _is_data(name, function.__globals__) for name in names_in(function.__code__))


def _is_data(name: str, scope: dict[str, Any]) -> bool:
    """Returns whether a name is that of a global which cannot be called."""
    return name in scope and not callable(scope[name]) and not hasattr(builtins, name)
