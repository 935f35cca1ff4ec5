"""`Proxy`: a server that agent programs take for OpenAI or Anthropic, and that records what they do."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from typing_extensions import override

from agentenv.web_server import WebServer

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
        varying: regular expressions of what programs write otherwise every time, for replay.

    Attributes:
        key: as given, or as drawn.
        sessions: those that are open, by id.
        trees: of the sessions that were opened here, by name.

    Raises:
        ValueError: `out` exists.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._web: WebServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._web is not None

    def start(self) -> None:
        """Listens, in a thread of its own, until `close`.

        Raises:
            OSError: the port is taken.
        """
        self._web = WebServer(
            make_app(self), host=self.host, port=self.port, name="agentenv-proxy", around=self._watching, ws="none"
        )
        self.port = self._web.port

    def wait(self) -> None:
        """Waits until the server ends, e.g. for Ctrl-C."""
        if self._web is not None:
            self._web.wait()

    @override
    def close(self) -> None:
        """Ends the sessions that are open, records them, and ends every thread. May be called twice."""
        self.end_all("the proxy was closed")
        if self._web is not None:
            self._web.close()
        self._web = None
        super().close()

    @asynccontextmanager
    async def _watching(self) -> AsyncGenerator[None]:
        """Ends sessions from outside while the server runs, and leaves its loop to none of the agent's connections."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await self.backend.leave_loop()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self.watch()
            except Exception:  # noqa: BLE001  the others go on
                _log.exception("a session could not be ended")
