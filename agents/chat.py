"""Conversations to token ids and back, through a tokenizer's own chat template, never tokenizing twice.

A model must see, before its next action, exactly the ids it sampled before: decoding and encoding again can split a
text differently, and then the log-probabilities belong to another sequence. So only what is new gets rendered, after a
dummy assistant message, and appended to the ids that are there.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from agentenv.errors import ModelError
from agentenv.protocols import Context
from agentenv.types import Message, ToolCall, ToolSchema, parse_text

__all__ = ["ChatFormat"]

_MARK = "\N{LEFT WHITE CORNER BRACKET}mark\N{RIGHT WHITE CORNER BRACKET}"
_ASKED: Message = {"role": "user", "content": "?"}

TokenIds = tuple[int, ...]


class ChatFormat:
    """What a tokenizer's chat template makes of contexts and actions.

    Attributes:
        tokenizer: a tokenizer with a chat template.
        stop_token_ids: the tokens that end an assistant message.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_token_ids: Iterable[int] = (),
        template_options: Mapping[str, Any] | None = None,
        cache_size: int = 8192,
    ) -> None:
        """Makes a format.

        Args:
            tokenizer: it must have a chat template.
            stop_token_ids: tokens that end a message, besides the tokenizer's end-of-sequence token.
            template_options: variables for the template, such as `{"enable_thinking": False}`.
            cache_size: how many rendered pieces to remember.

        Raises:
            ModelError: the tokenizer has no chat template, or nothing ends a message.
        """
        if not getattr(tokenizer, "chat_template", None):
            msg = (
                f"tokenizer must have a chat template, {type(tokenizer).__name__} has none: set tokenizer.chat_template"
            )
            raise ModelError(msg)
        end = cast("int | None", tokenizer.eos_token_id)
        stops = {*stop_token_ids, *(() if end is None else (end,))}
        if not stops:
            msg = "stop_token_ids must name a token that ends a message: the tokenizer has no eos_token, and got none"
            raise ModelError(msg)
        self.tokenizer = tokenizer
        self.stop_token_ids = frozenset(stops)
        self._stop_texts = [text for text in map(self.decode, ([stop] for stop in sorted(stops))) if text]
        self._options = dict(template_options or {})
        self._last_tools: tuple[Sequence[ToolSchema], str] = (), "[]"
        remember: Callable[..., Any] = lru_cache(cache_size)
        self._root: Callable[[str, str], TokenIds] = remember(self._render_root)
        self._suffix: Callable[[str, str, str], TokenIds] = remember(self._render_suffix)
        self._action: Callable[[str, str], TokenIds] = remember(self._render_action)
        self._text: Callable[[TokenIds], str] = remember(self.decode)

    def prompt(self, context: Context) -> TokenIds:
        """Returns the ids that a model sees before it acts in `context`.

        At the root that is the rendered conversation. Later it is `context.token_ids`, untouched, followed by the
        rendering of the messages after `context.covered`; an action that was cut before its end gets its end token.

        Raises:
            ModelError: the template ends an assistant message with none of the stop tokens.
        """
        tools = self._dump_tools(context.tools)
        if not context.token_ids:
            return self._root(_dump(context.messages), tools)
        last = context.messages[context.covered - 1] if context.covered else _ASKED
        calls = [[call.id, call.name] for call in map(ToolCall.parse, last.get("tool_calls", ()))]
        suffix = self._suffix(_dump(context.messages[context.covered :]), _dump(calls), tools)
        closed = context.token_ids[-1] in self.stop_token_ids
        return context.token_ids + (suffix[1:] if closed else suffix)

    def action_ids(self, message: Message, *, tools: Sequence[ToolSchema] = ()) -> TokenIds:
        """Returns the ids that a model would have to sample to write `message`, the end token included.

        Raises:
            ModelError: the template renders the message otherwise than after its own generation prompt.
        """
        return self._action(_dump(message), self._dump_tools(tools))

    def parse(self, token_ids: Sequence[int]) -> tuple[str, tuple[ToolCall, ...]]:
        """Returns the text and the tool calls that sampled ids stand for, without the end token."""
        ids = tuple(token_ids)
        action = parse_text(self._text(ids[:-1] if ids and ids[-1] in self.stop_token_ids else ids))
        return action.content, action.tool_calls

    def encode(self, text: str) -> TokenIds:
        """Returns the ids of `text`, special tokens recognized, none added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False)) if text else ()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Returns the text of `token_ids`, special tokens included."""
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return cast("str", text)

    def _dump_tools(self, tools: Sequence[ToolSchema]) -> str:
        """Encodes schemas, which are long and nearly always the same as in the call before."""
        if tools != self._last_tools[0]:
            self._last_tools = tools, _dump(tools)
        return self._last_tools[1]

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSchema], *, generate: bool) -> str:
        rendered = self.tokenizer.apply_chat_template(
            [_with_decoded_arguments(message) for message in messages],
            tools=list(tools) or None,
            add_generation_prompt=generate,
            tokenize=False,
            **self._options,
        )
        return cast("str", rendered)

    def _render_root(self, messages: str, tools: str) -> TokenIds:
        return self.encode(self._render(json.loads(messages), json.loads(tools), generate=True))

    def _render_suffix(self, messages: str, tool_calls: str, tools: str) -> TokenIds:
        """Renders new messages after a dummy assistant message; begins with the token that ends the latter.

        The dummy makes the same calls as the real message, because templates look there for the names of tools; a
        mark in its text and arguments says where it ends. What comes before the mark is of no interest.
        """
        dummy: Message = {"role": "assistant", "content": _MARK}
        if calls := json.loads(tool_calls):
            dummy["tool_calls"] = [ToolCall(name, {"_": _MARK}, call_id).to_dict() for call_id, name in calls]
        text = self._render([_ASKED, dummy, *json.loads(messages)], json.loads(tools), generate=True)
        mark = text.rfind(_MARK)
        if mark < 0:
            msg = f"the chat template must write the content or the arguments of assistant messages, got {text!r}"
            raise ModelError(msg)
        return self._stop_at(text, self._first_stop(text, mark))

    def _render_action(self, message: str, tools: str) -> TokenIds:
        start = self._render([_ASKED], json.loads(tools), generate=True)
        whole = self._render([_ASKED, json.loads(message)], json.loads(tools), generate=False)
        if not whole.startswith(start):
            msg = f"the chat template must write an assistant message after its generation prompt {start!r}: {whole!r}"
            raise ModelError(msg)
        where = self._first_stop(whole, len(start))
        return self.encode(whole[len(start) : where]) + self._stop_at(whole, where)[:1]

    def _first_stop(self, text: str, start: int) -> int:
        found = [where for stop in self._stop_texts if (where := text.find(stop, start)) >= 0]
        if not found:
            msg = (
                f"the chat template must end assistant messages with one of the stop tokens {self._stop_texts}, "
                f"got {text[start:]!r}: pass the right stop_token_ids"
            )
            raise ModelError(msg)
        return min(found)

    def _stop_at(self, text: str, where: int) -> TokenIds:
        """Encodes from the stop token on; drops what a tokenizer puts before it, such as a dummy space."""
        ids = self.encode(text[where:])
        first = next((i for i, token in enumerate(ids) if token in self.stop_token_ids), None)
        if first is None:
            msg = f"the stop token must be encoded as one token in {text[where:]!r}, got {ids}"
            raise ModelError(msg)
        return ids[first:]


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _with_decoded_arguments(message: Message) -> dict[str, Any]:
    """Templates expect the arguments of a call as a mapping; OpenAI's format has them as JSON text."""
    if not (calls := message.get("tool_calls")):
        return dict(message)
    decoded: list[dict[str, Any]] = []
    for call in calls:
        parsed = ToolCall.parse(call)
        function = {"name": parsed.name, "arguments": parsed.arguments}
        decoded.append({"id": parsed.id, "type": "function", "function": function})
    return {**message, "tool_calls": decoded}
