"""Who acts in `agentenv rollout`: chance, an environment's own demonstrations, or a model in a folder."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentenv.distribution import install_module
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import Context
from agentenv.types import Action, ToolCall, message_text

from .command_line import blame, refuse
from .env_choice import EnvChoice

if TYPE_CHECKING:
    from agentenv.agents import ScriptedAgent, TransformersAgent

__all__ = ["demonstrating_agent", "find_demonstrator", "load_model_agent", "quiet_transformers", "random_agent"]

Script = Callable[[Any], Sequence[ToolCall]]
"""Returns the calls that solve a task, one per step."""


def random_agent(choice: EnvChoice) -> "ScriptedAgent":
    """Returns an agent that draws every action from the environment's action space, with the context's seed."""
    from agentenv.agents import ScriptedAgent

    env = choice.make()
    space = env.action_space
    env.close()

    def draw(context: Context) -> Any:
        space.seed(context.seed)
        return space.sample()

    return ScriptedAgent(draw)


def find_demonstrator(choice: EnvChoice) -> Script:
    """Returns the function `careful_calls` of the module `demonstrations` beside the environment.

    Raises:
        typer.BadParameter: there is none.
    """
    name = f"{choice.cls.__module__.rpartition('.')[0]}.demonstrations"
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    script = getattr(importlib.import_module(name), "careful_calls", None) if found else None
    if script is None:
        refuse("--agent", f"{choice.name} has no demonstrations to script; use random or a model's folder")
    return script


def demonstrating_agent(choice: EnvChoice, script: Script, tasks: Sequence[Any]) -> "ScriptedAgent":
    """Returns an agent that plays an environment's own demonstrations, one call per step.

    Args:
        choice: the environment.
        script: its demonstrator.
        tasks: those that are going to come up; the agent knows each by how its conversation opens.

    Raises:
        typer.BadParameter: the demonstrator cannot play one of the tasks.
    """
    from agentenv.agents import ScriptedAgent

    scripts: dict[str, Sequence[ToolCall]] = {}
    env = choice.make()
    try:
        for task in tasks:
            observation, _ = env.reset(seed=0, options={"task": task})
            with blame("--agent", ValueError):
                scripts[_opening(observation)] = script(task)
    finally:
        env.close()

    def follow(context: Context) -> Action:
        calls = scripts.get(_opening(context.messages))
        step = sum(message["role"] == "assistant" for message in context.messages)
        if calls is None or step >= len(calls):
            what = "none begins like this" if calls is None else f"it is over after {len(calls)} steps"
            msg = f"the demonstration cannot go on: {what}"
            raise AgentError(msg)
        return Action(tool_calls=(calls[step],))

    return ScriptedAgent(follow)


def _opening(messages: Sequence[Mapping[str, Any]]) -> str:
    roles = [message["role"] for message in messages]
    end = roles.index("assistant") if "assistant" in roles else len(roles)
    return json.dumps([[message["role"], message_text(message)] for message in messages[:end]])


def load_model_agent(argument: str, folder: Path, **options: Any) -> "TransformersAgent":
    """Loads a transformers model and its tokenizer from a folder.

    Args:
        argument: the option that named the folder.
        folder: what `save_pretrained` wrote.
        options: of `TransformersAgent.from_pretrained`.

    Raises:
        typer.BadParameter: there is no such folder, no model or no tokenizer in it, or torch is not installed.
    """
    if not folder.is_dir():
        refuse(argument, f"must be the folder of a model, got {str(folder)!r}: there is no such folder")
    quiet_transformers(argument)
    from agentenv.agents import TransformersAgent

    with blame(argument, ModelError):
        return TransformersAgent.from_pretrained(folder, **options)


def quiet_transformers(argument: str) -> None:
    """Keeps transformers from drawing progress bars and giving advice.

    Raises:
        typer.BadParameter: torch or transformers is not installed; the message has the command that installs them.
    """
    try:
        import torch  # noqa: F401  # pyright: ignore[reportUnusedImport]
        from transformers.utils import logging
    except ImportError as error:
        refuse(argument, f"needs torch and transformers ({error}): {install_module('torch')}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
