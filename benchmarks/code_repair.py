"""CodeRepair: does every task have a right verdict, and how long does grading take?

python benchmarks/code_repair.py bundled
AGENTENV_DATA=... python benchmarks/code_repair.py humanevalfix
python benchmarks/code_repair.py generated --count 20
"""

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path

from agentenv.envs.code_repair import GeneratedTasks, Grader, RepairTask, Submission, bundled_tasks, read_tasks


def measure(tasks: Iterable[RepairTask]) -> None:
    """Grades the solution, the untouched code and an empty submission of every task, and prints what came out."""
    grader = Grader()
    counts = {"solution": 0, "untouched": 0, "empty": 0}
    seconds = dict.fromkeys(counts, 0.0)
    total = cases = 0
    for task in tasks:
        submissions = {
            "solution": Submission({path: content.encode() for path, content in task.solution.items()}),
            "untouched": Submission(),
            "empty": Submission({path: b"" for path in task.files if path.endswith(".py") and "tests/" not in path}),
        }
        for name, submission in submissions.items():
            started = time.perf_counter()
            grade = grader.grade(task, submission)
            seconds[name] += time.perf_counter() - started
            counts[name] += grade.solved
            cases += grade.total if name == "solution" else 0
        total += 1
    print(f"{total} tasks, {cases} hidden cases")
    for name, solved in counts.items():
        print(f"{name}: {solved} solved, {seconds[name] / max(total, 1):.2f} s per task")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", choices=("bundled", "humanevalfix", "generated"))
    parser.add_argument("--count", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.tasks == "bundled":
        measure(bundled_tasks())
    elif arguments.tasks == "generated":
        tasks = GeneratedTasks(seed=0, size=arguments.count)
        measure(tasks[i] for i in range(arguments.count))
    else:
        measure(read_tasks(Path(os.environ["AGENTENV_DATA"]) / "humanevalfix_python_even.jsonl"))


if __name__ == "__main__":
    main()
