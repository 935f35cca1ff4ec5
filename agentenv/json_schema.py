"""Values drawn from a JSON schema: what tools' arguments may be."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np

__all__ = ["alternatives", "listed", "resolved", "sample_value"]

Schema = Mapping[str, Any]

sre: Any = import_module("re._constants")
patterns: Any = import_module("re._parser")

_DEEP = 6
"""Below so many levels what can end, ends: models may hold themselves."""
_FORMATS = {
    "date": ("2026-{:02}-{:02}", (12, 28)),
    "time": ("{:02}:{:02}:00Z", (23, 59)),
    "date-time": ("2026-{:02}-{:02}T{:02}:00:00Z", (12, 28, 23)),
    "duration": ("P{}D", (30,)),
    "email": ("user{}@example.org", (99,)),
    "uri": ("https://example.org/{}", (99,)),
    "hostname": ("host{}.example.org", (99,)),
    "ipv4": ("192.0.2.{}", (254,)),
    "ipv6": ("2001:db8::{}", (99,)),
    "uuid": ("00000000-0000-4000-8000-{:012}", (10**9,)),
}
"""Texts of well-known formats, and the largest numbers that go into them."""
_LETTERS = "abc XYZ 019 .,+-*/_"


def sample_value(schema: Schema, rng: np.random.Generator, *, text: Callable[[], str]) -> Any:
    """Draws a value that is valid by a JSON schema.

    Known are `$ref` within the schema, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, lists of types, bounds,
    `multipleOf`, lengths, `pattern` (in Python's syntax, and ignored where look-arounds or back references keep it from
    coming out), the usual `format`s, `prefixItems`, `uniqueItems` and `additionalProperties`. Models that hold
    themselves end after a few levels.

    Args:
        schema: what to draw; its `$defs` are found by `$ref`.
        rng: what decides.
        text: draws text where nothing is said about it.
    """
    return _Sampler(schema, rng, text).value(schema, 0)


def resolved(schema: Schema, root: Schema, *, within: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Returns a schema with what its references name in their place, in alternatives and items too.

    Args:
        schema: a part of `root`.
        root: whose `$defs` the references name.
        within: references that the schema lies within; those that come again are left out.
    """
    found = {name: part for name, part in schema.items() if name != "$ref"}
    if "$ref" in schema:
        reference = str(schema["$ref"])
        if reference in within:
            return found
        return resolved(_merged(_find(root, reference), found), root, within=within | {reference})
    for name in ("anyOf", "oneOf"):
        if name in found:
            found[name] = [resolved(part, root, within=within) for part in found[name]]
    if isinstance(found.get("items"), Mapping):
        found["items"] = resolved(found["items"], root, within=within)
    return found


def alternatives(schema: Schema) -> list[Schema]:
    """Returns the schemas of which a value must fit one: those of `anyOf` or `oneOf`, otherwise this one."""
    return list(schema.get("anyOf") or schema.get("oneOf") or [schema])


def listed(schema: Schema) -> list[Any]:
    """Returns the values that a schema lists itself; none where it lists none."""
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


