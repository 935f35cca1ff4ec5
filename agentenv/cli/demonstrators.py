"""Agents that play an environment's own demonstrations, carefully or with slips."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from agentenv.errors import AgentError
from agentenv.protocols import Context
from agentenv.testing.scripts import Script
from agentenv.types import Action, ToolCall, message_text

from .command_line import blame, refuse
from .env_choice import EnvChoice

if TYPE_CHECKING:
    from agentenv.agents import ScriptedAgent

__all__ = ["careful_episode", "demonstrating_agent", "find_demonstrator"]

Demonstrator = Callable[[Any, np.random.Generator], Sequence[ToolCall]]
"""Returns the calls that play a task, one per step; what it draws, it draws from the generator."""


def find_demonstrator(choice: EnvChoice, *, sloppy: bool = False, asked: str = "--agent") -> Demonstrator:
    """Returns what plays a task: `careful_calls` or `noisy_calls` of the class's module, or of `demonstrations` there.

    Args:
        choice: the environment.
        sloppy: play that slips, rather than play that succeeds.
        asked: the argument that needs them.

    Raises:
        typer.BadParameter: there is none.
    """
    script = _written(choice, "noisy_calls" if sloppy else "careful_calls")
    if script is None:
        signature = "noisy_calls(task, rng)" if sloppy else "careful_calls(task)"
        other = "another agent, such as random" if asked == "--agent" else "the folder of a model"
        told = f"{choice.name} has no demonstrations to script: write {signature} beside the class (docs/define.md)"
        refuse(asked, f"{told}, or give {other}")
    return script if sloppy else lambda task, _: script(task)


def careful_episode(choice: EnvChoice, *, seed: int) -> Script | None:
    """Returns the careful play of the task that a seed draws; `None` where the environment comes without."""
    script = _written(choice, "careful_calls")
    if script is None:
        return None
    with closing(choice.make()) as env:
        try:
            env.reset(seed=seed)
        except Exception:  # noqa: BLE001  for the laws to report
            return None
        return Script(tuple(Action(tool_calls=(call,)) for call in script(env.task)), seed, env.task)


def _written(choice: EnvChoice, kind: str) -> Any:
    """Returns a function of the class's module, or of `demonstrations` beside it."""
    module = choice.cls.__module__
    package = module.rpartition(".")[0]
    places = (module, f"{package}.demonstrations") if package else (module,)
    return next((found for place in places if (found := _attribute(place, kind)) is not None), None)


def _attribute(module: str, name: str) -> Any:
    """Returns what a module holds by a name; `None` where there is no such module, or it holds nothing like it."""
    known = module in sys.modules or importlib.util.find_spec(module) is not None
    return getattr(importlib.import_module(module), name, None) if known else None


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
            alike = "(a script knows a task by how its conversation begins: do others begin alike?)"
            what = f"none goes on after these {len(made)} steps {alike}" if known else "none begins like this"
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
