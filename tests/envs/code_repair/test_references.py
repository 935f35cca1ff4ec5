"""A task that its own solution does not solve is an error that says why, before anyone is trained on it."""

import pickle
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentenv.envs.code_repair import CodeRepair, RepairTask, TestProgram, TestSuite, check_task, read_case, references
from agentenv.errors import TaskError
from agentenv.sandboxes import open_sandbox

RIGHT = RepairTask(
    id="one",
    instruction="Repair f.",
    files={"m.py": "def f(x):\n    return x\n"},
    setup="from m import f",
    hidden=(read_case("f(1) == 2"), read_case("f('a') raises TypeError")),
    solution={"m.py": "def f(x):\n    return x + 1\n"},
)
SUITE = TestSuite(
    fail_to_pass=("tests/test_f.py::test_f",),
    files={"tests/test_f.py": b"from m import f\ndef test_f(): assert f(1) == 3\n"},
)
PROGRAM = TestProgram(program="assert f(1) == 3", function="f", reference="def f(x):\n    return x + 1\n")
WRONG = {
    "a value": ({"hidden": (read_case("f(1) == 3"),)}, r"task 'one': .* case 1, `f\(1\)` == 3: it returned 2"),
    "a type": ({"hidden": (read_case("f(1) == 2.0"),)}, r"`f\(1\)` == 2\.0: it returned 2"),
    "an exception": ({"hidden": (read_case("f('a') raises ValueError"),)}, "raises ValueError: it raised: TypeError"),
    "no exception": ({"hidden": (read_case("f(1) raises ValueError"),)}, "raises ValueError: it returned 2"),
    "an import": ({"setup": "from m import g"}, "could not be imported: ImportError"),
    "time": ({"hidden": (read_case("[f(i) for i in iter(int, 1)] == []"),)}, "timed out"),
    "a value of its own": ({"hidden": (read_case("f == 2"),)}, "it returned {'o': 'builtins.function'}"),
    "a file that it may not change": ({"editable": ("*.txt",)}, "No submission may hold 'm.py'"),
    "a program": ({"hidden": (), "program": PROGRAM}, "does not accept its reference in call 1: AssertionError"),
    "a program that wants another function": (
        {"program": PROGRAM.model_copy(update={"program": "f(1)", "reference": "def f(x):\n    return -x\n"})},
        None,
    ),
    "a suite": ({"hidden": (), "suite": SUITE}, r"does not pass its suite: tests/test_f\.py::test_f: failed"),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", WRONG)
def test_a_task_that_its_solution_does_not_solve_is_an_error(name):
    change, why = WRONG[name]
    task = RepairTask.model_validate({**dict(RIGHT), **change})
    if why is None:  # the program takes any answer
        check_task(task)
        return
    with pytest.raises(TaskError, match=why):
        check_task(task, case_timeout_s=2.0)
    with pytest.raises(TaskError, match=why), closing(CodeRepair(tasks=[task], case_timeout_s=2.0)) as env:
        env.reset(seed=0)  # where the tests are a suite's
    with closing(CodeRepair(tasks=[task], check="never")) as env:
        env.reset(seed=0)


def test_a_task_that_pays_for_its_untouched_code_is_said_when_tasks_are_checked():
    """By `agentenv check`: an agent is not stopped from submitting at once, but whoever wrote the task is told."""
    seen = RIGHT.model_copy(update={"id": "two"})
    blind = RIGHT.model_copy(update={"hidden": (read_case("f('a') raises TypeError"),), "files": dict(RIGHT.solution)})
    with (
        closing(CodeRepair(tasks=[seen, blind])) as env,
        pytest.raises(TaskError, match="task 'one': its untouched code"),
    ):
        env.check_tasks()
    with closing(CodeRepair(tasks=[seen])) as env:
        env.check_tasks()


def test_rows_are_checked_when_they_are_loaded_and_once(cache):
    opened = []

    def opener(spec):
        opened.append(spec)
        return open_sandbox(spec)

    CodeRepair(tasks=[RIGHT], sandbox=opener)
    count = len(opened)
    assert count > 0
    env = CodeRepair(tasks=[RIGHT], sandbox=opener)
    pickle.loads(pickle.dumps(CodeRepair(tasks=[RIGHT])))
    assert len(opened) == count
    with closing(env):
        env.reset(seed=0)
        with closing(env.fork(1)[0]):
            assert len(opened) == count + 1  # its own: nothing is graded again
    assert list(cache.glob("agentenv/solved/*"))  # of `open_sandbox` itself, for later processes
    with pytest.raises(TaskError, match="case 1"):
        CodeRepair(tasks=[RIGHT.model_copy(update={"hidden": (read_case("f(1) == 1"),)})])
    late = CodeRepair(tasks=[RIGHT.model_copy(update={"hidden": (read_case("f(1) == 1"),)})], check="use")
    with closing(late), pytest.raises(TaskError, match="case 1"):
        late.reset(seed=0)


def test_what_a_process_found_out_the_next_one_knows(cache):
    code = (
        "import time, agentenv.envs.code_repair as c\n"
        f"task = c.RepairTask.model_validate_json({RIGHT.model_dump_json()!r})\n"
        "start = time.perf_counter(); c.check_task(task); print(time.perf_counter() - start)"
    )
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for _ in range(2)
    ]
    assert len(list(cache.glob("agentenv/solved/*"))) == 1
    assert seconds[1] < 0.1 * seconds[0]


@pytest.mark.parametrize("name", ["grading", "suite_grading", "twins", "script_grading", "suite_guest"])
def test_what_was_found_out_holds_for_the_code_that_grades_alone(name, tmp_path, monkeypatch):
    before = references._graders()
    copy = shutil.copytree(Path(references.__file__).parent, tmp_path / "code")
    monkeypatch.setattr(references, "__file__", str(copy / "references.py"))
    references._graders.cache_clear()
    assert references._graders() == before
    with (copy / f"{name}.py").open("a") as file:
        file.write("# another\n")
    references._graders.cache_clear()
    assert references._graders() != before
    references._graders.cache_clear()


def test_the_command_that_checks_says_which_task(tmp_path):
    path = tmp_path / "tasks.jsonl"
    wrong = RIGHT.model_copy(update={"hidden": (read_case("f(1) == 7"),)})
    path.write_text(f"{RIGHT.model_dump_json()}\n{wrong.model_dump_json()}\n")
    words = ["check", "agentenv/CodeRepair-v0", "--option", f"tasks={path}"]
    done = subprocess.run(
        [sys.executable, "-c", "from agentenv.cli import main; main()", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    text = " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert done.returncode != 0
    assert "case 1, `f(1)` == 7: it returned 2" in text
