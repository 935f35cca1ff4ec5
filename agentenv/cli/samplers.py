"""Who samples while `agentenv train` trains: the model itself, or vLLM, which is given its weights."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agentenv.distribution import install_module

from .command_line import refuse
from .env_choice import constructor_options, parse_options

if TYPE_CHECKING:
    from agentenv.agents import VLLMAgent
    from agentenv.trainers import TreeConfig

__all__ = ["SAMPLERS", "Sampler", "check_engine", "choose_sampler", "reach_server"]

SAMPLERS = "vllm:FOLDER|vllm:URL"
"""What `agentenv train --agent` takes, in short."""

_URL = ("http://", "https://")
_OWN = {"max_tokens": "--max-action-tokens", "temperature": "--set temperature=T", "history": "--set history=NAME"}
_OWN["template_options"] = "--set chat_template_kwargs=..."
_WHOLE = "the loss needs the probabilities of the distribution that was sampled from"
_WITHOUT = {
    **dict.fromkeys(("random", "scripted", "sloppy", "human"), "it samples no tokens, so there is nothing to train"),
    "http": "its weights cannot be replaced, so it would not be the model that is trained; a vLLM server is vllm:URL",
}


@dataclass(frozen=True, slots=True)
class Sampler:
    """An engine of vLLM that is given the model's weights before every generation.

    Attributes:
        engine: a folder or a URL.
        options: of `VLLMAgent`.
    """

    engine: str
    options: dict[str, Any]
    _made: "list[VLLMAgent]" = field(default_factory=list["VLLMAgent"])

    def maker(self, config: "TreeConfig") -> Callable[[Any, Any], Any]:
        """Returns what `TreeTrainer` takes for `agent`: makes the agent of the model and its tokenizer."""
        from agentenv.agents import VLLMAgent

        given: dict[str, Any] = {
            "max_tokens": config.max_action_tokens,
            "temperature": config.temperature,
            "history": config.history,
            "template_options": cast("Any", config).chat_template_kwargs or {},
        }

        def make(model: Any, tokenizer: Any) -> Any:  # noqa: ARG001  its weights come before each generation
            self._made.append(VLLMAgent(self.engine, tokenizer, **(given | self.options)))
            return self._made[-1]

        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # to this process weights go without a file
        return make

    def close(self) -> None:
        """Ends the engine that was made."""
        while self._made:
            self._made.pop().close()


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
        refuse("--agent", f"must be {SAMPLERS.replace('|', ' or ')}, got {spec!r}: {_reason(spec)}")
    engine = spec.removeprefix("vllm:")
    check_engine(engine)
    package = "httpx" if engine.startswith(_URL) else "vllm"
    if importlib.util.find_spec(package) is None:
        refuse("--agent", f"needs {package}: {install_module(package)}")
    from agentenv.agents import VLLMAgent

    known = {
        name: p
        for name, p in constructor_options(cast("Any", VLLMAgent)).items()
        if name not in {"engine", "tokenizer"}
    }
    options = parse_options(words, known=known, owner=spec, argument="--agent-option")
    if taken := sorted(options.keys() & _OWN):
        refuse("--agent-option", f"{taken[0]} is given by {_OWN[taken[0]]}")
    if options.get("top_p", 1) != 1:
        refuse("--agent-option", f"top_p must be left out, got {options['top_p']!r}: {_WHOLE}")
    return Sampler(engine, options)


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
    if ":" in spec:
        return "for an agent of your own, TreeTrainer(agent=...) takes a function of model and tokenizer"
    return "there is no such agent, and no such folder"
