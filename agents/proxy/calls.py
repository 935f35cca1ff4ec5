"""What a program did in its episode: calls of the model, and steps of the environment between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentenv.protocols import Context, Transition
from agentenv.signatures import digest
from agentenv.tokens import TokenIds
from agentenv.types import Action, Message, ToolCall, message_text

from .requests import Request, key_of, tools_key

__all__ = ["Call", "Conversations", "EnvStep", "Recorded", "keys_of", "request_key"]


@dataclass(frozen=True, slots=True)
class EnvStep:
    """One step of the environment.

    Attributes:
        call: the call of a tool; `None` for text.
        transition: what came of it.
        seconds: how long it took.
    """

    call: ToolCall | None
    transition: Transition
    seconds: float = 0.0

    @property
    def answer(self) -> str:
        """What the program is told."""
        return "\n".join(message_text(message) for message in self.transition.observation)

    def to_dict(self) -> dict[str, Any]:
        """Returns what replay needs, as JSON values."""
        made = {} if self.call is None else {"name": self.call.name, "arguments": self.call.arguments}
        return made | {"answer": self.answer, "reward": self.transition.reward}


@dataclass(slots=True, eq=False)
class Call:
    """One answer of the model.

    Attributes:
        request: what was asked.
        keys: of its messages.
        number: in its session, by time.
        before: the call whose conversation it goes on with.
        action: the answer.
        seconds: spent waiting for the agent.
        steps: what the environment did between this answer and the next.
        snapshot: the environment's state when the next request came.
        node: where it stands in the tree, once it does.
        delivered: whether the program was there to take it.
    """

    request: Request
    keys: tuple[str, ...]
    number: int
    before: "Call | None"
    action: Action
    seconds: float = 0.0
    steps: list[EnvStep] = field(default_factory=list[EnvStep])
    snapshot: Any = None
    node: int | None = None
    delivered: bool = True

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation up to and with the answer, as recorded."""
        return (*self.request.messages, self.action.to_message())

    @property
    def rest(self) -> tuple[Message, ...]:
        """The messages that are new since the call before."""
        return self.request.messages[0 if self.before is None else len(self.before.keys) + 1 :]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A call of an earlier episode, to be answered again as it was.

    Attributes:
        session: the episode that made it.
        call: its number there.
        node: where it stands in the tree.
        tools: digest of those that its request offered.
        messages: of its request.
        action: the answer.
        steps: what the environment did then, as `EnvStep.to_dict` says it.
        reward: what those steps earned.
    """

    session: str
    call: int
    node: int
    tools: str
    messages: tuple[Message, ...]
    action: Action
    steps: Sequence[Mapping[str, Any]] = ()
    reward: float = 0.0


def keys_of(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns what makes messages the same, one by one."""
    return tuple(map(key_of, messages))


def request_key(tools: str, keys: Sequence[str]) -> str:
    """Returns what makes a request the same: its tools and its messages."""
    return digest([tools, list(keys)])


class Conversations:
    """Finds the call that a request goes on with: the one whose conversation, answer included, it begins with."""

    def __init__(self) -> None:
        self._ends: dict[str, Call] = {}

    def add(self, call: Call) -> None:
        """Takes a call that was answered."""
        keys = (*call.keys, key_of(call.action.to_message()))
        self._ends[_chain(tools_key(call.request.tools), keys)[-1]] = call

    def before(self, request: Request, keys: Sequence[str]) -> Call | None:
        """Returns the call with the longest conversation that the request begins with."""
        chain = _chain(tools_key(request.tools), keys)
        return next((self._ends[link] for link in reversed(chain[:-1]) if link in self._ends), None)


def _chain(tools: str, keys: Sequence[str]) -> list[str]:
    """One digest for every beginning of a conversation."""
    links: list[str] = []
    link = tools
    for key in keys:
        link = digest([link, key])
        links.append(link)
    return links


def context_of(request: Request, before: Call | None, *, seed: int, most: int | None) -> Context:
    """Returns what the agent sees: the program's messages, behind the exact tokens of the call before.

    Args:
        request: what was asked, beginning with the messages of `before`.
        before: the call that it goes on with.
        seed: of the action.
        most: tokens that the whole conversation may have.
    """
    token_ids: tuple[int, ...] | TokenIds = ()
    covered = 0
    if before is not None:
        action = before.action
        if action.token_ids is not None and action.prompt_token_ids is not None:
            prompt = action.prompt_token_ids
            token_ids = (prompt if isinstance(prompt, TokenIds) else TokenIds(prompt)) + action.token_ids
            covered = len(before.messages)
    room = None if most is None else max(1, most - len(token_ids))
    limits = [limit for limit in (request.max_tokens, room) if limit is not None]
    return Context(request.messages, request.tools, token_ids, covered, seed, min(limits, default=None))
