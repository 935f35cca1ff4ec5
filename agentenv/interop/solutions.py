"""What solves an environment's task, as calls of its tools: for checks by other people's validators."""

import importlib

from agentenv.env import Env
from agentenv.types import ToolCall

__all__ = ["solution_calls"]


def solution_calls(env: Env) -> list[ToolCall] | None:
    """Returns the calls that solve the running episode's task: the environment's demonstration, or the task's files.

    The demonstration is `careful_calls(task)` of the module `demonstrations` beside the environment's class. Without
    one, the files of `task.solution` are written and submitted. `None` where there is neither.
    """
    package = type(env).__module__.rpartition(".")[0]
    try:
        script = importlib.import_module(f"{package}.demonstrations").careful_calls
    except (ImportError, AttributeError):
        files = getattr(env.task, "solution", None)
        if not files:
            return None
        return [*(_write(path, text) for path, text in files.items()), ToolCall("submit", {})]
    return list(script(env.task))


def _write(path: str, content: str | bytes) -> ToolCall:
    text = content.decode() if isinstance(content, bytes) else content
    return ToolCall("write_file", {"path": path, "content": text})
