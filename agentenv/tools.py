"""`@tool`: a method becomes a tool that a language model can call.

The JSON schema comes from the type hints, the descriptions from the Google-style docstring, and pydantic validates the
arguments. A wrong call is something the agent reads, never an exception.
"""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeVar, cast, get_type_hints

import pydantic

from agentenv.errors import ToolError
from agentenv.fitting import fit_row
from agentenv.malformed import json_problem
from agentenv.rows import shorten
from agentenv.types import ToolCall, ToolSchema

__all__ = ["Tool", "collect_tools", "tool", "unknown_tool"]

_MARK = "__agentenv_tool__"
_BASES = {"agentenv.branching", "agentenv.env", "agentenv.tool_env"}

F = TypeVar("F", bound=Callable[..., Any])


def tool(function: F) -> F:
    """Marks a method of a `ToolEnv` as a tool.

    The method's name is the tool's name, every parameter needs a type hint, the docstring up to its first section is
    the description, and its `Args:` section describes the parameters. It returns the text that the agent reads, and
    may raise `ToolError` to tell the agent what it did wrong.

    Raises:
        TypeError: it marks something else than a function, e.g. a static method.
    """
    if not isinstance(function, FunctionType):
        msg = f"@tool marks ordinary methods, got {function!r}"
        raise TypeError(msg)
    setattr(function, _MARK, True)
    return cast("F", function)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool of an environment class.

    Attributes:
        name: what the agent calls.
        schema: the declaration in OpenAI's format.
        arguments: the pydantic model that validates the arguments.
    """

    name: str
    schema: ToolSchema
    arguments: type[pydantic.BaseModel]

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> "Tool":
        """Builds a tool from a marked method.

        Raises:
            TypeError: a parameter lacks a type hint, is variadic or private, or the docstring is missing.
        """
        name = function.__name__
        where = f"tool {function.__qualname__}"
        if not (doc := inspect.getdoc(function)):
            msg = f"{where} needs a docstring: it is what the agent reads"
            raise TypeError(msg)
        if inspect.iscoroutinefunction(function):
            msg = f"{where} must be an ordinary function, got `async def`: environments step synchronously"
            raise TypeError(msg)
        description, parameters = _read_docstring(doc)
        hints = get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            special = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}
            if special or parameter.name.startswith("_"):
                msg = f"{where}: parameter {parameter.name!r} must be an ordinary named parameter"
                raise TypeError(msg)
            if parameter.name not in hints:
                msg = f"{where}: parameter {parameter.name!r} needs a type hint, e.g. `{parameter.name}: int`"
                raise TypeError(msg)
            default = ... if parameter.default is parameter.empty else parameter.default
            # the field has a name of its own: a parameter may be called `json`, as methods of pydantic's models are
            info = pydantic.Field(default, alias=parameter.name)
            if parameter.name in parameters:
                info = pydantic.Field(default, alias=parameter.name, description=parameters[parameter.name])
            fields[f"argument_{parameter.name}"] = (hints[parameter.name], info)
        model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
        schema = {
            "type": "function",
            "function": {"name": name, "description": description, "parameters": _json_schema(model)},
        }
        return cls(name, schema, model)

    def validate(self, call: ToolCall) -> dict[str, Any]:
        """Returns the call's arguments, validated and converted.

        What differs in form only is taken: a number where text is declared, JSON text where a list is, and `null` for
        an argument that has a default.

        Raises:
            ToolError: the arguments do not fit; the message names each wrong one, what was expected, and the signature.
        """
        if isinstance(call.arguments, str):
            problem = json_problem(call.arguments)
            why = f" (not valid JSON: {problem})" if problem else ""
            msg = f"arguments of {self.signature} must be a JSON object, got {shorten(call.arguments)}{why}"
            raise ToolError(msg)
        try:
            model = self.arguments.model_validate(fit_row(call.arguments, self.arguments))
        except pydantic.ValidationError as error:
            problems = "; ".join(_problem(item) for item in error.errors(include_url=False))
            msg = f"wrong arguments for {self.signature}: {problems}"
            raise ToolError(msg) from None
        except ValueError as error:  # text that should be a list
            msg = f"wrong arguments for {self.signature}: {error}"
            raise ToolError(msg) from None
        return {str(info.alias): getattr(model, name) for name, info in type(model).model_fields.items()}

    @property
    def signature(self) -> str:
        """How to call the tool, e.g. `guess(number: integer, hint: boolean = false)`."""
        models = self.schema["function"]["parameters"].get("$defs", {})
        parts = [
            f"{name}: {_type_name(part, models)}" + (f" = {json.dumps(part['default'])}" if "default" in part else "")
            for name, part in self.schema["function"]["parameters"]["properties"].items()
        ]
        return f"{self.name}({', '.join(parts)})"


def collect_tools(cls: type) -> dict[str, Tool]:
    """Returns the tools of a class, inherited ones included, in the order of definition.

    `name = None` in a subclass takes an inherited tool away.

    Raises:
        TypeError: a tool is ill-defined, hides something of the environment, or is overridden without `@tool`.
    """
    functions: dict[str, Callable[..., Any]] = {}
    taken: set[str] = set()
    for base in reversed(cls.__mro__):
        if base.__module__ in _BASES or base.__module__.startswith("gymnasium."):
            taken |= {*vars(base), *base.__annotations__}
            continue
        for name, value in vars(base).items():
            wrong = ""
            if getattr(getattr(value, "__func__", value), _MARK, False) is True:
                if name in taken:
                    wrong = "hides what every environment has: choose another name"
                elif not isinstance(value, FunctionType):
                    wrong = "must be an ordinary method, neither static nor of the class"
                functions[name] = value
            elif name in functions and value is None:
                del functions[name]
            elif name in functions:
                wrong = f"is overridden without @tool: mark it too, or set {name} = None to take it away"
            if wrong:
                msg = f"tool {base.__qualname__}.{name} {wrong}"
                raise TypeError(msg)
    return {name: Tool.from_function(function) for name, function in functions.items()}


def unknown_tool(name: str, tools: Mapping[str, Tool]) -> str:
    """Returns what to tell an agent that called a tool which does not exist."""
    close = difflib.get_close_matches(name, tools, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no tool {name!r}.{hint} Tools: {', '.join(t.signature for t in tools.values())}"


def _read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """Splits a Google-style docstring into its first paragraphs and the descriptions of its parameters."""
    head, _, rest = doc.partition("\nArgs:\n")
    description = re.split(r"\n(?:Returns|Raises|Yields|Example|Examples):\n", head)[0].strip()
    found: dict[str, str] = {}
    current = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r"^ {2,4}(\w+)(?: \([^)]*\))?:(?: (.*))?$", line):
            current = match[1]
            found[current] = (match[2] or "").strip()
        elif current and line.strip():
            found[current] = f"{found[current]} {line.strip()}".strip()
    return description, found


def _json_schema(model: type[pydantic.BaseModel]) -> dict[str, Any]:
    schema: Any = _without_titles(model.model_json_schema())
    schema.pop("additionalProperties", None)
    schema.setdefault("properties", {})
    return schema


def _without_titles(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_titles(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_without_titles(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _type_name(schema: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " | ".join(json.dumps(choice) for choice in choices)
    if parts := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " | ".join(_type_name(part, models) for part in parts)
    if "$ref" in schema:  # an Enum, or a model
        named = models.get(schema["$ref"].rpartition("/")[2], {})
        return _type_name(named, models) if "enum" in named or "const" in named else "object"
    return str(schema.get("type", "any"))


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "arguments"
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"{where} is not a parameter"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}, got {shorten(error['input'])}"
