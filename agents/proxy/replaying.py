"""A program is branched by replay: its requests are answered from the record until it leaves it."""

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from agentenv.errors import SnapshotError, TreeError
from agentenv.protocols import BranchingEnv, Snapshot
from agentenv.rollout import derive_seed
from agentenv.rows import shorten
from agentenv.signatures import canonical
from agentenv.tree import EpisodeTree
from agentenv.types import Action, Message, ToolCall, message_text

from .calls import Recorded, request_key
from .requests import Request, key_of, tools_key

__all__ = ["Replay", "check_varying", "record_of"]

_OURS = (r"agentenv-program-\w+", r"sessions/[0-9a-f]{16}")
"""What we ourselves tell a program otherwise every time: its folder and its address."""


def check_varying(varying: Sequence[str]) -> tuple[str, ...]:
    """Returns the patterns.

    Raises:
        ValueError: they are no list of regular expressions.
    """
    if isinstance(varying, str):
        msg = f"varying must be a list of regular expressions, got the text {varying!r:.80}"
        raise ValueError(msg)
    for pattern in varying:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as problem:
            msg = f"varying must hold regular expressions, got {pattern!r:.80}: {problem}"
            raise ValueError(msg) from None
    return tuple(varying)


def record_of(tree: EpisodeTree, node: int) -> list[Recorded]:
    """Returns every call that a program made up to a node, sub-agents' included, by time.

    Raises:
        TreeError: the node was not recorded from a program, or is the beginning of a conversation.
    """
    if node == 0:
        return []
    index: dict[tuple[str, int], int] = {}
    replayed: dict[str, list[tuple[str, int]]] = {}
    for i, entry in enumerate(tree.nodes):
        session, call = entry.info.get("session"), entry.info.get("call")
        if isinstance(session, str) and isinstance(call, int):
            index[session, call] = i
            replayed.setdefault(session, [])
            replayed[session] += [(str(s), int(c)) for s, c in entry.info.get("replayed", ())]
    info = tree.nodes[node].info
    if (session := info.get("session")) not in replayed or "call" not in info:
        msg = f"node {node} is no answer of a model in an episode of a program: nothing can be replayed to it"
        raise TreeError(msg)
    own = sorted(call for name, call in index if name == session and call <= info["call"])
    return [_recorded(tree, index[key], *key) for key in (*replayed[session], *((session, call) for call in own))]


def _recorded(tree: EpisodeTree, node: int, session: str, call: int) -> Recorded:
    entry = tree.nodes[node]
    messages, tools = tuple(tree.messages(entry.parent)), str(entry.info.get("tools", ""))
    reward = (entry.reward or 0.0) - float(entry.info.get("elsewhere", 0.0))
    ids = tree.prompt_token_ids(entry.parent)
    whole = cast("Action", entry.action)
    action = Action(
        whole.content, whole.tool_calls, whole.token_ids, whole.logprobs, ids, whole.finish_reason, whole.reasoning,
        whole.usage, whole.weight_version,
    )  # fmt: skip
    return Recorded(session, call, node, tools, messages, action, entry.info.get("executed", ()), reward)


