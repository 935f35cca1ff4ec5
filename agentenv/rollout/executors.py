"""Executors: what drives many episodes at once.

`InStep` is for a model in this process: every open episode takes one step at a time, and the agent sees them all in
one call. `Concurrent` is for an agent that takes requests at any time: an episode goes on as soon as its own answer is
there. Both step environments in a bounded number of threads. Threads and event loops live in this package and nowhere
else.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from agentenv.errors import InfrastructureError
from agentenv.protocols import Agent, AsyncAgent, BranchingEnv, Context
from agentenv.types import Action

from .episode import Answer, Branch
from .outages import failure_of
from .workers import Job, Workers

__all__ = ["Concurrent", "Episode", "Executor", "InStep"]

DEFAULT_WORKERS = 32
"""Threads that step environments: most wait for sandboxes, so more than there are cores."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Play = Callable[[Branch], Generator[Context, Answer]]


class Episode:
    """One rollout in progress: what its agent is asked now.

    Attributes:
        branch: the rollout, with what it did.
        context: what the agent sees next; `None` before the first `go`, and after the last.
        over: whether it has ended.
    """

    def __init__(self, branch: Branch, play: Play) -> None:
        self.branch = branch
        self.context: Context | None = None
        self.over = False
        self._play = play
        self._game = play(branch)
        self._answer: Answer | InfrastructureError | None = None
        self._left = False

    def answer(self, answer: Answer | InfrastructureError) -> None:
        """Takes what the agent did, or how it broke; `go` acts on it."""
        self._answer = answer

    def go(self) -> "Episode":
        """Works on the environment until the agent is asked again, or to the end."""
        game, answer, self._answer = self._game, self._answer, None
        context = None
        try:
            if answer is None:
                context = next(game)
            elif isinstance(answer, Answer):
                context = game.send(answer)
            else:
                context = game.throw(answer)
        except StopIteration:
            pass
        if self._left or game is not self._game:  # nobody waits for what this thread did
            game.close()
        else:
            self.context, self.over = context, context is None
        return self

    def restart(self, reason: str) -> None:
        """Gives up what hangs in another thread; `go` tries again from the anchor, if attempts are left."""
        hanging, self._game = self._game, self._play(self.branch)
        self.context = self._answer = None
        self.branch.attempts[-1] = self.branch.attempts[-1].given_up(TimeoutError(reason))
        _close(hanging)

    def leave(self) -> None:
        """Gives up the episode; its environment is closed now, or as soon as its step returns."""
        self._left = True
        _close(self._game)


class Executor(Protocol):
    """Drives episodes."""

    def attach(self, make_env: Callable[[], BranchingEnv]) -> Callable[[], BranchingEnv]:
        """Returns what makes the environments that this executor's episodes are given."""
        ...

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None
    ) -> Sequence[Job[Result]]:
        """Does blocking work on environments for every item; what takes longer than `limit` seconds is left."""
        ...

    def run(
        self, branches: Sequence[Branch], play: Play, agent: Agent, *, max_envs: int | None, limit: float | None
    ) -> Generator[Branch]:
        """Yields the rollouts as they end.

        Args:
            branches: the rollouts to play.
            play: what plays one; see `agentenv.rollout.episode.play`.
            agent: what acts.
            max_envs: episodes that run at once.
            limit: seconds that an environment may take for one step.
        """
        ...

    def close(self) -> None:
        """Ends what the executor keeps. May be called twice."""
        ...


class InStep:
    """Asks the agent for all open episodes in one call, step by step.

    Args:
        workers: threads that step the environments. 0 steps one after another in the calling thread, e.g. for a
            debugger; then an environment that hangs cannot be cut off.
    """

    def __init__(self, workers: int = DEFAULT_WORKERS) -> None:
        self._workers = Workers(workers) if workers else None

    def attach(self, make_env: Callable[[], BranchingEnv]) -> Callable[[], BranchingEnv]:
        """Environments live in this process."""
        return make_env

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None
    ) -> Sequence[Job[Result]]:
        """Does blocking work on environments for every item."""
        if self._workers is not None:
            return self._workers.map(function, items, limit=limit)
        if limit is not None:
            msg = f"step_seconds must be None for InStep(workers=0), got {limit}: it cannot leave what hangs"
            raise ValueError(msg)
        return [_call_here(function, item) for item in items]

    def _each(
        self, function: Callable[[Item], Result], items: Sequence[Item], limit: float | None
    ) -> Generator[tuple[Item, Job[Result]]]:
        if self._workers is not None and (len(items) > 1 or limit is not None):
            return self._workers.each(function, items, limit=limit)
        return ((item, _call_here(function, item)) for item in items)

    def run(
        self, branches: Sequence[Branch], play: Play, agent: Agent, *, max_envs: int | None, limit: float | None
    ) -> Generator[Branch]:
        """Yields the rollouts as they end; each that ends makes room for the next."""
        waiting = deque(branches)
        live: list[Episode] = []
        try:
            while waiting or live:
                room = len(waiting) if max_envs is None else min(len(waiting), max_envs - len(live))
                live += [Episode(waiting.popleft(), play) for _ in range(room)]
                bugs: list[BaseException] = []
                for episode, job in self._each(Episode.go, live, limit):
                    bugs += _settle(episode, job, limit)
                    if episode.over:
                        yield episode.branch
                _raise(bugs)
                live = [episode for episode in live if not episode.over]
                asked = [(episode, episode.context) for episode in live if episode.context is not None]
                for (episode, _), answer in zip(asked, _ask(agent, [context for _, context in asked]), strict=True):
                    episode.answer(answer)
        finally:
            for episode in live:
                episode.leave()

    def close(self) -> None:
        """Ends the threads."""
        if self._workers is not None:
            self._workers.close()


