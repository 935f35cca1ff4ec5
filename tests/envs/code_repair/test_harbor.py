"""Harbor's folders, out and in: every bundled task as one, and a lone test.sh as the judge."""

import os
import subprocess
import tomllib
from contextlib import closing

import pytest

from agentenv.envs.code_repair import (
    CodeRepair,
    Grader,
    RepairTask,
    Submission,
    TestProgram,
    TestScript,
    TestSuite,
    bundled_tasks,
    check_task,
    read_case,
    read_folder,
    read_tasks,
)
from agentenv.envs.code_repair.suites import as_bytes
from agentenv.errors import TaskError
from agentenv.exports import write_harbor


def repaired(task):
    return Submission({path: as_bytes(content) for path, content in task.solution.items()}, task.removed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("harbor")
    return dict(zip([task.id for task in bundled_tasks()], write_harbor(bundled_tasks(), place), strict=True))


def test_every_bundled_task_comes_back_from_its_folder(folders):
    assert len(folders) == len(bundled_tasks()) == 59
    for task in bundled_tasks():
        again = read_folder(folders[task.id])
        assert again.workspace() == task.workspace()
        for name in ("id", "setup", "visible", "hidden", "solution", "editable", "kind", "difficulty", "script"):
            assert getattr(again, name) == getattr(task, name), (task.id, name)
        assert again.instruction.strip() == task.instruction.strip()
    assert len(read_tasks(folders["cache/recency"].parent)) == 59


def test_the_parts_that_harbor_wants_are_there(folders):
    place = folders["calc/power"] if "calc/power" in folders else next(iter(folders.values()))
    settings = tomllib.loads((place / "task.toml").read_text())
    assert settings["task"]["name"] == f"agentenv/{place.name}"
    assert settings["environment"]["network_mode"] == "no-network"
    for script in ("tests/test.sh", "solution/solve.sh"):
        assert os.access(place / script, os.X_OK)
        assert subprocess.run(["sh", "-n", place / script], check=False).returncode == 0
    assert "COPY" in (place / "environment" / "Dockerfile").read_text()


@pytest.mark.parametrize("number", [40])
def test_the_script_that_is_written_pays_for_the_solution_alone(number, folders):
    """Run as Harbor runs it, with its paths, in a sandbox."""
    task = bundled_tasks()[number]
    tests = folders[task.id] / "tests"
    files = {path.relative_to(tests).as_posix(): path.read_bytes() for path in tests.rglob("*") if path.is_file()}
    fields = task.model_dump(exclude={"hidden"}) | {"script": TestScript(files=files)}
    scripted = RepairTask.model_validate(fields)
    grades = [Grader().grade(scripted, one) for one in (repaired(task), Submission(), wrong(task))]
    assert [grade.solved for grade in grades] == [True, False, False], [grade.details for grade in grades]


def wrong(task):
    """A submission whose every file ends the interpreter."""
    return Submission(dict.fromkeys(task.solution, b"import os\nos._exit(0)\n"))


def test_modes_binary_files_suites_and_images_come_along(tmp_path):
    suite = TestSuite(
        fail_to_pass=("tests/test_m.py::test_f",),
        files={"tests/test_m.py": b"from m import f\n\n\ndef test_f():\n    assert f() == 1\n"},
    )
    task = RepairTask(
        id="odd one/..x",
        instruction="Repair.",
        files={"m.py": "def f():\n    return 0\n", "run me": b"#!/bin/sh\r\n", "logo.png": b"\x89PNG\0\xff"},
        executable=("run me",),
        suite=suite,
        solution={"m.py": "def f():\n    return 1\n"},
        removed=("logo.png",),
        image="local/odd:1",
    )
    (place,) = write_harbor([task], tmp_path)
    again = read_folder(place)
    assert {path: as_bytes(text) for path, text in again.files.items()} == {
        path: as_bytes(text) for path, text in task.files.items()
    }
    assert (again.executable, again.image, again.removed) == (task.executable, task.image, task.removed)
    assert again.suite is not None
    assert again.suite.fail_to_pass == suite.fail_to_pass
    assert {path: as_bytes(text) for path, text in again.suite.files.items()} == suite.files
    assert "rm -rf /app/logo.png" in (place / "solution" / "solve.sh").read_text()
    assert "FROM local/odd:1" in (place / "environment" / "Dockerfile").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"Dockerfile": "FROM x"}}, "has a file 'Dockerfile', a name that Harbor's layout keeps"),
        (
            {"program": TestProgram(program="f()", function="f", reference="f = int"), "hidden": ()},
            "has a test program",
        ),
    ],
)
def test_what_harbor_cannot_hold_is_refused(change, words, tmp_path):
    task = RepairTask(id="t", instruction="x", files={"m.py": ""}, hidden=(read_case("1 == 1"),))
    with pytest.raises(TaskError, match=words):
        write_harbor([task.model_copy(update=change)], tmp_path)
    with pytest.raises(TaskError, match="another one has the folder 't', too"):
        write_harbor([task, task], tmp_path)
    assert list(tmp_path.iterdir()) == []