class Replay:
    """Answers from the record.

    Args:
        record: what was done, by time; the last is the call at the node to go to.
        seed: of the tree.
        root: the environment's first state; `None` without an environment.
        snapshot: its state at the node, where that is kept.
        keep: whether snapshots are taken on the way.
        varying: regular expressions of what a program writes otherwise every time, which does not count.

    Attributes:
        record: as given.
        live: whether the program has left the record.
        answered: what was taken from the record, by time.
    """

    def __init__(
        self,
        record: Sequence[Recorded],
        *,
        seed: int,
        root: Any = None,
        snapshot: Any = None,
        keep: bool = True,
        varying: Sequence[str] = (),
    ) -> None:
        self.record = record
        self.live = False
        self.answered: list[Recorded] = []
        self._seed = seed
        self._root = root
        self._target = snapshot
        self._keep = keep
        self._why = ""
        self._steps: list[tuple[Recorded, ToolCall, str]] = []
        self._open = [(entry, _tools_of(entry)) for entry in record[:1]]  # tools may be called before the first answer
        self._waiting: dict[str, deque[Recorded]] = {}
        self._varying = re.compile("|".join(f"(?:{pattern})" for pattern in (*_OURS, *varying)))
        for entry in record:
            key = request_key(entry.tools, self._keys(entry.messages))
            self._waiting.setdefault(key, deque()).append(entry)

    @property
    def reward(self) -> float:
        """What the replayed calls earned."""
        return sum(entry.reward for entry in self.answered)

    def _keys(self, messages: Sequence[Message]) -> tuple[str, ...]:
        return tuple(key_of(message, self._varying) for message in messages)

    def answer(self, request: Request) -> Recorded | None:
        """Returns the recorded answer to a request; `None` where there is none, which ends the replay."""
        keys = self._keys(request.messages)
        waiting = self._waiting.get(request_key(tools_key(request.tools), keys))
        if waiting:
            self.answered.append(found := waiting.popleft())
            if found is not self.record[0]:
                self._open.append((found, _tools_of(found)))
            return found
        if len(self.answered) < len(self.record):
            self._why = self._difference(request, keys)
        return None

    def execute(self, made: ToolCall) -> dict[str, Any] | None:
        """Returns what a tool answered then; `None` where it was not called so, which ends the replay."""
        for entry, steps in self._open:
            found = next((step for step in steps if _same(step, made)), None)
            if found is not None:
                steps.remove(found)
                self._steps.append((entry, made, found["answer"]))
                return found
        if not self.complete:
            self._why = self._why or f"{made.name} was called with {shorten(made.arguments)}, which the record has not"
        return None

    @property
    def complete(self) -> bool:
        """Whether the program has come to the node."""
        return len(self.answered) == len(self.record) and not any(steps for _, steps in self._open)

    def bring(self, env: BranchingEnv) -> Any:
        """Brings the environment to where the program left the record, and returns the snapshot there.

        From the snapshot of the node where there is one; otherwise by calling the same tools again.

        Raises:
            SnapshotError: a tool answers differently now.
        """
        if self.complete and isinstance(self._target, Snapshot):
            env.restore(self._target)
            return self._target
        env.restore(self._root)
        snapshot, session = self._root, ""
        for entry, made, answer in self._steps:
            if entry.session != session:
                session = entry.session
                number, _, attempt = session.partition(".")
                env.reseed(derive_seed(derive_seed(self._seed, int(number)), int(attempt or 0), "env"))
            after = env.advance(Action(tool_calls=(made,)), snapshot=self._keep)
            now = "\n".join(message_text(message) for message in after.observation)
            if now != answer:
                msg = (
                    f"{env.env_id} did not repeat itself: {made.name} with {shorten(made.arguments)} answered "
                    f"{answer!r:.200}, now it answers {now!r:.200}"
                )
                raise SnapshotError(msg)
            snapshot = after.snapshot or snapshot
        return snapshot

    def _difference(self, request: Request, keys: Sequence[str]) -> str:
        """Says what is different from the request that was expected next."""
        taken = {id(entry) for entry in self.answered}
        expected = next(entry for entry in self.record if id(entry) not in taken)
        number = len(self.answered)
        before = self._keys(expected.messages)
        where = next(
            (i for i, (a, b) in enumerate(zip(before, keys, strict=False)) if a != b), min(len(before), len(keys))
        )
        if len(before) == len(keys) == where:
            return f"request {number} offers other tools"
        was, now = (
            f"{messages[where]['role']} {shorten(message_text(messages[where]))}"
            if where < len(messages)
            else "nothing"
            for messages in (expected.messages, request.messages)
        )
        return f"request {number} differs in message {where}: it was {was}, now it is {now}"

    def status(self) -> dict[str, Any]:
        """Returns how far the record went: `left_early` where the program did something else before the node."""
        early = self.live and not self.complete
        why = self._why or ("the record has calls of tools that the program did not make" if early else "")
        return {
            "wanted": len(self.record),
            "answered": len(self.answered),
            "live": self.live,
            "left_early": early,
            "why": why,
        }


def _tools_of(entry: Recorded) -> list[dict[str, Any]]:
    return [dict(step) for step in entry.steps if "name" in step]


def _same(step: Any, made: ToolCall) -> bool:
    return step.get("name") == made.name and canonical(step.get("arguments")) == canonical(made.arguments)
