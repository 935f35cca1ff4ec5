"""A tokenizer's chat template, rendered strictly: it refuses by name, loses nothing in silence, and is never forged."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from agentenv.errors import ModelError
from agentenv.types import Message, ToolCall, ToolSchema, has_image, message_reasoning, message_text

from .text_protocol import fold_system, write_as_text

__all__ = ["ASKED", "NO_SCHEMAS", "ChatTemplate", "Rendered", "missing_words"]

ASKED: Message = {"role": "user", "content": "?"}
NO_SCHEMAS = "agentenv: no schemas"
"""A template that holds these words, in a comment, leaves the schemas of tools out on purpose."""

_REASONING_NAMES = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rendered text.

    Attributes:
        text: the text.
        cut: a character that stands in it where it must be cut before it is encoded, and is dropped then: within what
            would be a control token, had the template written it and not a tool or a user.
    """

    text: str
    cut: str


@dataclass(frozen=True, slots=True)
class _Form:
    """How a template wants messages.

    Attributes:
        parts: content as a list of parts.
        text_arguments: arguments of calls as JSON text.
        short_ids: ids of calls as nine letters and digits.
    """

    parts: bool = False
    text_arguments: bool = False
    short_ids: bool = False


class ChatTemplate:
    """Renders conversations by a tokenizer's chat template.

    Attributes:
        tokenizer: it has a chat template.
        source: the template.
        reasoning_names: under which names the template reads reasoning; none where it reads none.
        tools_as_text: whether tools, calls and answers are written as text of ordinary messages.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        options: Mapping[str, Any],
        *,
        ends: Sequence[str] = (),
        tools_as_text: bool = False,
    ) -> None:
        if not getattr(tokenizer, "chat_template", None):
            msg = (
                f"tokenizer must have a chat template, {type(tokenizer).__name__} has none: set tokenizer.chat_template"
            )
            raise ModelError(msg)
        self.tokenizer = tokenizer
        self.source = tokenizer.get_chat_template()
        self.reasoning_names = tuple(
            name for name in _REASONING_NAMES if re.search(rf"\.{name}\b|['\"]{name}['\"]", self.source)
        )
        self.tools_as_text = tools_as_text
        self._options = dict(options)
        self._control = _control_tokens(tokenizer, self.source)
        self._ends = _any_of(ends)
        self._folds = False
        self._form, self._tool_form = self._find_form([]), self._find_form([ToolCall("f", {"x": 1}, "call_0")])
        self._folds = not self._takes_system()
        self.opening = lru_cache(256)(self._opening)

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSchema], *, generate: bool) -> Rendered:
        """Renders a conversation, with the prompt for the next assistant message where `generate` is set.

        Raises:
            ModelError: the template refuses the messages, or there is an image among them.
        """
        if any(map(has_image, messages)):
            msg = "messages must be text for a model that reads text only, got an image"
            raise ModelError(msg)
        form = self._tool_form if tools or any("tool_calls" in message for message in messages) else self._form
        if self.tools_as_text:
            messages, tools, form = write_as_text(messages, tools), (), self._form
        return self._render(fold_system(messages) if self._folds else messages, tools, form, generate=generate)

    def _render(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema], form: _Form, *, generate: bool
    ) -> Rendered:
        said = json.dumps(messages, ensure_ascii=False)
        # Unicode's noncharacters are in no text that was meant for reading.
        cut = next(mark for mark in map(chr, range(0xFDD0, 0x110000)) if mark not in said)
        try:
            text = self.tokenizer.apply_chat_template(
                [self._prepare(message, form, cut) for message in messages],
                tools=list(tools) or None,
                add_generation_prompt=generate,
                tokenize=False,
                **self._options,
            )
        except ModelError:
            raise
        except Exception as error:  # whatever a template raises: jinja's errors, TypeError, ...
            roles = ", ".join(message["role"] for message in messages)
            msg = f"the chat template refuses messages of the roles {roles}: {type(error).__name__}: {error}"
            raise ModelError(msg) from error
        return Rendered(cast("str", text), cut)

    def _opening(self, tools: str) -> str:
        """Returns what the template writes to begin an assistant message; `tools` as JSON."""
        schemas = json.loads(tools)
        before, after = (self.render([ASKED], schemas, generate=generate).text for generate in (False, True))
        return after.removeprefix(before)

    def _find_form(self, calls: Sequence[ToolCall]) -> _Form:
        """Returns the first form in which a conversation can be rendered; the plain one where there is none."""
        said: Message = {"role": "assistant", "content": "alpha"}
        answer: Message = {"role": "user", "content": "beta"}
        if calls:
            said = {"role": "assistant", "content": "", "tool_calls": [call.to_dict() for call in calls]}
            answer = {"role": "tool", "content": "beta", "name": "f", "tool_call_id": "call_0"}
        for parts, text_arguments, short_ids in product((False, True), repeat=3):
            form = _Form(parts, text_arguments, short_ids)
            try:
                text = self._render([ASKED, said, answer], (), form, generate=True).text
            except ModelError:
                continue
            if "beta" in text:
                return form
        return _Form()

    def _takes_system(self) -> bool:
        try:
            self._render([{"role": "system", "content": "alpha"}, ASKED], (), self._form, generate=True)
        except ModelError:
            return False
        return True

    def _prepare(self, message: Message, form: _Form, cut: str) -> dict[str, Any]:
        """Returns a message as templates expect it: text, arguments as a mapping, reasoning under the names they read.

        What is not the template's own is broken up where it would be read as control tokens.
        """
        # The marks in an assistant's text are the model's own, a broken call's for example: it wrote them as tokens.
        control = self._ends if message["role"] == "assistant" else self._control
        text = _broken(message_text(message), control, cut)
        prepared: dict[str, Any] = {
            **{key: value for key, value in message.items() if key not in _REASONING_NAMES},
            "content": [{"type": "text", "text": text}] if form.parts else text,
        }
        if reasoning := message_reasoning(message):
            prepared |= dict.fromkeys(self.reasoning_names, _broken(reasoning, self._ends, cut))
        if form.short_ids and message["role"] == "tool":
            prepared["tool_call_id"] = _short(message.get("tool_call_id", ""))
        if calls := message.get("tool_calls"):
            prepared["tool_calls"] = [self._prepare_call(ToolCall.parse(call), form, cut) for call in calls]
        return prepared

    def _prepare_call(self, call: ToolCall, form: _Form, cut: str) -> dict[str, Any]:
        arguments = _broken(call.arguments, self._control, cut)
        if form.text_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": _broken(call.name, self._control, cut), "arguments": arguments}
        return {"id": _short(call.id) if form.short_ids else call.id, "type": "function", "function": function}


def missing_words(messages: Sequence[Message], text: str) -> str:
    """Returns the first message but the assistant's of which something is not in `text`; empty where all is there.

    Templates trim, quote and indent; so words of letters and digits are looked for, in their order.
    """
    for message in messages:
        position = 0
        for word in re.findall(r"[A-Za-z0-9]+", message_text(message)) if message["role"] != "assistant" else ():
            position = text.find(word, position)
            if position < 0:
                return f"the {message['role']}'s message {message_text(message)!r:.80}"
            position += len(word)
    return ""


def _control_tokens(tokenizer: PreTrainedTokenizerBase, source: str) -> re.Pattern[str] | None:
    """Returns a pattern of the tokens that control a model: the special ones, and those that the template writes."""
    added = {str(token): bool(token.special) for token in tokenizer.added_tokens_decoder.values()}
    names = [text for text, special in added.items() if len(text) > 1 and (special or text in source)]
    return _any_of(names)


def _any_of(texts: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None


def _broken(value: Any, control: re.Pattern[str] | None, cut: str) -> Any:
    """Puts `cut` into every control token in the texts of a JSON value."""
    if isinstance(value, str):
        while control is not None and control.search(value):
            value = control.sub(lambda found: found[0][0] + cut + found[0][1:], value)
        return value
    if isinstance(value, list):
        return [_broken(entry, control, cut) for entry in cast("list[Any]", value)]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return {_broken(key, control, cut): _broken(entry, control, cut) for key, entry in entries}
    return value


def _short(call_id: str) -> str:
    return blake2b(call_id.encode(), digest_size=8).hexdigest()[:9]