CHECK = r"""import sys
sys.path.insert(0, '/app')
from m import f
assert f(2) == 3
assert open('/tests/data.bin', 'rb').read() == b'\xff/app'
"""
SCRIPT = """#!/bin/bash
if python3 /tests/check.py; then echo 1 > /logs/verifier/reward.txt; else echo 0 >/logs/verifier/reward.txt; fi
"""
SOLVE = "#!/bin/bash\ncp /solution/right.py /app/m.py\n"


@pytest.fixture
def foreign(tmp_path):
    """A folder as others write them: a script decides, and a script repairs."""
    files = {
        "task.toml": "[verifier]\ntimeout_sec = 20.0\n[verifier.env]\nWORD = 'x'\n",
        "instruction.md": "Repair f.",
        "environment/Dockerfile": "FROM python:3.13\n",
        "environment/m.py": "def f(x):\n    return x\n",
        "tests/test.sh": SCRIPT,
        "tests/check.py": CHECK,
        "solution/solve.sh": SOLVE,
        "solution/right.py": "def f(x):\n    return x + 1\n",
    }
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "tests" / "data.bin").write_bytes(b"\xff/app")
    return tmp_path


RIGHT = Submission({"m.py": b"def f(x):\n    return x + 1\n"})


def test_a_lone_script_decides_and_says_what_it_promises(foreign):
    task = read_folder(foreign)
    assert task.script is not None
    assert (task.script.timeout_s, task.script.env) == (20.0, {"WORD": "x"})
    assert "can read its tests and write its verdict" in task.promise
    assert RepairTask.model_validate_json(task.model_dump_json()) == task
    check_task(task)  # solve.sh first
    right, untouched = (Grader().grade(task, one) for one in (RIGHT, Submission()))
    assert (right.solved, right.guess_rate) == (True, 1.0)
    assert (untouched.fraction, untouched.reasons) == (0.0, ("test.sh gave 0",))
    assert bundled_tasks()[0].promise == ""


def test_an_episode_with_a_lone_script(foreign):
    with closing(CodeRepair(tasks=foreign)) as env:
        env.reset(seed=0)
        write = {"name": "write_file", "arguments": {"path": "m.py", "content": "def f(x):\n    return x + 1\n"}}
        env.step({"role": "assistant", "tool_calls": [{"function": write}]})
        done = env.step({"role": "assistant", "tool_calls": [{"function": {"name": "submit", "arguments": {}}}]})
        assert done[1:3] == (1.0, True)


def test_what_no_script_can_promise_is_so(foreign):
    """The reason why it is told: code of the submission that the script runs writes the verdict."""
    reward = "/tmp/.harbor/logs/verifier/reward.txt"
    forged = f"import os\nopen('{reward}', 'w').write('1')\nos.kill(os.getppid(), 9)\n".encode()
    assert Grader().grade(read_folder(foreign), Submission({"m.py": forged})).solved


@pytest.mark.parametrize(
    ("line", "fraction", "why"),
    [
        ("echo '{\"reward\": 0.505}' > /logs/verifier/reward.json", 0.5, "test.sh gave 0.505"),
        ("echo 0.9999 > /logs/verifier/reward.txt", 0.99, "test.sh gave 0.9999"),
        ("echo 7 > /logs/verifier/reward.txt", 0.0, "test.sh wrote no reward"),
        ("echo nan > /logs/verifier/reward.txt", 0.0, "test.sh wrote no reward"),
        ("exit 3", 0.0, "test.sh wrote no reward"),
        ("sleep 60", 0.0, "test.sh timed out"),
    ],
)
def test_rewards_that_scripts_write(line, fraction, why, foreign):
    (foreign / "tests" / "test.sh").write_text(f"{line}\n")
    (foreign / "task.toml").write_text("[verifier]\ntimeout_sec = 1.5\n")
    grade = Grader().grade(read_folder(foreign), RIGHT)
    assert (grade.fraction, grade.reasons) == (fraction, (why,))


def test_a_solution_that_its_script_refuses_is_an_error(foreign):
    (foreign / "solution" / "right.py").write_text("def f(x):\n    return 0\n")
    with pytest.raises(
        TaskError, match=r"its own solution does not pass its test\.sh: test\.sh gave 0: (.|\n)*AssertionError"
    ):
        CodeRepair(tasks=foreign)
    with pytest.raises(ValueError, match="or a 'script' instead of them"):
        RepairTask.model_validate(read_folder(foreign).model_dump() | {"hidden": [{"call": "1", "expected": "1"}]})


def test_the_grader_is_python_alone(folders):
    text = (next(iter(folders.values())) / "tests" / "grade.py").read_text()
    assert "import agentenv" not in text
    assert "from agentenv" not in text
