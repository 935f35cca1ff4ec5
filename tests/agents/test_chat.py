"""Chat rendering: turn by turn gives the template's whole conversation, and nothing is encoded twice."""

from importlib.resources import files
from typing import Any, cast

import pytest
from tiny_chat import CONVERSATIONS, answer, call
from transformers import AddedToken

from agentenv.agents.chat import ChatFormat
from agentenv.errors import ModelError
from agentenv.protocols import Context
from agentenv.trainers.tiny import make_tiny_tokenizer
from agentenv.types import Action, Message, ToolCall, message_text

TOOLS = (
    {
        "type": "function",
        "function": {
            "name": "calculate",
            "description": "Compute an expression.",
            "parameters": {
                "type": "object",
                "properties": {"expression": {"type": "string"}},
                "required": ["expression"],
            },
        },
    },
)
LONG: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 7 * 6?\nSay it twice."},
    {"role": "assistant", "content": "Let me see."},
    {"role": "user", "content": "Please do."},
    call("calculate", expression="7 * 6"),
    answer("42"),
    {"role": "assistant", "content": "42, 42"},
    {"role": "user", "content": "  and é 😀 <|x|>? "},
    {"role": "assistant", "content": "done"},
]


def tokenizer_with(template: str) -> Any:
    tokenizer: Any = make_tiny_tokenizer(CONVERSATIONS[:20])
    tokenizer.add_tokens(
        [AddedToken(text, special=False) for text in ("<tool_call>", "</tool_call>", "<think>", "</think>")]
    )
    if template:
        tokenizer.chat_template = (files("trl") / "chat_templates" / f"{template}.jinja").read_text()
    return tokenizer


def end_of(chat: ChatFormat) -> int:
    (end,) = chat.stop_token_ids
    return end


def turn_by_turn(chat, conversation, tools):
    ids, covered = (), 0
    for number, message in enumerate(conversation):
        if message["role"] == "assistant":
            ids = chat.prompt(Context(tuple(conversation[:number]), tools, ids, covered))
            ids += chat.action_ids(message, tools=tools)
            covered = number + 1
    return ids


# Templates that leave earlier messages alone when later ones come, so that there is a whole to compare with.
@pytest.mark.parametrize("template", ["", "qwen2_5", "qwen3_instruct_2507", "qwen3_training"])
@pytest.mark.parametrize("tools", [(), TOOLS])
def test_turn_by_turn_equals_the_whole_conversation(template, tools):
    chat = ChatFormat(tokenizer_with(template))
    ids = turn_by_turn(chat, LONG, tools)
    plain: Any = [dict(message) for message in LONG]
    whole = str(chat.tokenizer.apply_chat_template(plain, tools=list(tools) or None, tokenize=False))
    assert chat.decode(ids) == whole.removesuffix("\n")
    assert ids == chat.encode(whole.removesuffix("\n"))


def test_qwen3_tool_turn_written_out():
    chat = ChatFormat(tokenizer_with("qwen3"), template_options={"enable_thinking": False})
    messages = (LONG[1], LONG[4], LONG[5])
    start = chat.prompt(Context(messages[:1], TOOLS))
    assert '"name": "calculate"' in chat.decode(start)
    assert chat.decode(start).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    sampled = (*chat.encode("whatever"), end_of(chat))
    prompt = chat.prompt(Context(messages, TOOLS, start + sampled, 2))
    assert prompt[: len(start + sampled)] == start + sampled
    assert chat.decode(prompt[len(start + sampled) :]) == (
        "\n<|im_start|>user\n<tool_response>\n42\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


@pytest.mark.parametrize("template", ["", "qwen2_5", "qwen3", "qwen3_5_think", "glm4moe", "phi3", "llama3_1", "gptoss"])
def test_sampled_tokens_stay_as_they_are(template):
    tokenizer = tokenizer_with(template)
    ends = {"phi3": "<|end|>", "llama3_1": "<|eot_id|>", "gptoss": "<|return|>", "glm4moe": "<|user|>"}
    extra = [ends[template]] if template in ends else []
    extra += ["<|call|>", "<|observation|>"]
    tokenizer.add_tokens([AddedToken(text, special=True) for text in extra])
    chat = ChatFormat(tokenizer, stop_token_ids=tokenizer.convert_tokens_to_ids(extra))
    odd = tuple(chat.encode("4")) + tuple(chat.encode("2")) + (min(chat.stop_token_ids),)  # not how "42" is encoded
    assert chat.encode("42") != odd[:-1]
    # Phi 3 knows no tools.
    phi3 = template == "phi3"
    messages = (LONG[1], LONG[2], LONG[3]) if phi3 else (LONG[1], LONG[4], LONG[5])
    prompt = chat.prompt(Context(messages, () if phi3 else TOOLS, (1, 2, *odd), 2))
    assert prompt[:5] == (1, 2, *odd)
    assert message_text(messages[-1]) in chat.decode(prompt[5:])
    assert "mark" not in chat.decode(prompt)


def test_an_action_that_was_cut_gets_its_end():
    chat = ChatFormat(tokenizer_with(""))
    cut = chat.prompt(Context(tuple(LONG[1:4]), (), (1, 2, 3), 2))
    assert cut[3] == end_of(chat)
    closed = chat.prompt(Context(tuple(LONG[1:4]), (), (1, 2, end_of(chat)), 2))
    assert cut[4:] == closed[3:]


def test_an_empty_observation_opens_the_next_message():
    chat = ChatFormat(tokenizer_with(""))
    ids = chat.prompt(Context(tuple(LONG[1:3]), (), (1, end_of(chat)), 2))
    assert chat.decode(ids[2:]) == "<|im_start|>assistant\n"


def test_parse_reads_calls_and_leaves_the_end_out():
    chat = ChatFormat(tokenizer_with(""))
    action = chat.parse(chat.action_ids(LONG[4]))
    assert action == Action("", (ToolCall("calculate", {"expression": "7 * 6"}, "call_0"),))
    assert chat.parse(chat.encode("cut of")) == Action("cut of")
    assert chat.parse(()) == Action()


def test_unusable_tokenizers_are_refused():
    tokenizer = tokenizer_with("")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"must have a chat template, .* has none"):
        ChatFormat(tokenizer)
    tokenizer = tokenizer_with("")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="stop_token_ids must name a token"):
        ChatFormat(tokenizer)
    with pytest.raises(ModelError, match=r"end assistant messages with one of the stop tokens \['<\|endoftext\|>'\]"):
        ChatFormat(tokenizer, stop_token_ids=[0])
    with pytest.raises(
        ModelError, match=r"parser must be a function, 'text', .* or one of tool_call, bare, .* got 'hermes'"
    ):
        ChatFormat(tokenizer_with(""), parser="hermes")
    with pytest.raises(ValueError, match="history must be 'exact' or 'template', got 'sampled'"):
        ChatFormat(tokenizer_with(""), history=cast("Any", "sampled"))
