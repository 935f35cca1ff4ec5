"""A tiny language model and its tokenizer, made on the spot: for demonstrations and tests, without a download.

The tokenizer is byte-level, so that any text comes back as it went in, and learns its pieces from conversations of the
kind that the model is going to have: whatever is the same in every tool call becomes one token, and so does every
number from 0 to 99. An action is then about six tokens long, and a model of under a million parameters can learn it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers import trainers as tokenizer_trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from agentenv.errors import ModelError
from agentenv.types import Message

__all__ = ["CHAT_TEMPLATE", "make_tiny_model", "make_tiny_tokenizer"]

CHAT_TEMPLATE = """\
{#- agentenv: no schemas #}
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') }}
{%- for call in message['tool_calls'] or [] %}
{%- set function = call['function'] or call %}
{{- '\\n' if message['content'] or not loop.first }}
{{- '<tool_call>\\n{"name": "' + function['name'] + '", "arguments": ' }}
{{- function['arguments'] if function['arguments'] is string else function['arguments'] | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""ChatML with Hermes tool calls, every message by itself: rendering more messages never changes what stands before.

It leaves out the schemas of the tools: a model this small knows its tools from imitation, and reads faster without.
"""

_PAD, _END = "<|endoftext|>", "<|im_end|>"
_HEADERS = [f"<|im_start|>{role}\n" for role in ("system", "user", "assistant", "tool")]
_PIECES = r"\d{1,2}|[()\[\]]|[^\d()\[\]]+"
"""Where merges stop: numbers and brackets stay apart from the words around them."""


def make_tiny_tokenizer(
    conversations: Iterable[Sequence[Message]], *, vocab_size: int = 768
) -> PreTrainedTokenizerBase:
    """Trains a byte-level tokenizer on conversations as its chat template renders them.

    Args:
        conversations: examples of what the model will read and write; a few hundred are enough.
        vocab_size: at most so many tokens, at least 400; what is frequent in the examples comes first.

    Raises:
        ModelError: `vocab_size` is too small for the bytes, the numbers and the message headers.
    """
    special = [_PAD, _END, "<|im_start|>", *_HEADERS]
    if vocab_size < 400:
        msg = f"vocab_size must be at least 400 (bytes, numbers, message headers), got {vocab_size}"
        raise ModelError(msg)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    texts = _pieces(core, conversations)
    # Two-digit numbers, as often as any piece can be, so that none is left out.
    numbers = [" ".join(map(str, range(10, 100)))] * (1 + len(texts))
    trainer = tokenizer_trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*texts, *numbers], trainer)
    return _wrap(core)


def make_tiny_model(
    conversations: Iterable[Sequence[Message]],
    *,
    vocab_size: int = 768,
    hidden_size: int = 128,
    num_layers: int = 3,
    num_heads: int = 4,
    num_kv_heads: int | None = None,
    context_length: int = 1024,
    seed: int = 0,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    """Makes a Qwen3 model with random weights, about 0.7 million of them, and a tokenizer for it.

    Both are ordinary: `save_pretrained` writes them, and `AutoModelForCausalLM` and `AutoTokenizer` read them back.

    Args:
        conversations: to train the tokenizer on.
        vocab_size: at most so many tokens.
        hidden_size: width; divisible by `num_heads`.
        num_layers: depth.
        num_heads: attention heads.
        num_kv_heads: heads of keys and values, a divisor of `num_heads`; by default as many.
        context_length: longest conversation in tokens.
        seed: of the weights; the global random state is left as it was.

    Raises:
        ModelError: a size does not fit.
    """
    if hidden_size % (2 * num_heads):
        msg = f"hidden_size must be a multiple of 2 * num_heads = {2 * num_heads}, got {hidden_size}"
        raise ModelError(msg)
    shared = num_heads if num_kv_heads is None else num_kv_heads
    if shared < 1 or num_heads % shared:
        msg = f"num_kv_heads must be a divisor of num_heads = {num_heads}, got {num_kv_heads}"
        raise ModelError(msg)
    tokenizer = make_tiny_tokenizer(conversations, vocab_size=vocab_size)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=shared,
        head_dim=hidden_size // num_heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=cast("int", tokenizer.eos_token_id),
        pad_token_id=cast("int", tokenizer.pad_token_id),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    return model, tokenizer


def _wrap(core: Tokenizer) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=_END,
        pad_token=_PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _pieces(core: Tokenizer, conversations: Iterable[Sequence[Message]]) -> list[str]:
    """Returns the rendered texts, cut at the special tokens, which merges must not cross."""
    untrained = _wrap(core)
    cut = re.compile("|".join(map(re.escape, [*_HEADERS, _END])))
    texts: list[str] = []
    for conversation in conversations:
        rendered = untrained.apply_chat_template(cast("list[dict[str, str]]", list(conversation)), tokenize=False)
        texts += filter(None, cut.split(cast("str", rendered)))
    return texts
