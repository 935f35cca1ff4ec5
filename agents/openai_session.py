"""The connections to a server that belong to one event loop, and what goes over them."""

import asyncio
import functools
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, cast

import anyio
import httpx2
import openai

__all__ = ["Session"]

_PREPARED_AT_ONCE = 2


class Session:
    """Sends requests in one event loop.

    Args:
        base_url: the server.
        key: of its API.
        timeout: seconds for one answer.
        headers: further headers.
        concurrency: requests at once.

    Attributes:
        room: of requests at once.
        naming: held by whoever asks for the model's name.
    """

    def __init__(
        self, base_url: str, key: str, *, timeout: float, headers: Mapping[str, str], concurrency: int
    ) -> None:
        self._http = _http_client(concurrency)
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            http_client=self._http,
        )
        self._headers = httpx2.Headers(self._client.auth_headers)
        for name, value in self._client.default_headers.items():
            if isinstance(value, str):  # those of the user come last, however they are spelled
                self._headers[name] = value
        self._url = httpx2.URL(f"{base_url}/chat/completions")
        self._extensions = {"timeout": httpx2.Timeout(timeout).as_dict()}
        self._gate = asyncio.Semaphore(_PREPARED_AT_ONCE)
        self.room = asyncio.Semaphore(concurrency)
        self.naming = asyncio.Lock()

    async def complete(self, body: Mapping[str, Any]) -> httpx2.Response:
        """Sends a request for a chat completion over the client's connections.

        The client would make request and headers anew each time, and check the options of each: that takes twice as
        long as all the rest. Lone surrogates, which JSON can name and UTF-8 cannot hold, become `?`.

        Raises:
            openai.APIConnectionError: the server cannot be reached, or did not answer.
            openai.APIStatusError: it answered with an error.
        """
        async with _through(self._gate):
            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            content = text.encode("utf-8", "replace")
            request = httpx2.Request(
                "POST", self._url, headers=self._headers, content=content, extensions=self._extensions
            )
            try:
                response = await self._http.send(request)
            except (httpx2.RequestError, anyio.EndOfStream) as error:
                raise openai.APIConnectionError(request=request) from error
        if not response.is_success:
            msg = f"status {response.status_code}"
            raise openai.APIStatusError(msg, response=response, body=_error_in(response))
        return response

    async def list_models(self) -> tuple[str, ...]:
        """Returns the names of the server's models; none where it does not tell.

        Raises:
            openai.APIError: it does not answer, or with an error.
        """
        response = await self._client.get("/models", cast_to=httpx2.Response)
        try:
            entries = response.json()["data"]
            return tuple(str(entry["id"]) for entry in entries)
        except (ValueError, RecursionError, KeyError, TypeError):
            return ()

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def _error_in(response: httpx2.Response) -> object:
    """What a server says of an error: the entry `error` of its JSON, all of it, or the text."""
    try:
        body: object = response.json()
    except (ValueError, RecursionError):
        return response.text
    return cast("Mapping[str, Any]", body).get("error", body) if isinstance(body, Mapping) else body


@asynccontextmanager
async def _through(gate: asyncio.Semaphore) -> AsyncGenerator[None]:
    """Lets few requests be prepared at once; each leaves the gate when it is sent.

    Otherwise an event loop takes turns: of many requests that come at once, the first would leave when the last is
    nearly ready, their answers would come all at once again, and the server would stand idle in between.
    """
    await gate.acquire()
    inside = [True]

    def leave() -> None:
        if inside.pop() if inside else False:
            gate.release()

    token = _leaving.set(leave)
    try:
        yield
    finally:
        _leaving.reset(token)
        leave()


_leaving: ContextVar[Callable[[], None] | None] = ContextVar("leaving", default=None)


async def _is_sent(request: httpx2.Request) -> None:  # noqa: ARG001  as httpx calls it
    if (leave := _leaving.get()) is not None:
        leave()


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes longer than a request."""
    return httpx2.create_ssl_context()


def _http_client(connections: int) -> httpx2.AsyncClient:
    """Returns one on aiohttp where that is installed, which takes a quarter of the time per request; else httpx."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30)
    options: dict[str, Any] = {"limits": limits, "verify": _tls(), "event_hooks": {"request": [_is_sent]}}
    try:
        return openai.DefaultAioHttpClient(**options)
    except RuntimeError:
        return openai.DefaultAsyncHttpxClient(**options)
