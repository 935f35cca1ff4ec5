"""One episode of a program: what it asked, what it was answered, what the environment did, how it ended."""

import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any

from agentenv.errors import AgentEnvError, InfrastructureError
from agentenv.protocols import BranchingEnv, Context, Transition
from agentenv.rollout import derive_seed
from agentenv.types import Action, Message, ToolCall

from .calls import Call, Conversations, EnvStep, context_of, keys_of
from .replaying import Replay
from .requests import Request, RequestError

__all__ = ["Pending", "Session", "SessionLimits"]

_LAST_WORDS = "The episode has ended."
_MOST_LAST_WORDS = 3


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What ends an episode from outside; `None` for no limit.

    Attributes:
        max_calls: answers of the model.
        max_tokens: tokens of one conversation, prompts included; the agent must honor it.
        max_seconds: since the session was opened.
        idle_seconds: without a request.
    """

    max_calls: int | None = 256
    max_tokens: int | None = None
    max_seconds: float | None = None
    idle_seconds: float | None = 600.0

    def __post_init__(self) -> None:
        for name in ("max_calls", "max_tokens", "max_seconds", "idle_seconds"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                msg = f"{name} must be above 0, or None for no limit; got {value!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that the agent is asked."""

    request: Request
    keys: tuple[str, ...]
    number: int
    before: Call | None
    context: Context


@dataclass(slots=True)
class Ending:
    """How a session ended.

    Attributes:
        reason: in words.
        truncated: whether a limit ended it.
        failure: what of the infrastructure broke it; empty where nothing did.
    """

    reason: str
    truncated: bool = False
    failure: str = ""


@dataclass(slots=True)
class Counts:
    """What a session counts."""

    ignored: dict[str, int] = field(default_factory=dict[str, int])
    after_end: int = 0
    failures: int = 0


