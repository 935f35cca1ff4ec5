"""Who samples while `agentenv train` trains: the model itself, vLLM, which is given its weights, or one's own agent."""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentenv.distribution import install_module

from .command_line import refuse
from .env_choice import parse_options
from .named import find_named, parameters_of

if TYPE_CHECKING:
    from agentenv.trainers import TreeConfig

__all__ = ["SAMPLERS", "Sampler", "check_engine", "choose_sampler", "reach_server"]

SAMPLERS = "vllm:FOLDER|vllm:URL|module:Class"
"""What `agentenv train --agent` takes, in short."""

_NAMED = re.compile(r"[\w.]+:[\w.]+")
_URL = ("http://", "https://")
_OWN = {"max_tokens": "--max-action-tokens", "temperature": "--set temperature=T", "history": "--set history=NAME"}
_OWN["max_new_tokens"] = _OWN["max_tokens"]
_OWN["template_options"] = "--set chat_template_kwargs=..."
_WHOLE = "the loss needs the probabilities of the distribution that was sampled from"
_WITHOUT = {
    **dict.fromkeys(("random", "scripted", "sloppy", "human"), "it samples no tokens, so there is nothing to train"),
    "http": "its weights cannot be replaced, so it would not be the model that is trained; a vLLM server is vllm:URL",
}


@dataclass(frozen=True, slots=True)
class Sampler:
    """What samples in the model's place.

    Attributes:
        name: of the engine of vLLM, a folder or a URL, that is given the model's weights before every generation; or of
            one's own agent.
        options: of its constructor.
        own: makes one's own agent, of the model and its tokenizer; `None` for vLLM.
    """

    name: str
    options: dict[str, Any]
    own: Any = None
    _made: list[Any] = field(default_factory=list[Any])

    def maker(self, config: "TreeConfig") -> Callable[[Any, Any], Any]:
        """Returns what `TreeTrainer` takes for `agent`: makes the agent of the model and its tokenizer."""
        from agentenv.agents import VLLMAgent

        given: dict[str, Any] = {
            **dict.fromkeys(("max_tokens", "max_new_tokens"), config.max_action_tokens),
            "temperature": config.temperature,
            "history": config.history,
            "template_options": cast("Any", config).chat_template_kwargs or {},
        }

        made: Any = self.own or VLLMAgent
        taken = parameters_of(made)
        options = {name: value for name, value in given.items() if name in taken} | self.options

        def make(model: Any, tokenizer: Any) -> Any:  # to an engine, weights come before each generation
            agent = made(model if self.own else self.name, tokenizer, **options)
            if not callable(getattr(agent, "act", None)):
                refuse("--agent", f"{self.name} must make an agent, with act(contexts) -> actions; got {agent!r:.80}")
            self._made.append(agent)
            return agent

        if self.own is None:
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # to this process weights go without a file
        return make

    def close(self) -> None:
        """Ends what was made."""
        while self._made:
            getattr(self._made.pop(), "close", lambda: None)()


def choose_sampler(spec: str | None, words: Sequence[str], *, model: str) -> Sampler | None:
    """Reads `--agent` of `agentenv train`; `None` where the model itself samples.

    Args:
        spec: the value of `--agent`.
        words: the values of `--agent-option`.
        model: the value of `--model`.

    Raises:
        typer.BadParameter: what samples there cannot be trained, or is not installed.
    """
    if spec is None or (Path(spec).is_dir() and Path(spec).resolve() == Path(model).resolve()):
        if words:
            refuse("--agent-option", f"needs --agent {SAMPLERS}, got {words[0]!r}")
        return None
    if not spec.startswith("vllm:"):
        if not _NAMED.fullmatch(spec):
            refuse("--agent", f"must be {SAMPLERS.replace('|', ' or ')}, got {spec!r}: {_reason(spec)}")
        found = find_named(spec, "--agent")
        first = list(parameters_of(found))[:2] if callable(found) else []
        if len(first) < 2 or (hasattr(found, "act") and not isinstance(found, type)):
            refuse("--agent", f"{spec} must be a class, or a function, of a model and its tokenizer; got {found!r:.80}")
        return Sampler(spec, _options(found, words, spec, without=frozenset(first)), found)
    engine = spec.removeprefix("vllm:")
    check_engine(engine)
    package = "httpx" if engine.startswith(_URL) else "vllm"
    if importlib.util.find_spec(package) is None:
        refuse("--agent", f"needs {package}: {install_module(package)}")
    from agentenv.agents import VLLMAgent

    return Sampler(engine, _options(VLLMAgent, words, spec, without=frozenset({"engine", "tokenizer"})))


def _options(made: Any, words: Sequence[str], spec: str, *, without: frozenset[str]) -> dict[str, Any]:
    """Reads arguments of a constructor, but for those that training gives."""
    known = {name: p for name, p in parameters_of(made).items() if name not in without}
    options = parse_options(words, known=known, owner=spec, argument="--agent-option")
    if taken := sorted(options.keys() & _OWN):
        refuse("--agent-option", f"{taken[0]} is given by {_OWN[taken[0]]}")
    if options.get("top_p", 1) != 1:
        refuse("--agent-option", f"top_p must be left out, got {options['top_p']!r}: {_WHOLE}")
    return options


def check_engine(engine: str) -> None:
    """Refuses what is no folder of a model and no URL.

    Raises:
        typer.BadParameter: that, with what is missing.
    """
    if not engine.startswith(_URL) and not (Path(engine) / "config.json").is_file():
        given = f"got 'vllm:{engine}': there is no {engine or '.'}/config.json"
        refuse("--agent", f"must name a folder with a model, or a URL, after vllm:, {given}")


def reach_server(engine: str) -> None:
    """Refuses a server that does not answer: an agent would wait for it, without a word, for two minutes.

    Raises:
        typer.BadParameter: nothing answers there.
    """
    if not engine.startswith(_URL):
        return
    import httpx

    try:
        httpx.get(f"{engine.rstrip('/').removesuffix('/v1')}/health", timeout=30)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        why = f"{type(error).__name__}: {error}".rstrip(": ")
        refuse("--agent", f"no server answers at {engine} ({why}); is it running, and is the URL right?")


def _reason(spec: str) -> str:
    kind = "http" if spec.startswith(_URL) else spec
    if kind in _WITHOUT:
        return _WITHOUT[kind]
    if Path(spec).is_dir():
        return "its weights would stay as they are; the model of --model samples itself, without --agent"
    return "there is no such agent, and no such folder"
