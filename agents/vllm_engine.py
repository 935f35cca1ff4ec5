"""A vLLM engine in this process, driven request by request in a thread of its own.

One thread owns the engine: everything else puts jobs into its queue. New requests join the batch that is running; an
answer is there as soon as its own last token is.
"""

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from agentenv.errors import AgentError, ModelError

from .samples import Sample
from .vllm_request import InFlight, Request, Sampling, check_in_flight
from .vllm_weights import Given, Shapes, Weights, check_weights, given_weights, read_shapes, staged, with_head

__all__ = ["Engine"]

Result = TypeVar("Result")

_OWNED: "WeakSet[Any]" = WeakSet()
"""Engines that somebody drives: two threads in one engine would take each other's answers."""


@dataclass
class _Flight:
    """A request on its way; `version` is that of the weights it began with."""

    request: Request
    future: "Future[Sample]" = field(default_factory=Future[Sample])
    version: int = 0


class Engine:
    """Samples with an `LLM` of vLLM; every method may be called from any thread.

    Args:
        llm: the engine; nobody else may use it meanwhile.
        place: where weights are written for an engine core in another process.

    Attributes:
        root: the folder or name that the engine has loaded its model from.
        context_length: tokens that the engine can read, prompt and action together.
        weight_version: how often the weights have changed.
    """

    def __init__(self, llm: Any, *, place: Path | None = None) -> None:
        if llm.llm_engine in _OWNED:
            msg = (
                "engine must be one that nobody else uses, another VLLMAgent samples with this one: close() that "
                "first, or share the agent"
            )
            raise ModelError(msg)
        self._engine = llm.llm_engine
        config = self._engine.model_config
        self.root = str(config.model)
        self.context_length = int(config.max_model_len)
        self.weight_version = 0
        self._tied = bool(getattr(config.hf_text_config, "tie_word_embeddings", False))
        self._expected = _shapes_of(self.root)
        self._place = place
        self._greedy = False
        self._make_params: Callable[[int, int], Any]
        self._numbers = count()
        self._live: dict[str, _Flight] = {}
        self._held: list[_Flight] = []
        self._paused = False
        self._dead = ""
        self._broken = ""
        self._jobs: list[Callable[[], None]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._device = _device()
        self._thread = threading.Thread(target=self._run, name="vLLM engine", daemon=True)
        _OWNED.add(self._engine)
        self._thread.start()

    def prepare(self, sampling: Sampling) -> None:
        """Says how tokens are drawn; to be called once, before the first `sample`.

        Raises:
            ModelError: the engine's log-probabilities would not be those of this distribution, or a seed can kill it.
        """
        _check_engine(self._engine.vllm_config, sampling)
        self._make_params = _params_maker(sampling)
        self._greedy = sampling.temperature == 0

    def sample(self, request: Request) -> "Future[Sample]":
        """Draws one continuation. Cancelling what is returned stops the engine's work on it.

        The future raises `AgentError` where the engine is dead, and `ModelError` where it refuses the prompt.
        """
        flight = _Flight(request)
        self._enqueue(lambda: self._begin(flight))

        def drop(future: "Future[Sample]") -> None:
            if future.cancelled():
                with suppress(AgentError):  # closed meanwhile
                    self._enqueue(lambda: self._drop(flight))

        flight.future.add_done_callback(drop)
        return flight.future

    def pause(self, in_flight: InFlight) -> None:
        """Draws no further tokens until `resume`; see `VLLMAgent.pause`."""
        check_in_flight(in_flight)
        self._call(lambda: self._pause(in_flight))

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._call(self._resume)

    def update_weights(self, weights: Given, in_flight: InFlight) -> None:
        """Replaces the weights; see `VLLMAgent.update_weights`."""
        check_in_flight(in_flight)
        new, shapes = given_weights(weights)
        if self._expected is not None:
            check_weights(shapes, self._expected, tied=self._tied)
        self._call(lambda: self._update(lambda: self._reload(new), in_flight))

    def update_by(self, push: Callable[[], None]) -> None:
        """Has `push` replace the weights, in the engine's own thread; see `VLLMAgent.update_by`."""
        self._call(lambda: self._update(push, "restart"))

    def weights_changed(self) -> None:
        """Drops what is cached of the old weights, and counts; what is in flight begins again."""
        self.update_by(lambda: None)

    def close(self) -> None:
        """Ends the thread; what is in flight fails. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=60)
        _OWNED.discard(self._engine)

    # What follows runs in the engine's own thread.

    def _run(self) -> None:
        if self._device is not None:  # a new thread begins at the first
            _accelerator().set_device_index(self._device)
        while True:
            with self._changed:
                while not (self._jobs or self._closed or (self._live and not self._paused)):
                    self._changed.wait()
                jobs, self._jobs = self._jobs, []
                closed = self._closed
            for job in jobs:
                job()
            if closed:
                break
            if self._live and not self._paused:
                self._step()
        with suppress(Exception):
            self._engine.abort_request(list(self._live))
        self._fail("the engine was closed")

    def _step(self) -> None:
        try:
            _wait_for_core(self._engine.engine_core)
            outputs = self._engine.step()
        except Exception as error:  # noqa: BLE001  whatever it is, no engine steps after it
            self._die(error)
            return
        for output in outputs:
            flight = self._live.pop(output.request_id, None) if output.finished else None
            if flight is not None:
                self._end(flight, output)

    def _begin(self, flight: _Flight) -> None:
        if flight.future.cancelled():
            return
        if trouble := self._dead or self._broken:
            _fail(flight, AgentError(trouble))
        elif self._paused:
            self._held.append(flight)
        else:
            self._add(flight)

    def _add(self, flight: _Flight) -> None:
        request = flight.request
        name, flight.version = str(next(self._numbers)), self.weight_version
        params = self._make_params(request.max_tokens, request.seed)
        try:
            self._live[name] = flight
            self._engine.add_request(name, {"prompt_token_ids": list(request.prompt)}, params)
        except ValueError as error:  # vLLM's own errors of validation are some
            del self._live[name]
            _fail(flight, ModelError(f"the vLLM engine refuses a prompt of {len(request.prompt)} tokens: {error}"))
        except Exception as error:  # noqa: BLE001  likewise
            self._die(error)

    def _drop(self, flight: _Flight) -> None:
        self._held = [held for held in self._held if held is not flight]
        for name in [name for name, other in self._live.items() if other is flight]:
            del self._live[name]
            self._abort([name])

    def _end(self, flight: _Flight, output: Any) -> None:
        (completion,) = output.outputs
        if completion.finish_reason not in {"stop", "length"}:
            _fail(flight, AgentError(f"the vLLM engine ended a request by {completion.finish_reason!r}"))
            return
        ids = tuple(completion.token_ids)
        logprobs = (0.0,) * len(ids) if self._greedy else _logprobs(ids, completion.logprobs)
        stopped = completion.finish_reason == "stop"
        sample = Sample(ids, logprobs, stopped, output.num_cached_tokens or 0, flight.version)
        if flight.future.set_running_or_notify_cancel():
            flight.future.set_result(sample)

    def _pause(self, in_flight: InFlight) -> None:
        if in_flight == "restart" and self._live:
            flights = list(self._live.values())
            self._abort(list(self._live))
            self._live.clear()
            self._held = [*flights, *self._held]
        if not self._paused:
            self._engine.sleep(level=0, mode="keep")  # an engine core in another process would go on
            self._paused = True

    def _resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        if trouble := self._dead or self._broken:
            self._fail(trouble)
            return
        self._engine.wake_up(tags=["scheduling"])
        held, self._held = self._held, []
        for flight in held:
            self._begin(flight)

    def _update(self, reload: Callable[[], None], in_flight: InFlight) -> None:
        if self._dead:
            raise AgentError(self._dead)
        was_paused = self._paused
        try:
            self._pause(in_flight)
            reload()
            self._engine.reset_prefix_cache(reset_running_requests=True)  # what was computed with the old weights
            self._broken = ""
            self.weight_version += 1
        except Exception as error:
            self._broken = f"the vLLM engine has no whole weights, update them again: {type(error).__name__}: {error}"
            raise AgentError(self._broken) from error
        finally:
            if not was_paused:
                self._resume()

    def _reload(self, weights: Weights | Path) -> None:
        if not isinstance(weights, Path) and hasattr(self._engine.engine_core, "engine_core"):  # it is in this process
            pairs = iter(with_head(weights, tied=self._tied).items())
            self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": pairs})
            return
        with staged(weights, tied=self._tied, place=self._place) as folder:
            try:
                self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            finally:
                self._engine.model_config.model = self.root  # vLLM puts the folder there, which is about to go

    def _abort(self, names: list[str]) -> None:
        if not self._dead:
            self._engine.abort_request(names)

    def _die(self, error: Exception) -> None:
        self._dead = f"the vLLM engine is dead, make a new one: {type(error).__name__}: {error}"
        self._fail(self._dead)

    def _fail(self, reason: str) -> None:
        flights = [*self._live.values(), *self._held]
        self._live.clear()
        self._held = []
        for flight in flights:
            _fail(flight, AgentError(reason))

    # What follows runs in any other thread.

    def _enqueue(self, job: Callable[[], None]) -> None:
        with self._changed:
            if not self._closed:
                self._jobs.append(job)
                self._changed.notify()
                return
        msg = "the agent is closed"
        raise AgentError(msg)

    def _call(self, function: Callable[[], Result]) -> Result:
        """Has the engine's thread call a function, and waits for it."""
        future: Future[Result] = Future()

        def job() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  raised in the thread that called
                future.set_exception(error)

        self._enqueue(job)
        return future.result()


def _accelerator() -> Any:
    return import_module("torch").accelerator


def _device() -> int | None:
    """Returns the number of the accelerator that this thread uses, if there is one."""
    return _accelerator().current_device_index() if _accelerator().is_available() else None


def _wait_for_core(core: Any) -> None:
    """Waits for a core in another process to say something; `step` would wait for ever for one that has died."""
    queue = getattr(core, "outputs_queue", None)
    if queue is None:
        return
    with queue.not_empty:
        while not queue.queue:
            if core.resources.engine_dead:
                msg = "its core process has ended"
                raise RuntimeError(msg)
            queue.not_empty.wait(0.5)


def _fail(flight: _Flight, error: Exception) -> None:
    if flight.future.set_running_or_notify_cancel():
        flight.future.set_exception(error)


def _params_maker(sampling: Sampling) -> Callable[[int, int], Any]:
    module: Any = import_module("vllm")
    kinds: Any = import_module("vllm.sampling_params")
    fixed = {
        **sampling.as_vllm(),
        "logprobs": None if sampling.temperature == 0 else 0,
        "detokenize": False,
        "output_kind": kinds.RequestOutputKind.FINAL_ONLY,
    }
    return lambda max_tokens, seed: module.SamplingParams(max_tokens=max_tokens, seed=seed, **fixed)


def _logprobs(ids: tuple[int, ...], logprobs: Any) -> tuple[float, ...]:
    return tuple(entry[token].logprob for token, entry in zip(ids, logprobs, strict=True))


def _check_engine(config: Any, sampling: Sampling) -> None:
    """Refuses an engine that would give wrong log-probabilities, or die of a seed."""
    if not sampling.plain and config.model_config.logprobs_mode != "processed_logprobs":
        msg = (
            f"engine must give the log-probabilities that it samples by, it has logprobs_mode="
            f"{config.model_config.logprobs_mode!r}: make it with logprobs_mode='processed_logprobs'"
        )
        raise ModelError(msg)
    if not config.cache_config.enable_prefix_caching:
        msg = "engine has no prefix cache: every step reads the whole conversation again; enable_prefix_caching=True"
        warnings.warn(msg, RuntimeWarning, stacklevel=4)
    scheduler = config.scheduler_config
    whole = scheduler.max_num_seqs * config.model_config.max_model_len
    if (
        config.device_config.device_type == "cpu"
        and scheduler.enable_chunked_prefill
        and scheduler.max_num_batched_tokens < whole
    ):
        msg = (
            "engine must read every prompt in one piece on a CPU, where a seed kills it otherwise: make it with "
            f"enable_chunked_prefill=False or max_num_batched_tokens={whole}, now {scheduler.max_num_batched_tokens}"
        )
        raise ModelError(msg)


def _shapes_of(model: str) -> Shapes | None:
    """Returns what the files of a model hold; `None` where they are not on this machine, or of another format."""
    folder = model
    with suppress(Exception):
        if not Path(model).is_dir():
            hub: Any = import_module("huggingface_hub")
            folder = hub.snapshot_download(model, local_files_only=True)
    try:
        return read_shapes(folder)
    except ModelError:
        return None
