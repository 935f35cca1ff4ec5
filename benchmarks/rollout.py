"""Rollouts against the obvious alternatives: engine overhead, many episodes, slow steps, branching, long episodes.

    python benchmarks/rollout.py                         # everything, about 4 minutes on 2 cores
    python benchmarks/rollout.py long branching          # some of it
    python benchmarks/rollout.py --json rollout.json
    python benchmarks/rollout.py --small                 # the same code on little work, for tests

Every number is a ratio of two measurements of this run, the best of `--repeats` each, on the wall clock.

overhead   64 episodes of MathVerifier with a tiny model: all that `Rollout.grow` takes, over the model's own calls.
many       1,000 scripted episodes of MathVerifier, two calculations and an answer: a plain loop over `reset`, `step`;
           TRL's own tool loop (GRPOTrainer with an environment_factory, its generation replaced by the same script);
           ours without tokens, and ours with the same chat template, tokens and parsing as TRL's.
slow       64 episodes whose steps take 50 ms, an agent in this process: ours, over one step after another.
branching  trees of depth 2 to 16, 8 continuations from every depth: continuing from snapshots, over playing every
           continuation again from the root; model tokens and seconds.
long       one episode of 10, 50, 200, 800 steps of 200 tokens: seconds per step, over those of the shortest.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

import agentenv as ae
from agentenv.agents import ScriptedAgent
from agentenv.protocols import AsyncAgent, Context
from agentenv.rollout import Concurrent, InStep, Rollout
from agentenv.tree import Anchor
from agentenv.types import Action, ToolCall, message_text

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Row = tuple[str, str, float]


def best(measure: Callable[[], float], repeats: int) -> float:
    """The least of several measurements."""
    return min(measure() for _ in range(repeats))


def seconds(work: Callable[[], object]) -> float:
    """How long some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---------------------------------------------------------------------- overhead


def tiny_agent(max_new_tokens: int) -> Any:
    """A tiny model with random weights, as an agent."""
    from agentenv.agents import TransformersAgent
    from agentenv.trainers.tiny import make_tiny_model

    examples: list[list[ae.Message]] = [
        [{"role": "user", "content": f"Compute {i} + {i * 7 % 11} * 3."}, {"role": "assistant", "content": str(i)}]
        for i in range(200)
    ]
    model, tokenizer = make_tiny_model(examples, context_length=8192)
    return TransformersAgent(model, tokenizer, max_new_tokens=max_new_tokens)


