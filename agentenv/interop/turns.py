"""`Turns`: somebody else's episode loop, which asks for actions, played step by step from outside."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from agentenv.errors import AgentEnvError, InfrastructureError

__all__ = ["Ask", "Turns"]

Ask = Callable[[Any], Awaitable[Any]]
"""Asks for an action: what the agent may see goes in, its action comes out."""


class Turns:
    """Runs a coroutine in an event loop and thread of its own. It asks; `answer` lets it go on to the next question.

    Args:
        play: plays an episode, given what it asks with; what it returns is the end.
        timeout_s: seconds that it may take from an answer to the next question.

    Attributes:
        ended: whether it has returned.
    """

    def __init__(self, play: Callable[[Ask], Awaitable[Any]], *, timeout_s: float) -> None:
        self._play, self._timeout_s = play, timeout_s
        self._said: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._waits: asyncio.Future[Any] | None = None
        self.ended = False
        self._thread = Thread(target=self._run, name="agentenv-turns", daemon=True)
        self._thread.start()

    def next(self) -> Any:
        """Returns the next question, or, with `ended`, what the coroutine returned.

        Raises:
            AgentEnvError: the coroutine raised it.
            InfrastructureError: the coroutine raised something else, or took too long.
        """
        try:
            kind, value = self._said.get(timeout=self._timeout_s)
        except Empty:
            self.close()
            msg = f"neither a question nor an end came within {self._timeout_s:g} s"
            raise InfrastructureError(msg) from None
        if kind == "asked":
            return value
        self.ended = True
        self._thread.join()
        if kind == "returned":
            return value
        if isinstance(value, AgentEnvError):
            raise value
        msg = f"the episode's own loop failed: {type(value).__name__}: {value}"
        raise InfrastructureError(msg) from value

    def answer(self, action: Any) -> Any:
        """Gives the action that was asked for, and returns what `next` does."""
        waits, self._waits = self._waits, None
        if waits is None:
            msg = "nothing was asked"
            raise RuntimeError(msg)
        self._loop.call_soon_threadsafe(_set, waits, action)
        return self.next()

    def close(self) -> None:
        """Ends the coroutine, and the thread. May be called twice."""
        with suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(self._timeout_s)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                said = "returned", runner.run(self._main())
            except BaseException as error:  # noqa: BLE001  whoever waits is told
                said = "raised", error
        self._said.put(said)

    async def _main(self) -> Any:
        self._task = asyncio.current_task()
        turn = asyncio.Lock()

        async def ask(question: Any) -> Any:
            async with turn:
                self._waits = asyncio.get_running_loop().create_future()
                self._said.put(("asked", question))
                return await self._waits

        return await self._play(ask)


def _set(waits: asyncio.Future[Any], value: Any) -> None:
    if not waits.done():
        waits.set_result(value)
