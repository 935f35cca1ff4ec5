"""Who is to blame: a failure that an action brings about, every time, is no failure of infrastructure."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from agentenv.env import Env
from agentenv.errors import InfrastructureError
from agentenv.testing.clauses import Broken
from agentenv.testing.probe import Probe

__all__ = ["check_blame"]

_TEXTS = (
    "x" * 200_000,
    "(" * 2_000,
    "9" * 5_000,
    "\x00",
    "\N{SNOWMAN}" * 50,
    "kill -9 $$",
    "exit 3",
    "raise SystemExit(3)",
)
"""What breaks parsers, workers and shells, and harms nobody where nothing is isolated."""

_CAUSE = (
    "the environment says 'infrastructure' of what the agent did: try the same without the action (the untouched code, "
    "the reference), and where that works give reward 0 and say why"
)


def check_blame(probe: Probe) -> None:
    """Raises `Broken` where an action fails as infrastructure, in a fresh episode too, and a control does not."""
    with probe.episode() as env:
        tools = env.tools
    with closing(probe.beginnings()) as beginnings:
        for action, env in zip([*probe.actions, *_hostile(tools)], beginnings, strict=False):
            if _failure(env, action) and not _fails_anew(probe, "") and (failure := _fails_anew(probe, action)):
                seen = f"step({action!r:.120}) raised {failure}, in a fresh episode too, and an empty message did not"
                raise Broken(_CAUSE, seen)


def _failure(env: Env, action: Any) -> str:
    try:
        env.step(action)
    except InfrastructureError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _fails_anew(probe: Probe, action: Any) -> str:
    with probe.episode() as env:
        return _failure(env, action)


def _hostile(tools: Any) -> Iterator[Any]:
    """Yields hostile texts as messages, and as every text argument of every tool."""
    yield from _TEXTS
    for tool in tools:
        function = tool["function"]
        properties: dict[str, Any] = function["parameters"].get("properties", {})
        texts = [name for name, schema in properties.items() if schema.get("type") == "string" and "enum" not in schema]
        if not set(function["parameters"].get("required", ())) <= set(texts):
            continue
        for text in _TEXTS if texts else ():
            arguments = dict.fromkeys(texts, text)
            call = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
            yield {"role": "assistant", "content": "", "tool_calls": [call]}
