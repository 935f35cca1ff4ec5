"""Sessions of programs: opened, answered, ended, recorded. What a proxy is without its server."""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from agentenv.errors import AgentEnvError, ModelError
from agentenv.protocols import Agent, BranchingEnv, Context
from agentenv.rollout.environments import EnvPool
from agentenv.rollout.outages import failure_of
from agentenv.serialize import TreeWriter
from agentenv.tree import EpisodeTree

from .backend import Backend
from .book import Book
from .calls import Call
from .replaying import check_varying
from .requests import Reply, Request, RequestError
from .session import Session, SessionLimits

__all__ = ["Hub"]

_THREADS = 64

MakeEnv = Callable[[], BranchingEnv]


@dataclass(slots=True)
class _Open:
    """A session that is served, and the book that it is recorded in; `None` where somebody else does that."""

    session: Session
    book: Book | None


class Hub:
    """Opens, answers, ends and records sessions. `Proxy`, which adds a server, says what the arguments are."""

    def __init__(
        self,
        agent: Agent,
        envs: MakeEnv | Mapping[str, MakeEnv] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        key: str | None = None,
        limits: SessionLimits | None = None,
        out: str | Path | None = None,
        model: str = "agentenv",
        keep_snapshots: bool = True,
        varying: Sequence[str] = (),
    ) -> None:
        Backend.check(agent)
        if key is not None and len(key) < 8:
            msg = f"key must have at least 8 characters, got {len(key)}"
            raise ValueError(msg)
        if out is not None and Path(out).exists() and Path(out).stat().st_size:
            msg = f"out must name a new file, {out} exists"
            raise ValueError(msg)
        made = envs if isinstance(envs, Mapping) else {} if envs is None else {"": envs}
        self.key = key or f"ak-{secrets.token_hex(16)}"
        self.host = host
        self.port = port
        self.model = model
        self.limits = limits or SessionLimits()
        self.backend = Backend(agent)
        self.sessions: dict[str, Session] = {}
        self._pools = {name: EnvPool(make) for name, make in made.items()}
        self._kept: dict[str, Any] = {"keep_snapshots": keep_snapshots, "varying": check_varying(varying)}
        self._writer = None if out is None else TreeWriter(out, append=True, journal=True)
        self._books: dict[str, Book] = {}
        self._begins: dict[str, Any] = {}
        self._open: dict[str, _Open] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._lock = RLock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="proxy")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        """Ends the sessions that are open, records them, and ends every thread. May be called twice."""
        self.end_all("the proxy was closed")
        self._threads.shutdown(wait=True)
        self.backend.close()
        for pool in self._pools.values():
            pool.close()
        if self._writer is not None:
            self._writer.close()

    def end_all(self, reason: str) -> None:
        """Ends the sessions that are open, and records them."""
        for entry in [*self._open.values()]:
            self.end(entry.session, reason, truncated=True)

    async def watch(self) -> None:
        """Ends the sessions whose time is up, and records those that have ended."""
        for entry in [*self._open.values()]:
            if (why := entry.session.overdue()) or entry.session.ending is not None:
                await self.call(self.end, entry.session, why or "ended", truncated=True)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls what may block in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    # ------------------------------------------------------------------ sessions

    @property
    def trees(self) -> Mapping[str, EpisodeTree]:
        """The trees of sessions that were opened here and have ended, by name."""
        return {name: book.tree for name, book in self._books.items() if book.tree is not None and len(book.tree) > 1}

    def open(
        self,
        env: str = "",
        *,
        task: Any = None,
        seed: int = 0,
        tree: str | None = None,
        at: int = 0,
        limits: SessionLimits | None = None,
    ) -> Session:
        """Opens a session.

        Args:
            env: name of the environment, where there are several.
            task: what the environment's `reset` is given; without an environment, anything that names the task.
            seed: of the tree: of the environment's reset, and of everything random in its episodes.
            tree: name of the tree that the episode belongs to; sessions of one tree are rollouts of one task, and
                `task` and `seed` of the first count. By default the session gets a tree of its own.
            at: the node to branch at: what the program asks is answered from the record until it gets there.
            limits: other limits than the proxy's.

        Raises:
            ValueError: there is no such environment or node.
            InfrastructureError: the environment broke.
        """
        if env not in self._pools and (env or len(self._pools) > 1):
            msg = f"env must be one of {', '.join(map(repr, self._pools)) or 'none'}, got {env!r}"
            raise ValueError(msg)
        name = secrets.token_hex(6) if tree is None else tree
        with self._lock:
            book = self._books.get(name)
            lock = self._begins.setdefault(name, RLock())
        with lock:  # environments of different trees begin at the same time
            book = book or self._books.get(name)
            if book is None:
                options: dict[str, Any] = {"writer": self._writer, "metadata": {"tree": name}, **self._kept}
                book = Book(self._pools.get(env), task=task, seed=seed, **options)
                self._books[name] = book
        session = book.open(at=at, limits=limits or self.limits)
        session.tree_name = name
        self.serve(session, book)
        return session

    def serve(self, session: Session, book: Book | None = None) -> None:
        """Lets a session's program in; whoever opened it without a book records it."""
        with self._lock:
            self.sessions[session.id] = session
            self._open[session.id] = _Open(session, book)

    def end(self, session: Session, reason: str = "", *, truncated: bool = False, failure: str = "") -> dict[str, Any]:
        """Ends a session, records it, and returns its status; without a reason, because its program has ended."""
        if reason or failure:
            session.end(reason or "the program failed", truncated=truncated, failure=failure)
        else:
            session.finish()
        session.end("ended")  # frees the environment, where a limit had ended it
        with self._lock:
            entry = self._open.pop(session.id, None)
            if entry is not None:
                self.sessions.pop(session.id, None)
                if entry.book is not None:
                    entry.book.settle(session)
                self._ended[session.id] = session.status()
        return self._ended.get(session.id) or session.status()

    def status(self, session_id: str) -> dict[str, Any] | None:
        """Returns what there is to know of a session, open or ended."""
        session = self.sessions.get(session_id)
        return self._ended.get(session_id) if session is None else session.status()

    def describe(self, session: Session) -> dict[str, Any]:
        """Returns what a program needs: addresses, key, first messages and tools."""
        base = f"{self.url}/sessions/{session.id}"
        return {
            "id": session.id,
            "tree": session.tree_name,
            "rollout": session.number,
            "api_key": session.key,
            "base_url": f"{base}/v1",
            "anthropic_base_url": base,
            "tools_url": f"{base}/tools",
            "mcp_url": f"{base}/mcp",
            "model": self.model,
            "messages": list(session.first),
            "tools": [] if session.env is None else list(session.env.tools),
        }

    # ------------------------------------------------------------------ answering

    async def answer(self, session: Session, request: Request) -> tuple[Reply, Call]:
        """Answers a request of a session's program, and records that.

        Raises:
            RequestError: the session has ended, the agent cannot answer, or it broke.
        """
        pending = await self.call(session.prepare, request)
        if isinstance(pending, Call):
            return _reply(request, pending), pending
        session.waiting += 1
        try:
            action, seconds = await self.backend.ask(pending.context)
        except ModelError as problem:
            msg = f"the model cannot be asked that: {problem}"
            raise RequestError(msg, code="model_error") from problem
        except Exception as problem:
            session.fail(problem)
            if failure_of(problem) is None:
                session.error = problem
                msg = f"the agent has a bug: {type(problem).__name__}: {problem}"
                raise RequestError(msg, status=500, code="agent_bug") from problem
            msg = f"the agent is away: {problem}"
            raise RequestError(msg, status=503, code="agent_failed") from problem
        finally:
            session.waiting -= 1
        call = await self.call(session.complete, pending, action, seconds)
        return _reply(request, call), call

    def count_tokens(self, request: Request) -> int:
        """Returns how many tokens the prompt of a request has.

        Raises:
            RequestError: the agent has no tokenizer here.
        """
        chat: Any = getattr(self.backend.agent, "chat", None)
        if chat is None:
            msg = f"a {type(self.backend.agent).__name__} does not count tokens"
            raise RequestError(msg, status=404, code="not_found")
        try:
            return len(chat.prompt(Context(request.messages, request.tools)))
        except AgentEnvError as problem:
            raise RequestError(str(problem), code="model_error") from problem


def _reply(request: Request, call: Call) -> Reply:
    return Reply(request, call.action, secrets.token_hex(12), int(time.time()))  # noqa: TID251  a date
