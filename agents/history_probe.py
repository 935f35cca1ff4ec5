"""What a chat template does with earlier turns, tried on short conversations that tell the families apart."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentenv.errors import ModelError
from agentenv.protocols import Context
from agentenv.types import Message, ToolCall

from .chat import ChatFormat
from .drift import Drift, compare
from .tool_probe import TOOL

__all__ = ["Habit", "probe_history"]

_SYSTEM: Message = {"role": "system", "content": "Be brief."}
_ASK: Message = {"role": "user", "content": "Where to?"}
_THOUGHT = "Quietly now."


@dataclass(frozen=True, slots=True)
class Habit:
    """What a template does with one conversation.

    Attributes:
        what: the model did before the last message.
        drift: between the prompt of `history="exact"` and the template's rendering; `drift.refused` where the template
            cannot write the conversation.
        known: whether the template knows all that there is in the turn; it writes no reasoning where it does not.
        reason: why it refuses.
    """

    what: str
    drift: Drift
    known: bool = True
    reason: str = ""

    @property
    def appends(self) -> bool:
        """Whether both prompts are the same tokens: the template leaves what was there as it was."""
        return not self.drift.different and not self.drift.refused


def probe_history(chat: ChatFormat) -> tuple[Habit, ...]:
    """Compares exact prompts with the template's own rendering, token by token, after each kind of turn.

    The turns: an answer, a thought and an answer, both before another message of the user; one call, a thought and a
    call, several calls in one message, each with the answers of the tools. A model is taken to write what the template
    itself would write of it; a thought that the template does not know stands in `<think>`. Where the template cannot
    be used with tools there are no turns with calls.

    Args:
        chat: the chat format of the model.
    """
    said: Message = {"role": "assistant", "content": "Oslo."}
    turns: dict[str, Message] = {"an answer": said, "reasoning and an answer": {**said, "reasoning": _THOUGHT}}
    if not chat.tool_problem:
        turns |= {
            "a call": _calls("Oslo"),
            "reasoning and a call": {**_calls("Oslo"), "reasoning": _THOUGHT},
            "several calls at once": _calls("Oslo", "Rome"),
        }
    return tuple(_try(chat, what, turn) for what, turn in turns.items())


def _calls(*towns: str) -> Message:
    calls = [ToolCall("visit", {"town": town}, f"call_{i}").to_dict() for i, town in enumerate(towns)]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _try(chat: ChatFormat, what: str, turn: Message) -> Habit:
    calls = turn.get("tool_calls", ())
    tools = () if chat.tool_problem else (TOOL,)
    answers: Sequence[Message] = [
        {"role": "tool", "content": f"sunny {i}", "name": "visit", "tool_call_id": f"call_{i}"}
        for i in range(len(calls))
    ]
    asked = (_SYSTEM, _ASK)
    conversation = (*asked, turn, *(answers or [_ASK]))
    try:
        start = chat.prompt(Context(asked, tools))
        sampled = chat.action_ids(turn, tools=tools)
        known = "reasoning" not in turn or _THOUGHT in chat.decode(sampled)
        if not known:
            sampled = chat.encode(f"<think>\n{_THOUGHT}\n</think>\n\n") + sampled
        seen = chat.prompt_exactly(Context(conversation, tools, (*start, *sampled), len(asked) + 1))
        return Habit(what, compare(tuple(seen), chat.render(conversation, tools=tools)), known)
    except ModelError as error:
        return Habit(what, Drift(refused=1), reason=str(error))
