"""The tiny model: small, short actions, any text, and the same whenever it is made."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat import CONVERSATIONS, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentenv.agents.chat import ChatFormat
from agentenv.errors import ModelError
from agentenv.trainers.tiny import make_tiny_model, make_tiny_tokenizer


@given(st.text())
def test_any_text_comes_back(text: str):
    chat = ChatFormat(tiny()[1])
    assert chat.decode(chat.encode(text)) == text


def test_actions_are_short_and_their_pieces_meaningful():
    chat = ChatFormat(make_tiny_tokenizer(CONVERSATIONS))
    action = CONVERSATIONS[40][1]
    pieces = [chat.decode([token]) for token in chat.action_ids(action)]
    start = '<tool_call>\n{"name": "calculate", "arguments": {"expression": "'
    assert pieces == [start, "5", " * ", "2", '"}}\n</tool_call>', "<|im_end|>"]
    assert len(chat.action_ids(CONVERSATIONS[40][3])) == 4
    numbers = [chat.encode(str(number)) for number in range(100)]
    assert {len(ids) for ids in numbers} == {1}
    assert len(set(numbers)) == 100
    for role in ("system", "user", "assistant", "tool"):
        assert len(chat.encode(f"<|im_start|>{role}\n")) == 1


def test_the_template_renders_each_message_by_itself():
    tokenizer: Any = make_tiny_tokenizer(CONVERSATIONS)
    whole = tokenizer.apply_chat_template(CONVERSATIONS[7], tokenize=False)
    parts = [tokenizer.apply_chat_template([message], tokenize=False) for message in CONVERSATIONS[7]]
    assert whole == "".join(parts)
    assert parts[1] == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "calculate", "arguments": {"expression": "8 * 2"}}\n'
        "</tool_call><|im_end|>"
    )
    opened = tokenizer.apply_chat_template(CONVERSATIONS[7][:1], tokenize=False, add_generation_prompt=True)
    assert opened == parts[0] + "<|im_start|>assistant\n"


def test_text_comes_before_calls_and_calls_stand_apart():
    tokenizer: Any = make_tiny_tokenizer(CONVERSATIONS)
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    message = {"role": "assistant", "content": "Both.", "tool_calls": [call, call]}
    block = '\n<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
    rendered = tokenizer.apply_chat_template([message], tokenize=False)
    assert rendered == f"<|im_start|>assistant\nBoth.{block}{block}<|im_end|>"


def test_size_ties_and_saving(tmp_path: Any):
    model, tokenizer = cast("tuple[Any, Any]", make_tiny_model(CONVERSATIONS))
    assert 500_000 < sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([ChatFormat(tokenizer).encode("Compute 1 + 2.")])
    assert torch.equal(again.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    assert ChatFormat(loaded).encode("Compute é 12345.") == ChatFormat(tokenizer).encode("Compute é 12345.")
    assert loaded.apply_chat_template(CONVERSATIONS[3]) == tokenizer.apply_chat_template(CONVERSATIONS[3])


def made(seed: int) -> str:
    """Makes a model and returns a hash of its vocabulary and weights."""
    model, tokenizer = make_tiny_model(CONVERSATIONS, seed=seed)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    weights = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
    return hashlib.sha256(repr(vocabulary).encode() + weights).hexdigest()


def test_the_same_seed_makes_the_same_model_in_another_process():
    here = repr(str(Path(__file__)))
    program = f"import runpy; print(runpy.run_path({here})['made'](5))"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    before = torch.get_rng_state()
    assert made(5) == out.stdout.strip()
    assert torch.equal(torch.get_rng_state(), before)
    assert made(6) != out.stdout.strip()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ModelError, match=r"vocab_size must be at least 400 .*, got 300"):
        make_tiny_tokenizer(CONVERSATIONS, vocab_size=300)
    with pytest.raises(ModelError, match=r"hidden_size must be a multiple of 2 \* num_heads = 8, got 100"):
        make_tiny_model(CONVERSATIONS, hidden_size=100)