class _Sampler:
    """Draws values of one schema."""

    def __init__(self, root: Schema, rng: np.random.Generator, text: Callable[[], str]) -> None:
        self._root = root
        self._rng = rng
        self._text = text

    def value(self, schema: Schema | bool, depth: int) -> Any:
        """Draws a value; `depth` is how many values it lies within."""
        if isinstance(schema, bool):
            return self._text()
        schema = self._flat(schema, depth)
        if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
            return self._choose(choices)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = self._choose(cast("list[str]", kind))
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer":
                return self._number(schema, 1)
            case "number":
                return self._number(schema, 64) if "multipleOf" in schema else self._number(schema, 64) / 64
            case "boolean" | "null":
                return None if kind == "null" else bool(self._rng.integers(2))
            case _:
                return self._string(schema)

    def _choose(self, choices: Sequence[Any]) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def _flat(self, schema: Schema, depth: int) -> Schema:
        """Follows references and chooses alternatives until neither is left."""
        for _ in range(100):
            if "$ref" in schema:
                rest = {name: part for name, part in schema.items() if name != "$ref"}
                schema = _merged(_find(self._root, str(schema["$ref"])), rest)
            elif "allOf" in schema:
                rest = {name: part for name, part in schema.items() if name != "allOf"}
                for part in schema["allOf"]:
                    rest = _merged(rest, _find(self._root, part["$ref"]) if "$ref" in part else part)
                schema = rest
            elif key := next((name for name in ("anyOf", "oneOf") if schema.get(name)), ""):
                options = cast("list[Schema]", schema[key])
                if depth >= _DEEP:
                    options = [option for option in options if not _holds_more(option)] or options
                rest = {name: part for name, part in schema.items() if name != key}
                schema = _merged(rest, self._choose(options))
            else:
                break
        return schema

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        properties: Mapping[str, Schema] = schema.get("properties", {})
        required: Sequence[str] = schema.get("required", ())
        drawn = {
            name: self.value(part, depth + 1)
            for name, part in properties.items()
            if depth < _DEEP or name in required
        }  # fmt: skip
        more: Schema | bool = schema.get("additionalProperties", False)
        if isinstance(more, Mapping) or (len(drawn) < schema.get("minProperties", 0) and more is not False):
            fewest = max(int(schema.get("minProperties", 0)) - len(drawn), 0)
            count = fewest if depth >= _DEEP else int(self._rng.integers(fewest, fewest + 3))
            drawn |= {f"key{i}": self.value(more, depth + 1) for i in range(count)}
        return drawn

    def _array(self, schema: Schema, depth: int) -> list[Any]:
        prefix: Sequence[Schema] = schema.get("prefixItems", ())
        drawn = [self.value(part, depth + 1) for part in prefix]
        if prefix and not isinstance(schema.get("items"), Mapping):
            return drawn
        fewest = int(schema.get("minItems", 0))
        most = fewest if depth >= _DEEP else int(schema.get("maxItems", fewest + 2))
        length = int(self._rng.integers(fewest, max(fewest, most) + 1))
        for _ in range(20 * (length + 1)):
            if len(drawn) >= length:
                break
            one = self.value(schema.get("items", {}), depth + 1)
            if not schema.get("uniqueItems") or one not in drawn:
                drawn.append(one)
        return drawn

    def _number(self, schema: Schema, parts: int) -> Any:
        """Draws a multiple of 1 / `parts`, or of `multipleOf`, within the bounds, as a whole number of those."""
        step = schema.get("multipleOf")
        size = parts if step is None else 1 / step
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        lows = [math.ceil(schema["minimum"] * size)] if "minimum" in schema else []
        lows += [] if above is None else [math.floor(above * size) + 1]
        highs = [math.floor(schema["maximum"] * size)] if "maximum" in schema else []
        highs += [] if below is None else [math.ceil(below * size) - 1]
        low = max(lows) if lows else min([-100 * parts, *(high - 100 * parts for high in highs)])
        high = min(highs) if highs else max(100 * parts, low + 100 * parts)
        drawn = int(self._rng.integers(low, max(low, high) + 1))
        return drawn if step is None else drawn * step

    def _string(self, schema: Schema) -> str:
        if "pattern" in schema and (drawn := self._matching(str(schema["pattern"]), schema)) is not None:
            return drawn
        if (known := _FORMATS.get(str(schema.get("format")))) is not None:
            shape, limits = known
            return shape.format(*(int(self._rng.integers(1, limit + 1)) for limit in limits))
        text = self._text()
        fewest, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        return text.ljust(fewest, "a")[: None if most is None else int(most)]

    def _matching(self, pattern: str, schema: Schema) -> str | None:
        """Draws text that a pattern finds something in; `None` where that does not come out in some tries."""
        try:
            parsed = patterns.parse(pattern)
        except re.error:
            return None
        fewest, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        for _ in range(20):
            text = _from_pattern(parsed, self._rng)
            if re.search(pattern, text) and len(text) >= fewest and (most is None or len(text) <= most):
                return text
        return None


def _find(root: Schema, reference: str) -> Schema:
    found: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        if name:
            found = found[name.replace("~1", "/").replace("~0", "~")]
    return cast("Schema", found)


def _merged(first: Schema, second: Schema) -> dict[str, Any]:
    """Both at once: properties and required names of both, otherwise what the second says."""
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = [*first["required"], *second["required"]]
    return merged


def _holds_more(schema: Schema) -> bool:
    return any(name in schema for name in ("$ref", "properties", "items", "anyOf", "oneOf", "allOf"))


def _from_pattern(parsed: Any, rng: np.random.Generator) -> str:
    """Draws text that a parsed regular expression matches, as far as it is regular."""
    return "".join(_from_part(code, argument, rng) for code, argument in parsed)


def _from_part(code: Any, argument: Any, rng: np.random.Generator) -> str:
    if code is sre.LITERAL:
        return chr(argument)
    if code is sre.BRANCH:
        options = argument[1]
        return _from_pattern(options[int(rng.integers(len(options)))], rng)
    if code is sre.SUBPATTERN:
        return _from_pattern(argument[-1], rng)
    if code in {sre.MAX_REPEAT, sre.MIN_REPEAT}:
        fewest, most, part = int(argument[0]), int(argument[1]), argument[2]
        count = int(rng.integers(fewest, min(most, fewest + 3) + 1))
        return "".join(_from_pattern(part, rng) for _ in range(count))
    if code in {sre.ANY, sre.IN, sre.NOT_LITERAL}:
        return _from_class(code, argument, rng)
    return ""  # anchors and look-arounds: what comes out is tried


def _from_class(code: Any, argument: Any, rng: np.random.Generator) -> str:
    if code is sre.ANY:
        allowed = _LETTERS
    elif code is sre.NOT_LITERAL:
        allowed = _LETTERS.replace(chr(argument), "")
    else:
        negated = argument[0][0] is sre.NEGATE
        named = "".join(_members(item, value) for item, value in argument)
        allowed = "".join(c for c in _LETTERS if c not in named) if negated else named
    return allowed[int(rng.integers(len(allowed)))] if allowed else ""


def _members(code: Any, argument: Any) -> str:
    if code is sre.LITERAL:
        return chr(argument)
    if code is sre.RANGE:
        return "".join(map(chr, range(argument[0], min(argument[1], argument[0] + 63) + 1)))
    names = {sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_SPACE: r"\s"}
    names |= {sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_NOT_WORD: r"\W", sre.CATEGORY_NOT_SPACE: r"\S"}
    wanted = names.get(argument) if code is sre.CATEGORY else None
    return "" if wanted is None else "".join(c for c in _LETTERS + "23456789" if re.fullmatch(wanted, c))
