"""HumanEvalFix rows and Harbor folders."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from agentenv.envs.code_repair import (
    CodeRepair,
    Grader,
    RepairTask,
    Submission,
    check_task,
    read_folder,
    read_harbor,
    read_humanevalfix,
    read_tasks,
)
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
    right = Submission({path: str(content).encode() for path, content in task.solution.items()})
    return [Grader().grade(task, s).solved for s in (right, Submission(), Submission({"solution.py": b""}))]


def test_a_row_of_humanevalfix():
    (task,) = read_tasks([ROW])
    assert task == read_humanevalfix(ROW)
    assert (task.id, task.kind) == ("Python/x", "excess logic")
    assert "Return x + 1." in task.instruction
    assert "up(1) == 2" in str(task.workspace()["tests/test_visible.py"])
    assert "randint" not in json.dumps(task.workspace())
    assert verdicts(task) == [True, False, False]


def test_a_row_of_another_language_is_an_error():
    with pytest.raises(TaskError, match=r"row 0: canonical_solution is no Python"):
        read_tasks([ROW | {"canonical_solution": "    return x; }"}])


@pytest.mark.slow
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
    right = Submission({path: str(content).encode() for path, content in task.solution.items()})
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
    right = Submission({path: str(content).encode() for path, content in task.solution.items()})
    solved = [Grader().grade(task, one).solved for one in (right, Submission(), Submission({"lib/m.py": b""}))]
    assert solved == [True, False, False]


def test_pytest_files_and_cases_both_decide(folder):
    (folder / "tests" / "test_outputs.py").write_text("from lib.m import f\n\n\ndef test_f():\n    assert f(1) == 2\n")
    task = read_harbor(folder)
    right = Submission({path: str(content).encode() for path, content in task.solution.items()})
    grade = Grader().grade(task, right)
    assert (grade.passed, grade.total) == (3, 3)
    (folder / "tests" / "test_outputs.py").write_text("x = 1\n")
    with pytest.raises(TaskError, match=r"no test function in test_outputs\.py"):
        read_harbor(folder)


def test_a_folder_that_is_no_task_is_an_error(folder):
    (folder / "tests" / "cases.txt").rename(folder / "tests" / "cases.md")
    with pytest.raises(TaskError, match=r"must be in tests/cases\.txt .* found none"):
        read_harbor(folder)
    (folder / "task.toml").write_text("metadata = 1")
    with pytest.raises(TaskError, match="metadata must be a table"):
        read_harbor(folder)
    (folder / "instruction.md").unlink()
    (folder / "task.toml").write_text("")
    with pytest.raises(TaskError, match=r"instruction\.md"):
        read_harbor(folder)


def test_files_of_a_folder_are_taken_as_they_are(folder):
    place = folder / "environment"
    (place / "run.sh").write_bytes(b"#!/bin/sh\r\necho hi\n")
    (place / "tool").write_bytes(b"#!/bin/sh\necho runs\n")
    (place / "tool").chmod(0o755)
    (place / "logo.png").write_bytes(b"\x89PNG\0\xff")
    (place / "old.py").write_bytes("x = 'café'\r\n".encode("latin-1"))
    (place / "windows.py").write_bytes(b"x = 1\r\ny = 2\r\n")
    task = read_harbor(folder)
    assert task.executable == ("tool",)
    assert RepairTask.model_validate_json(task.model_dump_json()) == task
    with closing(CodeRepair(tasks=[task])) as env:
        env.reset(seed=0)
        assert env.sandbox is not None
        for path in ("run.sh", "tool", "logo.png", "old.py", "windows.py"):
            assert env.sandbox.read(path) == (place / path).read_bytes(), path
        assert env.sandbox.exec(["./tool"]).stdout == "runs\n"
        assert env.sandbox.exec(["test", "-x", "run.sh"]).exit_code == 1
    right = Submission({path: str(content).encode() for path, content in task.solution.items()})
    assert [Grader().grade(task, one).solved for one in (right, Submission())] == [True, False]


def test_a_folder_without_visible_tests_says_so(folder):
    (folder / "task.toml").write_text('[agentenv]\nsetup = "from lib.m import f"\n')
    action = {"role": "assistant", "tool_calls": [{"function": {"name": "run_tests", "arguments": {}}}]}
    with closing(CodeRepair(tasks=folder)) as env:
        env.reset(seed=0)
        observation, *_ = env.step(action)
        assert observation[0]["content"] == "this task has no visible tests; write some and run them with `run`"
    (folder / "task.toml").write_text('[agentenv]\nsetup = "from lib.m import f"\ntest_command = "echo mine"\n')
    with closing(CodeRepair(tasks=str(folder))) as env:
        env.reset(seed=0)
        assert env.step(action)[0][0]["content"] == "mine\n[exit code 0]"


@pytest.fixture
def plain(tmp_path):
    """A project as it lies there, with visible tests of its own, and what makes it a task beside."""
    files = {
        "instruction.md": "half() is wrong.",
        "halves.py": "def half(x):\n    return x // 2 + 1\n",
        "README.md": "Halves.",
        "tests/test_halves.py": "from halves import half\n\n\ndef test_half():\n    assert half(2) == 1\n",
        "hidden/test_more.py": "from halves import half\n\n\ndef test_more():\n    assert half(8) == 4\n",
        "hidden/cases.txt": "__import__('halves').half(6) == 3\n",
        "solution/halves.py": "def half(x):\n    return x // 2\n",
        "__pycache__/halves.pyc": "\0",
    }
    for path, content in files.items():
        (tmp_path / "task" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "task" / path).write_text(content)
    return tmp_path / "task"


def test_a_folder_with_code_becomes_a_task_without_a_line_of_python(plain):
    (task,) = read_tasks(plain)
    assert set(task.workspace()) == {"halves.py", "README.md", "tests/test_halves.py"}
    with closing(CodeRepair(tasks=str(plain.parent))) as env:  # the folder above it: one task
        env.reset(seed=0)

        def ask(name, **arguments):
            action = {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
            return env.step(action)

        assert "1 failed" in ask("run_tests")[0][0]["content"]
        ask("edit_file", path="halves.py", old=" + 1", new="")
        assert "1 passed" in ask("run_tests")[0][0]["content"]
        assert ask("submit")[1] == 1.0
    (plain / "hidden" / "cases.txt").write_text("__import__('halves').half(6) == 4\n")
    with pytest.raises(TaskError, match=r"'task': its own solution is right in 0 of 1: .* it returned 3"):
        check_task(read_folder(plain))


def test_a_folder_without_tasks_is_an_error(tmp_path):
    (tmp_path / "code.py").write_text("x = 1\n")
    with pytest.raises(TaskError, match=r"no task: there must be instruction\.md"):
        read_tasks(tmp_path)


OURS = {
    "instruction": "x",
    "files": {"m.py": "def f():\n    return 1\n"},
    "setup": "from m import f",
    "hidden": [{"call": "f()", "expected": "2"}],
}


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_rows_of_tables(missing, tmp_path):
    pandas = pytest.importorskip("pandas")
    other = {**OURS, "files": {"n.py": "def f():\n    return 0\n"}, "kind": "boundary", "setup": "from n import f"}
    other["hidden"] = [{"call": "f(1)", "raises": "TypeError"}]
    table = pandas.DataFrame([{**OURS, "kind": missing}, other])
    first, second = read_tasks(table)
    assert (first.kind, second.kind) == ("", "boundary")
    assert list(first.files) == ["m.py"]
    as_text = table.assign(files=table["files"].map(json.dumps), hidden=table["hidden"].map(json.dumps))
    assert read_tasks(as_text) == (first, second)
    pytest.importorskip("pyarrow")
    table.to_parquet(tmp_path / "rows.parquet")  # every row gets all keys of all rows there
    assert read_tasks(tmp_path / "rows.parquet") == (first, second)
    with pytest.raises(TaskError, match=r"row 1.*canonical_solution"):
        read_tasks(pandas.DataFrame([ROW, ROW | {"canonical_solution": missing}]))


def test_a_line_separator_inside_of_a_text_is_no_new_row(tmp_path):
    row = OURS | {"instruction": "a\u2028b\x85c"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_tasks(tmp_path / "rows.jsonl")[0].instruction == "a\u2028b\x85c"


def test_bad_rows_can_be_left_out():
    with pytest.warns(UserWarning, match="1 of 2 rows cannot be used"):
        assert len(read_tasks([OURS, {"instruction": "x"}], on_bad_row="skip")) == 1
