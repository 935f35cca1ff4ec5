"""What a person types, read as an action: `guess 50`, `guess number=50`, JSON, or plain text."""

import difflib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentenv.json_schema import alternatives, listed, resolved
from agentenv.types import Action, ToolCall, ToolSchema

__all__ = ["describe_tool", "read_action"]

_NAMED = re.compile(r"(\w+)=")
_QUOTED = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')(?=\s|$)""", re.DOTALL)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_ARTICLES = {"integer": "an integer", "number": "a number", "boolean": "true or false", "array": "a JSON list"}


def read_action(line: str, tools: Sequence[ToolSchema]) -> Action:
    r"""Reads one line as an action.

    - `guess 50`, `edit "a b" "c d"`: a tool and its required arguments in order. Quotes and, where a list or an object
      is wanted, brackets keep spaces together; the last one takes the rest of the line. Optional ones may follow in
      order; after text without quotes only those that are no text, such as the number in `buy apples 3`. A backslash is
      itself, but for `\"` and `\\` within double quotes.
    - `guess number=50`: arguments by name, optional ones too.
    - `{"name": "guess", "arguments": {"number": 50}}`, or a whole assistant message, as JSON.
    - anything else is plain text; `> guess what` is text even though it begins with the name of a tool.

    Raises:
        ValueError: it is none of these; the message says what would be.
    """
    line = line.strip()
    if not line:
        msg = "type an action, or ? for help"
        raise ValueError(msg)
    if line.startswith(">"):
        return Action(line[1:].strip())
    if line.startswith("{"):
        return _read_json(line)
    schemas = {str(tool["function"]["name"]): tool for tool in tools}
    word, _, rest = line.partition(" ")
    if word in schemas:
        return Action(tool_calls=(ToolCall(word, _arguments(rest.strip(), schemas[word]), "call_0"),))
    near = difflib.get_close_matches(word, schemas, n=1, cutoff=0.75)
    if near:
        msg = f"no tool is called {word!r}; did you mean {near[0]!r}? To say it as text: > {line}"
        raise ValueError(msg)
    return Action(line)


def describe_tool(tool: ToolSchema) -> str:
    """Returns a tool as one would type it, with what it does: `guess NUMBER  Submit one guess.`"""
    function = tool["function"]
    properties, required = _parameters(tool)
    words = [name.upper() if name in required else f"[{name.upper()}]" for name in properties]
    summary = str(function.get("description", "")).strip().partition("\n")[0]
    lines = ["  ".join(filter(None, [" ".join([str(function["name"]), *words]), summary]))]
    for name, schema in properties.items():
        about = str(schema.get("description", "")).strip().replace("\n", " ")
        lines.append(f"  {name} ({' or '.join(_words(schema)) or 'anything'}){': ' if about else ''}{about}")
    return "\n".join(lines)


def _read_json(line: str) -> Action:
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError) as exc:
        msg = f"this is not valid JSON: {_fault(exc)}"
        raise ValueError(msg) from None
    if isinstance(value, Mapping) and "role" not in value and "content" not in value and "tool_calls" not in value:
        return Action(tool_calls=(ToolCall.parse(cast("Mapping[str, Any]", value)),))
    return Action.parse(value)


