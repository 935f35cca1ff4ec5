"""Functions that a test program gives to the function under test: they stay with the program, and are called there.

So nothing that they close over meets a submission: it learns what their calls return, and changes what they change. The
two sides tell each other of a call as they tell of the call of the function under test, see `wire.Graph`. Runs inside
sandboxes, too.
"""

import builtins
import collections
import dis
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

__all__ = [
    "hints_for",
    "is_immutable",
    "make_stub",
    "may_be_named",
    "name_of",
    "only_reads",
    "parameters_of",
    "reached",
    "within",
]

# fmt: off
_READERS = frozenset({
    "abs", "all", "any", "bool", "bytes", "chr", "complex", "count", "dict", "divmod", "endswith", "enumerate",
    "float", "frozenset", "get", "hash", "hex", "index", "int", "isdigit", "isinstance", "isalpha", "islower",
    "isspace", "issubclass", "isupper", "items", "join", "keys", "len", "list", "lower", "lstrip", "max", "min",
    "ord", "pow", "range", "repr", "reversed", "round", "rstrip", "set", "sorted", "split", "startswith", "str",
    "strip", "sum", "title", "tuple", "type", "upper", "values", "zip", "__contains__", "__getitem__",
})
# fmt: on
"""Built-in functions, and methods of built-in types, that change nothing they are given."""
# fmt: off
_CALLED = frozenset({
    "Ellipsis", "NotImplemented", "abs", "all", "any", "ascii", "bin", "callable", "chr", "divmod", "format", "hash",
    "hex", "id", "isinstance", "issubclass", "iter", "len", "max", "min", "next", "oct", "ord", "pow", "print", "repr",
    "round", "sorted", "sum",
})
# fmt: on
"""What a submission may name, besides classes that are built in: a program may call what it is answered."""
_LIBRARY: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())  # of Python 3.10 and later
_SETTING = ("STORE_SUBSCR", "STORE_SLICE", "STORE_ATTR", "STORE_GLOBAL", "DELETE_SUBSCR", "DELETE_ATTR", "IMPORT_NAME")
_KINDS_OF_PARAMETERS = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD", "VAR_POSITIONAL", "KEYWORD_ONLY", "VAR_KEYWORD")
_OF_BUILT_IN = (types.BuiltinFunctionType, types.MethodWrapperType)
_IMMUTABLE = frozenset("ifcbtzk")
_MOST_HINTS, _MOST_FOR_PAIRS = 400, 30


def _codes_in(code: types.CodeType) -> list[types.CodeType]:
    """Returns a code object and those inside of it."""
    found = [code]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += _codes_in(constant)
    return found


def _names_in(code: types.CodeType) -> set[str]:
    """Returns the globals and attributes that code names."""
    return {name for inner in _codes_in(code) for name in inner.co_names}


def only_reads(function: Any) -> bool:
    """Returns whether what a function names, or closes over, is certain to be as it was after a call.

    Provided that all it reaches, and all it is given, is plain data.
    """
    if isinstance(function, _OF_BUILT_IN):
        return function.__name__ in _READERS and type(function.__self__) in (str, bytes, tuple, list, dict, set, range)
    if not isinstance(function, types.FunctionType):
        return False
    free = set(function.__code__.co_freevars)
    for inner in _codes_in(function.__code__):
        for step in dis.get_instructions(inner):
            sets = step.opname in _SETTING or (step.opname == "STORE_DEREF" and step.argval in free)
            if (
                sets
                or (step.opname == "BINARY_OP" and step.argrepr.endswith("="))
                or step.opname.startswith("INPLACE_")
            ):
                return False
    return all(name in _READERS or _is_data(name, function.__globals__) for name in _names_in(function.__code__))


def _is_data(name: str, scope: dict[str, Any]) -> bool:
    """Returns whether a name is that of a global which cannot be called."""
    return name in scope and not callable(scope[name]) and not hasattr(builtins, name)


def reached(function: Any) -> list[Any]:
    """Returns what a function that only reads names, closes over, or has by default."""
    if isinstance(function, _OF_BUILT_IN):
        return [function.__self__]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    named = [function.__globals__[name] for name in _names_in(function.__code__) if name in function.__globals__]
    return [*cells, *named, function.__defaults__, function.__kwdefaults__]


