"""A vLLM server behind a URL: token ids in, token ids and log-probabilities out.

One thread with an event loop owns the connections, so that whoever asks may be any thread and any loop. A server that
is away for a while costs nothing but the wait: the request is sent again, and its seed gives the same tokens.
"""

import asyncio
import random
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx

from agentenv.errors import AgentError, ModelError

from .samples import Sample
from .vllm_request import InFlight, Request, Sampling, check_in_flight
from .vllm_weights import Given, Shapes, check_weights, given_weights, read_shapes, staged

__all__ = ["Server"]

Result = TypeVar("Result")

_GENERATE, _COMPLETIONS = "/inference/v1/generate", "/v1/completions"
_IDLE_S = 1.0
"""After so long without a request, the server may have been restarted unseen: its weights are asked for."""
_DEV = "start the server with VLLM_SERVER_DEV_MODE=1, so that weights can be updated and generation paused"


class _Away(Exception):
    """The server cannot be reached, or says that it cannot serve now."""


class Server:
    """Samples with a vLLM server; every method may be called from any thread.

    Args:
        url: of the server, with or without `/v1` at its end.
        api_key: sent as a bearer token, where the server wants one.
        patience_s: how long a server that cannot be reached is waited for before a request fails.
        timeout_s: how long the server may take for one request before it fails.
        concurrency: requests that are on their way at once, at most.
        place: where weights from an iterator are written; the server must see it at the same path.

    Attributes:
        url: without `/v1`.
        model: what the server calls its model.
        root: the folder or name that the server has loaded it from.
        context_length: tokens that the model can read, prompt and action together.
        weight_version: how often the weights have changed.

    Raises:
        AgentError: no server answers within `patience_s`.
        ModelError: what answers is not a vLLM server that can be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience_s: float = 120.0,
        timeout_s: float = 600.0,
        concurrency: int = 256,
        place: Path | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.weight_version = 0
        self._sampling = Sampling(1.0, 1.0, frozenset())
        self._patience_s = patience_s
        self._place = place
        self._served: str | None = None  # the server's own version of its weights, where it tells
        self._last = 0.0
        self._trouble = ""
        self._restarts = 0  # how often what was in flight had to begin again
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vLLM server", daemon=True)
        self._thread.start()
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0), pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        self._ready = asyncio.Event()
        self._ready.set()
        try:
            self.model, self.root, self.context_length = self._call(self._find_model())
            self._path = self._call(self._find_path())
            self._served = self._call(self._version())
        except BaseException:
            self.close()
            raise
        self._expected, self._tied = _model_of(self.root)

    def prepare(self, sampling: Sampling) -> None:
        """Says how tokens are drawn; to be called once, before the first `sample`.

        Raises:
            ModelError: the server's log-probabilities would not be those of this distribution.
        """
        self._sampling = sampling
        self._call(self._check_logprobs())

    def sample(self, request: Request) -> "Future[Sample]":
        """Draws one continuation. Cancelling what is returned hangs up.

        The future raises `AgentError` where the server is away for too long, has lost its weights, or takes too long,
        and `ModelError` where it refuses the request.
        """
        return self._submit(self._sample(request))

    def pause(self, in_flight: InFlight) -> None:
        """Draws no further tokens until `resume`; see `VLLMAgent.pause`."""
        check_in_flight(in_flight)
        self._call(self._pause(in_flight))

    def resume(self) -> None:
        """Goes on after `pause`."""
        self._call(self._resume())

    def update_weights(self, weights: Given, in_flight: InFlight) -> None:
        """Replaces the weights; see `VLLMAgent.update_weights`."""
        check_in_flight(in_flight)
        new, shapes = given_weights(weights)
        tied = self._tied if not isinstance(new, Path) or self._expected is not None else _model_of(str(new))[1]
        if self._expected is not None:
            check_weights(shapes, self._expected, tied=tied)
        with staged(new, tied=tied, place=self._place) as folder:
            self._call(self._update(str(folder), in_flight))

    def update_by(self, push: Callable[[], None]) -> None:
        """Has `push` replace the weights, in the thread that calls; see `VLLMAgent.update_by`."""
        self._call(self._pause("restart"))
        try:
            push()
            self._call(self._renew(named=True))
        except Exception as error:
            raise self._lose(error) from error
        finally:
            self._call(self._resume())

    def weights_changed(self) -> None:
        """Drops what is cached of the old weights, and counts; what is in flight begins again."""
        self._call(self._update(None, "restart"))

    def close(self) -> None:
        """Hangs up and ends the thread. May be called twice."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=60)
        if not self._loop.is_running():
            self._loop.close()

    # What follows runs in the loop of the server's own thread.

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _sample(self, request: Request) -> Sample:
        patience = _Patience(self._patience_s)
        while True:
            await self._ready.wait()
            if self._trouble:
                raise AgentError(self._trouble)
            version, restarts = self.weight_version, self._restarts
            try:
                await self._check_version()
                if version != self.weight_version or not self._ready.is_set():  # an update of ours has come between
                    continue
                answer = await self._post(self._path, self._body(request))
            except _Away as away:
                await patience.wait(away)
                continue
            self._last = time.monotonic()
            choice = answer["choices"][0]
            if restarts != self._restarts:  # aborted; or held back by the paused server, and drawn from new weights
                continue
            if choice["finish_reason"] != "abort":
                return self._read(request, answer, choice, version)
            await patience.wait(_Away("the server aborts requests"))

    def _body(self, request: Request) -> dict[str, Any]:
        wanted = {**self._sampling.as_vllm(), "max_tokens": request.max_tokens, "seed": request.seed, "logprobs": 0}
        if self._path == _COMPLETIONS:
            return {"model": self.model, "prompt": list(request.prompt), "return_token_ids": True, **wanted}
        return {"model": self.model, "token_ids": list(request.prompt), "sampling_params": wanted}

    def _read(self, request: Request, answer: Mapping[str, Any], choice: Mapping[str, Any], version: int) -> Sample:
        ids = choice.get("token_ids")
        if not isinstance(ids, list) or not choice.get("logprobs"):
            msg = f"{self.url} must be a vLLM server that returns token ids and log-probabilities, got {choice!r:.200}"
            raise ModelError(msg)
        if self._path == _COMPLETIONS:
            logprobs = choice["logprobs"]["token_logprobs"]
        else:
            logprobs = [entry["logprob"] for entry in choice["logprobs"]["content"]]
        if self._sampling.temperature == 0:
            logprobs = [0.0] * len(ids)
        details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
        cached = min(details.get("cached_tokens") or 0, len(request.prompt))
        stopped = choice["finish_reason"] == "stop"
        return Sample(tuple(cast("list[int]", ids)), tuple(logprobs), stopped, cached, version)

    async def _pause(self, in_flight: InFlight) -> None:
        self._ready.clear()
        self._restarts += in_flight == "restart"
        try:
            await self._command(f"/pause?mode={'keep' if in_flight == 'keep' else 'abort'}")
        except BaseException:
            self._ready.set()
            raise

    async def _resume(self) -> None:
        try:
            await self._command("/resume")
        finally:
            self._ready.set()

    async def _update(self, folder: str | None, in_flight: InFlight) -> None:
        was_paused = not self._ready.is_set()
        await self._pause(in_flight)
        try:
            if folder is not None:
                call = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
                await self._command("/collective_rpc", call)
            await self._renew(named=folder is not None)
        except Exception as error:
            raise self._lose(error) from error
        finally:
            if not was_paused:
                await self._resume()

    async def _renew(self, *, named: bool) -> None:
        """Drops what is cached of the old weights, gives the new ones a name of their own, and counts."""
        await self._command("/reset_prefix_cache?reset_running_requests=true")
        if named:
            await self._command("/update_weight_version", {"new_version": f"agentenv-{uuid.uuid4().hex}"})
        self._served, self._trouble = await self._version(), ""
        self.weight_version += 1

    def _lose(self, error: Exception) -> AgentError:
        self._trouble = f"{self.url} has no whole weights, update them again: {error}"
        return AgentError(self._trouble)

    async def _check_version(self) -> None:
        """Makes sure that the server still has the weights that this agent knows, where it may have been restarted."""
        if self._served is None or time.monotonic() - self._last < _IDLE_S:
            return
        version = self.weight_version
        served = await self._version()
        if served != self._served and version == self.weight_version and self._ready.is_set():
            msg = (
                f"{self.url} has other weights than this agent knows (version {served!r}, not {self._served!r}): it "
                "was restarted, or somebody else updated it; call update_weights, or weights_changed to take them"
            )
            raise AgentError(msg)

    async def _version(self) -> str | None:
        found = await self._send("GET", "/weight_info", None, missing_is_none=True)
        return None if found is None else str(found["weight_version"])

    async def _command(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        try:
            if await self._send("POST", path, body, missing_is_none=True) is not None:
                return
        except _Away as away:
            msg = f"{self.url}{path}: {away}"
            raise AgentError(msg) from away
        msg = f"{self.url} knows no {path.partition('?')[0]}: {_DEV}"
        raise ModelError(msg)

    async def _find_model(self) -> tuple[str, str, int]:
        patience = _Patience(self._patience_s)
        while True:
            try:
                models = (await self._send("GET", "/v1/models", None) or {}).get("data") or []
                break
            except _Away as away:
                await patience.wait(away)
        if not models or not models[0].get("max_model_len"):
            msg = f"engine must be the URL of a vLLM server, {self.url}/v1/models names {models!r:.200}"
            raise ModelError(msg)
        return models[0]["id"], models[0].get("root") or models[0]["id"], int(models[0]["max_model_len"])

    async def _find_path(self) -> str:
        try:
            found = await self._send("POST", _GENERATE, {}, missing_is_none=True)
        except ModelError:  # it is there, and refuses the empty request
            return _GENERATE
        return _COMPLETIONS if found is None else _GENERATE

    async def _check_logprobs(self) -> None:
        """Refuses a server whose log-probabilities are not those it samples by, where that makes a difference."""
        if self._sampling.plain:
            return
        wanted = {**self._sampling.as_vllm(), "temperature": 1.0, "top_p": 1e-6, "max_tokens": 1}
        body = {"model": self.model, "prompt": [1], "logprobs": 0, "seed": 0, **wanted}
        (logprob,) = (await self._post(_COMPLETIONS, body))["choices"][0]["logprobs"]["token_logprobs"]
        if logprob < -1e-6:  # the only token that such a top_p leaves has probability 1
            msg = (
                f"{self.url} must give the log-probabilities that it samples by, they leave out temperature and top_p: "
                "start it with --logprobs-mode processed_logprobs"
            )
            raise ModelError(msg)

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        found = await self._send("POST", path, body)
        if found is None:
            msg = f"{self.url}{path} answered with nothing"
            raise ModelError(msg)
        return found

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, missing_is_none: bool = False
    ) -> dict[str, Any] | None:
        """Sends one request and reads its answer, `{}` where that is empty.

        Raises:
            _Away: the server cannot be reached, is overloaded or broken.
            AgentError: it took too long.
            ModelError: it refuses the request.
        """
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.ConnectTimeout as error:
            raise _Away(str(error) or "no connection in time") from error
        except httpx.TimeoutException as error:
            self._last = 0.0
            msg = f"{self.url}{path} did not answer within timeout_s={self._client.timeout.read}"
            raise AgentError(msg) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            self._last = 0.0
            msg = f"{type(error).__name__}: {error}"
            raise _Away(msg) from error
        if response.status_code in {408, 429} or response.status_code >= 500:
            self._last = 0.0
            msg = f"status {response.status_code}: {response.text:.300}"
            raise _Away(msg)
        if response.status_code in {404, 405} and missing_is_none:
            return None
        if response.is_error:
            msg = f"{self.url}{path} refuses the request, status {response.status_code}: {response.text:.300}"
            raise ModelError(msg)
        try:
            return cast("dict[str, Any]", response.json()) if response.content else {}
        except (ValueError, RecursionError) as error:
            msg = f"{self.url}{path} must answer with JSON, got {response.text!r:.100}: is it a vLLM server?"
            raise ModelError(msg) from error

    # What follows runs in any other thread.

    def _submit(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        if self._loop.is_closed():
            work.close()
            msg = "the agent is closed"
            raise AgentError(msg)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        try:
            return self._submit(work).result()
        except _Away as away:
            msg = f"{self.url}: {away}"
            raise AgentError(msg) from away


class _Patience:
    """Waits longer and longer, up to two seconds with jitter, until it is used up."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._pause = 0.05

    async def wait(self, away: _Away) -> None:
        if time.monotonic() + self._pause > self._deadline:
            msg = f"the vLLM server is away for more than patience_s={self._seconds}: {away}"
            raise AgentError(msg)
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  jitter
        self._pause = min(2.0, self._pause * 2)


def _model_of(root: str) -> tuple[Shapes | None, bool]:
    """Returns what the files of a model hold, and whether its embeddings are tied, where it is on this machine."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(root, local_files_only=True).get_text_config()
        tied = bool(getattr(config, "tie_word_embeddings", False))
    except (OSError, ValueError, KeyError):
        return None, False
    try:
        return read_shapes(root), tied
    except ModelError:
        return None, tied
