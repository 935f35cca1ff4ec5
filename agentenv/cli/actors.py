"""Who acts in `agentenv rollout`: chance, an environment's own demonstrations, or a model in a folder."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agentenv.distribution import install_module
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import Context
from agentenv.types import Action, ToolCall, message_text

from .command_line import blame, refuse
from .env_choice import EnvChoice

if TYPE_CHECKING:
    from agentenv.agents import ScriptedAgent, TransformersAgent

__all__ = ["demonstrating_agent", "find_demonstrator", "load_model_agent", "quiet_transformers", "random_agent"]

Demonstrator = Callable[[Any, np.random.Generator], Sequence[ToolCall]]
"""Returns the calls that play a task, one per step; what it draws, it draws from the generator."""


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


def find_demonstrator(choice: EnvChoice, *, sloppy: bool = False) -> Demonstrator:
    """Returns what plays a task: `careful_calls` or `noisy_calls` of the module `demonstrations` beside the class.

    Raises:
        typer.BadParameter: there is none.
    """
    name = f"{choice.cls.__module__.rpartition('.')[0]}.demonstrations"
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    kind = "noisy_calls" if sloppy else "careful_calls"
    script = getattr(importlib.import_module(name), kind, None) if found else None
    if script is None:
        refuse("--agent", f"{choice.name} has no demonstrations to script; use random or a model's folder")
    return script if sloppy else lambda task, _: script(task)


def demonstrating_agent(
    choice: EnvChoice, demonstrate: Demonstrator, tasks: Sequence[Any], *, seed: int = 0, most: int = 1
) -> "ScriptedAgent":
    """Returns an agent that plays an environment's own demonstrations, one call per step.

    Args:
        choice: the environment.
        demonstrate: plays one of its tasks.
        tasks: those that are going to come up; the agent knows each by how its conversation opens.
        seed: of the demonstrations.
        most: how many to draw per task. At every step one of those that began like the episode goes on.

    Raises:
        typer.BadParameter: the demonstrator cannot play one of the tasks.
    """
    from agentenv.agents import ScriptedAgent

    scripts: dict[str, list[list[ToolCall]]] = {}
    env = choice.make()
    try:
        for number, task in enumerate(tasks):
            observation, _ = env.reset(seed=0, options={"task": task})
            rng = np.random.default_rng([seed, number])
            with blame("--agent", ValueError):
                scripts[_opening(observation)] = [list(demonstrate(task, rng)) for _ in range(most)]
    finally:
        env.close()

    def follow(context: Context) -> Action:
        made = [ToolCall.parse(call) for message in context.messages for call in message.get("tool_calls", ())]
        played = [(call.name, call.arguments) for call in made]
        known = scripts.get(_opening(context.messages), [])
        going_on = [script for script in known if _begins(script, played)]
        if not going_on:
            what = f"none goes on after these {len(made)} steps" if known else "none begins like this"
            msg = f"the demonstration cannot go on: {what}"
            raise AgentError(msg)
        script = going_on[int(np.random.default_rng(context.seed).integers(len(going_on)))]
        return Action(tool_calls=(script[len(made)],))

    return ScriptedAgent(follow)


def _begins(script: Sequence[ToolCall], played: Sequence[tuple[str, Any]]) -> bool:
    """Whether a script begins with these calls and goes on."""
    return len(script) > len(played) and all(
        (call.name, call.arguments) == one for call, one in zip(script, played, strict=False)
    )


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
