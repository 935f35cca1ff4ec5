"""A tiny random model and short conversations, for the tests that need a real one."""

from functools import cache
from typing import Any, cast

import torch

from agentenv.trainers.tiny import make_tiny_model
from agentenv.types import Message

__all__ = ["CONVERSATIONS", "answer", "call", "random_model", "tiny"]


def call(name: str, call_id: str = "call_0", **arguments: Any) -> Message:
    """An assistant message that calls one tool."""
    function = {"name": name, "arguments": arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def answer(content: str, name: str = "calculate", call_id: str = "call_0") -> Message:
    """A tool's answer."""
    return {"role": "tool", "content": content, "name": name, "tool_call_id": call_id}


CONVERSATIONS: list[list[Message]] = [
    [
        {"role": "user", "content": f"Compute {a} + {b} * 2."},
        call("calculate", expression=f"{b} * 2"),
        answer(str(2 * b)),
        call("submit", answer=str(a + 2 * b)),
    ]
    for a in range(1, 10)
    for b in range(1, 10)
]


def random_model(seed: int = 0) -> tuple[Any, Any]:
    """Model of 2 layers, width 64, whose distributions are far from uniform and often end a message; and tokenizer."""
    made = make_tiny_model(CONVERSATIONS, hidden_size=64, num_layers=2, num_heads=2, context_length=256)
    model, tokenizer = cast("Any", made[0]), cast("Any", made[1])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
        model.get_input_embeddings().weight[tokenizer.eos_token_id] += 0.35
    return model.eval(), tokenizer


@cache
def tiny() -> tuple[Any, Any]:
    """One such model for the tests that leave it as it is."""
    torch.set_num_threads(1)
    return random_model()