def _is_full(cell: Any) -> bool:
    """Returns whether a cell of a closure holds something yet."""
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def parameters_of(function: Any) -> list[Any]:
    """Returns the parameters of a function: of each its name, its kind, and whether it has a default."""
    import inspect  # only here: cases shall start fast

    try:
        found = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return [["args", int(inspect.Parameter.VAR_POSITIONAL), False], ["kwargs", 4, False]]
    return [[p.name, int(p.kind), p.default is not inspect.Parameter.empty] for p in found]


def make_stub(call: Callable[[Any, Any], Any], name: str, parameters: list[Any]) -> Any:
    """Returns what stands for a function that stays on the other side: it has its name and its signature."""
    import inspect

    def stub(*args: Any, **kwargs: Any) -> Any:
        return call(args, kwargs)

    stub.__name__ = stub.__qualname__ = name
    kinds = [getattr(inspect.Parameter, kind) for kind in _KINDS_OF_PARAMETERS]
    signature = inspect.Signature(
        [
            inspect.Parameter(name, kinds[kind], default=... if has_default else inspect.Parameter.empty)
            for name, kind, has_default in parameters
        ]
    )
    cast("Any", stub).__signature__ = signature
    return stub


def is_immutable(data: Any) -> bool:
    """Returns whether an encoded value is plain, and stays as it is."""
    if isinstance(data, dict):
        tagged = cast("dict[str, Any]", data)
        return tagged.keys() <= _IMMUTABLE and all(map(is_immutable, tagged.values()))
    return all(map(is_immutable, cast("list[Any]", data))) if isinstance(data, list) else True


def hints_for(parameters: list[Any], given: Any) -> list[Any]:
    """Returns what a function that only reads may be asked next, as encoded arguments.

    Whoever is given a function mostly calls it with what else it was given: all of that is answered at once.

    Args:
        parameters: those of the function.
        given: the encoded arguments of the function under test.
    """
    found: dict[str, Any] = {}
    _collect(given, found)
    values = list(found.values())[:_MOST_HINTS]
    needed = sum(kind < 2 and not has_default for _, kind, has_default in parameters)
    if needed != 2:
        return [{"t": [value]} for value in values]
    return [{"t": list(pair)} for pair in itertools.product(values[:_MOST_FOR_PAIRS], repeat=2)]


def _collect(data: Any, found: dict[str, Any]) -> None:
    if len(found) >= _MOST_HINTS:
        return
    if is_immutable(data) and not isinstance(data, list):
        found.setdefault(repr(data), data)
    if isinstance(data, str):
        found.update({repr(letter): letter for letter in data[:_MOST_HINTS]})
    elif isinstance(data, int) and not isinstance(data, bool):
        found.update({repr(number): number for number in range(min(data, _MOST_HINTS) + 1)})
    elif isinstance(data, dict | list):
        for item in [*cast("dict[str, Any]", data).values()] if isinstance(data, dict) else cast("list[Any]", data):
            _collect(item, found)


def may_be_named(name: str) -> bool:
    """Returns whether a submission may name something built in."""
    return name in _CALLED or isinstance(getattr(builtins, name, None), type)


def within(values: Any) -> Iterator[Any]:
    """Yields plain values with all that is inside of them."""
    for value in values:
        yield value
        if isinstance(value, dict):
            yield from within(cast("dict[Any, Any]", value).values())
        elif isinstance(value, list | tuple | collections.deque):
            yield from within(cast("list[Any]", value))


def name_of(value: Any) -> str | None:
    """Returns the name under which a built-in function, a class or a module is found; None where it is not."""
    if isinstance(value, types.ModuleType):
        return f"{value.__name__}:"
    named = isinstance(value, type | types.BuiltinFunctionType | types.MethodDescriptorType)
    if not named and str(getattr(value, "__module__", "")).partition(".")[0] not in _LIBRARY:
        return None
    if not named and not isinstance(value, types.FunctionType):
        return None
    module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", None)
    name = f"{module}:{value.__qualname__}"
    try:
        found: Any = importlib.import_module(str(module))
        for part in value.__qualname__.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return name if found is value else None
