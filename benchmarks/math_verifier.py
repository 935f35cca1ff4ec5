"""MathVerifier: throughput of verification, cost of a step, hostile answers (`graders.py` has the pairs).

python benchmarks/math_verifier.py throughput   # checks per second: our workers against a fresh process per check
python benchmarks/math_verifier.py steps        # microseconds per reset, step, snapshot, fork
python benchmarks/math_verifier.py hostile      # 1,000 answers that hang sympy, mixed with honest ones
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from agentenv.envs.math_verifier import MathVerifier, Verifier, WorkerPool, careful_calls

REQUEST = {"op": "verify", "gold": ["latex", "x"], "answer": ["latex", "x"]}
FRESH = "import sys; from math_verify import parse, verify; print(verify(parse(sys.argv[1]), parse(sys.argv[2])))"


def pairs(count: int) -> list[tuple[str, str, bool]]:
    """Returns distinct references and answers of the usual kinds, and whether they are equal."""
    forms: list[Callable[[int], tuple[str, str, bool]]] = [
        lambda i: (f"\\frac{{{i}}}{{7}}", f"{2 * i}/14", True),
        lambda i: (f"{i}\\sqrt{{2}}", f"\\sqrt{{{2 * i * i}}}", True),
        lambda i: (f"x^2-{i}", f"x^2 - {i + 1}", False),
        lambda i: (f"({i}, {i + 1})", f"x={i}, y={i + 1}", True),
        lambda i: (f"[{i},\\infty)", f"x \\ge {i + 1}", False),
        lambda i: (str(i), f"The answer is {i}.0 apples", True),
    ]
    return [forms[i % len(forms)](i + 2) for i in range(count)]


def quoted(text: str) -> str:
    """Returns a text as math-verify wants it: mathematics in dollar signs, a sentence as it is."""
    return text if "answer" in text else f"${text}$"


def throughput(_: argparse.Namespace) -> None:
    """Prints checks per second, each way of checking measured on pairs it has not seen."""
    checks = pairs(1_800)
    rates: dict[str, float] = {}

    def measure(name: str, part: list[tuple[str, str, bool]], check: Callable[[tuple[str, str, bool]], bool]) -> None:
        start = time.perf_counter()
        wrong = sum(check(pair) != pair[2] for pair in part)
        rates[name] = len(part) / (time.perf_counter() - start)
        print(f"{name:48} {rates[name]:10.1f} checks/s  ({len(part)} checks, {wrong} wrong)", flush=True)

    def fresh(pair: tuple[str, str, bool]) -> bool:
        argv = [sys.executable, "-c", FRESH, quoted(pair[0]), quoted(pair[1])]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == "True"

    measure("a fresh process per check", checks[:12], fresh)
    with WorkerPool() as pool:
        verifier = Verifier(pool)
        verifier.check("x", "x+0")  # starts the processes
        measure("our workers, one thread", checks[:600], lambda pair: verifier.check(pair[0], pair[1]))
        start = time.perf_counter()
        with ThreadPoolExecutor(8) as threads:
            references, answers, expected = zip(*checks[600:], strict=True)
            verdicts = threads.map(verifier.check, references, answers)
            wrong = sum(verdict != right for verdict, right in zip(verdicts, expected, strict=True))
        rates["threads"] = 1_200 / (time.perf_counter() - start)
        name = f"our {pool.workers} workers, 8 threads"
        print(f"{name:48} {rates['threads']:10.1f} checks/s  (1200 checks, {wrong} wrong)")
        measure("the same pairs again (cached)", checks, lambda pair: verifier.check(pair[0], pair[1]))
        numbers = [(str(i), f"{i + i % 2}", i % 2 == 0) for i in range(20_000)]
        measure("plain numbers (no process)", numbers, lambda pair: verifier.check(pair[0], pair[1]))
    factor = rates["our workers, one thread"] / rates["a fresh process per check"]
    print(f"one thread is {factor:.0f} times as fast as a fresh process per check")


def startup(_: argparse.Namespace) -> None:
    """Prints how long the first check of a process takes, and a check right after the workers were killed."""
    start = time.perf_counter()
    with WorkerPool() as pool:
        pool.call(REQUEST)
        print(f"first check of a process, start included: {time.perf_counter() - start:.2f} s")
        waits: list[float] = []
        for _i in range(10):
            channel = pool.process_id
            assert channel is not None
            workers = subprocess.run(
                ["ps", "--ppid", str(channel), "-o", "pid="], capture_output=True, text=True, check=True
            )
            subprocess.run(["kill", "-9", *workers.stdout.split()], check=True)
            start = time.perf_counter()
            pool.call(REQUEST)
            waits.append(time.perf_counter() - start)
        print(f"a check right after all workers were killed: {1e3 * float(np.median(waits)):.1f} ms (median of 10)")


def steps(_: argparse.Namespace) -> None:
    """Prints what one reset, step, snapshot, restore and fork cost on arithmetic tasks."""
    env = MathVerifier(operations_per_call=1)
    spent: Counter[str] = Counter()
    counts: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        spent[name] += int(1e9 * (time.perf_counter() - start))
        counts[name] += 1
        return result

    env.reset(seed=0)
    for _i in range(1_000):
        timed("reset", env.reset)
        for call in careful_calls(env.task):
            action = {"role": "assistant", "tool_calls": [call.to_dict()]}
            snapshot = timed("snapshot", env.snapshot)
            timed("restore", env.restore, snapshot)
            timed("signature", env.state_signature)
            timed("step", env.step, action)
        timed("fork(8)", env.fork, 8)
    for name, count in counts.items():
        print(f"{name:10} {spent[name] / count / 1e3:8.1f} us")


HOSTILE = [
    "{0}**9**9**9**9",
    r"\boxed{{9^{{9^{{9^{{{0}}}}}}}}}",
    r"{0}00000000!",
    r"\boxed{{" + r"\sqrt{{{0}+" * 60 + "2" + "}}" * 60 + "}}",
    r"\sum_{{k=1}}^{{10^9}} \frac{{1}}{{k^{0}}}",
    r"\boxed{{" + "{{" * 900 + "{0}" + "}}" * 900 + "}}",
    "__import__('os').system('touch /tmp/agentenv_hostile_{0}')",
    "eval('{0}' * 10**9)",
    "(" * 900 + "{0}",
    r"\int_0^{0} e^{{e^{{x^x}}}} dx",
    r"\boxed{{{0}" + "0" * 1800 + "!}}",
    r"\binom{{10^9}}{{{0} \cdot 10^8}}",
    "{0}" + r"\\" * 700,
]


def hostile(arguments: argparse.Namespace) -> None:
    """Runs hostile and honest answers mixed, from threads; every honest verdict must be right."""
    seconds = arguments.cpu_limit
    half = arguments.count // 2
    honest = [(gold, answer, right) for gold, answer, right in pairs(half)]
    evil = [("7", HOSTILE[i % len(HOSTILE)].format(i + 11), False) for i in range(arguments.count - half)]
    mixed = [pair for both in zip(honest, evil, strict=True) for pair in both]
    start = time.perf_counter()
    with WorkerPool(cpu_limit_s=seconds) as pool, ThreadPoolExecutor(4) as threads:
        verifier = Verifier(pool)
        references, answers, _rights = zip(*mixed, strict=True)
        verdicts = list(threads.map(verifier.check, references, answers))
    took = time.perf_counter() - start
    wrong = [pair for pair, verdict in zip(mixed, verdicts, strict=True) if verdict != pair[2]]
    print(f"{len(mixed)} answers in {took:.0f} s at {seconds} s of processor time each; wrong verdicts: {len(wrong)}")
    for pair in wrong[:10]:
        print("   ", pair[:2])
    touched = list(Path("/tmp").glob("agentenv_hostile_*"))
    print(f"files touched by code in answers: {len(touched)}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function in (throughput, startup, steps, hostile):
        command = commands.add_parser(function.__name__, help=(function.__doc__ or "").splitlines()[0])
        command.set_defaults(function=function)
        if function is hostile:
            command.add_argument("--count", type=int, default=1_000)
            command.add_argument("--cpu-limit", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
