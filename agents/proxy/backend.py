"""Asks an agent for one action at a time, from an event loop."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agentenv.errors import AgentEnvError
from agentenv.protocols import Agent, AsyncAgent, Context
from agentenv.types import Action

__all__ = ["Backend"]

Outcome = tuple[Action | Exception, float]


class Backend:
    """Asks an `AsyncAgent` at once; others, whose calls block, for all that wait meanwhile in one call.

    Args:
        agent: what acts.

    Attributes:
        agent: may be replaced between requests.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agent")
        self._waiting: list[tuple[Context, asyncio.Future[Outcome]]] = []
        self._busy: asyncio.Task[None] | None = None

    @staticmethod
    def check(agent: object) -> None:
        """Refuses what is no agent.

        Raises:
            TypeError: it has no `act`.
        """
        if not callable(getattr(agent, "act", None)):
            msg = f"agent must be anything with act(contexts) -> actions, got {agent!r:.80}"
            raise TypeError(msg)

    async def ask(self, context: Context) -> tuple[Action, float]:
        """Returns the action, and the seconds that its time is counted with: those of a call are shared evenly.

        Raises:
            Exception: whatever the agent raises.
        """
        if isinstance(self.agent, AsyncAgent):
            began = time.perf_counter()
            action = Action.parse(await self.agent.respond(context))
            return action, time.perf_counter() - began
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((context, future))
        if self._busy is None:
            self._busy = asyncio.create_task(self._drain())
        outcome, seconds = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, seconds

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                contexts = [context for context, _ in batch]
                outcomes = await loop.run_in_executor(self._thread, self._act, contexts)
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    if not future.done():
                        future.set_result(outcome)
        finally:
            self._busy = None

    def _act(self, contexts: Sequence[Context]) -> list[Outcome]:
        """Acts for all; where that raises, for one after another, so that one conversation spoils no other."""
        began = time.perf_counter()
        try:
            actions = [Action.parse(action) for action in self.agent.act(contexts)]
            if len(actions) != len(contexts):
                msg = f"act must return one action per context, got {len(actions)} for {len(contexts)}"
                raise ValueError(msg)  # noqa: TRY301
        except Exception as problem:  # noqa: BLE001  whoever asked is told
            if len(contexts) == 1 or not isinstance(problem, AgentEnvError):
                return [(problem, 0.0)] * len(contexts)
            return [outcome for context in contexts for outcome in self._act([context])]
        share = (time.perf_counter() - began) / len(contexts)
        return [(action, share) for action in actions]

    async def leave_loop(self) -> None:
        """Lets an agent close what it has open in this event loop."""
        if isinstance(self.agent, AsyncAgent):
            await self.agent.leave_loop()

    def close(self) -> None:
        """Ends the thread, after the call that runs."""
        self._thread.shutdown(wait=True)
