"""HumanEvalFix rows and Harbor folders."""

import json
import os
from pathlib import Path

import pytest

from agentenv.envs.code_repair import Grader, Submission, read_harbor, read_humanevalfix, read_tasks
from agentenv.errors import TaskError

ROW = {
    "task_id": "Python/x",
    "declaration": "def helper(x):\n    return x + 1\n\n\ndef up(x):\n",
    "buggy_solution": "    return helper(x) + 1\n",
    "canonical_solution": "    return helper(x)\n",
    "test": "def check(up):\n    import random\n    for _ in range(3):\n        n = random.randint(0, 99)\n"
    "        assert up(n) == helper(n)\n    assert abs(up(0.5) - 1.5) < 1e-6\n\ncheck(up)\n",
    "example_test": "def check(up):\n    assert up(1) == 2\ncheck(up)\n",
    "entry_point": "up",
    "bug_type": "excess logic",
    "docstring": "Return x + 1.",
}


def verdicts(task):
    """Whether the solution, the untouched code and an empty file are solved."""
    right = Submission({path: content.encode() for path, content in task.solution.items()})
    return [Grader().grade(task, s).solved for s in (right, Submission(), Submission({"solution.py": b""}))]


def test_a_row_of_humanevalfix():
    (task,) = read_tasks([ROW])
    assert task == read_humanevalfix(ROW)
    assert (task.id, task.kind) == ("Python/x", "excess logic")
    assert "Return x + 1." in task.instruction
    assert "up(1) == 2" in task.workspace()["tests/test_visible.py"]
    assert "randint" not in json.dumps(task.workspace())
    assert verdicts(task) == [True, False, False]


def test_a_row_of_another_language_is_an_error():
    with pytest.raises(TaskError, match=r"row 0: canonical_solution is no Python"):
        read_tasks([ROW | {"canonical_solution": "    return x; }"}])


@pytest.mark.data
def test_real_rows_of_humanevalfix():
    """Every eighth row; `benchmarks/code_repair.py humanevalfix` grades them all."""
    path = Path(os.environ["AGENTENV_DATA"]) / "humanevalfix_python_even.jsonl"
    tasks = read_tasks(path)
    assert len(tasks) == 82
    for task in tasks[::8]:
        assert verdicts(task) == [True, False, False], task.id


@pytest.fixture
def folder(tmp_path):
    files = {
        "task.toml": '[metadata]\ndifficulty = "medium"\n[agentenv]\nsetup = "from lib.m import f"\n'
        'visible = ["f(1) == 2"]\n',
        "instruction.md": "Repair f.",
        "environment/Dockerfile": "FROM python:3.11\n",
        "environment/lib/m.py": "def f(x):\n    return x\n",
        "tests/cases.txt": "# hidden\nf(4) == 5\n\nf('a') raises TypeError\n",
        "solution/lib/m.py": "def f(x):\n    return x + 1\n",
        "solution/solve.sh": "cp m.py /app/lib\n",
    }
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    return tmp_path


def test_a_folder_in_harbors_layout(folder):
    task = read_harbor(folder)
    assert task.difficulty == 3
    assert set(task.workspace()) == {"lib/m.py", "tests/test_visible.py"}
    right = Submission({path: content.encode() for path, content in task.solution.items()})
    assert Grader().grade(task, right).solved
    assert not Grader().grade(task, Submission()).solved


HARBOR_TESTS = """import pathlib
import unittest

import pytest

from lib.m import f


@pytest.mark.parametrize("x", [1, 5])
def test_f(x):
    assert f(x) == x + 1


class TestMore:
    def test_text(self):
        with pytest.raises(TypeError):
            f("a")


class Data(unittest.TestCase):
    def test_data(self):
        text = (pathlib.Path(__file__).parent / "data" / "n.txt").read_text()
        self.assertEqual(f(int(text)), 8)
"""


def test_pytest_files_become_a_hidden_suite(folder):
    (folder / "tests" / "cases.txt").unlink()
    (folder / "tests" / "test.sh").write_text("pytest && echo 1 > /logs/verifier/reward.txt\n")
    (folder / "tests" / "test_outputs.py").write_text(HARBOR_TESTS)
    (folder / "tests" / "data").mkdir()
    (folder / "tests" / "data" / "n.txt").write_text("7")
    task = read_harbor(folder)
    assert task.suite is not None
    assert task.suite.fail_to_pass == tuple(
        f"tests/test_outputs.py::{name}" for name in ("test_f", "TestMore::test_text", "Data::test_data")
    )
    assert set(task.suite.files) == {"tests/test_outputs.py", "tests/data/n.txt"}
    assert set(task.workspace()) == {"lib/m.py", "tests/test_visible.py"}
    right = Submission({path: content.encode() for path, content in task.solution.items()})
    solved = [Grader().grade(task, one).solved for one in (right, Submission(), Submission({"lib/m.py": b""}))]
    assert solved == [True, False, False]


def test_pytest_files_and_cases_both_decide(folder):
    (folder / "tests" / "test_outputs.py").write_text("from lib.m import f\n\n\ndef test_f():\n    assert f(1) == 2\n")
    task = read_harbor(folder)
    right = Submission({path: content.encode() for path, content in task.solution.items()})
    grade = Grader().grade(task, right)
    assert (grade.passed, grade.total) == (3, 3)
    (folder / "tests" / "test_outputs.py").write_text("x = 1\n")
    with pytest.raises(TaskError, match=r"no test function in test_outputs\.py"):
        read_harbor(folder)


def test_a_folder_that_is_no_task_is_an_error(folder):
    (folder / "tests" / "cases.txt").rename(folder / "tests" / "test.sh")
    with pytest.raises(TaskError, match=r"only test\.sh"):
        read_harbor(folder)
    (folder / "task.toml").write_text("metadata = 1")
    with pytest.raises(TaskError, match="metadata must be a table"):
        read_harbor(folder)
    (folder / "instruction.md").unlink()
    (folder / "task.toml").write_text("")
    with pytest.raises(TaskError, match=r"instruction\.md"):
        read_harbor(folder)