class Concurrent:
    """Lets every episode go on as soon as its own answer is there.

    Args:
        workers: threads that step the environments.
        agent_threads: for an agent that is no `AsyncAgent` but may be called from several threads: how many.
    """

    def __init__(self, workers: int = DEFAULT_WORKERS, *, agent_threads: int | None = None) -> None:
        self._workers = Workers(workers)
        self._asking = None if agent_threads is None else Workers(agent_threads)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._served: list[AsyncAgent] = []

    def attach(self, make_env: Callable[[], BranchingEnv]) -> Callable[[], BranchingEnv]:
        """Environments live in this process."""
        return make_env

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, limit: float | None
    ) -> Sequence[Job[Result]]:
        """Does blocking work on environments for every item."""
        return self._workers.map(function, items, limit=limit)

    def run(
        self, branches: Sequence[Branch], play: Play, agent: Agent, *, max_envs: int | None, limit: float | None
    ) -> Generator[Branch]:
        """Yields the rollouts as they end."""
        if not isinstance(agent, AsyncAgent) and self._asking is None:
            msg = (
                f"agent must be an AsyncAgent for Concurrent(), got {type(agent).__name__}: pass agent_threads=N where "
                "it may be called from N threads, or use InStep()"
            )
            raise TypeError(msg)
        if isinstance(agent, AsyncAgent) and all(agent is not one for one in self._served):
            self._served.append(agent)
        ended: SimpleQueue[Branch | BaseException | None] = SimpleQueue()
        task = asyncio.run_coroutine_threadsafe(
            self._run_all(branches, play, agent, max_envs or len(branches), limit, ended), self._started()
        )
        try:
            while (branch := ended.get()) is not None:
                yield _branch(branch)
        except BaseException:
            task.cancel()
            _wait_for_none(ended)
            raise

    async def _run_all(
        self,
        branches: Sequence[Branch],
        play: Play,
        agent: Agent,
        most: int,
        limit: float | None,
        ended: "SimpleQueue[Branch | BaseException | None]",
    ) -> None:
        room = asyncio.Semaphore(max(1, most))

        async def one(branch: Branch) -> None:
            async with room:
                ended.put(await self._play_one(Episode(branch, play), agent, limit))

        try:
            async with asyncio.TaskGroup() as group:
                for branch in branches:
                    group.create_task(one(branch))
        except BaseExceptionGroup as errors:
            ended.put(_first(errors))
        finally:
            ended.put(None)

    async def _play_one(self, episode: Episode, agent: Agent, limit: float | None) -> Branch:
        try:
            while True:
                job = await self._call(self._workers, episode.go, limit)
                _raise(_settle(episode, job, limit))
                if episode.over:
                    return episode.branch
                if episode.context is not None:
                    episode.answer(await self._ask(agent, episode.context))
        except BaseException:
            episode.leave()
            raise

    async def _ask(self, agent: Agent, context: Context) -> Answer | InfrastructureError:
        began = time.perf_counter()
        try:
            if isinstance(agent, AsyncAgent):
                action = await agent.respond(context)
            else:
                job = await self._call(self._asking or self._workers, lambda: _act(agent, [context])[0], None)
                action = _result(job)
        except Exception as error:
            if (failure := failure_of(error, agent)) is None:
                raise
            return failure
        return _read(agent, action, time.perf_counter() - began)

    async def _call(self, workers: Workers, function: Callable[[], Result], limit: float | None) -> Job[Result]:
        """Waits for a thread to make a call, or for `limit` seconds from when it began."""
        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        job = Job(function, lambda _: _notify(loop, finished))
        workers.submit([job])
        while True:
            try:
                await asyncio.wait_for(finished.wait(), limit)
            except TimeoutError:
                if limit is not None and all(job.left for job in workers.leave_overdue([job], limit)):
                    return job
            else:
                return job

    def _started(self) -> asyncio.AbstractEventLoop:
        """The loop in a thread of its own, so that it runs under a debugger, a notebook or another loop alike."""
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()

            def run() -> None:
                loop.run_forever()
                loop.close()

            self._thread = threading.Thread(target=run, name="rollout loop", daemon=True)
            self._thread.start()
        return self._loop

    def close(self) -> None:
        """Ends the threads."""
        self._workers.close()
        if self._asking is not None:
            self._asking.close()
        if self._loop is not None:
            loop, self._loop = self._loop, None
            _finish(loop, self._served)
            self._served = []
            if self._thread is not None:
                self._thread.join(timeout=2)


