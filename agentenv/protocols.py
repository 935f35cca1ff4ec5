"""What the layers ask of each other: an agent that acts, an environment that branches, a sandbox that runs commands."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, Self, runtime_checkable

from agentenv.tokens import TokenIds
from agentenv.types import Action, Message, Observation, ToolSchema

__all__ = [
    "Agent",
    "AsyncAgent",
    "BranchingEnv",
    "Capabilities",
    "Context",
    "ExecResult",
    "Fidelity",
    "FileChange",
    "Sandbox",
    "SandboxSnapshot",
    "Shell",
    "Snapshot",
    "SteppableEnv",
    "Transition",
]


class Fidelity(StrEnum):
    """Where a snapshot can be restored exactly."""

    PORTABLE = "portable"
    """In any process that has the same code."""
    LOCAL = "local"
    """Only in the process that took it."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that an agent sees before one action.

    Attributes:
        messages: the conversation so far.
        tools: the tools it may call, in OpenAI's format.
        token_ids: `[L]` the exact ids of the conversation up to the end of the agent's last action; `()` at the root,
            or when unknown. What a model sampled is never tokenized again. `token_ids + new` copies nothing.
        covered: how many of `messages` those ids stand for.
        seed: for the randomness of this one action; the same whatever the timing or the batch.
        max_tokens: most tokens that the action may have; `None` leaves it to the agent.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...] = ()
    token_ids: tuple[int, ...] | TokenIds = ()
    covered: int = 0
    seed: int = 0
    max_tokens: int | None = None


@runtime_checkable
class Agent(Protocol):
    """Something that acts: a model, a server, a script or a person.

    An agent that keeps to `Context.max_tokens` says so by `honors = frozenset({"max_tokens"})`. One whose client
    library has exceptions of its own for outages names them: `retryable = (MyTimeout,)`.
    """

    def act(self, contexts: Sequence[Context], /) -> list[Action]:
        """Returns one action per context, in the same order.

        Raises:
            AgentError: the model or its server broke; the episodes concerned are failures, not zeros.
        """
        ...


class AsyncAgent(ABC):
    """An agent that takes requests at any time, such as one that waits on a server.

    Subclasses write `respond`; `act` follows from it. `agentenv.rollout.Concurrent` lets every episode go on as soon as
    its own answer is there.
    """

    honors: frozenset[str] = frozenset()
    retryable: tuple[type[Exception], ...] = ()
    """What the client library raises in an outage: counts as an `AgentError`, so that the episode is tried again."""

    @abstractmethod
    async def respond(self, context: Context, /) -> Action:
        """Returns the action for one context.

        Raises:
            AgentError: the model or its server broke; the episode concerned is a failure, not a zero.
        """

    def act(self, contexts: Sequence[Context], /) -> list[Action]:
        """Returns one action per context, in the same order, all asked for at once."""
        import asyncio  # 0.02 s to import, which not everybody needs

        async def ask() -> list[Action]:
            try:
                return list(await asyncio.gather(*(self.respond(context) for context in contexts)))
            finally:
                await self.leave_loop()

        return asyncio.run(ask())

    async def leave_loop(self) -> None:  # noqa: B027  nothing to close is the rule
        """Closes what belongs to the running event loop, such as connections: it is about to end."""


