"""The parts of benchmarks/agents.py that need vLLM: its own batch generation, and episodes in lock-step.

Ratios are the median of `--repeats` pairs that are measured in turn.
"""

import importlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import agentenv as ae
from agentenv.agents import VLLMAgent
from agentenv.protocols import Context
from agentenv.rollout import Concurrent, InStep, Rollout
from agentenv.trainers.tiny import make_tiny_model
from agentenv.types import Message

Row = tuple[str, str, float]


class Waits(ae.ToolEnv):
    """Whatever the agent says, a tool that takes a random time answers."""

    longest = 0.2
    power = 1

    def start(self, task: Any) -> str:  # noqa: ARG002
        """Begins."""
        return f"Compute {self.np_random.integers(100)} + {self.np_random.integers(100)}."

    def respond(self, action: Any) -> str:  # noqa: ARG002
        """Takes its time, the same for the same seed."""
        time.sleep(float(self.longest * self.np_random.uniform() ** self.power))
        return "7"


@contextmanager
def _engine() -> Generator[Any]:
    """An engine with a tiny random model, in this process."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    with tempfile.TemporaryDirectory() as folder:
        llm = _make_engine(Path(folder))
        yield llm
        llm.llm_engine.engine_core.shutdown()


def _make_engine(folder: Path) -> Any:
    said: list[list[Message]] = [[{"role": "user", "content": f"Compute {i} + {i + 1}."}] for i in range(100)]
    model, tokenizer = make_tiny_model(said, hidden_size=64, num_layers=2, num_heads=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vllm: Any = importlib.import_module("vllm")
    options: dict[str, Any] = {"block_size": 32, "kv_cache_memory_bytes": 256 << 20, "enable_chunked_prefill": False}
    options |= {"dtype": "float32", "enforce_eager": True, "max_num_seqs": 256}
    return vllm.LLM(model=str(folder), logprobs_mode="processed_logprobs", **options)


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(ours: Callable[[], float], theirs: Callable[[], float], repeats: int) -> float:
    """The median of `ours / theirs`, measured in turn."""
    return statistics.median(ours() / theirs() for _ in range(repeats))


def engine(repeats: int, *, small: bool) -> list[Row]:
    """Tokens per second over those of batch generation."""
    with _engine() as llm:
        return _engine_rows(llm, 1 if small else repeats, small=small)


def tools(repeats: int, *, small: bool) -> list[Row]:
    """Seconds in lock-step over those of episodes that go on alone."""
    with _engine() as llm:
        return _tools_rows(llm, 1 if small else repeats, small=small)


def _engine_rows(llm: Any, repeats: int, *, small: bool) -> list[Row]:
    vllm: Any = importlib.import_module("vllm")
    rows: list[Row] = []
    for count in (8,) if small else (64, 256):
        generator = random.Random(0)
        with VLLMAgent(llm, max_tokens=8 if small else 64) as agent:
            texts = [" ".join(str(generator.randrange(100)) for _ in range(24)) for _ in range(count)]
            contexts = [Context(({"role": "user", "content": text},), seed=i) for i, text in enumerate(texts)]
            prompts: list[Any] = [{"prompt_token_ids": list(agent.chat.prompt(context))} for context in contexts]
            stops = sorted(agent.chat.stop_token_ids)
            params = [
                vllm.SamplingParams(
                    max_tokens=agent.max_tokens, seed=i, logprobs=0, detokenize=False, stop_token_ids=stops
                )
                for i in range(count)
            ]

            def ours(agent: VLLMAgent = agent, contexts: list[Context] = contexts) -> float:
                llm.reset_prefix_cache()
                actions: list[Any] = []
                spent = seconds(lambda: actions.extend(agent.act(contexts)))
                return sum(len(action.token_ids) for action in actions) / spent

            def theirs(prompts: list[Any] = prompts, params: list[Any] = params) -> float:
                llm.reset_prefix_cache()
                outputs: list[Any] = []
                spent = seconds(lambda: outputs.extend(llm.generate(prompts, params, use_tqdm=False)))
                return sum(len(output.outputs[0].token_ids) for output in outputs) / spent

            ours()
            theirs()
            work = f"{count} prompts of {len(prompts[0]['prompt_token_ids'])} tokens"
            rows.append((work, "tokens/s: VLLMAgent / LLM.generate", ratio(ours, theirs, repeats)))
            rows.append((work, "tokens/s through VLLMAgent", ours()))
    return rows


def _tools_rows(llm: Any, repeats: int, *, small: bool) -> list[Row]:
    rows: list[Row] = []
    at_once = 4 if small else 64
    for count, longest, power in ((8, 0.02, 1),) if small else ((128, 0.2, 1), (128, 2.0, 1), (256, 2.0, 3)):
        with VLLMAgent(llm, max_tokens=8 if small else 32) as agent:

            def played(
                executor: Any,
                agent: VLLMAgent = agent,
                count: int = count,
                longest: float = longest,
                power: int = power,
            ) -> float:
                def make() -> Waits:
                    env = Waits(max_steps=3 if small else 5)
                    env.longest, env.power = longest, power
                    return env

                with Rollout(make, agent, executor=executor, max_envs=at_once, keep_snapshots=False) as rollout:
                    return seconds(lambda: rollout.grow([None], count))

            executors = Concurrent(workers=at_once), InStep(workers=at_once)
            won = ratio(partial(played, executors[1]), partial(played, executors[0]), 1 if longest > 1 else repeats)
            for executor in executors:
                executor.close()
            spread = "evenly spread" if power == 1 else "most of them short"
            work = f"{count} episodes, {at_once} at once, tools of 0 to {longest:g} s, {spread}"
            rows.append((work, "seconds: lock-step / each alone", won))
            rows.append((work, "slowest tool of a round / mean", slowest_over_mean(at_once, power)))
    return rows


def slowest_over_mean(at_once: int, power: int) -> float:
    """How many times the mean the slowest tool of a round takes: what lock-step loses where all else takes no time.

    Of `n` independent `U^p`, `U` uniform on [0, 1], the largest is `n / (n + p)` in the mean, and each `1 / (p + 1)`:
    their quotient is `n (p + 1) / (n + p)`.
    """
    return at_once * (power + 1) / (at_once + power)
