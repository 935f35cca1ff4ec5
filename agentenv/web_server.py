"""`WebServer`: an application that uvicorn serves in a thread of its own."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from threading import Event, Thread
from typing import Any

import uvicorn
from typing_extensions import override

__all__ = ["WebServer"]


class WebServer:
    """Listens from its making until `close`.

    Args:
        app: the ASGI application; it has a lifespan.
        host: to listen at.
        port: to listen at; 0 takes a free one.
        name: of the thread.
        around: makes a context that is entered in the server's event loop before it listens, and left after it.
        options: of `uvicorn.Config`.

    Attributes:
        port: where it listens.

    Raises:
        OSError: the port is taken.
        RuntimeError: the application or `around` failed as it began.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        name: str,
        around: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
        **options: Any,
    ) -> None:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port: int = bound.getsockname()[1]
        begun = Event()
        config = uvicorn.Config(
            app, log_config=None, access_log=False, timeout_graceful_shutdown=2, lifespan="on", **options
        )
        self._server = _Announcing(config, begun)

        async def serve() -> None:
            async with around():
                await self._server.serve(sockets=[bound])

        def run() -> None:
            try:
                asyncio.run(serve())
            finally:
                begun.set()
                bound.close()

        self._thread = Thread(target=run, name=name, daemon=True)
        self._thread.start()
        begun.wait()
        if not self._server.started:
            self._thread.join()
            msg = f"{name} ended as it began; its thread or its log says why"
            raise RuntimeError(msg)

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Waits until it ends, e.g. for Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Ends it, and its thread. May be called twice."""
        self._server.should_exit = True
        self._thread.join()


class _Announcing(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, begun: Event) -> None:
        super().__init__(config)
        self._begun = begun

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun.set()