def overhead(repeats: int, *, small: bool) -> list[Row]:
    """All that growing takes, over the model's own calls."""
    episodes = 8 if small else 64
    agent = tiny_agent(8 if small else 24)
    ratios: list[float] = []
    for repeat in range(repeats + 1):
        agent.reset()
        with Rollout(lambda: ae.make("agentenv/MathVerifier-v0", max_steps=4), agent, seed=repeat) as rollout:
            rollout.grow([None] * (episodes // 8), 8)
            ledger = rollout.ledger
        ratios.append(ledger.wall_seconds / ledger.cost.agent_seconds)
    return [(f"{episodes} episodes, a tiny model", "all of grow / the model's calls", min(ratios[1:]))]


# ---------------------------------------------------------------------- many


def script(context: Context) -> Action:
    """Two calculations and a wrong answer."""
    step = sum(message["role"] == "assistant" for message in context.messages)
    if step < 2:
        return Action(tool_calls=(ToolCall("calculate", {"expression": f"{step + 2} * 3"}, "call_0"),))
    return Action(tool_calls=(ToolCall("submit", {"answer": "6"}, "call_0"),))


class ScriptedServer(AsyncAgent):
    """The script, as an agent that takes requests at any time."""

    async def respond(self, context: Context) -> Action:
        """Answers at once."""
        return script(context)


class ScriptedTokens:
    """The script in tokens: rendered by a chat template and read back, as a model's are."""

    def __init__(self, tokenizer: Any) -> None:
        from agentenv.agents.chat import ChatFormat

        self.chat = ChatFormat(tokenizer)
        self.ids: dict[str, tuple[int, ...]] = {}

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Renders every prompt, and parses every answer."""
        return [self.choose(context) for context in contexts]

    def choose(self, context: Context) -> Action:
        """One action with its tokens."""
        prompt, message = self.chat.prompt(context), script(context).to_message()
        name = json.dumps(message)
        ids = self.ids.get(name) or self.ids.setdefault(name, self.chat.action_ids(message, tools=context.tools))
        read = self.chat.parse(ids, tools=context.tools)
        return replace(read, token_ids=ids, logprobs=(0.0,) * len(ids), prompt_token_ids=prompt)


def make_math() -> Any:
    """An environment whose verifier is this process's."""
    return ae.make("agentenv/MathVerifier-v0", tasks=[{"question": "Compute 2 + 3.", "reference": "5"}])


def serial(count: int) -> None:
    """Episode after episode, by hand."""
    env = make_math()
    for i in range(count):
        observation, _ = env.reset(seed=i)
        messages, ended = tuple(observation), False
        while not ended:
            action = script(Context(messages, env.tools))
            observation, _, terminated, truncated, _ = env.step(action)
            messages, ended = (*messages, action.to_message(), *observation), terminated or truncated
    env.close()


def ours(count: int, agent: Any, executor: Any) -> None:
    """One tree of so many episodes."""
    with Rollout(make_math, agent, executor=executor, keep_snapshots=False) as rollout:
        rollout.grow([None], count)


def no_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    """TRL asks for a reward."""
    return [0.0] * len(completions)


def trl_loop(tokenizer: Any, model: Any, count: int) -> Callable[[], object]:
    """TRL's tool loop on the same episodes; its generation is replaced by the script."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    class Environment:
        """A MathVerifier as TRL wants it."""

        def __init__(self) -> None:
            self._env = make_math()

        def reset(self, **_: Any) -> None:
            """Starts an episode."""
            self._env.reset(seed=0)

        def calculate(self, expression: str) -> str:
            """Compute an expression.

            Args:
                expression: what to compute.
            """
            return self._answer("calculate", expression=expression)

        def submit(self, answer: str) -> str:
            """Submit the answer.

            Args:
                answer: the answer.
            """
            return self._answer("submit", answer=answer)

        def _answer(self, name: str, **arguments: str) -> str:
            observation = self._env.step(Action(tool_calls=(ToolCall(name, arguments, "call_0"),)))[0]
            return message_text(observation[0])

    said: ae.Message = {"role": "assistant", "content": ""}
    turns = [script(Context((said,) * n)).to_message() for n in range(3)]
    texts = [tokenizer.apply_chat_template([turns[i]], tokenize=False) for i in range(3)]
    starts = [text.index("<tool_call>") for text in texts]
    encoded = [tokenizer.encode(text[start:].rstrip("\n")) for text, start in zip(texts, starts, strict=True)]
    encoded.append(tokenizer.encode("done<|im_end|>"))

    class Scripted(GRPOTrainer):
        """Generates by the script."""

        turn = 0

        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            ids = encoded[self.turn % 4]
            self.turn += 1
            return [list(ids) for _ in prompt_ids], [[0.0] * len(ids) for _ in prompt_ids]

    args = GRPOConfig(
        output_dir="unused",
        per_device_train_batch_size=count,
        num_generations=2,
        max_completion_length=4096,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    rows = [{"prompt": [{"role": "user", "content": "Compute 2 + 3."}]}] * count
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer: Any = Scripted(
            model=model,
            processing_class=tokenizer,
            args=args,
            train_dataset=Dataset.from_list(rows),
            reward_funcs=cast("Any", no_reward),
            environment_factory=Environment,
        )
    prepare, generate = _parts_of(trainer)

    def work() -> None:
        trainer.turn = 0
        prepare(rows)
        generate([row["prompt"] for row in rows])
        metrics = trainer._metrics["train" if trainer.model.training else "eval"]
        made = metrics["tools/call_frequency"][-1], metrics["tools/failure_frequency"][-1]
        if made != (3.0, 0.0):
            msg = f"TRL made {made[0]} calls an episode, of which a share of {made[1]} failed; 3 and 0 are right"
            raise RuntimeError(msg)

    return work


def many(repeats: int, *, small: bool) -> list[Row]:
    """A thousand short episodes."""
    count = 40 if small else 1000
    from trl.chat_template_utils import qwen3_chat_template

    chat = tiny_agent(8)
    chat.tokenizer.chat_template = qwen3_chat_template  # TRL knows templates by their text
    ours(4, ScriptedServer(), None)  # starts the verifier's processes
    inside, server, stepped = ScriptedTokens(chat.tokenizer), Concurrent(), InStep()
    loop = best(lambda: seconds(lambda: serial(count)), repeats)
    work = trl_loop(chat.tokenizer, chat.model, count)
    theirs = best(lambda: seconds(work), repeats)
    plain = best(lambda: seconds(lambda: ours(count, ScriptedServer(), server)), repeats)
    batch = best(lambda: seconds(lambda: ours(count, ScriptedAgent(script), stepped)), repeats)
    tokens = best(lambda: seconds(lambda: ours(count, inside, stepped)), repeats)
    server.close()
    stepped.close()
    name = f"{count} scripted episodes of MathVerifier"
    return [
        (name, "a plain loop / ours, concurrent", loop / plain),
        (name, "a plain loop / ours, in step", loop / batch),
        (name, "TRL's tool loop / ours, concurrent, no tokens", theirs / plain),
        (name, "TRL's tool loop / ours, in step, no tokens", theirs / batch),
        (name, "TRL's tool loop / ours, in step, same tokens", theirs / tokens),
        (name, "episodes per second, ours concurrent", count / plain),
    ]


# ---------------------------------------------------------------------- slow steps


class Sleeper(ae.ToolEnv):
    """Every step takes a while."""

    max_steps = 2

    def __init__(self, pause: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        self.pause = pause

    def start(self, task: Any) -> str:  # noqa: ARG002
        """Begins."""
        return "Sleep."

    @ae.tool
    def sleep(self) -> str:
        """Sleep."""
        time.sleep(self.pause)
        return "slept"


def slow(repeats: int, *, small: bool) -> list[Row]:
    """Sixty-four episodes whose steps take 50 ms."""
    count = 8 if small else 64
    agent = ScriptedAgent(lambda _: Action(tool_calls=(ToolCall("sleep", {}, "call_0"),)))

    def run(executor: Any) -> float:
        with Rollout(Sleeper, agent, executor=executor) as rollout:
            return seconds(lambda: rollout.grow([None], count))

    one_by_one = run(InStep(workers=0))
    together = InStep(workers=64)
    at_once = best(lambda: run(together), repeats)
    default = best(lambda: run(None), repeats)
    return [
        (f"{count} episodes, steps of 50 ms", "one after another / 64 threads", one_by_one / at_once),
        (f"{count} episodes, steps of 50 ms", "one after another / ours by default", one_by_one / default),
    ]


# ---------------------------------------------------------------------- branching


class Corridor(ae.ToolEnv):
    """Walk on until the end; every step computes for a millisecond, as a tool does."""

    class State(ae.State):
        """How far it has come."""

        at: int = 0

    def start(self, task: Any) -> str:  # noqa: ARG002
        """Begins."""
        return "Walk."

    @ae.tool
    def walk(self) -> str:
        """Take a step."""
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass
        self.state.at += 1
        return f"at {self.state.at}"


class Walker:
    """Takes 20 tokens for a step, and a millisecond for each answer."""

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Walks on."""
        time.sleep(0.001 * len(contexts))
        return [self.choose(context) for context in contexts]

    def choose(self, context: Context) -> Action:
        """One step in tokens."""
        prompt = (*context.token_ids, *(7,) * (10 * (len(context.messages) - context.covered)))
        return Action("", (ToolCall("walk", {}, "call_0"),), (1,) * 20, (0.0,) * 20, prompt)


def branching(repeats: int, *, small: bool) -> list[Row]:
    """Continuing from snapshots against playing again from the root."""
    rows: list[Row] = []
    for depth in (2, 4) if small else (2, 4, 8, 16):

        def measure(depth: int = depth, *, forks: bool) -> tuple[float, int]:
            with Rollout(lambda: Corridor(max_steps=depth), Walker(), executor=InStep(workers=0)) as rollout:
                began = time.perf_counter()
                trees = rollout.grow([None], 1 if forks else 1 + 8 * (depth - 1))
                if forks:
                    rollout.extend(trees, [Anchor(0, node, 8) for node in sorted(trees[0].snapshots) if node])
                return time.perf_counter() - began, rollout.ledger.cost.tokens_sampled

        forked = min(measure(forks=True) for _ in range(repeats))
        again = min(measure(forks=False) for _ in range(repeats))
        rows.append((f"depth {depth}, 8 continuations a node", "seconds: from the root / forked", again[0] / forked[0]))
        rows.append((f"depth {depth}, 8 continuations a node", "tokens: from the root / forked", again[1] / forked[1]))
    return rows


# ---------------------------------------------------------------------- long episodes


class Counter(ae.ToolEnv):
    """Counts."""

    class State(ae.State):
        """How far it has come."""

        count: int = 0

    def start(self, task: Any) -> str:  # noqa: ARG002
        """Begins."""
        return "Count."

    @ae.tool
    def add(self) -> str:
        """Add one."""
        self.state.count += 1
        return str(self.state.count)


class Talker:
    """Says 190 tokens a step; observations have 10."""

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Adds one."""
        return [self.choose(context) for context in contexts]

    def choose(self, context: Context) -> Action:
        """One step in tokens."""
        return Action("", (ToolCall("add", {}, "call_0"),), (1,) * 190, (0.0,) * 190, context.token_ids + (7,) * 10)


def long(repeats: int, *, small: bool) -> list[Row]:
    """Time per step as an episode grows, and of reading its file."""
    import tempfile

    from agentenv.serialize import read_trees, write_trees

    lengths = (10, 50) if small else (10, 50, 200, 800)
    per_step: dict[int, float] = {}
    reading: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for steps in lengths:

            def measure(steps: int = steps) -> float:
                rounds = max(1, 100 // steps)
                with Rollout(lambda: Counter(max_steps=steps), Talker(), executor=InStep(workers=0)) as rollout:
                    spent = seconds(lambda: [rollout.grow([None], 1) for _ in range(rounds)])
                    write_trees(Path(folder) / "trees.jsonl", rollout.trees)
                return spent / rounds / steps

            per_step[steps] = best(measure, repeats)
            reading[steps] = best(lambda: seconds(lambda: read_trees(Path(folder) / "trees.jsonl")), repeats) / steps
    first = lengths[0]
    rows = [
        (f"{n} steps of 200 tokens", f"seconds per step / at {first} steps", per_step[n] / per_step[first])
        for n in lengths
    ]
    rows += [(f"{n} steps of 200 tokens", "milliseconds per step", 1000 * per_step[n]) for n in lengths]
    return rows + [(f"{n} steps of 200 tokens", "milliseconds to read, per step", 1000 * reading[n]) for n in lengths]


def _parts_of(trainer: Any) -> tuple[Callable[[Any], None], Callable[[Any], Any]]:
    """What TRL does between a batch and its completions: environments and their tools, then the tool loop."""
    import inspect

    def prepare(inputs: Sequence[Any]) -> None:
        trainer._batch_environments = [None] * len(inputs)
        pool = trainer._environment_pool[None]
        while len(pool) < len(inputs):
            pool.append(trainer.environment_factories[None]())
        trainer.environments = pool[: len(inputs)]
        trainer._sync_tool_dicts = []
        trainer._async_tool_dicts = [{} for _ in inputs]
        for environment in trainer.environments:
            names = [n for n, _ in inspect.getmembers(type(environment), inspect.isfunction) if n[0] != "_"]
            trainer._sync_tool_dicts.append({n: getattr(environment, n) for n in names if n != "reset"})
            environment.reset()

    return prepare, trainer._generate


PARTS: dict[str, Callable[..., list[Row]]] = {
    "overhead": overhead,
    "many": many,
    "slow": slow,
    "branching": branching,
    "long": long,
}


def main() -> None:
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the best counts")
    parser.add_argument("--small", action="store_true", help="little work, for tests: the numbers mean nothing")
    parser.add_argument("--json", type=Path, help="writes the rows there")
    arguments = parser.parse_args()
    table = Table("work", "ratio", "value")
    rows: list[Row] = []
    for name in arguments.parts or PARTS:
        for row in PARTS[name](arguments.repeats, small=arguments.small):
            rows.append((f"{name}: {row[0]}", *row[1:]))
            table.add_row(rows[-1][0], row[1], f"{row[2]:.3g}")
    Console(width=130).print(table)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.json:
        records = [{"work": work, "ratio": ratio, "value": value} for work, ratio, value in rows]
        arguments.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
