"""One episode: context, act, advance, until it ends.

`play` is a generator: it yields what the agent sees and is sent what the agent did. Between two questions it only works
on its environment. Executors differ in who asks the agent, and when; what an episode is stands here alone.
"""

import copy
import hashlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from agentenv.arrays import as_number, check_count
from agentenv.errors import InfrastructureError, TreeError
from agentenv.protocols import BranchingEnv, Context, Snapshot, Transition
from agentenv.recording import failed_node, node_after
from agentenv.tokens import TokenIds
from agentenv.tree import Cost, EpisodeTree, Fork, Node, Prompt, relative_prompt
from agentenv.types import Action, Message, ToolSchema

__all__ = ["Answer", "Attempt", "Branch", "Limits", "Step", "branch_at", "derive_seed", "play"]


def derive_seed(*parts: object) -> int:
    """Returns a 63-bit seed that depends on every part and on their order."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends an episode from outside; `None` for no limit.

    Attributes:
        retries: how often a rollout that infrastructure broke starts again from its anchor.
        max_steps: an episode with so many steps, those before the anchor included, is truncated.
        max_tokens: an episode with at least so many tokens, prompts included, is truncated.
        max_seconds: an episode that has taken so long is truncated after its step.
        step_seconds: an environment that needs longer for one step has failed.
        keep_snapshots: keeps a snapshot at every node where an episode can go on.
    """

    retries: int = 2
    max_steps: int | None = None
    max_tokens: int | None = None
    max_seconds: float | None = None
    step_seconds: float | None = None
    keep_snapshots: bool = True

    def __post_init__(self) -> None:
        check_count("retries", self.retries, least=0)
        for name in ("max_steps", "max_tokens"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=1)
        for name in ("max_seconds", "step_seconds"):
            value: object = getattr(self, name)
            if value is not None and not as_number(value) > 0:
                msg = f"{name} must be a number above 0, or None for no limit; got {value!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent did, and the seconds that its time is counted with."""

    action: Action
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """A node that is not in a tree yet.

    Attributes:
        node: the node, without its parent.
        prompt: the tokens that its action saw; `None` when unknown.
        snapshot: the state after the step, where one was kept.
    """

    node: Node
    prompt: Prompt | None = None
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class Branch:
    """One rollout: where it starts, and what its attempts did.

    Attributes:
        tree: index of its tree.
        anchor: the node that it starts from.
        number: of the rollout, counted per tree.
        seed: of all that is random in it.
        start: the state at the anchor.
        messages: the conversation up to the anchor.
        token_ids: its exact tokens, up to the end of the agent's last action; `()` when unknown.
        covered: how many of `messages` those tokens stand for.
        depth: steps from the root to the anchor.
        attempts: what was done, attempt by attempt; only the last may have gone through.
        recorded: whether it comes from a journal.
        fork: who chose the anchor, and why.
        refused: why it cannot be in its tree, once it has ended.
    """

    tree: int
    anchor: int
    number: int
    seed: int
    start: Snapshot
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...] | TokenIds
    covered: int
    depth: int = 0
    attempts: "list[Attempt]" = field(default_factory=list["Attempt"])
    recorded: bool = False
    fork: Fork | None = None
    refused: TreeError | None = None

    def next_attempt(self) -> "Attempt":
        """Begins an attempt: the conversation as it was at the anchor."""
        start = _own(self.messages), self.token_ids, self.covered
        attempt = Attempt(self.seed, self.number, len(self.attempts), *start, depth=self.depth)
        self.attempts.append(attempt)
        return attempt


