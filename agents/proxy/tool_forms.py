"""Tools as OpenAI's protocols declare and call them: functions, custom tools that take text, and namespaces of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentenv.types import ToolCall, ToolSchema

from .requests import RequestError, list_of, mapping_of, word

__all__ = ["ToolForm", "custom_call", "declared", "flat_name", "function_tool", "text_of"]

_INPUT = "input"


@dataclass(frozen=True, slots=True)
class ToolForm:
    """How a program knows a tool.

    Attributes:
        name: within its namespace.
        namespace: empty without one.
        custom: whether it takes text instead of arguments by name.
    """

    name: str
    namespace: str = ""
    custom: bool = False


def declared(value: object) -> tuple[tuple[ToolSchema, ...], dict[str, ToolForm]]:
    """Reads `tools`: what the model is offered, and by those names how the program knows them, where it is otherwise.

    A model knows functions. So a tool of a namespace gets a name with both, and a custom tool is a function of one
    text, `input`; a grammar stands in its description, for sampling is not constrained.

    Raises:
        RequestError: one is no tool, is built in, or has the name of another.
    """
    schemas: list[ToolSchema] = []
    forms: dict[str, ToolForm] = {}
    for i, entry in enumerate(list_of(value, "tools")):
        outer = mapping_of(entry, f"tools[{i}]")
        inside = word(outer, "type") == "namespace"
        inner = list_of(outer.get("tools"), f"tools[{i}].tools") if inside else [outer]
        for j, one in enumerate(inner):
            name = f"tools[{i}].tools[{j}]" if inside else f"tools[{i}]"
            schema, form = _tool(mapping_of(one, name), name, _named(outer, f"tools[{i}]") if inside else "")
            schemas.append(schema)
            if form.custom or form.namespace:
                forms[schema["function"]["name"]] = form
    names = [schema["function"]["name"] for schema in schemas]
    if forms and (twice := {name for name in names if names.count(name) > 1}):
        msg = f"tools must have names of their own, namespaces included, got {sorted(twice)} twice"
        raise RequestError(msg)
    return tuple(schemas), forms


def _tool(entry: Mapping[str, Any], name: str, namespace: str) -> tuple[ToolSchema, ToolForm]:
    kind = word(entry, "type")
    if kind not in {"function", "custom"}:
        msg = (
            f"{name}.type must be 'function', got {entry.get('type')!r}: there are no built-in tools here; turn it "
            "off in the program's settings"
        )
        raise RequestError(msg)
    inner = mapping_of(entry[kind], f"{name}.{kind}") if kind in entry else entry  # chat completions nest it
    own = _named(inner, name)
    flat = flat_name(namespace, own)
    if kind == "custom":
        return _text_tool(inner, flat, name), ToolForm(own, namespace, custom=True)
    return function_tool({**inner, "name": flat}, name), ToolForm(own, namespace)


def _named(entry: Mapping[str, Any], name: str) -> str:
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        msg = f"{name}.name must be text, got {entry.get('name')!r}"
        raise RequestError(msg)
    return entry["name"]


def flat_name(namespace: object, name: str) -> str:
    """Returns a name with that of its namespace, `mcp__files` and `read` as `mcp__files__read`."""
    if not isinstance(namespace, str) or not namespace:
        return name
    return f"{namespace}{'' if namespace.endswith('__') else '__'}{name}"


def function_tool(function: Mapping[str, Any], name: str) -> ToolSchema:
    """Returns a tool in OpenAI's chat format; `strict` is left out, for arguments are not constrained.

    Raises:
        RequestError: it has no name.
    """
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    inner = {
        "name": _named(function, name),
        "description": str(function.get("description") or ""),
        "parameters": dict(mapping_of(parameters, f"{name}.parameters")),
    }
    return {"type": "function", "function": inner}


def _text_tool(entry: Mapping[str, Any], flat: str, name: str) -> ToolSchema:
    form = mapping_of(entry.get("format") or {"type": "text"}, f"{name}.format")
    grammar = mapping_of(form.get("grammar") or form, f"{name}.format.grammar")
    rules = f"\n\nThe input follows this grammar:\n{grammar['definition']}" if grammar.get("definition") else ""
    inner: dict[str, Any] = {
        "name": flat,
        "description": str(entry.get("description") or "") + rules,
        "parameters": {"type": "object", "properties": {_INPUT: {"type": "string"}}, "required": [_INPUT]},
    }
    return {"type": "function", "function": inner}


def text_of(call: ToolCall, form: ToolForm | None) -> str | None:
    """Returns the text that a custom tool is called with; `None` where the call has to go out as a function's.

    That is so for every other tool, and where the model gave other arguments than a text: the program then says what is
    wrong with it, and the conversation stays what the model wrote.
    """
    if form is None or not form.custom or not isinstance(call.arguments, dict) or set(call.arguments) != {_INPUT}:
        return None
    text = call.arguments[_INPUT]
    return text if isinstance(text, str) else None


def custom_call(entry: Mapping[str, Any], flat: object, call_id: object) -> dict[str, Any]:
    """Returns a custom tool's call out of the history as a function's."""
    return {"name": flat, "arguments": {_INPUT: str(entry.get("input") or "")}, "id": call_id}
