"""Who acts: what `--agent` takes, read in one place; `agent_option.py` says it in words."""

import asyncio
import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError, ModelError, TaskError

from .agent_option import KINDS
from .command_line import blame, refuse
from .env_choice import EnvChoice, parse_options, sample_tasks
from .named import find_named, parameters_of
from .samplers import check_engine, reach_server

if TYPE_CHECKING:
    from agentenv.agents import OpenAIAgent, TransformersAgent
    from agentenv.protocols import Agent

__all__ = ["AgentChoice", "load_model_agent", "quiet_transformers"]

_SCRIPTS = 256
"""Demonstrations that a sloppy agent draws per task: more than episodes of it are played."""


@dataclass(frozen=True, slots=True)
class AgentChoice:
    """An agent as it was named on the command line.

    Attributes:
        spec: the value of `--agent`.
        words: the values of `--agent-option`: arguments of the agent, as `key=value`.
        sampling: what the command's own options say of every model: `temperature` and `max_tokens`.
    """

    spec: str
    words: Sequence[str] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def is_demonstrator(self) -> bool:
        """Whether it plays tasks that it must know before."""
        return self.spec in {"scripted", "sloppy"}

    def make(self, env: EnvChoice, tasks: Sequence[Any], *, seed: int = 0) -> "Agent":
        """Returns the agent.

        Args:
            env: where it is going to act.
            tasks: those that are going to come up; only demonstrators look at them.
            seed: of the demonstrations.

        Raises:
            typer.BadParameter: there is no such agent, it does not take the options, or its server does not answer.
        """
        if self.is_demonstrator:
            from .demonstrators import demonstrating_agent, find_demonstrator

            sloppy = self.spec == "sloppy"
            script = find_demonstrator(env, sloppy=sloppy)
            self._refuse_options()
            return demonstrating_agent(env, script, tasks, seed=seed, most=_SCRIPTS if sloppy else 1)
        argument = "--agent-option" if self.words else "--agent"
        with blame(argument, ValueError), blame("--agent", ModelError, MissingDependencyError):
            return self._make_known() or self._make_own()

    def tasks(self, env: EnvChoice, count: int, *, seed: int, least: int | None = None) -> list[Any]:
        """Returns different tasks for so many trees, or `least`; `None` where the environment may make them up."""
        if not self.is_demonstrator and not env.lists_tasks():
            return [None] * count
        with blame("--tasks", TaskError):
            return list(sample_tasks(env, count, seed=seed, least=least).values())

    def _make_known(self) -> "Agent | None":
        spec = self.spec
        if spec == "random":
            from agentenv.agents import RandomAgent

            return RandomAgent(**self._options(RandomAgent))
        if spec == "human":
            from agentenv.agents import HumanAgent

            self._refuse_options()
            return HumanAgent()
        if spec.startswith(("http://", "https://")):
            return self._make_server()
        if spec.startswith("vllm:"):
            return self._make_vllm(spec.removeprefix("vllm:"))
        if Path(spec).is_dir():
            renamed = {"max_new_tokens" if name == "max_tokens" else name: v for name, v in self.sampling.items()}
            quiet_transformers("--agent")
            from agentenv.agents import TransformersAgent

            return load_model_agent("--agent", Path(spec), **(renamed | self._options(TransformersAgent)))
        return None

    def _make_server(self) -> "OpenAIAgent":
        from agentenv.agents import OpenAIAgent

        agent = OpenAIAgent(self.spec, **(self._sampling_of(OpenAIAgent) | self._options(OpenAIAgent)))

        async def check() -> None:
            try:
                await agent.check()
            finally:
                await agent.leave_loop()

        asyncio.run(check())
        return agent

    def _make_vllm(self, engine: str) -> "Agent":
        check_engine(engine)
        try:
            reach_server(engine)
            cls: Any = importlib.import_module("agentenv.agents.vllm").VLLMAgent
            return cls(engine, **(self._sampling_of(cls) | self._options(cls)))
        except ModuleNotFoundError as error:
            refuse("--agent", f"needs {error.name}: {install_module(error.name or 'vllm')}")

    def _make_own(self) -> "Agent":
        module, colon, name = self.spec.partition(":")
        if not colon or not module or not name or name.startswith("//"):
            close = difflib.get_close_matches(self.spec, ["random", "scripted", "sloppy", "human"], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            refuse("--agent", f"must be {KINDS.replace('|', ', ')}; got {self.spec!r}, which is no folder{hint}")
        return self._called(find_named(self.spec, "--agent"))

    def _called(self, found: Any) -> "Agent":
        """Makes the agent where it is a class or a function that returns one."""
        if isinstance(found, type) or (callable(found) and not hasattr(found, "act")):
            sampling = self._sampling_of(found)
            options = self._options(found)
            with blame("--agent-option" if options else "--agent", TypeError, ValueError):
                found = cast("Callable[..., Any]", found)(**(sampling | options))
        else:
            self._refuse_options()
        if not callable(getattr(found, "act", None)):
            refuse("--agent", f"{self.spec} must be an agent, with act(contexts) -> actions; got {found!r:.80}")
        return cast("Agent", found)

    def _options(self, made: Any) -> dict[str, Any]:
        known = parameters_of(made)
        return parse_options(self.words, known=known, owner=self.spec, argument="--agent-option")

    def _sampling_of(self, made: Any) -> dict[str, Any]:
        """What the command says of every model, as far as this one takes it."""
        known = parameters_of(made)
        return {name: value for name, value in self.sampling.items() if name in known}

    def _refuse_options(self) -> None:
        if self.words:
            refuse("--agent-option", f"{self.spec} takes none, got {self.words[0]!r}")


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
