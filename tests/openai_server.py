"""A real HTTP server on a socket that speaks as much of chat completions as a client needs, and breaks on demand."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["Reply", "Server", "completion", "guess"]

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


def completion(content: Any = "", calls: Any = None, finish: Any = "stop", **entries: Any) -> dict[str, Any]:
    """A completion as servers write it; `entries` go into the message, the choice or the whole by name."""
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": finish}
    whole: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    for name, value in entries.items():
        where = (
            choice if name in {"logprobs", "token_ids"} else whole if name.startswith(("usage", "prompt")) else message
        )
        where[name] = value
    return whole


def guess(number: Any = 50, **entries: Any) -> dict[str, Any]:
    """A call as servers write it."""
    function = {"name": "guess", "arguments": f'{{"number": {number}}}'}
    return {"id": "c1", "type": "function", "function": function} | entries


@dataclass
class Reply:
    """What the server does with a request.

    `cut` hangs up after the head (`"body"`), or without a byte (`"silent"`).
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: str = ""

    def encode(self) -> bytes:
        raw = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        head = {"content-type": "application/json", "content-length": str(len(raw)), **self.headers}
        lines = [
            f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Reason')}",
            *(f"{k}: {v}" for k, v in head.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (raw[: len(raw) // 2] if self.cut == "body" else raw)


class Server:
    """Answers by a function of the request and of how many came before; keeps all requests.

    Attributes:
        requests: the bodies of all completions asked for.
        headers: their headers.
        busy: how many are being answered now, and `most` how many there were at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any], int], Reply | Any], *, models: Any = ("m",)) -> None:
        self.answer = answer
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.busy = self.most = 0
        self.port = 0
        self._listening: Any = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self) -> None:
        """Listens; on the same port as before where it was stopped."""

        async def listen() -> None:
            self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512)
            self.port = self._listening.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result()

    def stop(self) -> None:
        """Dies: cuts every connection, and nobody listens any more."""

        async def die() -> None:
            self._listening.close()
            for writer in self._connections:
                writer.transport.abort()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(die(), self._loop).result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.strip().split("\r\n")
                headers = {key.lower(): value for key, value in (entry.split(": ", 1) for entry in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                reply = self._reply(line.split()[1], headers, body)
                self.busy += 1
                self.most = max(self.most, self.busy)
                await asyncio.sleep(reply.delay)
                self.busy -= 1
                if reply.cut == "silent":
                    break
                writer.write(reply.encode())
                await writer.drain()
                if reply.cut:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(writer)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    def _reply(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if path == "/v1/models":
            if isinstance(self.models, Reply):
                return self.models
            return Reply({"object": "list", "data": [{"id": name} for name in self.models]})
        if path != "/v1/chat/completions":
            return Reply({"detail": "Not Found"}, 404)
        request = json.loads(body)
        number = len(self.requests)
        self.requests.append(request)
        self.headers.append(headers)
        answered = self.answer(request, number)
        return answered if isinstance(answered, Reply) else Reply(answered)