def _fault(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _parameters(tool: ToolSchema) -> tuple[dict[str, dict[str, Any]], list[str]]:
    parameters: dict[str, Any] = tool["function"].get("parameters") or {}
    properties: dict[str, Any] = parameters.get("properties") or {}
    read = {name: resolved(schema, parameters) for name, schema in properties.items()}
    return read, list(parameters.get("required") or [])


def _arguments(rest: str, tool: ToolSchema) -> dict[str, Any]:
    properties, required = _parameters(tool)
    first = _NAMED.match(rest)
    named = first is not None and (first[1] in properties or len(properties) != 1)
    texts = _named(rest, tool) if named else _in_order(rest, tool)
    missing = [name for name in required if name not in texts]
    if missing:
        msg = f"{tool['function']['name']} needs {', '.join(missing)}. Usage:\n{describe_tool(tool)}"
        raise ValueError(msg)
    return {name: _value(name, text, properties[name]) for name, text in texts.items()}


def _named(rest: str, tool: ToolSchema) -> dict[str, str]:
    name, properties = tool["function"]["name"], _parameters(tool)[0]
    texts: dict[str, str] = {}
    while rest:
        named = _NAMED.match(rest)
        if named is None:
            msg = (
                f"name every argument or none: {rest.split(maxsplit=1)[0]!r} has no name. Usage:\n{describe_tool(tool)}"
            )
            raise ValueError(msg)
        key, rest = named[1], rest[named.end() :]
        if key not in properties:
            msg = f"{name} has no argument {key!r}; it has {', '.join(properties) or 'none'}. Quote spaces"
            raise ValueError(msg)
        if not rest or rest[0].isspace():
            texts[key], rest = "", rest.lstrip()
        else:
            texts[key], rest = _first_word(rest, properties[key])
    return texts


def _in_order(rest: str, tool: ToolSchema) -> dict[str, str]:
    properties, required = _parameters(tool)
    if rest and not properties:
        msg = f"{tool['function']['name']} takes no arguments, got {rest!r}"
        raise ValueError(msg)
    names = required or list(properties)
    texts, rest = _split(rest, {name: properties[name] for name in names[:-1]})
    if not rest:
        return texts
    optional = {name: schema for name, schema in properties.items() if name not in names}
    further = _with_optional(rest, {names[-1]: properties[names[-1]]} | optional) if optional else None
    return texts | (further or {names[-1]: _unquoted(rest)})


def _split(rest: str, schemas: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Splits off one argument after another, and returns them and what is left."""
    texts: dict[str, str] = {}
    for name, schema in schemas.items():
        if rest:
            texts[name], rest = _first_word(rest, schema)
    return texts, rest


def _with_optional(rest: str, schemas: Mapping[str, Any]) -> dict[str, str] | None:
    """Returns the last required argument and optional ones after it; `None` where the words may mean something else."""
    *others, last = schemas
    try:
        texts, left = _split(rest, {name: schemas[name] for name in others})
        texts |= {last: _unquoted(left)} if left else {}
        values = {name: _value(name, text, schemas[name]) for name, text in texts.items()}
    except ValueError:
        return None
    first, *others = texts
    told = rest[0] in "\"'" or not _is_text(schemas[first])
    fit = all(
        values[name] in _choices(schemas[name]) if _choices(schemas[name]) else told or not _is_text(schemas[name])
        for name in others
    )
    return texts if fit else None


def _first_word(text: str, schema: Mapping[str, Any]) -> tuple[str, str]:
    """Splits off one argument: a quoted text, a JSON value where one is wanted, or else up to the first space."""
    if text[0] in "\"'":
        quoted = _QUOTED.match(text)
        if quoted is None:
            msg = f"the quotes of {text!r} do not match"
            raise ValueError(msg)
        return shlex.split(quoted[0])[0], text[quoted.end() :].lstrip()
    if text[0] in "[{" and {"array", "object"} & {*_kinds(schema)}:
        try:
            end = json.JSONDecoder().raw_decode(text)[1]
        except (ValueError, RecursionError) as exc:
            msg = f"{text!r:.200} does not begin with valid JSON: {_fault(exc)}"
            raise ValueError(msg) from None
        return text[:end], text[end:].lstrip()
    word, *rest = text.split(maxsplit=1)
    return word, rest[0] if rest else ""


def _unquoted(text: str) -> str:
    """Takes off quotes that enclose the whole text, and what the shell's rules escape in them."""
    quoted = _QUOTED.fullmatch(text)
    return shlex.split(text)[0] if quoted else text


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    """Returns the values that a schema lists; none where it lists none."""
    return [value for part in alternatives(schema) for value in listed(part)]


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    """Returns the JSON types that a schema allows; none when it does not say."""
    kinds: list[str] = []
    for option in alternatives(schema):
        kind = option.get("type", [])
        kinds += [kind] if isinstance(kind, str) else cast("list[str]", kind)
    return kinds


def _is_text(schema: Mapping[str, Any]) -> bool:
    """Whether an argument may be any text."""
    kinds = _kinds(schema)
    return not _choices(schema) and ("string" in kinds or not kinds)


def _words(schema: Mapping[str, Any]) -> list[str]:
    """Returns what an argument may be: the values as one types them, or the types."""
    return [value if isinstance(value, str) else json.dumps(value) for value in _choices(schema)] or _kinds(schema)


def _value(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    """Reads an argument by its JSON type; text stays text wherever text, or this text, is allowed."""
    kinds = _kinds(schema)
    if "string" in kinds or text in _choices(schema):
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        if not kinds:
            return text
        value = text
    allowed = tuple(kind for kind in kinds if kind in _TYPES)
    fits = any(isinstance(value, _TYPES[kind]) and (kind == "boolean") == isinstance(value, bool) for kind in allowed)
    if allowed and not fits:
        wanted = " or ".join(_ARTICLES.get(kind, kind) for kind in allowed)
        msg = f"{name} must be {wanted}, got {text!r}"
        raise ValueError(msg)
    return value
