"""Families of chat formats: real templates out of released packages, or small ones of our own with the same tokens.

Every family gets a tiny byte-level tokenizer with its control tokens, so that ids are exact and nothing is downloaded.
"""

from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from agentenv.agents.chat import ChatFormat

__all__ = ["FAMILIES", "Family", "chat_of", "tokenizer_of"]

_CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_HERMES_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
_LLAMA = ("<|begin_of_text|>", "<|eot_id|>", "<|eom_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>")
_MISTRAL = ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS", "THINK")
_DEEPSEEK = [f"<｜tool▁{what}▁{end}｜>" for what in ("call", "calls", "output", "outputs") for end in ("begin", "end")]
_TOOLS = "{% for t in tools or [] %}{{ '\\n' + t.function | tojson }}{% endfor %}"
_NEXT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

QWEN3_CODER = (
    """\
{%- set first = messages[0].content if messages[0].role == 'system' else 'You are Qwen.' %}
{{- '<|im_start|>system\\n' + first }}
{%- if tools %}{{ '\\n\\n<tools>' }}{%- for t in tools %}
{{- '\\n<function>\\n<name>' + t.function.name + '</name>\\n<parameters>' + t.function.parameters | tojson }}
{{- '</parameters>\\n</function>' }}{%- endfor %}{{ '\\n</tools>' }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for m in messages %}
{%- if m.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + m.content | trim }}
{%- for c in m.tool_calls or [] %}
{{- '\\n' if m.content | trim or not loop.first }}{{ '<tool_call>\\n<function=' + c.function.name + '>\\n' }}
{%- for key, value in c.function.arguments | items %}
{{- '<parameter=' + key + '>\\n' }}{{ value if value is string else value | tojson }}{{ '\\n</parameter>\\n' }}
{%- endfor %}
{{- '</function>\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>user' if loop.previtem.role != 'tool' }}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
{%- elif m.role == 'user' %}
{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}"""
    + _NEXT
)

HERMES = (
    """\
{{- bos_token }}
{%- if tools %}{{ '<|im_start|>system\\nYou may call functions, listed in <tools>.\\n<tools>"""
    + "' }}"
    + _TOOLS
    + """{{ '\\n</tools><|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{- '<|im_start|>tool' if loop.previtem.role != 'tool' }}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' }}
{%- else %}
{{- '<|im_start|>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}
{{- '\\n' if m.content or not loop.first }}{{ '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- c.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}"""
    + _NEXT
)

MISTRAL = """\
{{- bos_token }}
{%- set first = messages[0].content if messages[0].role == 'system' else '' %}
{%- set messages = messages[1:] if messages[0].role == 'system' else messages %}
{%- set at = namespace(last=0, turn=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set at.last = loop.index0 %}{% endif %}
{%- if m.role == 'user' or m.role == 'assistant' and not m.tool_calls %}
{%- if (m.role == 'user') != (at.turn % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- set at.turn = at.turn + 1 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}
{%- if tools and loop.index0 == at.last %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}{% endif %}
{{- '[INST] ' + (first + '\\n\\n' if first and loop.index0 == at.last else '') + m.content + '[/INST]' }}
{%- elif m.role == 'assistant' and m.tool_calls %}
{{- '[TOOL_CALLS] [' }}
{%- for c in m.tool_calls %}
{%- if c.id | length != 9 %}{{ raise_exception('ids of tool calls must be 9 long') }}{% endif %}
{{- '{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson }}
{{- ', "id": "' + c.id + '"}' + (', ' if not loop.last else '') }}
{%- endfor %}{{ ']' + eos_token }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}
{%- elif m.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + m.content | tojson + ', "call_id": "' + m.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}"""

DEEPSEEK_V3 = """\
{{- bos_token }}
{%- for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}
{%- if tools %}{{ '\\n\\n## Tools' }}{% for t in tools %}
{{- '\\n\\n### ' + t.function.name + '\\n' + t.function.parameters | tojson }}{% endfor %}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<｜User｜>' + m.content + '<｜Assistant｜>' }}
{%- elif m.role == 'assistant' %}{{ m.content }}
{%- if m.tool_calls %}{{ '<｜tool▁calls▁begin｜>' }}
{%- for c in m.tool_calls %}
{{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + c.function.name + '\\n```json\\n' }}
{{- c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}
{{- '\\n```<｜tool▁call▁end｜>' + ('\\n' if not loop.last else '') }}
{%- endfor %}{{ '<｜tool▁calls▁end｜>' }}{% endif %}{{ eos_token }}
{%- elif m.role == 'tool' %}
{{- '<｜tool▁outputs▁begin｜>' if loop.previtem.role != 'tool' }}
{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
{{- '<｜tool▁outputs▁end｜>' if loop.last or loop.nextitem.role != 'tool' }}
{%- endif %}
{%- endfor %}"""
"""The assistant's turn is opened by the message before it, and after tools' answers by nothing at all."""