class SandboxSnapshot(Protocol):
    """An immutable state of a sandbox; picklable where `fidelity` is portable."""

    @property
    def fidelity(self) -> Fidelity:
        """Where it can be restored."""
        ...

    @property
    def content_id(self) -> str:
        """Digest of the files with their modes and content: equal exactly where those are. Computed on demand."""
        ...


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The outcome of one command. A failing command is data, not an exception.

    Attributes:
        exit_code: as the shell reports it; 128 + signal for a killed process.
        stdout: what it printed, decoded as UTF-8 with replacement.
        stderr: likewise.
        duration_s: seconds on the wall clock.
        timed_out: it was killed at the deadline.
        truncated: output beyond the limit was dropped.
        oom: a process of it was killed for memory.
        killed: how many processes outlived the command and were killed with it.
    """

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    duration_s: float = 0.0
    timed_out: bool = False
    truncated: bool = False
    oom: bool = False
    killed: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sandbox really enforces, found by trying it.

    Attributes:
        level: name of the isolation level: `"none"`, `"process"`, `"namespace"`, `"container"` or `"kernel"`.
        enforced: the promises that hold, e.g. `"network"`, `"files"`, `"processes"`.
        missing: the promises that do not, each with the reason.
        backend: what enforces them.
    """

    level: str
    enforced: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    backend: str = ""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One difference between two states of a workspace.

    Attributes:
        path: relative to the workspace.
        kind: `"added"`, `"modified"` or `"deleted"`.
        type: `"file"`, `"directory"`, `"link"` or `"fifo"`; of the old entry where it was deleted.
        size: bytes of a file now, otherwise 0.
    """

    path: str
    kind: str
    type: str
    size: int = 0


class Shell(Protocol):
    """A shell that stays: variables, functions, the folder and background jobs live on between commands."""

    def run(self, command: str, *, timeout_s: float | None = None) -> ExecResult:
        """Runs a command and waits for it. At the deadline the shell and all it started are killed."""
        ...

    def close(self) -> None:
        """Ends the shell and all it started. May be called twice."""
        ...


class Sandbox(Protocol):
    """Where an agent's commands run. Every method may be called from any thread."""

    @property
    def isolation(self) -> Capabilities:
        """What is really enforced."""
        ...

    def exec(
        self,
        argv: Sequence[str] | str,
        *,
        stdin: bytes | str = b"",
        timeout_s: float | None = None,
        cwd: str = ".",
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Runs a command (a list of words, or text for `sh`) in the workspace; nothing of it survives the call."""
        ...

    def shell(self) -> Shell:
        """Starts a shell that stays."""
        ...

    def read(self, path: str) -> bytes:
        """Returns the content of a file of the workspace."""
        ...

    def write(self, path: str, content: bytes | str) -> None:
        """Writes a file of the workspace, making its folders."""
        ...

    def upload(self, files: Mapping[str, bytes | str]) -> None:
        """Writes many files of the workspace."""
        ...

    def export(self, allow: Sequence[str]) -> dict[str, bytes]:
        """Returns the regular files of the workspace whose paths match one of the patterns."""
        ...

    def changes(self, since: Any = None) -> list[FileChange]:
        """Returns what differs from a snapshot; from the state at opening without one."""
        ...

    def snapshot(self, *, processes: bool = False) -> SandboxSnapshot:
        """Returns the state as it is now; changes nothing."""
        ...

    def restore(self, snapshot: Any, /) -> None:
        """Goes back to a snapshot; running processes end."""
        ...

    def fork(self, n: int) -> list[Self]:
        """Returns `n` independent sandboxes in this state."""
        ...

    def close(self) -> None:
        """Frees everything. May be called twice."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """The complete state of an environment at one moment; immutable, and valid for ever.

    Attributes:
        env_id: id and version of the environment that took it, `"name-v0"`.
        step_count: steps since reset.
        phase: whether the episode is running or has ended.
        task: the task of the episode.
        random_state: state of the random generator.
        state: the environment's own state, pickled.
        sandbox: the sandbox's state, where there is one.
        fidelity: where it can be restored.
        origin: identifies the process that took it, for `LOCAL` snapshots.
    """

    env_id: str
    step_count: int
    phase: str
    task: Any
    random_state: bytes
    state: bytes
    sandbox: SandboxSnapshot | None = None
    fidelity: Fidelity = Fidelity.PORTABLE
    origin: str = ""

    @property
    def num_bytes(self) -> int:
        """Size of its own state, and of the sandbox's where that is known."""
        return len(self.state) + len(self.random_state) + int(getattr(self.sandbox, "num_bytes", 0))

    def __repr__(self) -> str:
        """Says what it is of, without the task, which holds the hidden reference."""
        size = f"{len(self.state):,} bytes" + (" and a sandbox" if self.sandbox is not None else "")
        return f"<Snapshot of {self.env_id}: step {self.step_count}, {self.phase}, {size}, {self.fidelity.value}>"


StepResult = tuple[Observation, float, bool, bool, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Transition:
    """All that one step gives, in one answer: an environment in another process costs one round trip a step.

    Attributes:
        observation: the new messages.
        reward: of the step; 0 for the begin of an episode.
        terminated: the task ended the episode.
        truncated: a limit did.
        info: as `step` and `reset` return it.
        state_signature: of the state after the step.
        action_signature: of the action; `""` for the begin of an episode.
        snapshot: the state after the step, where it was asked for.
        snapshot_seconds: spent taking it.
    """

    observation: Observation
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state_signature: str = ""
    action_signature: str = ""
    snapshot: Snapshot | None = None
    snapshot_seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.terminated or self.truncated


@runtime_checkable
class BranchingEnv(Protocol):
    """What rollout needs of an environment."""

    @property
    def env_id(self) -> str:
        """Id with version."""
        ...

    @property
    def task(self) -> Any:
        """The task of the running episode."""
        ...

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call."""
        ...

    @property
    def success_threshold(self) -> float:
        """An episode succeeds when its return exceeds it."""
        ...

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode: `reset`, with signature and snapshot."""
        ...

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action: `step`, with signatures, and a snapshot where one is wanted."""
        ...

    def restore(self, snapshot: Snapshot, /) -> None:
        """Goes back to a snapshot."""
        ...

    def reseed(self, seed: int, /) -> None:
        """Gives the rest of the episode other random numbers."""
        ...

    def close(self) -> None:
        """Frees everything."""
        ...


@runtime_checkable
class SteppableEnv(BranchingEnv, Protocol):
    """What wrappers and people who step by hand need of an environment, besides."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode."""
        ...

    def step(self, action: Any, /) -> StepResult:
        """Takes one action."""
        ...

    def snapshot(self) -> Snapshot:
        """Returns the complete state."""
        ...

    def fork(self, n: int) -> Sequence["SteppableEnv"]:
        """Returns independent environments in this state."""
        ...

    def state_signature(self) -> str:
        """Abstraction of the state, for matching nodes."""
        ...

    def action_signature(self, action: Action, /) -> str:
        """Abstraction of an action."""
        ...
