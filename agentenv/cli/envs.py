"""`agentenv envs`: what environments there are, and what each offers."""

import inspect
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

__all__ = ["envs"]


def envs(
    env_id: Annotated[
        str | None, typer.Argument(metavar="[ENV_ID]", help="A registered id, or module:Class.", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Argument of the environment as key=value; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the example task.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the environments, or tell all about one.

    Of one it shows the tools, the options, and an example of a task.

    Examples:
        agentenv envs
        agentenv envs agentenv/MathVerifier-v0
        agentenv envs agentenv/MathVerifier-v0 --option kind=equation --seed 3
    """
    from .console import print_json

    if env_id is None:
        rows = _all()
        print_json(rows) if as_json else _print_all(rows)
        return
    record = _one(env_id, option or [], seed)
    print_json(record) if as_json else _print_one(record)


def _all() -> list[dict[str, Any]]:
    from agentenv.registry import env_ids

    from .env_choice import choose_env

    rows: list[dict[str, Any]] = []
    for name in env_ids():
        try:
            choice = choose_env(name)
        except typer.BadParameter as error:
            rows.append({"id": name, "about": f"cannot be made here: {error.message}", "tools": [], "max_steps": None})
            continue
        env = choice.make()
        tools = [tool["function"]["name"] for tool in env.tools]
        rows.append({"id": name, "about": _first_line(choice.cls), "tools": tools, "max_steps": env.max_steps})
        env.close()
    return rows


def _first_line(cls: type) -> str:
    return _read_docstring(cls)[0].partition("\n\n")[0].replace("\n", " ")


def _print_all(rows: list[dict[str, Any]]) -> None:
    from .console import open_console, print_table

    console = open_console()
    cells = [[row["id"], ", ".join(row["tools"]) or "-", str(row["max_steps"] or "-"), row["about"]] for row in rows]
    print_table(console, ["id", "tools", "max steps", "about"], cells)
    console.print("\nAll about one: agentenv envs ENV_ID", soft_wrap=True)


def _one(env_id: str, words: list[str], seed: int) -> dict[str, Any]:
    import pydantic_core

    from agentenv.errors import AgentEnvError

    from .command_line import blame
    from .env_choice import choose_env

    choice = choose_env(env_id, words)
    env = choice.make()
    try:
        with blame("ENV_ID", AgentEnvError):
            observation, _ = env.reset(seed=seed)
        return {
            "id": env.env_id,
            "class": f"{choice.cls.__module__}:{choice.cls.__qualname__}",
            "about": _read_docstring(choice.cls)[0],
            "max_steps": env.max_steps,
            "tools": [tool["function"] for tool in env.tools],
            "options": _options(choice.cls),
            "example": {
                "seed": seed,
                "task": pydantic_core.to_jsonable_python(env.task, fallback=repr),
                "observation": list(observation),
            },
        }
    finally:
        env.close()


def _options(cls: type[Any]) -> list[dict[str, Any]]:
    from .env_choice import constructor_options

    about: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        about |= _read_docstring(base)[1]
    return [
        {
            "name": name,
            "default": None if parameter.default is parameter.empty else repr(parameter.default),
            "about": about.get(name, ""),
        }
        for name, parameter in constructor_options(cls).items()
    ]


def _read_docstring(cls: type) -> tuple[str, dict[str, str]]:
    """Splits a class's docstring into what comes before `Args:`, and the descriptions of its arguments."""
    head, _, rest = (inspect.getdoc(cls) or "").partition("\nArgs:\n")
    arguments: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        if match := re.match(r" {4}\**(\w+): (.*)", line):
            name, arguments[match[1]] = match[1], match[2]
        elif name and line.strip():
            arguments[name] += f" {line.strip()}"
    return head.strip(), arguments


def _print_one(record: Mapping[str, Any]) -> None:
    from rich.text import Text

    from agentenv.json_schema import resolved

    from .console import open_console, print_fields, print_messages, print_table, say

    console = open_console()

    def heading(text: str) -> None:
        console.print(Text(f"\n{text}", "bold"))

    console.print(Text(record["id"], "bold"))
    say(console, record["about"])
    console.print()
    print_fields(console, {"class": record["class"], "max steps": str(record["max_steps"] or "none")})
    heading("Tools")
    for tool in record["tools"]:
        say(console, Text.assemble((tool["name"], "cyan"), "  ", tool["description"]))
        parameters = tool["parameters"]
        for name, schema in parameters.get("properties", {}).items():
            told = describe_schema(resolved(schema, parameters), needed=name in parameters.get("required", ()))
            say(console, Text.assemble("    ", (name, "cyan"), f": {told}"))
    if not record["tools"]:
        console.print("none: the agent answers with text")
    heading("Options (--option key=value)")
    rows = [[entry["name"], entry["default"] or "required", entry["about"]] for entry in record["options"]]
    print_table(console, ["option", "default", "meaning"], rows)
    heading(f"Example (seed {record['example']['seed']})")
    task = json.dumps(record["example"]["task"], ensure_ascii=False)
    say(console, f"task {task}")
    print_messages(console, record["example"]["observation"])


def describe_schema(schema: Mapping[str, Any], needed: bool) -> str:
    """Returns a parameter's JSON schema in words: type, choices, range, default, description."""
    words = [_type_words(schema)]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None:
        words.append(f"at least {low}")
    if high is not None:
        words.append(f"at most {high}")
    if not needed:
        words.append(f"default {json.dumps(schema.get('default'))}")
    text = ", ".join(words)
    return f"{text}. {schema['description']}" if schema.get("description") else text


def _type_words(schema: Mapping[str, Any]) -> str:
    from agentenv.json_schema import alternatives, listed

    if choices := listed(schema):
        return "one of " + ", ".join(json.dumps(choice) for choice in choices)
    if (parts := alternatives(schema)) != [schema]:
        return " or ".join(_type_words(part) for part in parts)
    if schema.get("type") == "array":
        return f"list of {_type_words(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))
