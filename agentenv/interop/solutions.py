"""What solves an environment's task, as calls of its tools: for checks by other people's validators."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

from agentenv.env import Env
from agentenv.types import ToolCall

__all__ = ["solution_calls"]


def solution_calls(env: Env) -> list[ToolCall] | None:
    """Returns the calls that solve the running episode's task: the environment's demonstration, or the task's files.

    The demonstration is `careful_calls(task)` of the module `demonstrations` beside the environment's class. Without
    one, the files of `task.solution` are written and submitted. `None` where there is neither, where the demonstration
    refuses the task by a `ValueError`, or where the solution is none that the environment's tools can write: bytes that
    are no text, or files to be removed.

    Raises:
        ImportError: the module is there and cannot be imported.
    """
    name = f"{type(env).__module__.rpartition('.')[0]}.demonstrations".lstrip(".")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        module = None
    script = getattr(module, "careful_calls", None)
    if script is not None:
        try:
            return list(script(env.task))
        except ValueError:
            return None
    files: Any = getattr(env.task, "solution", None)
    tools = {tool["function"]["name"] for tool in env.tools}
    if (
        not isinstance(files, Mapping)
        or not files
        or not tools >= {"write_file", "submit"}
        or getattr(env.task, "removed", ())
    ):
        return None
    try:
        return [*(_write(*file) for file in cast("Mapping[str, str | bytes]", files).items()), ToolCall("submit", {})]
    except UnicodeDecodeError:
        return None


def _write(path: str, content: str | bytes) -> ToolCall:
    text = content.decode() if isinstance(content, bytes) else content
    return ToolCall("write_file", {"path": path, "content": text})
