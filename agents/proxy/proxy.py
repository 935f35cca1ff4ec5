"""`Proxy`: a server that agent programs take for OpenAI or Anthropic, and that records what they do."""

import asyncio
import logging
import socket
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Self

import uvicorn
from typing_extensions import override

from .app import make_app
from .hub import Hub

__all__ = ["Proxy"]

_WATCH_SECONDS = 0.2
_log = logging.getLogger(__name__)


class Proxy(Hub):
    """Serves an agent to programs, one base URL per episode, and records their episodes as trees.

    Args:
        agent: what answers: any agent; those in this process are asked for all waiting requests at once.
        envs: what makes the environment of a session; or several, by name. Without one, sessions are given their
            reward by a call.
        host: to listen at.
        port: to listen at; 0 takes a free one.
        key: what opens sessions; drawn by default. Programs get one of their own, which opens nothing.
        limits: what ends a session from outside.
        out: a new file that every episode is written to as it ends.
        model: the name that `GET /v1/models` gives; requests may name any.
        keep_snapshots: keeps the environment's state at every node where an episode can go on.

    Attributes:
        key: as given, or as drawn.
        sessions: those that are open, by id.
        trees: of the sessions that were opened here, by name.

    Raises:
        ValueError: `out` exists.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._server: uvicorn.Server | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    def start(self) -> None:
        """Listens, in a thread of its own, until `close`.

        Raises:
            OSError: the port is taken.
        """
        config = uvicorn.Config(
            make_app(self), host=self.host, port=self.port, log_config=None, access_log=False, ws="none",
            timeout_graceful_shutdown=2, lifespan="on",
        )  # fmt: skip
        bound = _bind(self.host, self.port)
        self.port = bound.getsockname()[1]
        self._server = server = uvicorn.Server(config)
        started = Event()

        async def serve() -> None:
            watch = asyncio.create_task(self._watch())
            poll = asyncio.create_task(_when_started(server, started))
            try:
                await server.serve(sockets=[bound])
            finally:
                for task in (watch, poll):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                await self.backend.leave_loop()
                started.set()

        self._thread = Thread(target=lambda: asyncio.run(serve()), name="agentenv-proxy", daemon=True)
        self._thread.start()
        started.wait()

    def wait(self) -> None:
        """Waits until the server ends, e.g. for Ctrl-C."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)

    @override
    def close(self) -> None:
        """Ends the sessions that are open, records them, and ends every thread. May be called twice."""
        self.end_all("the proxy was closed")
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        self._server = self._thread = None
        super().close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self.watch()
            except Exception:  # noqa: BLE001  the others go on
                _log.exception("a session could not be ended")


def _bind(host: str, port: int) -> Any:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


async def _when_started(server: uvicorn.Server, started: Event) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    started.set()
