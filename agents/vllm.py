"""An agent that is a vLLM engine: one in this process, or a server behind a URL."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, cast
from weakref import finalize

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from typing_extensions import override

from agentenv.arrays import check_count
from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError, ModelError
from agentenv.protocols import AsyncAgent, Context
from agentenv.types import Action

from .chat import ChatFormat, History
from .folders import check_folder, generation_stops
from .parsers import Parser
from .samples import Sample, read_sample
from .vllm_request import InFlight, Request, Sampling
from .vllm_weights import Given

__all__ = ["VLLMAgent"]


class _Backend(Protocol):
    """What draws tokens: an engine or a server."""

    root: str
    context_length: int
    weight_version: int

    def prepare(self, sampling: Sampling) -> None: ...
    def sample(self, request: Request) -> "Future[Sample]": ...
    def pause(self, in_flight: InFlight) -> None: ...
    def resume(self) -> None: ...
    def update_weights(self, weights: Given, in_flight: InFlight) -> None: ...
    def update_by(self, push: Callable[[], None]) -> None: ...
    def weights_changed(self) -> None: ...
    def close(self) -> None: ...


class VLLMAgent(AsyncAgent):
    """Samples actions with vLLM; every request joins the batch that is running.

    Token ids go in, token ids and log-probabilities come out, and nothing is ever tokenized again. The same prompt,
    seed and weights give the same tokens, whatever else is in the batch, up to the rounding of floating-point sums.

    Attributes:
        tokenizer: the tokenizer, with a chat template.
        chat: how contexts become token ids.
        max_tokens: the limit per action.
        temperature: of the distribution that is sampled from.
        top_p: how much of that is left; 1 for all.
    """

    honors = frozenset({"max_tokens"})

    def __init__(  # noqa: PLR0913  all keyword-only
        self,
        engine: Any,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        max_tokens: int = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop_token_ids: Iterable[int] = (),
        template_options: Mapping[str, Any] | None = None,
        parser: str | Parser | None = None,
        history: History = "exact",
        engine_options: Mapping[str, Any] | None = None,
        server_options: Mapping[str, Any] | None = None,
        weights_folder: str | Path | None = None,
    ) -> None:
        """Makes an agent.

        Args:
            engine: an `LLM` of vLLM that nobody else uses meanwhile; a folder or a name on the hub, which an `LLM` is
                made of; or the URL of a vLLM server.
            tokenizer: with a chat template; by default that of the engine's model, where it is on this machine.
            max_tokens: limit per action, at least 1; an action that reaches it has `finish_reason` `"length"`, and so
                has the empty action that answers a conversation longer than the model's window.
            temperature: at least 0; 0 takes the likeliest token, and every log-probability is 0.
            top_p: only the likeliest tokens that together have this probability. Log-probabilities are those of what is
                left, so leave it at 1 for training.
            stop_token_ids: tokens that end an action besides those that tokenizer and generation config name.
            template_options: variables for the chat template, such as `{"enable_thinking": False}`.
            parser: what reads the model's messages; see `TransformersAgent`.
            history: `"exact"` or `"template"`; see `ChatFormat`.
            engine_options: for the `LLM` that is made of a folder, such as `{"dtype": "bfloat16"}`.
            server_options: `api_key`, `patience_s` (120), `timeout_s` (600), `concurrency` (256); see
                `agentenv.agents.vllm_server.Server`.
            weights_folder: where weights from an iterator are written for an engine in another process, which must see
                it at the same path; the folder of temporary files by default.

        Raises:
            ValueError: a number is out of range, or options are given for another kind of engine.
            ModelError: the engine cannot be used, has no tokenizer here, or one that `ChatFormat` refuses.
            AgentError: no server answers.
            MissingDependencyError: vLLM or httpx is not installed.
        """
        check_count("max_tokens", max_tokens, least=1)
        Sampling(temperature, top_p, frozenset())  # refuses before anything is loaded
        place = None if weights_folder is None else Path(weights_folder)
        is_url = isinstance(engine, str) and engine.startswith(("http://", "https://"))
        is_name = isinstance(engine, str | Path) and not is_url
        _check_options(engine_options, server_options, is_name=is_name, is_url=is_url)
        self._backend, made = _connect(
            engine, engine_options or {}, server_options or {}, place, is_name=is_name, is_url=is_url
        )
        self._close = finalize(self, _close, self._backend, made)
        try:
            self.tokenizer = tokenizer or _tokenizer_of(self._backend.root)
            self.chat = ChatFormat(
                self.tokenizer,
                stop_token_ids={*stop_token_ids, *generation_stops(self._backend.root)},
                template_options=template_options,
                parser=parser,
                history=history,
            )
            self._backend.prepare(Sampling(temperature, top_p, self.chat.stop_token_ids))
        except BaseException:
            self.close()
            raise
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.top_p = top_p

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def context_length(self) -> int:
        """Tokens that the engine can read, prompt and action together."""
        return self._backend.context_length

    @property
    def weight_version(self) -> int:
        """How often the weights have changed since the agent was made."""
        return self._backend.weight_version

    @override
    async def respond(self, context: Context, /) -> Action:
        """Samples the action for one context.

        Raises:
            AgentError: the engine is dead, or the server is away for too long; the message says which.
            ModelError: the chat template cannot render the context, or the engine refuses the prompt.
        """
        prompt = self.chat.prompt(context)
        return read_sample(self.chat, context, prompt, await asyncio.wrap_future(self._sample(context, prompt)))

    @override
    def act(self, contexts: Sequence[Context], /) -> list[Action]:
        """Samples one action per context, in the same order, all at once; needs no event loop.

        Raises:
            AgentError, ModelError: as for `respond`.
        """
        prompts = [self.chat.prompt(context) for context in contexts]
        futures = [self._sample(*both) for both in zip(contexts, prompts, strict=True)]
        try:
            samples = [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [read_sample(self.chat, *three) for three in zip(contexts, prompts, samples, strict=True)]

    def pause(self, in_flight: InFlight = "restart") -> None:
        """Stops drawing tokens; requests wait until `resume`.

        Args:
            in_flight: what becomes of actions that are being sampled. `"restart"`: they begin again after `resume`, so
                that every action is of one version of the weights; `"keep"`: they go on where they were, with the
                weights that are there then, and record the version that they began with.
        """
        self._backend.pause(in_flight)

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._backend.resume()

    def update_weights(self, weights: Given, *, in_flight: InFlight = "restart") -> None:
        """Replaces the weights in place, drops what the engine has cached of the old ones, raises `weight_version`.

        What is sampled meanwhile waits, as between `pause` and `resume`. Names and shapes are compared with those of
        the engine's model before the first weight is replaced, where its files are on this machine.

        Args:
            weights: a folder with `*.safetensors`, as `save_pretrained` writes it, which a server must see at the same
                path; or pairs of names and tensors, such as `model.state_dict().items()`: all of the model's, by the
                names of its files. They are read whole before anything is replaced.
            in_flight: as for `pause`.

        Raises:
            ModelError: the weights are not those of the engine's model; the old ones are still there.
            AgentError: the engine failed over them; it refuses to sample until an update succeeds.
        """
        self._backend.update_weights(weights, in_flight)

    def update_by(self, push: Callable[[], None]) -> None:
        """Has somebody else's function replace the weights, as `update_weights` does.

        Args:
            push: called once, with nothing being sampled, in the thread that drives an engine of this process.

        Raises:
            AgentError: it failed; the agent refuses to sample until an update succeeds.
        """
        self._backend.update_by(push)

    def weights_changed(self) -> None:
        """Says that somebody else has changed the engine's weights: what is cached is dropped, `weight_version` rises.

        Not needed after `update_weights`.
        """
        self._backend.weights_changed()

    def close(self) -> None:
        """Ends the thread, and the engine where it was made of a folder. May be called twice."""
        self._close()

    def _sample(self, context: Context, prompt: Sequence[int]) -> "Future[Sample]":
        room = min(self.max_tokens, self.context_length - len(prompt))
        room = room if context.max_tokens is None else min(room, context.max_tokens)
        if room < 1:
            nothing: Future[Sample] = Future()
            nothing.set_result(Sample((), (), stopped=False, weight_version=self.weight_version))
            return nothing
        # 63 bits: vLLM takes no more, and -1 for none at all.
        return self._backend.sample(Request(prompt, room, context.seed & (2**63 - 1)))


def _connect(
    engine: Any,
    options: Mapping[str, Any],
    server: Mapping[str, Any],
    place: Path | None,
    *,
    is_name: bool,
    is_url: bool,
) -> tuple[_Backend, Any]:
    """Returns what draws tokens, and the `LLM` that was made for it, if any."""
    if is_url:
        return _load("vllm_server", "httpx").Server(engine, place=place, **server), None
    if not is_name and not hasattr(engine, "llm_engine"):
        msg = f"engine must be an LLM of vLLM, a folder or the URL of a server, got {engine!r:.80}"
        raise TypeError(msg)
    made = _make_llm(str(engine), options) if is_name else None
    return _load("vllm_engine", "vllm").Engine(made or engine, place=place), made


def _load(name: str, package: str) -> Any:
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        msg = f"VLLMAgent needs {error.name}: {install_module(error.name or package)}"
        raise MissingDependencyError(msg) from error
    return import_module(f"agentenv.agents.{name}")


def _make_llm(folder: str, options: Mapping[str, Any]) -> Any:
    """Makes an engine whose log-probabilities are those it samples by, and that a seed cannot kill on a CPU."""
    vllm: Any = _load("vllm_engine", "vllm") and import_module("vllm")
    platforms: Any = import_module("vllm.platforms")
    fixed: dict[str, Any] = {"logprobs_mode": "processed_logprobs", "enable_prefix_caching": True}
    if platforms.current_platform.is_cpu() and not {"max_num_batched_tokens", "enable_chunked_prefill"} & set(options):
        fixed["enable_chunked_prefill"] = False
    try:
        return vllm.LLM(model=folder, **{**fixed, **options})
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"engine must name a folder with a model that vLLM can serve, got {folder!r}: {error}"
        raise ModelError(msg) from error


def _close(backend: _Backend, llm: Any) -> None:
    backend.close()
    if llm is not None:
        with suppress(ValueError):  # a trainer has ended torch's process groups already, those of the engine too
            llm.llm_engine.engine_core.shutdown()


def _check_options(engine: object, server: object, *, is_name: bool, is_url: bool) -> None:
    for name, value, kind, fits in (
        ("engine_options", engine, "a folder", is_name),
        ("server_options", server, "a URL", is_url),
    ):
        if value and not fits:
            msg = f"{name} must be None unless engine is {kind}, got {value!r}"
            raise ValueError(msg)


def _tokenizer_of(root: str) -> PreTrainedTokenizerBase:
    try:
        check_folder(root)
        return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(root))
    except (OSError, ValueError, KeyError, ModelError) as error:
        msg = f"tokenizer must be given, there is none for the engine's model {root!r} here: {error}"
        raise ModelError(msg) from error
