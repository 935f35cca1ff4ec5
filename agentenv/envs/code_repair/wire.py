"""Values as JSON, exactly: types, order, what is one object, and what a call changed. Runs inside sandboxes, too.

`encode` and `decode` carry one value, as a tree. `Graph` carries the arguments and the result of a call: an object that
occurs twice is one object on the other side, too, functions and iterators come along, and what the call changed in
place can be sent back.

| tag | |
|---|---|
| `i f c b y` | an integer beyond 2^53, float, complex, bytes, bytearray |
| `l t s z d` | list, tuple, set, frozenset, dict, in order (of sets, unless hashes collide) |
| `k` | an instance of one of `_KINDS`: its name, and how it is made |
| `p` | another instance, from a test program to the function under test: what makes it, with what, and its state |
| `m` | one of `_MAPPINGS` or a deque: its name, its content, and what it was made with |
| `n` | a built-in function or constant, a class or a module, by name |
| `e` | an instance of a built-in exception: its class, and its arguments |
| `N` | a named tuple: its name, its fields, and its items |
| `v` | a view of a dictionary: which, and what it shows |
| `r` | the object of that number in the same graph |
| `u` | the function under test |
| `F` | a function of a test program, which stays there: its name, its parameters, and whether it only reads |
| `h` | a function or iterator of the function under test, which stays there: what it is, and its number |
| `o` | something else; equals nothing |
"""

import builtins
import collections
import copyreg
import importlib
import itertools
import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

from .functions import make_stub, may_be_named, name_of, only_reads, parameters_of, reached, within

__all__ = ["Graph", "UncarriedError", "decode", "encode", "has_object"]

