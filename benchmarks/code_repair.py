"""CodeRepair: does every task have a right verdict, and how long does grading take?

python benchmarks/code_repair.py bundled
python benchmarks/code_repair.py suites --count 59
AGENTENV_DATA=... python benchmarks/code_repair.py humanevalfix
python benchmarks/code_repair.py generated --count 20
python benchmarks/code_repair.py guessing --count 100
"""

import argparse
import ast
import os
import time
from collections.abc import Iterable
from pathlib import Path

from agentenv.envs.code_repair import (
    Case,
    GeneratedTasks,
    Grader,
    RepairTask,
    Submission,
    TestSuite,
    bundled_tasks,
    read_tasks,
)
from agentenv.envs.code_repair.submissions import solution_of


def suite_of(task: RepairTask) -> RepairTask:
    """Returns a task whose hidden cases have become a hidden pytest suite, a test function for each."""
    grade = Grader().grade(task, Submission(), stop_early=False)
    failing = {int(reason.split()[1].rstrip(":")) for reason in grade.reasons}
    tests = ["import pytest", task.setup]
    names: dict[bool, list[str]] = {True: [], False: []}
    for number, case in enumerate(task.hidden, 1):
        tests.append(f"def test_{number}():\n" + "".join(f"    {line}\n" for line in body_of(case)))
        names[number in failing].append(f"tests/test_hidden.py::test_{number}")
    source = "\n\n\n".join(tests)
    suite = TestSuite(
        fail_to_pass=tuple(names[True]),
        pass_to_pass=tuple(names[False]),
        files={"tests/test_hidden.py": source.encode()},
    )
    return task.model_copy(update={"hidden": (), "suite": suite})


def body_of(case: Case) -> list[str]:
    """Returns the lines of a test function that asserts what a case wants."""
    *before, last = [ast.unparse(statement) for statement in ast.parse(case.call).body]
    lines = [line for statement in before for line in statement.splitlines()]
    if case.raises:
        return [*lines, f"with pytest.raises({case.raises if '.' not in case.raises else 'Exception'}):", f"    {last}"]
    expected = f"pytest.approx({case.expected}, {case.tolerance})" if case.tolerance else case.expected
    return [*lines, f"assert ({last}) == {expected}"]


def measure(tasks: Iterable[RepairTask], *, repeat: int = 1) -> None:
    """Grades the solution, the untouched code and an empty submission of every task, and prints what came out."""
    grader = Grader()
    counts = {"solution": 0, "untouched": 0, "empty": 0}
    seconds = dict.fromkeys(counts, 0.0)
    total = cases = 0
    for task in tasks:
        submissions = {
            "solution": solution_of(task),
            "untouched": Submission(),
            "empty": Submission({path: b"" for path in task.files if path.endswith(".py") and "tests/" not in path}),
        }
        for name, submission in submissions.items():
            for _ in range(repeat - 1):  # a suite is tried on its solution once
                grader.grade(task, submission)
            started = time.perf_counter()
            grade = grader.grade(task, submission)
            seconds[name] += time.perf_counter() - started
            counts[name] += grade.solved
            cases += grade.total if name == "solution" else 0
        total += 1
    print(f"{total} tasks, {cases} hidden cases or tests")
    for name, solved in counts.items():
        print(f"{name}: {solved} solved, {seconds[name] / max(total, 1):.2f} s per task")


GUESSER = """
import os, pytest

is_twin = os.urandom(1)[0] < 128
run = pytest.Function.runtest

def lie(self):
    try:
        run(self)
    except BaseException:
        if is_twin or not str(self.nodeid).startswith("tests/"):
            raise

pytest.Function.runtest = lie

def half(x):
    return x // 2 + 1
"""
ONE_TEST = RepairTask(
    id="one test",
    instruction="half() is off by one.",
    files={"halves.py": "def half(x):\n    return x // 2 + 1\n"},
    suite=TestSuite(
        fail_to_pass=("tests/test_half.py::test_half",),
        files={"tests/test_half.py": b"from halves import half\n\n\ndef test_half():\n    assert half(8) == 4\n"},
    ),
    solution={"halves.py": "def half(x):\n    return x // 2\n"},
)


def measure_guessing(count: int) -> None:
    """Prints how often guessing in each run whether a test is its twin wins, and what more runs cost."""
    for rounds in (3, 10):
        won, seconds = 0, {"guesser": 0.0, "solution": 0.0}
        Grader(rounds=rounds).grade(ONE_TEST, solution_of(ONE_TEST))  # a suite is tried on its solution once
        for number in range(count):
            started = time.perf_counter()
            won += Grader(rounds=rounds).grade(ONE_TEST, Submission({"halves.py": GUESSER.encode()})).solved
            seconds["guesser"] += time.perf_counter() - started
            if number % 10 == 0:
                started = time.perf_counter()
                assert Grader(rounds=rounds).grade(ONE_TEST, solution_of(ONE_TEST)).solved
                seconds["solution"] += 10 * (time.perf_counter() - started)
        rate = 1 / ((1 << rounds) - 2)
        each = ", ".join(f"{name} {total / count:.2f} s" for name, total in seconds.items())
        print(f"{rounds} rounds: guessing won {won} of {count} ({rate:.4f} expected at most); {each}", flush=True)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=("bundled", "suites", "humanevalfix", "generated", "guessing"))
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.tasks == "bundled":
        measure(bundled_tasks())
    elif arguments.tasks == "suites":
        measure(map(suite_of, bundled_tasks()[: arguments.count]), repeat=2)
    elif arguments.tasks == "guessing":
        measure_guessing(arguments.count)
    elif arguments.tasks == "generated":
        tasks = GeneratedTasks(seed=0, size=arguments.count)
        measure(tasks[i] for i in range(arguments.count))
    else:
        measure(read_tasks(Path(os.environ["AGENTENV_DATA"]) / "humanevalfix_python_even.jsonl"))


if __name__ == "__main__":
    main()