PLAIN = """\
{%- for m in messages %}
{%- if m.role not in ['user', 'assistant'] %}{{ raise_exception('only user and assistant') }}{% endif %}
{{- '<|' + m.role + '|>\\n' + m.content + '</s>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
"""No tools, no system message."""


@dataclass(frozen=True)
class Family:
    """One chat format.

    Attributes:
        template: the name of a template that TRL ships, or a template.
        special: its special tokens; the first of `ends` is the end-of-sequence token.
        ends: tokens that end an assistant message.
        tags: its other control tokens.
        parser: the name of the parser that reads it; `"text"` where the template knows no tools.
        thought: what a model writes before and after its reasoning.
        joint: what stands between calls, where the template refuses several.
        broken: a malformed call, as a model of the family would write it.
        says: what the observation tells about it.
    """

    template: str
    special: tuple[str, ...]
    ends: tuple[str, ...]
    parser: str
    tags: tuple[str, ...] = _HERMES_TAGS
    thought: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    joint: str = "\n"
    broken: str = '<tool_call>\n{"name": "look", "arguments": {"place" "Oslo"}}\n</tool_call>'
    says: str = "not valid JSON: Expecting ':' delimiter at line 1, column 40, near"
    options: dict[str, Any] = field(default_factory=dict[str, Any])


_TICKS = "```"
FAMILIES = {
    "qwen3": Family("qwen3", _CHATML, ("<|im_end|>",), "tool_call"),
    "qwen3_instruct_2507": Family("qwen3_instruct_2507", _CHATML, ("<|im_end|>",), "tool_call"),
    "qwen3_coder": Family(
        QWEN3_CODER,
        _CHATML,
        ("<|im_end|>",),
        "tool_call",
        broken="<tool_call>\n<function=look>\n<parameter=place>\nOslo\n</function>\n</tool_call>",
        says="'<parameter=place>' is never closed",
    ),
    "llama3_1": Family(
        "llama3_1",
        _LLAMA,
        ("<|eot_id|>", "<|eom_id|>"),
        "bare",
        tags=(),
        joint="; ",
        broken='<|python_tag|>{"name": "look", "parameters": {"place" "Oslo"}}',
        says="not valid JSON: Expecting ':' delimiter at line 1, column 41",
    ),
    "mistral": Family(
        MISTRAL,
        ("</s>", "<s>", "[TOOL_CALLS]", *(f"[{slash}{tag}]" for tag in _MISTRAL for slash in ("", "/"))),
        ("</s>",),
        "mistral",
        tags=(),
        thought=("[THINK]", "[/THINK]"),
        broken='[TOOL_CALLS] [{"name": "look", "arguments": {"place": Oslo}}]',
        says="not valid JSON: Expecting value at line 1, column 42",
    ),
    "gemma3": Family("gemma3", ("<bos>", "<start_of_turn>", "<end_of_turn>"), ("<end_of_turn>",), "text", tags=()),
    "deepseek_v3": Family(
        DEEPSEEK_V3,
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
        ("<｜end▁of▁sentence｜>",),
        "deepseek",
        tags=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁sep｜>", *_DEEPSEEK),
        thought=("<think>", "</think>"),
        broken=f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n{_TICKS}json\n"
        f"{{place: 1}}\n{_TICKS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        says="in double quotes at line 1, column 2",
    ),
    "glm4_5": Family(
        "glm4moe",
        ("[gMASK]", "<sop>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ("<|endoftext|>", "<|user|>", "<|observation|>"),
        "tool_call",
        tags=(*_HERMES_TAGS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        thought=("\n<think>", "</think>"),
        broken="\n<tool_call>look\n<arg_key>place</arg_key>\n<arg_value>Oslo\n</tool_call>",
        says="'<arg_value>Oslo' is never closed by '</arg_value>'",
    ),
    "gpt_oss": Family(
        "gptoss",
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"),
        ("<|return|>", "<|call|>"),
        "harmony",
        tags=(),
        thought=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
        joint="<|call|><|start|>assistant",
        broken=' to=functions.look<|channel|>commentary json<|message|>{"place": }',
        says="not valid JSON: Expecting value at line 1, column 11",
    ),
    "hermes": Family(HERMES, (*_CHATML, "<|begin_of_text|>"), ("<|im_end|>",), "tool_call"),
    "llama3": Family("llama3", _LLAMA, ("<|eot_id|>",), "text", tags=()),
    "plain": Family(PLAIN, ("</s>", "<|user|>", "<|assistant|>"), ("</s>",), "text", tags=()),
}

_TEXT = (
    "Where is it? Look at the place, note what it says and finish with the answer. " * 4,
    '{"name": "look", "arguments": {"place": "Oslo"}} user assistant system tool',
)


@cache
def tokenizer_of(name: str) -> Any:
    """The tiny tokenizer of a family: byte-level, its control tokens, its template."""
    family = FAMILIES[name]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(_TEXT, trainer)
    first = next((token for token in family.special if "bos" in token or "begin" in token or token == "<s>"), None)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=family.ends[0], bos_token=first, clean_up_tokenization_spaces=False
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.tags])
    shipped = files("trl") / "chat_templates" / f"{family.template}.jinja"
    tokenizer.chat_template = shipped.read_text() if len(family.template) < 40 else family.template
    return tokenizer


def chat_of(name: str, **options: Any) -> ChatFormat:
    """The chat format of a family."""
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    given: dict[str, Any] = {"parser": "text"} if family.parser == "text" else {}
    stops = tokenizer.convert_tokens_to_ids(list(family.ends))
    return ChatFormat(tokenizer, stop_token_ids=stops, **{**given, **options})