_DEPTH = 60
_PLAIN_INT = 1 << 53
_MOST_ITEMS = 100_000
_KINDS = frozenset(
    {"builtins.range", "builtins.slice", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"}
    | {f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")}
)
_FRACTION = re.compile(r"-?[0-9]+(/[0-9]+)?")
_MAPPINGS: dict[str, Any] = {
    "Counter": collections.Counter,
    "OrderedDict": collections.OrderedDict,
    "defaultdict": collections.defaultdict,
    "deque": collections.deque,
}
_EMPTY: dict[Any, Any] = {}
_VIEWS: dict[Any, str] = {type(getattr(_EMPTY, name)()): name for name in ("keys", "values", "items")}
_NAMES_OF_MAPPINGS = {kind: name for name, kind in _MAPPINGS.items()}
_WRITERS: dict[Any, Callable[[Any], Any]] = {
    int: lambda value: value if -_PLAIN_INT < value < _PLAIN_INT else {"i": hex(value)},
    float: lambda value: {"f": value.hex()},
    complex: lambda value: {"c": [value.real.hex(), value.imag.hex()]},
    bytes: lambda value: {"b": value.hex()},
}
_NOTHING = object()


class UncarriedError(TypeError):
    """A value that cannot be carried to another process."""


def encode(value: Any) -> Any:
    """Returns `value` as JSON that keeps the exact type of everything: `1`, `1.0`, `True`, `[1]` and `(1,)` differ.

    Only plain values are kept; an instance of anything else (a subclass of `int` too) becomes its type's name under
    `"o"`, which equals nothing.
    """
    return Graph(as_tree=True).encode(value)


def decode(data: Any) -> Any:
    """Returns the value that `encode` turned into `data`.

    Raises:
        ValueError: it is the encoding of no plain value.
    """
    return Graph(as_tree=True).decode(data)


class Graph:
    """Objects that two processes have in common while one call lasts, numbered in the order in which they come up.

    Args:
        as_tree: nothing is numbered: each value stands for itself.
        stay: keeps a function or an iterator that must not leave this process; returns its number.
        fetch: returns what stands here for one that stayed in the other process, given what it is and its number.
        call: calls a function of the test program: its number, its parameters, whether it only reads, its arguments.
        under_test: the function under test, which is itself on the other side, too.
        sends: what is written is trusted there: whatever has a name goes by its name; other functions can be called.
        trusts: what is read comes from such a sender.

    Attributes:
        objects: what can change, and functions of the program, by number.
    """

    def __init__(
        self,
        *,
        as_tree: bool = False,
        stay: Callable[[Any], int] | None = None,
        fetch: Callable[[str, int], Any] | None = None,
        call: Callable[[int, list[Any], bool, Any, Any], Any] | None = None,
        under_test: Any = _NOTHING,
        sends: bool = False,
        trusts: bool = False,
    ) -> None:
        self.objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._known: list[Any] = []
        self._functions: dict[int, list[Any]] = {}
        self._as_tree = as_tree
        self._stay, self._fetch, self._call = stay, fetch, call
        self._under_test = under_test
        self._sends, self._trusts = sends, trusts

    # ------------------------------------------------------------------ writing

    def encode(self, value: Any, depth: int = 0) -> Any:
        """Returns a value as JSON.

        Raises:
            UncarriedError: it cannot be carried, and is no tree's.
        """
        kind = cast("type[Any]", type(value))
        if value is None or kind is bool or kind is str:
            return value
        if kind in _WRITERS:
            return _WRITERS[kind](value)
        if value is self._under_test:
            return {"u": 0}
        if depth >= _DEPTH:
            return self._other(value, "it is nested too deep")
        if kind is tuple or kind is frozenset:
            return {"t" if kind is tuple else "z": [self.encode(item, depth + 1) for item in value]}
        if (name := _known(kind)) is not None:
            # 4 and later keep the fold of a time
            made_with = (str(value),) if name == "uuid.UUID" else value.__reduce_ex__(4)[1]
            return {"k": [name, [self.encode(item, depth + 1) for item in made_with]]}
        if self._as_tree:
            return self._mutable(value, depth)
        if id(value) in self._numbers:
            return {"r": self._numbers[id(value)]}
        return self._compound(value, depth) or self._mutable(value, depth)

    def _compound(self, value: Any, depth: int) -> Any:
        """Returns what has no class of its own in the other process, or need not have; None for anything else."""
        kind = cast("type[Any]", type(value))
        if value is Ellipsis or value is NotImplemented:
            return {"n": f"builtins:{value!r}"}
        if issubclass(kind, BaseException) and getattr(builtins, kind.__name__, None) is kind:
            return {"e": [kind.__name__, [self.encode(item, depth + 1) for item in value.args]]}
        if kind.__bases__ == (tuple,) and hasattr(kind, "_fields"):
            fields = list(cast("Any", kind)._fields)
            return {"N": [kind.__name__, fields, [self.encode(item, depth + 1) for item in value]]}
        if kind in _VIEWS:
            return {"v": [_VIEWS[kind], [self.encode(item, depth + 1) for item in value]]}
        return None

    def _mutable(self, value: Any, depth: int) -> Any:
        kind = cast("type[Any]", type(value))
        if kind in (list, dict, set, bytearray) or kind in _NAMES_OF_MAPPINGS:
            self._number(value)
            return self.content(value, depth)
        if self._as_tree:
            return self._other(value)
        if (name := name_of(value)) is not None and (self._sends or name.startswith("builtins:")):
            return {"n": name}
        if self._sends and callable(value) and not isinstance(value, type):
            return self._function(value)
        what = "generator" if kind is types.GeneratorType else "iterator" if hasattr(kind, "__next__") else "function"
        if self._stay is not None and (what != "function" or callable(value)) and not isinstance(value, type):
            return {"h": [what, self._stay(value)]}
        if self._sends and what != "function":  # gone over before the call
            items: list[Any] = list(itertools.islice(cast("Iterator[Any]", value), _MOST_ITEMS + 1))
            if len(items) > _MOST_ITEMS:
                return self._other(value, f"it gives more than {_MOST_ITEMS} items")
            return {"m": [what, [self.encode(item, depth + 1) for item in items], None]}
        return self._parts(value, depth) if self._sends else self._other(value)

    def _parts(self, value: Any, depth: int) -> Any:
        """Returns what an instance of a class of the standard library is made of, as `pickle` would take it apart."""
        try:
            take = copyreg.dispatch_table.get(cast("type[Any]", type(value)))
            made: Any = value.__reduce_ex__(2) if take is None else take(value)
            function, args, state, *more = cast("tuple[Any, ...]", (*made, None, None)[:5])
        except (TypeError, AttributeError, ValueError):
            return self._other(value)
        if isinstance(made, str) or any(part is not None for part in more):
            return self._other(value)
        return {"p": [self.encode(part, depth + 1) for part in (function, tuple(args), state)]}

    def content(self, value: Any, depth: int = 0) -> Any:
        """Returns what an object that can change holds now."""
        kind = cast("type[Any]", type(value))
        if kind is bytearray:
            return {"y": value.hex()}
        if kind is list or kind is set:
            return {"l" if kind is list else "s": [self.encode(item, depth + 1) for item in list(value)]}
        if kind is dict:
            return {"d": self._pairs(value, depth)}
        if kind in _NAMES_OF_MAPPINGS:
            items = [self.encode(i, depth + 1) for i in list(value)] if kind is collections.deque else None
            with_ = value.maxlen if kind is collections.deque else getattr(value, "default_factory", None)
            content = self._pairs(value, depth) if items is None else items
            return {"m": [_NAMES_OF_MAPPINGS[kind], content, self.encode(with_, depth + 1)]}
        return None  # a function

    def _pairs(self, value: Any, depth: int) -> list[Any]:
        return [[self.encode(key, depth + 1), self.encode(item, depth + 1)] for key, item in list(value.items())]

    def _function(self, function: Any) -> Any:
        """Returns what is told of a function of the program, which stays there."""
        number = len(self.objects)
        self._number(function)
        self._functions[number] = [
            str(getattr(function, "__name__", type(function).__name__)),
            parameters_of(function),
            only_reads(function) and _is_plain(reached(function)),
        ]
        return {"F": self._functions[number]}

    def reads(self, number: int) -> bool:
        """Returns whether a function of the program only reads, and nothing that both sides have."""
        pure: bool = self._functions[number][2]
        return pure and not any(id(value) in self._numbers for value in within(reached(self.objects[number])))

    def function(self, number: Any) -> Any:
        """Returns a function of the program that the other side was given.

        Raises:
            ValueError: there is none of that number.
        """
        if number not in self._functions:
            msg = f"it was given no function of the number {number!r:.20}"
            raise ValueError(msg)
        return self.objects[number]

    def _number(self, value: Any) -> None:
        self._numbers[id(value)] = len(self.objects)
        self.objects.append(value)

    # ------------------------------------------------------------------ changes

    def settle(self) -> None:
        """Takes what all objects hold now as known to both sides."""
        for number, told in self._functions.items():
            told[2] = self.reads(number)
        self._known = [self.content(value) for value in list(self.objects)]

    def changes(self) -> dict[str, Any]:
        """Returns what objects hold now, by number, of those that hold something else than both sides know."""
        now = [self.content(value) for value in self.objects[: len(self._known)]]
        found = {str(number): item for number, item in enumerate(now) if item != self._known[number]}
        self.settle()
        return found

    def change(self, changed: dict[str, Any]) -> None:
        """Makes objects hold what `changes` of the other side returned.

        Raises:
            ValueError: one is of another type.
        """
        for number, content in changed.items():
            self.fill(self.objects[int(number)], content)

    def _other(self, value: Any, why: str = "") -> Any:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        if self._as_tree:
            return {"o": name}
        msg = f"a value of type {name} cannot be carried between processes{why and ': ' + why}"
        raise UncarriedError(msg)

    # ------------------------------------------------------------------ reading

    def decode(self, data: Any) -> Any:
        """Returns the value that was turned into `data`.

        Raises:
            ValueError: it is no encoding.
        """
        if data is None or isinstance(data, bool | str | int):
            return data
        ((tag, content),) = data.items()
        reader = getattr(self, f"_read_{tag}", None)
        if reader is None:
            msg = f"not the encoding of a plain value: {tag!r}"
            raise ValueError(msg)
        return reader(content)

    def _all(self, content: Any) -> Any:
        return (self.decode(item) for item in content)

    def _read_i(self, content: str) -> int:
        return int(content, 16)

    def _read_f(self, content: str) -> float:
        return float.fromhex(content)

    def _read_c(self, content: Any) -> complex:
        real, imaginary = content
        return complex(float.fromhex(real), float.fromhex(imaginary))

    def _read_b(self, content: str) -> bytes:
        return bytes.fromhex(content)

    def _read_y(self, content: str) -> bytearray:
        return self._new(bytearray(), {"y": content})

    def _read_t(self, content: Any) -> tuple[Any, ...]:
        return tuple(self._all(content))

    def _read_z(self, content: Any) -> frozenset[Any]:
        return frozenset(self._all(content))

    def _read_l(self, content: Any) -> list[Any]:
        return self._new([], {"l": content})

    def _read_s(self, content: Any) -> set[Any]:
        return self._new(set(), {"s": content})

    def _read_d(self, content: Any) -> dict[Any, Any]:
        return self._new({}, {"d": content})

    def _read_k(self, content: Any) -> Any:
        name, made_with = content
        if name not in _KINDS:
            msg = f"{name!r} cannot be carried"
            raise ValueError(msg)
        module, _, kind = name.partition(".")
        made = list(self._all(made_with))
        if kind == "Fraction" and not all(type(part) is int or _FRACTION.fullmatch(part) for part in made):
            msg = f"no fraction: {made_with!r:.80}"  # such as 1e999999999, which takes hours and gigabytes
            raise ValueError(msg)
        return getattr(importlib.import_module(module), kind)(*made)

    def _read_m(self, content: Any) -> Any:
        name, items, with_ = content
        if name in ("iterator", "generator"):
            found = list(self._all(items))
            return iter(found) if name == "iterator" else (item for item in found)
        value = _MAPPINGS[name]([], with_) if name == "deque" else _MAPPINGS[name]()
        return self._new(value, {"m": content})

    def _read_n(self, content: Any) -> Any:
        module, _, name = content.partition(":")
        if not self._trusts and (module != "builtins" or not may_be_named(name)):
            msg = f"{content!r} cannot be carried"
            raise ValueError(msg)
        found: Any = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
        return found

    def _read_e(self, content: Any) -> BaseException:
        name, args = content
        kind: Any = getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            msg = f"{name!r} is no built-in exception"
            raise ValueError(msg)
        return cast("Any", kind)(*self._all(args))

    def _read_N(self, content: Any) -> Any:  # noqa: N802  a tag
        name, fields, items = content
        return cast("Any", collections.namedtuple)(name, fields)(*self._all(items))  # of identifiers alone

    def _read_v(self, content: Any) -> Any:
        what, items = content
        found = list(self._all(items))
        if what == "values":
            return dict(enumerate(found)).values()
        return dict.fromkeys(found).keys() if what == "keys" else dict(found).items()

    def _read_p(self, content: Any) -> Any:
        if not self._trusts:
            msg = "an instance cannot be carried"
            raise ValueError(msg)
        function, args, state = self._all(content)
        value = function(*args)
        if state is not None:
            value.__setstate__(state) if hasattr(value, "__setstate__") else value.__dict__.update(state)
        return value

    def _read_r(self, content: int) -> Any:
        return self.objects[content]

    def _read_u(self, _: Any) -> Any:
        if self._under_test is _NOTHING:
            msg = "there is no function under test here"
            raise ValueError(msg)
        return self._under_test

    def _read_h(self, content: Any) -> Any:
        what, number = content
        if self._fetch is None or not isinstance(number, int) or what not in ("function", "generator", "iterator"):
            msg = f"{what!r} cannot be carried"
            raise ValueError(msg)
        return self._fetch(what, number)

    def _read_F(self, content: Any) -> Any:  # noqa: N802  a tag
        if self._call is None:
            msg = "a function cannot be carried"
            raise ValueError(msg)
        call, number = self._call, len(self.objects)
        name, parameters, reads = content
        self._number(make_stub(lambda args, kwargs: call(number, parameters, reads, args, kwargs), name, parameters))
        return self.objects[number]

    def _new(self, value: Any, content: Any) -> Any:
        if not self._as_tree:
            self._number(value)
        self.fill(value, content)
        return value

    def fill(self, value: Any, data: Any) -> None:
        """Makes an object that can change hold what `content` returned for its counterpart.

        Raises:
            ValueError: it is of another type.
        """
        ((tag, content),) = data.items()
        kind = cast("type[Any]", type(value))
        name, items, with_ = content if tag == "m" else ("", content, None)
        if kind is not {"y": bytearray, "l": list, "s": set, "d": dict, "m": _MAPPINGS.get(name)}.get(tag):
            msg = f"a {kind.__name__} cannot be filled with {data!r:.80}"
            raise ValueError(msg)
        if kind is bytearray:
            value[:] = bytes.fromhex(items)
            return
        if name == "defaultdict":
            value.default_factory = self.decode(with_)
        if kind is list or kind is collections.deque:
            found = list(self._all(items))
            value.clear()
            value.extend(found)
        elif kind is set:
            found = list(self._all(items))
            value.clear()
            value.update(found)
        else:
            pairs = [(self.decode(key), self.decode(item)) for key, item in items]
            value.clear()
            for key, item in pairs:
                value[key] = item


def _known(kind: type[Any]) -> str | None:
    """Returns the name of a class of `_KINDS`; None for others. Nothing is imported: who has one has its module."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if name in _KINDS and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind else None


def _is_plain(values: list[Any]) -> bool:
    """Returns whether values are plain, and reading them changes nothing."""
    found = encode(values)
    return not has_object(found) and '"defaultdict"' not in json.dumps(found)


def has_object(data: Any) -> bool:
    """Returns whether an encoded value holds something of which only the type is told; no text can look like that."""
    return '{"o":' in json.dumps(data)


def sort_key(data: Any) -> str:
    """Returns what encodings of sets and dictionaries are compared by."""
    return json.dumps(data, sort_keys=True)
