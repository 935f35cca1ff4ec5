"""Agents against what they could do at best: a server behind a network, and vLLM's engine.

    python benchmarks/agents.py server                   # OpenAIAgent at 256 episodes, about two minutes on 2 cores
    python benchmarks/agents.py server --profile         # and what its time goes into
    .ci/vllm python benchmarks/agents.py engine tools    # VLLMAgent, about 3 minutes; where vLLM is
    python benchmarks/agents.py --json agents.json
    python benchmarks/agents.py --small                  # the same code on little work, for tests

Every number is a ratio of two measurements of this run, on the wall clock.

server     256 episodes at once of 8 steps through `Rollout` and `OpenAIAgent`, against a real HTTP server in a process
           of its own that answers after 50 ms of latency and the time that a model takes to write 40 tokens at 25 a
           second. The ideal: every episode waits for its own answers and for nothing else. Then the same with answers
           that take the 50 ms alone, which no client in one Python process keeps up with: against the ideal, and
           against the same requests sent by `AsyncOpenAI` alone, and by httpx alone, which only decodes the JSON: both
           without episodes, environments and agent.
engine     64 and 256 prompts, 64 sampled tokens each, with a seed each and log-probabilities: tokens per second through
           `VLLMAgent.act`, messages rendered and parsed, over those of vLLM's `LLM.generate` on the same ids.
tools      128 episodes of 5 steps, 64 at once, whose tool takes 0 to 200 ms, and 0 to 2 s, evenly spread; and 256
           whose tool takes up to 2 s, but mostly little (2 s times the third power of a uniform number: one in five
           takes more than a second), as tests, searches and compilers do. `Concurrent`, where every episode goes on as
           soon as its own answer is there, against `InStep`, where all wait for the slowest; and how many times the
           mean the slowest of 64 such tools takes, which is what can be won where models take no time.
"""

import argparse
import asyncio
import cProfile
import importlib.util
import json
import os
import pstats
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import agentenv as ae
from agentenv.rollout import Concurrent, Rollout

Row = tuple[str, str, float]
Spent = tuple[float, float]
"""Seconds on the clock, and of CPU."""

SERVER = r"""
import asyncio, json, sys

call = {"id": "c", "type": "function", "function": {"name": "walk", "arguments": "{}"}}
message = {"role": "assistant", "content": None, "tool_calls": [call]}
choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
body = json.dumps(answer)
head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
delay = float(sys.argv[1])


class Serve(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.read = transport, b""

    def data_received(self, data):
        self.read += data
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            asked = self.read[:end].lower()
            at = asked.find(b"content-length:")
            length = int(asked[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self.read) < end + 4 + length:
                return
            self.read = self.read[end + 4 + length :]
            asyncio.get_running_loop().call_later(delay, self.transport.write, (head + body).encode())


async def main():
    server = await asyncio.get_running_loop().create_server(Serve, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""
"""Costs as little as can be: the client shares the machine with it."""


class Walk(ae.ToolEnv):
    """Takes steps until the limit."""

    def start(self, task: Any) -> str:  # noqa: ARG002
        """Begins."""
        return "Take steps."

    @ae.tool
    def walk(self) -> str:
        """Take a step."""
        return "ok"


class Serving:
    """The server, as long as it is needed."""

    def __init__(self, delay: float) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, str(delay)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def __enter__(self) -> str:
        return self.url

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def played(url: str, episodes: int, steps: int, profile: cProfile.Profile | None = None) -> float:
    """Seconds that so many episodes take, all at once, over connections that are open."""
    from agentenv.agents import OpenAIAgent

    agent = OpenAIAgent(url, "m", concurrency=episodes, record_tokens=False)
    executor = Concurrent(workers=4)
    with Rollout(lambda: Walk(max_steps=steps), agent, executor=executor, keep_snapshots=False) as rollout:
        rollout.grow([None], episodes)  # opens connections and environments
        if profile is not None:
            _profile_loop(executor, profile)
        began = time.perf_counter()
        rollout.grow([None], episodes)
        spent = time.perf_counter() - began
        if profile is not None:
            _call_in(executor, profile.disable)
        assert rollout.failures == 0
    executor.close()
    return spent


def _profile_loop(executor: Any, profile: cProfile.Profile) -> None:
    _call_in(executor, profile.enable)


def _call_in(executor: Any, function: Callable[[], None]) -> None:
    async def call() -> None:
        function()

    asyncio.run_coroutine_threadsafe(call(), executor._started()).result()


Ask = Callable[[], Any]


def by_openai(url: str, body: dict[str, Any]) -> tuple[Any, Ask]:
    """A client of the library that people use, and how it asks."""
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

    async def ask() -> Any:
        return await client.chat.completions.create(**body)

    return client, ask


def by_httpx(url: str, body: dict[str, Any]) -> tuple[Any, Ask]:
    """A client that sends and decodes JSON, and does nothing else."""
    import httpx

    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=600)

    async def ask() -> Any:
        return (await client.post(f"{url}/chat/completions", json=body)).json()

    return client, ask


def bare(url: str, episodes: int, steps: int, made: Callable[[str, dict[str, Any]], tuple[Any, Ask]]) -> Spent:
    """Seconds that the same requests take through a client alone, on the clock and of CPU."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Take steps."}], "tools": list(Walk().tools)}

    async def run() -> Spent:
        opened, ask = made(url, body)
        async with opened:

            async def episode(count: int) -> None:
                for _ in range(count):
                    await ask()

            await asyncio.gather(*(episode(1) for _ in range(episodes)))
            began, used = time.perf_counter(), time.process_time()
            await asyncio.gather(*(episode(steps) for _ in range(episodes)))
            return time.perf_counter() - began, time.process_time() - used

    return asyncio.run(run())


