"""Conversations to token ids and back, through a tokenizer's own chat template, never tokenizing twice.

A model must see, before its next action, exactly the ids it sampled before: decoding and encoding again can split a
text differently, and then the log-probabilities belong to another sequence. So only what is new gets rendered, after a
dummy assistant message, and appended to the ids that are there.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from agentenv.errors import ModelError
from agentenv.protocols import Context
from agentenv.tokens import TokenIds as GrowingIds
from agentenv.types import Action, Message, ToolCall, ToolSchema

from .parsers import PARSERS, Parser
from .templates import ASKED, ChatTemplate, missing_words
from .tool_probe import choose_parser, find_tool_problem, response_parsers, rewrites_history

__all__ = ["ChatFormat", "History"]

TokenIds = tuple[int, ...]

History = Literal["exact", "template"]
"""What a model sees of its earlier actions: the ids it sampled, or what the chat template makes of them now."""


class ChatFormat:
    """What a tokenizer's chat template makes of contexts and actions.

    Attributes:
        tokenizer: a tokenizer with a chat template.
        stop_token_ids: the tokens that end an assistant message.
        parser: reads what a model wrote.
        history: `"exact"` or `"template"`.
        rewrites: whether the template writes what was there otherwise once a later turn comes, so that the two
            histories differ: most that know reasoning leave it out of earlier turns.
        tool_problem: why the template cannot be used with tools; empty where it can.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_token_ids: Iterable[int] = (),
        template_options: Mapping[str, Any] | None = None,
        parser: str | Parser | None = None,
        history: History = "exact",
        cache_size: int = 8192,
    ) -> None:
        """Makes a format, and tries it: what cannot work is refused here, or where tools come in.

        Args:
            tokenizer: it must have a chat template.
            stop_token_ids: tokens that end a message, besides the tokenizer's end-of-sequence token.
            template_options: variables for the template, such as `{"enable_thinking": False}`.
            parser: what reads the model's messages: a name of `PARSERS`, or a function of text and tools that returns
                an `Action`; by default the one that reads back what the template writes. `"text"`, for templates
                that know no tools: schemas, calls and answers are text of ordinary messages. `"response"`: the
                tokenizer's own response template, by transformers' `parse_response`.
            history: `"exact"`: a prompt is the ids that are there, never tokenized again, and what is new;
                `"template"`: it is what template and tokenizer make of the whole conversation, as in a chat server.
            cache_size: how many rendered pieces to remember.

        Raises:
            ValueError: `history` is unknown.
            ModelError: the tokenizer has no chat template, nothing ends a message, the template loses messages, or
                there is no such parser.
        """
        end = cast("int | None", tokenizer.eos_token_id)
        stops = {*stop_token_ids, *(() if end is None else (end,))}
        if history not in get_args(History):
            msg = f"history must be 'exact' or 'template', got {history!r}"
            raise ValueError(msg)
        if not stops:
            msg = "stop_token_ids must name a token that ends a message: the tokenizer has no eos_token, and got none"
            raise ModelError(msg)
        self.tokenizer = tokenizer
        self.history: History = history
        self.stop_token_ids = frozenset(stops)
        self._stop_texts = [text for text in map(self.decode, ([stop] for stop in sorted(stops))) if text]
        # Harmony ends a message with another token where the conversation goes on.
        self._ends = [*self._stop_texts, *(["<|end|>"] if "<|return|>" in self._stop_texts else [])]
        self._template = ChatTemplate(
            tokenizer, template_options or {}, ends=self._ends, tools_as_text=parser == "text"
        )
        self._end_ids = stops | {self.encode(end)[-1] for end in self._ends}
        self._last_tools: tuple[Sequence[ToolSchema], str] = (), "[]"
        remember: Callable[..., Any] = lru_cache(cache_size)
        self._root: Callable[[str, str], TokenIds] = remember(self._render_root)
        # Whole conversations are long, and only the branches of one state ask for the same.
        self._whole: Callable[[str, str], TokenIds] = lru_cache(min(cache_size, 64))(self._render_whole)
        self._suffix: Callable[[str, str, str], TokenIds] = remember(self._render_suffix)
        self._action: Callable[[str, str], TokenIds] = remember(self._render_action)
        self._text: Callable[[TokenIds], str] = remember(self.decode)
        self._suffix(_dump([{"role": "user", "content": "alpha beta"}]), "[]", "[]")
        found = choose_parser(self._template, self._stop_texts) if parser is None else self._named_parser(parser)
        self.parser = found or PARSERS["tool_call"]
        self.tool_problem = find_tool_problem(self._template, found, self._answer)
        self.rewrites = rewrites_history(self._template)

    def prompt(self, context: Context) -> TokenIds | GrowingIds:
        """Returns the ids that a model sees before it acts in `context`.

        At the root that is the rendered conversation. Later, with `history="exact"`, it is `context.token_ids`,
        untouched, followed by the rendering of the messages after `context.covered`; an action that was cut before its
        end gets its end token. With `history="template"` it is the rendered conversation again; where the template
        refuses to write what a model did (several calls at once, say), what was sampled stays.

        Raises:
            ModelError: the template refuses or loses a message, cannot be used with the context's tools, or ends an
                assistant message with none of the stop tokens.
        """
        if context.tools and self.tool_problem:
            msg = f"the chat template cannot be used with tools: {self.tool_problem}"
            raise ModelError(msg)
        tools = self._dump_tools(context.tools)
        if not context.token_ids:
            return self._root(_dump(context.messages), tools)
        if self.history == "template":
            try:
                whole = self.render(context.messages, tools=context.tools)
            except ModelError:
                pass  # what follows raises where the new messages are to blame
            else:
                known = len(context.token_ids)
                return context.token_ids + whole[known:] if context.token_ids == whole[:known] else whole
        return self.prompt_exactly(context)

    def prompt_exactly(self, context: Context) -> TokenIds | GrowingIds:
        """Returns `context.token_ids`, untouched, and the new messages after them, whatever `history` says.

        Raises:
            ModelError: as for `prompt`.
        """
        tools = self._dump_tools(context.tools)
        last = context.messages[context.covered - 1] if context.covered else ASKED
        calls = _dump_calls([ToolCall.parse(call) for call in last.get("tool_calls", ())])
        suffix = self._suffix(_dump(context.messages[context.covered :]), calls, tools)
        closed = context.token_ids[-1] in self.stop_token_ids
        return context.token_ids + (suffix[1:] if closed else suffix)

    def render(self, messages: Sequence[Message], *, tools: Sequence[ToolSchema] = ()) -> TokenIds:
        """Returns what template and tokenizer make of a conversation, ready for the next action.

        Raises:
            ModelError: the template refuses or loses a message.
        """
        return self._whole(_dump(messages), self._dump_tools(tools))

    def action_ids(self, message: Message, *, tools: Sequence[ToolSchema] = ()) -> TokenIds:
        """Returns the ids that a model would have to sample to write `message`, the end token included.

        Raises:
            ModelError: the template renders the message otherwise than after its own generation prompt, or not all of
                its calls.
        """
        return self._action(_dump(message), self._dump_tools(tools))

    def parse(self, token_ids: Sequence[int], *, tools: Sequence[ToolSchema] = ()) -> Action:
        """Reads sampled ids, without the end token, as reasoning, content and tool calls.

        Reasoning that the template opened belongs to what was sampled; as long as it is not closed there is nothing
        else.
        """
        ids = tuple(token_ids)
        text = self._text(ids[:-1] if ids and ids[-1] in self.stop_token_ids else ids)
        thinks = text.lstrip().startswith("<think>")
        if not thinks and self._template.opening(self._dump_tools(tools)).rstrip().endswith("<think>"):
            text, thinks = "<think>" + text, True
        if thinks and "</think>" not in text:
            return Action(reasoning=text.replace("<think>", "").strip())
        return self.parser(text, tools)

    def _named_parser(self, parser: str | Parser) -> Parser:
        if not isinstance(parser, str):
            return parser
        named = {**PARSERS, "text": PARSERS["tool_call"]}
        if own := response_parsers(self._template, self._stop_texts):
            named["response"] = own[0]
        if parser not in named:
            msg = (
                f"parser must be a function, 'text', 'response' (of a tokenizer with a response_template) or one of "
                f"{', '.join(PARSERS)}, got {parser!r}"
            )
            raise ModelError(msg)
        return named[parser]

    def _answer(self, message: Message, calls: Sequence[ToolCall], tool: ToolSchema) -> TokenIds:
        return self._suffix(_dump([message]), _dump_calls(calls), _dump([tool]))

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

    def _render_root(self, messages: str, tools: str) -> TokenIds:
        return self._render_checked(json.loads(messages), tools, 0)

    def _render_whole(self, messages: str, tools: str) -> TokenIds:
        """Renders a conversation of which only what no assistant has answered must be there: a template may forget."""
        conversation: list[Message] = json.loads(messages)
        answered = max((i + 1 for i, message in enumerate(conversation) if message["role"] == "assistant"), default=0)
        return self._render_checked(conversation, tools, answered)

    def _render_checked(self, conversation: Sequence[Message], tools: str, start: int) -> TokenIds:
        rendered = self._template.render(conversation, json.loads(tools), generate=True)
        self._check_kept(conversation[start:], rendered.text.replace(rendered.cut, ""))
        return self._encode(rendered.text, rendered.cut)

    def _render_suffix(self, messages: str, tool_calls: str, tools: str) -> TokenIds:
        """Renders new messages after a dummy assistant message; begins with the token that ends the latter.

        The dummy makes the same calls as the real message, because templates look there for the names of tools; a
        mark in its arguments or its text says where it ends. What comes before the mark is of no interest. Where a
        template does not take that, the dummy makes one call, or none.
        """
        new, calls = json.loads(messages), json.loads(tool_calls)
        mark = next(mark for i in range(len(messages)) if (mark := f"mark{i}mark") not in messages + tools)
        problems: list[ModelError] = []
        for number in dict.fromkeys((len(calls), min(1, len(calls)), 0)):
            made = [ToolCall(name, {"_": mark}, call_id).to_dict() for call_id, name in calls[:number]]
            for content in ("", mark) if made else (mark,):
                dummy: Message = {"role": "assistant", "content": content, "tool_calls": made}
                try:
                    return self._after(mark, dummy if made else {"role": "assistant", "content": mark}, new, tools)
                except ModelError as problem:
                    problems.append(problem)
        raise problems[-1]

    def _after(self, mark: str, dummy: Message, new: Sequence[Message], tools: str) -> TokenIds:
        rendered = self._template.render([ASKED, dummy, *new], json.loads(tools), generate=True)
        text = rendered.text
        where = text.rfind(mark)
        if where < 0:
            msg = f"the chat template must write the content or the arguments of assistant messages, got {text!r}"
            raise ModelError(msg)
        start = self._first_stop(text, where, self._ends)
        self._check_kept(new, text[start:].replace(rendered.cut, ""))
        return self._stop_at(text, start, rendered.cut)

    def _check_kept(self, messages: Sequence[Message], text: str) -> None:
        if lost := missing_words(messages, text):
            msg = (
                f"the chat template must write every message after the end of the one before, and lost {lost}: use "
                f"another template, or pass all stop_token_ids (now {self._stop_texts})"
            )
            raise ModelError(msg)

    def _render_action(self, message: str, tools: str) -> TokenIds:
        start = self._template.render([ASKED], json.loads(tools), generate=True).text
        rendered = self._template.render([ASKED, json.loads(message)], json.loads(tools), generate=False)
        whole = rendered.text
        if not whole.startswith(start):
            msg = f"the chat template must write an assistant message after its generation prompt {start!r}: {whole!r}"
            raise ModelError(msg)
        written = whole[len(start) :]
        names = [ToolCall.parse(call).name for call in json.loads(message).get("tool_calls", ())]
        if lost := [name for name in names if written.replace(rendered.cut, "").count(name) < names.count(name)]:
            msg = f"the chat template must write all calls of a message, and lost one of {lost[0]!r} in {written!r}"
            raise ModelError(msg)
        # Harmony ends its reasoning with a token of its own, in the midst of the message.
        ends = [end for end in self._stop_texts if end in written] or [end for end in self._ends if end in written]
        if ends:
            where = self._first_stop(whole, len(start), ends)
            return self._encode(whole[len(start) : where], rendered.cut) + self._stop_at(whole, where, rendered.cut)[:1]
        return self._encode(written.rstrip("\n"), rendered.cut) + self._following_end(json.loads(message), tools, start)

    def _following_end(self, message: Message, tools: str, start: str) -> TokenIds:
        """Returns the token that ends a message where a template leaves that to the message after it, as GLM's does."""
        calls = [ToolCall.parse(call) for call in message.get("tool_calls", ())]
        then: list[Message] = [{"role": "tool", "content": "?", "name": c.name, "tool_call_id": c.id} for c in calls]
        rendered = self._template.render([ASKED, message, *(then or [ASKED])], json.loads(tools), generate=True)
        where = self._first_stop(rendered.text, len(start), self._ends)
        return self._stop_at(rendered.text, where, rendered.cut)[:1]

    def _first_stop(self, text: str, start: int, ends: Sequence[str]) -> int:
        found = [where for end in ends if (where := text.find(end, start)) >= 0]
        if not found:
            msg = (
                f"the chat template must end assistant messages with one of the stop tokens {self._stop_texts}, "
                f"got {text[start:]!r}: pass the right stop_token_ids"
            )
            raise ModelError(msg)
        return min(found)

    def _stop_at(self, text: str, where: int, cut: str) -> TokenIds:
        """Encodes from the stop token on; drops what a tokenizer puts before it, such as a dummy space."""
        ids = self._encode(text[where:], cut)
        first = next((i for i, token in enumerate(ids) if token in self._end_ids), None)
        if first is None:
            msg = f"the stop token must be encoded as one token in {text[where:]!r}, got {ids}"
            raise ModelError(msg)
        return ids[first:]

    def _encode(self, text: str, cut: str) -> TokenIds:
        return tuple(token for part in text.split(cut) for token in self.encode(part))


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _dump_calls(calls: Sequence[ToolCall]) -> str:
    return _dump([[call.id, call.name] for call in calls])