def _close(game: Generator[Context, Answer]) -> None:
    with suppress(ValueError):  # it is running in a thread, which closes it
        game.close()


def _finish(loop: asyncio.AbstractEventLoop, agents: Sequence[AsyncAgent]) -> None:
    """Cancels what runs in a loop, lets agents close what they have there, and ends it."""

    async def cancel() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(agent.leave_loop() for agent in agents), return_exceptions=True)
        loop.call_soon(loop.stop)

    work: Coroutine[Any, Any, None] = cancel()
    asyncio.run_coroutine_threadsafe(work, loop)


def _branch(ended: Branch | BaseException) -> Branch:
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _wait_for_none(ended: "SimpleQueue[Branch | BaseException | None]", seconds: float = 2.0) -> None:
    """Waits until cancelled episodes have let go of their environments, but not for what hangs."""
    deadline = time.monotonic() + seconds
    with suppress(Empty):
        while ended.get(timeout=max(0.0, deadline - time.monotonic())) is not None:
            pass


def _notify(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop was closed: nobody waits
        loop.call_soon_threadsafe(event.set)


def _first(error: BaseException) -> BaseException:
    """The first error of a group that is not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _call_here(function: Callable[[Item], Result], item: Item) -> Job[Result]:
    job: Job[Result] = Job(lambda: function(item))
    try:
        job.result = job.call()
    except BaseException as error:
        job.error = error
        if not isinstance(error, Exception):
            raise
    job.done = True
    return job


def _result(job: Job[Result]) -> Result:
    if job.error is not None:
        raise job.error
    return job.result  # pyright: ignore[reportReturnType]  it is done


def _raise(bugs: Sequence[BaseException]) -> None:
    if bugs:
        raise bugs[0]


def _settle(episode: Episode, job: Job[Episode], limit: float | None) -> list[BaseException]:
    """Gives up a step that hangs; returns the bug that a step raised, if any."""
    if job.left:
        episode.restart(f"the environment took longer than step_seconds={limit} for one step")
    return [] if job.error is None else [job.error]


def _ask(agent: Agent, contexts: Sequence[Context]) -> Sequence[Answer | InfrastructureError]:
    """Asks for all contexts in one call; where that meets an outage, for each alone.

    So an outage that one of many requests met is the matter of its episode alone. When two in a row fail alone, the
    server is away, and the rest fails without being asked for.
    """
    if not contexts:
        return ()
    began = time.perf_counter()
    try:
        actions = _act(agent, contexts)
    except Exception as error:
        if (failure := failure_of(error, agent)) is None:
            raise
        return [failure] if len(contexts) == 1 else _ask_alone(agent, contexts)
    seconds = (time.perf_counter() - began) / len(contexts)
    return [_read(agent, action, seconds) for action in actions]


def _ask_alone(agent: Agent, contexts: Sequence[Context]) -> Sequence[Answer | InfrastructureError]:
    answers: list[Answer | InfrastructureError] = []
    for context in contexts:
        last = answers[-2:]
        away = len(last) == 2 and all(isinstance(answer, InfrastructureError) for answer in last)
        answers += last[-1:] if away else _ask(agent, [context])
    return answers


def _act(agent: Agent, contexts: Sequence[Context]) -> Sequence[object]:
    actions: object = agent.act(contexts)
    if not isinstance(actions, Sequence) or isinstance(actions, str):
        msg = f"{type(agent).__name__}.act must return a list with one action per context, got {type(actions).__name__}"
        raise ValueError(msg)
    if len(actions) != len(contexts):
        msg = f"{type(agent).__name__}.act must return one action per context: got {len(actions)} for {len(contexts)}"
        raise ValueError(msg)
    return actions


def _read(agent: Agent, action: object, seconds: float) -> Answer:
    """Reads what an agent returned: an `Action`, text, or a message in OpenAI's format."""
    try:
        return Answer(Action.parse(action), seconds)
    except ValueError as error:
        msg = f"{type(agent).__name__} must return actions (Action, text or an assistant message): {error}"
        raise ValueError(msg) from error