@dataclass(slots=True)
class Attempt:
    """One try at a rollout: what it did so far, what its agent sees next, and how many tokens it has used."""

    seed: int
    rollout: int
    number: int
    messages: tuple[Message, ...]
    token_ids: tuple[int, ...] | TokenIds
    covered: int
    steps: list[Step] = field(default_factory=list[Step])
    began: float = field(default_factory=time.monotonic)
    action: Action | None = None
    used: int = 0
    depth: int = 0

    @property
    def ended(self) -> bool:
        """Whether the task or a limit ended it, or infrastructure broke it."""
        return bool(self.steps) and self.steps[-1].node.ended

    @property
    def failed(self) -> bool:
        """Whether infrastructure broke it."""
        return bool(self.steps) and self.steps[-1].node.reward is None

    def context(self, tools: tuple[ToolSchema, ...], max_tokens: int | None) -> Context:
        """What the agent sees before its next action."""
        seed = derive_seed(self.seed, self.number, len(self.steps))
        room = None if max_tokens is None else max(1, max_tokens - max(self.used, len(self.token_ids)))
        return Context(self.messages, tools, self.token_ids, self.covered, seed, room)

    def take(self, answer: Answer, after: Transition, env_seconds: float, limits: Limits) -> None:
        """Records one step, and truncates where a limit is reached.

        Raises:
            ValueError: the reward is no finite number, which no tree takes.
        """
        if not math.isfinite(as_number(after.reward)):
            msg = f"reward must be a finite number, got {after.reward!r}; where it is unknown raise InfrastructureError"
            raise ValueError(msg)
        action = answer.action
        prompt = None if action.prompt_token_ids is None else relative_prompt(self.token_ids, action.prompt_token_ids)
        late = limits.max_seconds is not None and time.monotonic() - self.began >= limits.max_seconds
        self.used = _tokens(action)
        deep = limits.max_steps is not None and self.depth + len(self.steps) + 1 >= limits.max_steps
        long = limits.max_tokens is not None and self.used >= limits.max_tokens
        full = action.finish_reason == "context_length"
        cost = _cost(answer, after, env_seconds)
        number = {"rollout": self.rollout, "attempt": self.number}
        node = node_after(action, after, truncated=late or long or deep or full, cost=cost, **number)
        self.steps.append(Step(node, prompt, None if node.ended else after.snapshot))
        self.messages = (*self.messages, action.to_message(), *_own(after.observation))
        if prompt is not None and action.token_ids is not None and action.prompt_token_ids is not None:
            seen = action.prompt_token_ids
            self.token_ids = (seen if isinstance(seen, TokenIds) else TokenIds(seen)) + action.token_ids
            self.covered = len(self.messages) - len(after.observation)
        else:
            self.token_ids, self.covered = (), 0

    def fail(self, error: BaseException) -> None:
        """Ends the attempt with a step that has no reward."""
        self.steps.append(Step(failed_node(self.action, error, rollout=self.rollout, attempt=self.number)))

    def given_up(self, error: BaseException) -> "Attempt":
        """Returns the same attempt, failed; what hangs in it may go on in the other."""
        failed = replace(self, steps=[*self.steps])
        failed.fail(error)
        return failed


def play(
    branch: Branch, lend: Callable[[], AbstractContextManager[BranchingEnv]], limits: Limits
) -> Generator[Context, Answer]:
    """Plays one rollout to its end; where infrastructure breaks it, again from its anchor.

    Args:
        branch: the rollout; its attempts are recorded in it.
        lend: lends an environment.
        limits: what ends it from outside.

    Yields:
        What the agent sees; the answer is sent, or an `InfrastructureError` thrown where the agent broke.
    """
    while len(branch.attempts) <= limits.retries:
        attempt = branch.next_attempt()
        try:
            with lend() as env:
                env.restore(branch.start)
                env.reseed(derive_seed(branch.seed, attempt.number, "env"))
                while not attempt.ended:
                    attempt.action = None
                    answer = yield attempt.context(env.tools, limits.max_tokens)
                    attempt.action = answer.action
                    began = time.perf_counter()
                    after = env.advance(answer.action, snapshot=limits.keep_snapshots)
                    attempt.take(answer, after, time.perf_counter() - began, limits)
        except InfrastructureError as error:
            attempt.fail(error)
        else:
            return
        if branch.attempts[attempt.number] is not attempt:  # it hung, and was given up meanwhile
            return


def branch_at(tree: EpisodeTree, index: int, node: int, *, number: int, seed: int) -> Branch:
    """Returns a rollout that starts at a node of a tree, which has a snapshot."""
    messages, token_ids = tuple(tree.messages(node)), TokenIds(tree.token_ids(node))
    covered = len(messages) - len(tree.nodes[node].observation) if token_ids else 0
    start = messages, token_ids, covered, len(tree.path(node)) - 1
    return Branch(index, node, number, seed, tree.snapshots[node], *start)


def _own(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Copies of messages, so that an agent that edits what it is given changes no tree and no other episode."""
    return tuple(copy.copy(message) for message in messages)


def _tokens(action: Action) -> int:
    """Tokens of the episode up to the end of an action, as far as they are counted."""
    if action.token_ids is not None:
        return len(action.prompt_token_ids or ()) + len(action.token_ids)
    return 0 if action.usage is None else action.usage.prompt_tokens + action.usage.completion_tokens


def _cost(answer: Answer, after: Transition, env_seconds: float) -> Cost:
    action, usage = answer.action, answer.action.usage
    sampled = len(action.token_ids) if action.token_ids is not None else usage.completion_tokens if usage else 0
    read = len(action.prompt_token_ids) if action.prompt_token_ids is not None else usage.prompt_tokens if usage else 0
    return Cost(
        tokens_sampled=sampled,
        tokens_read=read,
        tokens_cached=usage.cached_tokens if usage else 0,
        agent_seconds=answer.seconds,
        env_seconds=env_seconds,
        snapshot_seconds=after.snapshot_seconds,
        snapshot_bytes=after.snapshot.num_bytes if after.snapshot is not None else 0,
    )
