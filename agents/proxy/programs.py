"""`ProgramRollout`: grows episode trees with a program that people already have, one process per episode."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Self, cast

from agentenv.arrays import check_count
from agentenv.errors import InfrastructureError, TreeError
from agentenv.protocols import Agent, BranchingEnv
from agentenv.recording import failed_node
from agentenv.rollout import Ledger, derive_seed
from agentenv.rollout.environments import EnvPool
from agentenv.serialize import TreeWriter
from agentenv.tree import Anchor, Cost, EpisodeTree
from agentenv.types import message_text

from .backend import Backend
from .book import Book
from .proxy import Proxy
from .replaying import check_varying
from .session import Session, SessionLimits

__all__ = ["ProgramRollout"]

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05
_TAIL = 2000


@dataclass(slots=True)
class _Job:
    """One rollout: its attempts, once they have ended."""

    book: Book
    number: int
    at: int
    sessions: list[Session] = field(default_factory=list[Session])
    done: bool = False


class ProgramRollout:
    """Samples episodes by running a command per episode, which takes a proxy before `agent` for its model.

    Used like `agentenv.rollout.Rollout`: `grow` for full episodes, `extend` for continuations, which replay the program
    to the node. Equal seeds give equal trees where the program does the same again.

    The command is told by environment variables where its model and its tools are: `OPENAI_BASE_URL`, `OPENAI_API_KEY`,
    `ANTHROPIC_BASE_URL`, `ANTHROPIC_API_KEY`, `AGENTENV_TOOLS_URL`, `AGENTENV_MCP_URL`, `AGENTENV_PROMPT`, and all
    of it as JSON in `AGENTENV_SESSION`. It reads the task from its standard input, and may have `{prompt}`,
    `{base_url}`, `{tools_url}`, `{mcp_url}` or `{model}` in its words. It ends with its episode, with all that it
    started.

    Args:
        make_env: returns a new environment; `None` where `reward` gives the reward.
        agent: what acts.
        command: the program and its arguments.
        reward: gives the reward of an episode without an environment: a function of the session (its `task`, its
            `messages`, its `exit_code`); `None` where there is nothing to say.
        seed: of the run, as for `Rollout`.
        max_programs: processes that run at once.
        retries: how often an episode that infrastructure broke starts again.
        keep_snapshots: keeps the environment's state at every node where an episode can go on.
        max_calls: an episode in which the model has answered so often is truncated.
        max_tokens: a conversation with so many tokens truncates its episode; the agent must honor it.
        max_seconds: an episode that takes longer is truncated, and its program ended.
        variables: further environment variables of the command.
        cwd: its folder; a fresh one per episode by default, removed afterwards.
        varying: regular expressions of what the program writes otherwise every time, such as a clock: it does not count
            where its requests are compared with the record.
        record: a new file that episodes are written to, as they end and in the order of their numbers.
        on_end: called for every rollout that has ended.

    Attributes:
        trees: of the last call of `grow`.
        ledger: what all calls cost so far.
        seed: as given; may be set anew between calls.

    Raises:
        ValueError: there is no such command, a limit is out of range, or `record` exists.
    """

    def __init__(  # noqa: PLR0913  all keyword-only
        self,
        make_env: Callable[[], BranchingEnv] | None,
        agent: Agent,
        *,
        command: Sequence[str],
        reward: Callable[[Session], float | None] | None = None,
        seed: int = 0,
        max_programs: int = 8,
        retries: int = 2,
        keep_snapshots: bool = True,
        max_calls: int | None = 256,
        max_tokens: int | None = None,
        max_seconds: float | None = 600.0,
        variables: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        varying: Sequence[str] = (),
        record: str | Path | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.command = _checked(command)
        check_count("max_programs", max_programs, least=1)
        check_count("retries", retries, least=0)
        if record is not None and Path(record).exists() and Path(record).stat().st_size:
            msg = f"record must name a new file, {record} exists"
            raise ValueError(msg)
        self.seed = seed
        self.trees: list[EpisodeTree] = []
        self.ledger = Ledger()
        self.retries = retries
        self._reward = reward
        self._most = max_programs
        self._kept: dict[str, Any] = {"keep_snapshots": keep_snapshots, "varying": check_varying(varying)}
        self._limits = SessionLimits(max_calls, max_tokens, max_seconds, None)
        self._variables = dict(variables or {})
        self._cwd = cwd
        self._on_end = on_end
        self._pool = None if make_env is None else EnvPool(make_env)
        self._writer = None if record is None else TreeWriter(record, append=True, journal=True)
        self._books: dict[int, Book] = {}
        self._stop = Event()
        self._agent = agent
        self._proxy: Proxy | None = None
        Backend.check(agent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def agent(self) -> Agent:
        """What acts; may be set between calls."""
        return self._agent

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._agent = agent
        if self._proxy is not None:
            self._proxy.backend.agent = agent

    @property
    def failures(self) -> int:
        """Attempts that infrastructure broke, so far."""
        return self.ledger.failures

    def close(self) -> None:
        """Ends the proxy, and closes environments and file. May be called twice; `grow` begins again."""
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._pool is not None:
            self._pool.close()
        if self._writer is not None:
            self._writer.close()

    def grow(self, tasks: Sequence[Any], num_rollouts: int = 1) -> list[EpisodeTree]:
        """Samples `num_rollouts` full episodes of every task and returns one tree per task.

        Args:
            tasks: passed to the environment's `reset`; `None` lets it choose. Without an environment: text that the
                program is given, or anything that is written to it as JSON.
            num_rollouts: episodes per task.
        """
        check_count("num_rollouts", num_rollouts, least=1)
        trees = self.begin(tasks)
        self.extend(trees, [Anchor(i, 0, num_rollouts) for i, tree in enumerate(trees) if tree.snapshots])
        return trees

    def begin(self, tasks: Sequence[Any]) -> list[EpisodeTree]:
        """Resets for every task and returns one tree per task that has only a root, for `extend`.

        The first episode to be recorded says how a tree opens: with all that its program asked first.

        Args:
            tasks: as for `grow`.
        """
        self._books.clear()
        books = [self._begin(task, derive_seed(self.seed, i, "task")) for i, task in enumerate(tasks)]
        self.trees = [book.begun() if isinstance(book, Book) else book for book in books]
        self._books |= {id(book.tree): book for book in books if isinstance(book, Book)}
        return self.trees

    def extend(self, trees: Sequence[EpisodeTree], anchors: Sequence[Anchor]) -> None:
        """Continues from the anchors: the program is replayed there, and goes on with an agent that is seeded afresh.

        Args:
            trees: grown by this class, or read from a file of it.
            anchors: where, and how often.

        Raises:
            TreeError: nothing can be replayed to an anchor.
        """
        jobs: list[_Job] = []
        for anchor in anchors:
            if not 0 <= anchor.tree < len(trees) or anchor.count < 0:
                msg = f"an anchor needs a tree in [0, {len(trees)}) and a count of at least 0, got {anchor}"
                raise TreeError(msg)
            tree = trees[anchor.tree]
            book = self._books.get(id(tree))
            if book is None:
                book = self._books[id(tree)] = Book.of(tree, self._pool, **self._kept)
            if anchor.node:
                book.check_anchor(anchor.node)
            jobs += [_Job(book, book.take_number(), anchor.node) for _ in range(anchor.count)]
        self._run(jobs)

    def _begin(self, task: Any, seed: int) -> Book | EpisodeTree:
        failures = 0
        while True:
            try:
                return Book(self._pool, task=task, seed=seed, writer=self._writer, **self._kept)
            except InfrastructureError as problem:
                failures += 1
                self.ledger += Ledger(failures=1)
                if failures > self.retries:
                    tree = EpisodeTree((), metadata={"seed": seed})
                    tree.append(failed_node(None, problem, during="reset", parent=0))
                    return tree

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Runs the programs, and records what they did in the order of the jobs."""
        if not jobs:
            return
        began = time.monotonic()
        self._stop.clear()
        if self._proxy is None:
            self._proxy = Proxy(self._agent)
            self._proxy.start()
        waiting = list(jobs)
        try:
            with ThreadPoolExecutor(self._most, thread_name_prefix="program") as threads:
                futures: set[Future[None]] = {threads.submit(self._play, job) for job in jobs}
                try:
                    while futures:
                        ended, futures = wait(futures, return_when=FIRST_COMPLETED)
                        while waiting and waiting[0].done:
                            self._settle(waiting.pop(0))
                        for future in ended:
                            future.result()
                finally:
                    self._stop.set()
                    for future in futures:
                        future.cancel()
        finally:
            for job in waiting:
                self._settle(job)
            self.ledger += Ledger(wall_seconds=time.monotonic() - began)

    def _settle(self, job: _Job) -> None:
        for session in job.sessions:
            before = 1 if job.book.tree is None else len(job.book.tree)
            nodes = job.book.settle(session).nodes[before:]
            failed = int(session.ending is not None and bool(session.ending.failure))
            last = int(session is job.sessions[-1])
            self.ledger += Ledger(sum((node.cost for node in nodes), Cost()), len(nodes), last, failed)
        if job.sessions and self._on_end is not None:
            self._on_end()

    # ------------------------------------------------------------------ one episode

    def _play(self, job: _Job) -> None:
        """Plays one rollout to its end; where infrastructure breaks it, again."""
        proxy = cast("Proxy", self._proxy)
        try:
            for attempt in range(self.retries + 1):
                try:
                    session = job.book.open(number=job.number, attempt=attempt, at=job.at, limits=self._limits)
                except InfrastructureError as problem:
                    session = job.book.broken(job.number, attempt, problem)
                    job.sessions.append(session)
                    continue
                proxy.serve(session)
                try:
                    self._execute(proxy, job, session)
                finally:
                    proxy.end(session, "stopped", truncated=True)
                if self._stop.is_set() and session.ending and session.ending.reason == "stopped":
                    return
                job.sessions.append(session)
                if session.error is not None:
                    raise session.error
                if not (session.ending and session.ending.failure):
                    return
        finally:
            job.done = True

    def _execute(self, proxy: Proxy, job: _Job, session: Session) -> None:
        told = proxy.describe(session)
        session.task = job.book.task
        prompt = "\n\n".join(message_text(message) for message in session.first)
        if self._pool is None:
            prompt = job.book.task if isinstance(job.book.task, str) else json.dumps(job.book.task)
        told |= {"prompt": prompt, "task": job.book.task if self._pool is None else None}
        with tempfile.TemporaryDirectory(prefix="agentenv-program-") as folder, tempfile.TemporaryFile() as output:
            with tempfile.TemporaryFile() as given:
                given.write(prompt.encode())
                given.seek(0)
                process = subprocess.Popen(  # noqa: S603  the user's own command
                    [sys.executable, "-I", str(_SUPERVISOR), *(_filled(word, told) for word in self.command)],
                    stdin=given,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._cwd or folder,
                    env=_variables(told) | self._variables,
                )
            try:
                code = self._wait(process, session)
            finally:
                if process.poll() is None:
                    process.terminate()
                process.wait()
            end = output.seek(0, os.SEEK_END)
            output.seek(max(0, end - _TAIL))
            self._judge(session, code, output.read().decode("utf-8", "replace").strip())

    def _wait(self, process: subprocess.Popen[bytes], session: Session) -> int | None:
        """Waits for the program; `None` where its time was up first."""
        patience: float | None = None
        while True:
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            if why := session.overdue():
                session.end(why, truncated=True)
            if self._stop.is_set() or session.ending is not None:
                return None
            if session.env_ended:
                patience = time.monotonic() + _GRACE_SECONDS if patience is None else patience
                if time.monotonic() > patience:
                    return None

    def _judge(self, session: Session, code: int | None, output: str) -> None:
        """Ends the session as the program ended: one that did not even ask the model could not be run."""
        if session.ending is not None:
            return
        session.exit_code = code
        if self._stop.is_set():
            session.end("stopped", truncated=True)
        elif code and not (session.calls or session.counts.failures or session.env_ended):
            session.end("the program failed", failure=f"the program ended with code {code} before it asked: {output}")
        else:
            if self._reward is not None and self._pool is None:
                session.reward = self._reward(session)
            if code:
                session.end(f"the program ended with code {code}: {output}")
            else:
                session.finish()


def _checked(command: Sequence[str]) -> list[str]:
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        msg = f"command must be a list of words, such as ['python', 'my_agent.py'], got {command!r:.200}"
        raise ValueError(msg)
    if shutil.which(command[0]) is None:
        msg = f"command must name a program, got {command[0]!r}, which is not found"
        raise ValueError(msg)
    return list(command)


def _filled(word: str, told: Mapping[str, Any]) -> str:
    for name in ("prompt", "base_url", "tools_url", "mcp_url", "model"):
        word = word.replace("{" + name + "}", str(told[name]))
    return word


def _variables(told: Mapping[str, Any]) -> dict[str, str]:
    """Returns the environment of a program."""
    return os.environ | {
        "OPENAI_BASE_URL": told["base_url"],
        "OPENAI_API_KEY": told["api_key"],
        "ANTHROPIC_BASE_URL": told["anthropic_base_url"],
        "ANTHROPIC_API_KEY": told["api_key"],
        "AGENTENV_TOOLS_URL": told["tools_url"],
        "AGENTENV_MCP_URL": told["mcp_url"],
        "AGENTENV_PROMPT": told["prompt"],
        "AGENTENV_SESSION": json.dumps(told),
        "NO_PROXY": "127.0.0.1,localhost",
    }