def server(repeats: int, *, small: bool, profile: bool = False) -> list[Row]:
    """Episodes at once against a server with latency."""
    episodes, steps = (8, 2) if small else (256, 8)
    latency, writing = 0.05, 0.05 if small else 1.6
    rows: list[Row] = []
    name = f"{episodes} episodes at once, {steps} steps"
    with Serving(latency + writing) as url:
        spent = min(played(url, episodes, steps) for _ in range(repeats))
        ideal = steps * (latency + writing)
        rows.append((f"{name}, 50 ms latency and {1000 * writing:.0f} ms of writing", "ideal / ours", ideal / spent))
    with Serving(latency) as url:
        count, used = episodes * steps, time.process_time()
        spent = min(played(url, episodes, steps) for _ in range(repeats))
        used = (time.process_time() - used) / (repeats * episodes * (2 * steps))  # each is played twice
        alone = {
            name: min(bare(url, episodes, steps, made) for _ in range(repeats))
            for name, made in (("AsyncOpenAI", by_openai), ("httpx", by_httpx))
        }
        few = min(played(url, 16 if not small else 4, steps) for _ in range(repeats))
        rows += [
            (f"{name}, 50 ms latency alone", "ideal / ours", steps * latency / spent),
            *(
                (f"{name}, 50 ms latency alone", f"{client} alone / ours", s / spent)
                for client, (s, _) in alone.items()
            ),
            *(
                (f"{name}, 50 ms latency alone", f"CPU milliseconds per request, {client} alone", 1000 * used / count)
                for client, (_, used) in alone.items()
            ),
            (
                f"{name}, 50 ms latency alone",
                "CPU milliseconds per request that the ideal leaves",
                1000 * latency / episodes,
            ),
            (f"{name}, 50 ms latency alone", "requests per second, ours", episodes * steps / spent),
            (f"{name}, 50 ms latency alone", "CPU milliseconds per step, ours, all in all", 1000 * used),
            (f"16 episodes at once, {steps} steps, 50 ms latency alone", "ideal / ours", steps * latency / few),
        ]
        if profile:
            profiler = cProfile.Profile()
            played(url, episodes, steps, profiler)
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    return rows


def engine(repeats: int, *, small: bool) -> list[Row]:
    """VLLMAgent against batch generation; see agents_vllm.py."""
    return _with_vllm().engine(repeats, small=small)


def tools(repeats: int, *, small: bool) -> list[Row]:
    """Lock-step against episodes that go on alone; see agents_vllm.py."""
    return _with_vllm().tools(repeats, small=small)


def _with_vllm() -> Any:
    """The file beside this one: not by name, so that it is found with PYTHONSAFEPATH too."""
    spec = importlib.util.spec_from_file_location("agents_vllm", Path(__file__).with_name("agents_vllm.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PARTS: dict[str, Callable[..., list[Row]]] = {
    "server": server,
    **({"engine": engine, "tools": tools} if importlib.util.find_spec("vllm") else {}),
}


def main() -> None:
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which; all by default")
    parser.add_argument("--repeats", type=int, default=3, help="measurements, of which the best counts")
    parser.add_argument("--small", action="store_true", help="little work, for tests: the numbers mean nothing")
    parser.add_argument("--profile", action="store_true", help="of server: prints what the client's time goes into")
    parser.add_argument("--json", type=Path, help="writes the rows there")
    arguments = parser.parse_args()
    table = Table("work", "ratio", "value")
    rows: list[Row] = []
    for name in arguments.parts or PARTS:
        options = {"profile": True} if arguments.profile and name == "server" else {}
        for row in PARTS[name](arguments.repeats, small=arguments.small, **options):
            rows.append((f"{name}: {row[0]}", *row[1:]))
            table.add_row(rows[-1][0], row[1], f"{row[2]:.3g}")
    Console(width=150).print(table)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.json:
        records = [{"work": work, "ratio": ratio, "value": value} for work, ratio, value in rows]
        arguments.json.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