class Session:
    """One episode. Every method may be called from any thread.

    Args:
        seed: of the tree.
        number: of the rollout, counted per tree.
        attempt: how often infrastructure had broken it before.
        limits: what ends it from outside.
        lent: the environment, lent, and in its first state; `None` where rewards come by a call.
        replay: what is answered from the record first.
        snapshot: the environment's first state.
        first: the environment's first messages.
        keep: whether snapshots are taken.

    Attributes:
        id: names the session; part of its address.
        tree_name: of its tree, where it has a name.
        key: what its program shows to be let in.
        calls: what the model answered, by time.
        ending: how it ended; `None` while it runs.
        reward: given by a call; `None` otherwise.
        error: a bug of the agent or the environment, for whoever waits for the session.
        counts: what it counts.
        earlier: conversations by the id of a response.
        answers: the task that answered a request, by the request's key, for programs that ask again.
        waiting: requests that wait for the agent.
        task: of the episode, and `exit_code` of its program, where a `ProgramRollout` runs it.
    """

    def __init__(
        self,
        *,
        seed: int,
        number: int,
        attempt: int = 0,
        limits: SessionLimits | None = None,
        env: BranchingEnv | None = None,
        lent: ExitStack | None = None,
        replay: Replay | None = None,
        snapshot: Any = None,
        first: tuple[Message, ...] = (),
        keep: bool = True,
    ) -> None:
        self.id = secrets.token_hex(8)
        self.key = f"sk-{secrets.token_hex(16)}"
        self.number = number
        self.first = first
        self.tree_name = ""
        self.attempt = attempt
        self.limits = limits or SessionLimits()
        self.env = env
        self.replay = replay
        self.seed = derive_seed(seed, number)
        self.calls: list[Call] = []
        self.early: list[EnvStep] = []
        self.ending: Ending | None = None
        self.reward: float | None = None
        self.error: Exception | None = None
        self.counts = Counts()
        self.earlier: dict[str, tuple[Message, ...]] = {}
        self.answers: dict[str, Any] = {}
        self.waiting = 0
        self.task: Any = None
        self.exit_code: int | None = None
        self._lent = lent or ExitStack()
        self._conversations = Conversations()
        self._snapshot = snapshot
        self._keep = keep
        self._asked = 0
        self._broken = ""
        self._closed = False
        self._lock = RLock()
        self._began = self._heard = time.monotonic()
        if env is not None and replay is None:
            env.reseed(derive_seed(self.seed, attempt, "env"))

    # ------------------------------------------------------------------ the model

    def prepare(self, request: Request) -> Call | Pending:
        """Takes a request; returns the answer where the record has one, otherwise what the agent is to be asked.

        Raises:
            RequestError: the session has ended, or a limit is reached.
        """
        with self._lock:
            self._hear()
            for name in request.ignored:
                self.counts.ignored[name] = self.counts.ignored.get(name, 0) + 1
            self._check_running()
            keys = keys_of(request.messages)
            before = self._conversations.before(request, keys)
            if before is not None:  # its messages as the model saw them, however the program writes them down now
                seen = before.messages
                request = replace(request, messages=seen + request.messages[len(seen) :])
            if before is not None and before.node is None:
                before.snapshot = before.snapshot or self._snapshot
            if self.env_ended:
                return self._last_words(request, keys, before)
            if self.replay is not None and not self.replay.live:
                found = self.replay.answer(request)
                if found is not None:
                    request = replace(request, messages=found.messages)
                    call = Call(request, keys, len(self.calls), before, found.action, node=found.node)
                    return self._add(call)
                self._go_live()
            number, self._asked = self._asked, self._asked + 1
            self._check_limits(number)
            seed = derive_seed(self.seed, self.attempt, number)
            context = context_of(request, before, seed=seed, most=self.limits.max_tokens)
            if self.limits.max_tokens is not None and len(context.token_ids) >= self.limits.max_tokens:
                self._stop(f"the conversation has as many tokens as max_tokens={self.limits.max_tokens} allows")
            return Pending(request, keys, number, before, context)

    def complete(self, pending: Pending, action: Action, seconds: float) -> Call:
        """Takes the agent's answer; its calls get ids that are unique in the session.

        Raises:
            RequestError: the session has ended meanwhile.
        """
        with self._lock:
            self._hear()
            self._check_running()
            number = len(self.calls)
            named = tuple(
                replace(call, id=f"call{number % 1000:03d}{i % 100:02d}") for i, call in enumerate(action.tool_calls)
            )
            call = Call(
                pending.request, pending.keys, number, pending.before, replace(action, tool_calls=named), seconds
            )
            if not any(made.node is None for made in self.calls):
                call.steps, self.early = self.early, []
            return self._add(call)

    def fail(self, problem: Exception) -> None:
        """Notes that the agent broke while it answered; the episode has failed unless the program asks again."""
        with self._lock:
            self.counts.failures += 1
            self._broken = f"{type(problem).__name__}: {problem}"

    def _add(self, call: Call) -> Call:
        self._broken = ""
        self.calls.append(call)
        self._conversations.add(call)
        return call

    def _last_words(self, request: Request, keys: tuple[str, ...], before: Call | None) -> Call:
        """What a program reads that asks on after the end of its episode; it is not recorded."""
        self.counts.after_end += 1
        if self.counts.after_end > _MOST_LAST_WORDS:
            self._stop("the episode has ended, and the program asked on", truncated=False)
        return Call(request, keys, -1, before, Action(_LAST_WORDS, finish_reason="stop"))

    # ------------------------------------------------------------------ the environment

    @property
    def env_ended(self) -> bool:
        """Whether the environment has ended the episode."""
        return any(step.transition.ended for step in self._steps())

    def _steps(self) -> list[EnvStep]:
        return [*self.early, *(step for call in self.calls for step in call.steps)]

    def execute(self, name: str, arguments: Mapping[str, Any] | str) -> EnvStep:
        """Has the environment execute a tool, as one step.

        Raises:
            RequestError: there is no environment, or the session has ended.
            InfrastructureError: the environment broke; the session has failed.
        """
        return self._act(ToolCall(name, arguments if isinstance(arguments, str) else dict(arguments)))

    def _act(self, made: ToolCall | None, text: str = "") -> EnvStep:
        with self._lock:
            self._hear()
            self._check_running()
            if self.env is None:
                msg = "this session has no environment: its tools are the program's own"
                raise RequestError(msg, status=404, code="no_environment")
            if self.env_ended:
                return EnvStep(made, Transition(({"role": "tool", "content": _LAST_WORDS},), terminated=True))
            if made is not None and self.replay is not None and not self.replay.live:
                known = self.replay.execute(made)
                if known is not None:
                    return EnvStep(made, Transition(({"role": "tool", "content": known["answer"]},)))
                self._go_live()
            owner = self._owner(made)
            if made is not None and owner is not None:
                made = replace(made, id=next((c.id for c in owner.action.tool_calls if _asks(c, made)), ""))
            step = self._advance(self.env, Action(text) if made is None else Action(tool_calls=(made,)), made)
            (self.early if owner is None else owner.steps).append(step)
            return step

    def _advance(self, env: BranchingEnv, action: Action, made: ToolCall | None) -> EnvStep:
        began = time.perf_counter()
        try:
            after = env.advance(action, snapshot=self._keep)
        except InfrastructureError as problem:
            self.end("the environment broke", failure=f"{type(problem).__name__}: {problem}")
            raise
        except Exception as problem:
            self.error = problem
            self.end("the environment has a bug", failure=f"{type(problem).__name__}: {problem}")
            raise
        self._snapshot = after.snapshot or self._snapshot
        return EnvStep(made, replace(after, snapshot=None), time.perf_counter() - began)

    def _owner(self, made: ToolCall | None) -> Call | None:
        """The live call that asked for this: the last whose action has it open; otherwise the last one."""
        live = [call for call in self.calls if call.node is None]
        for call in reversed(live if made is not None else []):
            asked = sum(_asks(one, made) for one in call.action.tool_calls if made is not None)
            done = sum(made == replace(step.call, id=made.id) for step in call.steps if step.call and made is not None)
            if asked > done:
                return call
        return live[-1] if live else None

    def _go_live(self) -> None:
        """Leaves the record: brings the environment to where it was, with random numbers of its own from there on."""
        if self.replay is None or self.replay.live:
            return
        self.replay.live = True
        if self.env is None:
            return
        try:
            self._snapshot = self.replay.bring(self.env)
            self.env.reseed(derive_seed(self.seed, self.attempt, "env"))
        except AgentEnvError as problem:
            self.end("the environment did not go back", failure=f"{type(problem).__name__}: {problem}")
            msg = f"the session has failed: {problem}"
            raise RequestError(msg, status=410, code="session_ended") from problem

    # ------------------------------------------------------------------ the end

    def give_reward(self, reward: object) -> None:
        """Takes the episode's reward from outside; the last one given counts.

        Raises:
            RequestError: it is no finite number, or the environment gives the rewards.
        """
        with self._lock:
            self._hear()
            if self.env is not None:
                msg = "the environment gives the rewards of this session: open one without env to give your own"
                raise RequestError(msg, status=409, code="environment_scores")
            if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) < float("inf"):
                msg = f"reward must be a finite number, got {reward!r}"
                raise RequestError(msg)
            if self._closed:
                msg = "the session has been recorded: give its reward before its end"
                raise RequestError(msg, status=409, code="session_ended")
            self.reward = float(reward)

    def finish(self) -> None:
        """Ends the session because its program has: what it said last, without a call, goes to the environment."""
        with self._lock:
            if self.ending is not None:
                return
            live = [call for call in self.calls if call.node is None]
            last = live[-1] if live and not self.env_ended and not self._broken else None
            if self.env is not None and last is not None and not last.action.tool_calls and not last.steps:
                try:
                    self._act(None, last.action.content)
                except InfrastructureError:
                    return
            self.end("the program has ended")

    def end(self, reason: str, *, truncated: bool = False, failure: str = "") -> None:
        """Ends the session; frees the environment. The first reason counts."""
        with self._lock:
            if self.ending is None:
                self.ending = Ending(reason, truncated, failure or (f"agent: {self._broken}" if self._broken else ""))
            if not self._closed:
                self._closed = True
                self._lent.close()

    def overdue(self) -> str:
        """Returns why time is up, or an empty text."""
        now = time.monotonic()
        if self.ending is None:
            idle = None if self.waiting else self.limits.idle_seconds
            if idle is not None and now - self._heard > idle:
                return f"no request came for idle_seconds={self.limits.idle_seconds:g}"
            if self.limits.max_seconds is not None and now - self._began > self.limits.max_seconds:
                return f"it took longer than max_seconds={self.limits.max_seconds:g}"
        return ""

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _stop(self, reason: str, *, truncated: bool = True) -> None:
        self.end(reason, truncated=truncated)
        self._check_running()

    def _check_running(self) -> None:
        if (why := self.overdue()) and self.ending is None:
            self.end(why, truncated=True)
        if self.ending is not None:
            msg = f"the session has ended: {self.ending.reason}"
            raise RequestError(msg, status=410, code="session_ended")

    def _check_limits(self, asked: int) -> None:
        if self.limits.max_calls is not None and asked >= self.limits.max_calls:
            self._stop(f"the model was asked max_calls={self.limits.max_calls} times")

    # ------------------------------------------------------------------ what came of it

    @property
    def name(self) -> str:
        """Names the session in its tree: the rollout's number, and the attempt where it is not the first."""
        return f"{self.number}.{self.attempt}" if self.attempt else str(self.number)

    @property
    def truncated(self) -> bool:
        """Whether a limit ended it, of the session or of the environment."""
        limit = self.ending is not None and self.ending.truncated
        return limit or any(step.transition.truncated for step in self._steps())

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation that was answered last, with the answer."""
        return self.calls[-1].messages if self.calls else self.first

    def total(self) -> float | None:
        """What the episode earned, what was replayed included; `None` where nobody said."""
        if self.env is None:
            return self.reward
        replayed = 0.0 if self.replay is None else self.replay.reward
        return replayed + sum(step.transition.reward for step in self._steps())

    def status(self) -> dict[str, Any]:
        """Returns what there is to know of the session, for whoever opened it."""
        with self._lock:
            live = [call for call in self.calls if call.node is None]
            found: dict[str, Any] = {
                "id": self.id,
                "rollout": self.number,
                "calls": len(self.calls),
                "tokens_sampled": sum(len(call.action.token_ids or ()) for call in live),
                "env_steps": len(self._steps()),
                "ended": self.env_ended or self.ending is not None,
                "reward": self.total(),
                "ignored": dict(self.counts.ignored),
                "agent_failures": self.counts.failures,
                "asked_after_end": self.counts.after_end,
            }
            if self.ending is not None:
                found["ending"] = self.ending.reason
                found |= {"truncated": self.ending.truncated, "failure": self.ending.failure}
            if self.replay is not None:
                found["replay"] = self.replay.status()
            return found


def _asks(call: ToolCall, made: ToolCall) -> bool:
    """Whether a model's call is what the environment is to execute now: a program may put names before a tool's."""
    before = call.name.removesuffix(made.name)
    named = call.name == made.name or (before != call.name and not before[-1].isalnum())
    return named and call.arguments == made.arguments
