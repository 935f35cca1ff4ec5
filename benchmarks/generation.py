"""Speed of `TransformersAgent` against `model.generate`, on the frontier of a rollout, measured in one run.

    python benchmarks/generation.py                                # tiny model, one CPU core, about 2 minutes
    python benchmarks/generation.py --json generation.json
    python benchmarks/generation.py --model FOLDER --device cuda   # another model

The work: `rows` episodes of 4 turns, 8 episodes per question, 6 sampled tokens per action (stop tokens are switched
off, so that everybody samples as many), a short tool answer after each. `generate` gets the same prompts, left-padded,
and samples without returning log-probabilities, which ours does; it reads every conversation anew at every turn, like
ours with `keep_gib=0`. Seconds are of the processor for a CPU (`time.process_time`, one thread) and of the wall clock
for a GPU, the best of the repeats; rendering and parsing of messages are counted for ours and not for `generate`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentenv.agents import TransformersAgent
from agentenv.protocols import Context
from agentenv.trainers.tiny import make_tiny_model
from agentenv.types import Action, Message

TURNS, TOKENS, PER_TASK = 4, 6, 8

TokenIds = tuple[int, ...]


def question(task: int) -> Message:
    """A task's first message."""
    return {"role": "user", "content": f"Compute {task % 9 + 1} + {task % 7 + 2} * {task % 5 + 3} - 1."}


def tool_answer(row: int) -> Message:
    """What a calculator might answer."""
    return {"role": "tool", "name": "calculate", "tool_call_id": "call_0", "content": str(row % 90)}


def call(expression: str) -> Message:
    """An assistant message that calls the calculator."""
    return Action.parse(
        {"tool_calls": [{"function": {"name": "calculate", "arguments": {"expression": expression}}}]}
    ).to_message()


def tiny() -> tuple[Any, Any]:
    """A model with random weights and its tokenizer."""
    examples = [[question(i), call(f"{i % 9} * {i % 7}"), tool_answer(i), call(f"{i} + 1")] for i in range(200)]
    return make_tiny_model(examples)


class Ours:
    """Plays the episodes with an agent."""

    def __init__(self, model: Any, tokenizer: Any, keep_gib: float) -> None:
        self.agent = TransformersAgent(model, tokenizer, max_new_tokens=TOKENS, keep_gib=keep_gib)
        self.agent._sampler._stops = torch.tensor([-1])  # pyright: ignore[reportPrivateUsage]

    def play(self, rows: int) -> list[list[TokenIds]]:
        """Returns the prompts of every turn."""
        self.agent.reset()
        contexts = [Context((question(row // PER_TASK),), seed=row) for row in range(rows)]
        prompts: list[list[TokenIds]] = []
        for turn in range(TURNS):
            actions = self.agent.act(contexts)
            prompts.append([tuple(action.prompt_token_ids or ()) for action in actions])
            contexts = [
                Context(
                    (*context.messages, action.to_message(), tool_answer(row + turn)),
                    token_ids=(*(action.prompt_token_ids or ()), *(action.token_ids or ())),
                    covered=len(context.messages) + 1,
                    seed=context.seed + rows,
                )
                for row, (context, action) in enumerate(zip(contexts, actions, strict=True))
            ]
        return prompts


def generate(model: Any, prompts: Sequence[Sequence[TokenIds]]) -> None:
    """Samples from the same prompts with `model.generate`."""
    for turn in prompts:
        width = max(map(len, turn))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in turn], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in turn], device=model.device)
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            pad_token_id=0,
            eos_token_id=None,
        )


def best_seconds(work: Callable[[], object], *, repeats: int, device: str) -> float:
    """Returns the least seconds of several runs, after one run to warm up."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    work()
    seconds: list[float] = []
    for _ in range(repeats):
        start = clock()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    return min(seconds)


def measure(model: Any, tokenizer: Any, rows: int, *, repeats: int) -> dict[str, float]:
    """Returns tokens per second by name."""
    device = model.device.type
    kept, anew = Ours(model, tokenizer, 4.0), Ours(model, tokenizer, 0.0)
    prompts = kept.play(rows)
    work: dict[str, Callable[[], object]] = {
        "generate": lambda: generate(model, prompts),
        "ours, nothing kept": lambda: anew.play(rows),
        "ours": lambda: kept.play(rows),
    }
    tokens = rows * TURNS * TOKENS
    return {name: tokens / best_seconds(run, repeats=repeats, device=device) for name, run in work.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 128, 512])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", type=Path, help="folder of a model and its tokenizer; a tiny one by default")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer = tiny()
    if options.model is not None:
        model = AutoModelForCausalLM.from_pretrained(options.model)
        tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = model.to(options.device).eval()

    size = sum(parameter.numel() for parameter in model.parameters())
    table = Table(
        title=f"sampled tokens per second, {size:,} parameters, {options.device}, {options.threads} thread(s)"
    )
    for column in ("episodes", "generate", "ours, nothing kept", "ours", "ours / generate"):
        table.add_column(column, justify="right")
    results: list[dict[str, float]] = []
    for rows in options.rows:
        speed = measure(model, tokenizer, rows, repeats=options.repeats)
        ratio = speed["ours"] / speed["generate"]
        results.append({"rows": rows, "ratio": ratio, **speed})
        table.add_row(str(rows), *(f"{value:,.0f}" for value in speed.values()), f"{ratio:.1f}")
    Console().print(table)
    if options.json is not None:
        record = {"parameters": size, "device": options.device, "threads": options.threads, "results": results}
        options.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
