"""No cheat is accepted, and every honest repair is."""

import importlib.util
import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from sandbox_backends import marks, open_at, skip_without

from agentenv.envs.code_repair import CodeRepair, Grader, collect_submission
from agentenv.envs.code_repair.submissions import spec_of

_SPEC = importlib.util.spec_from_file_location("code_repair_cheats", Path(__file__).parent / "cheats.py")
assert _SPEC is not None
assert _SPEC.loader is not None
cheats = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cheats)
ENGINES = ("docker", "podman", "gvisor")


def everywhere(names):
    """Each on the namespace back end and on one engine in turn; with CHEATS_EVERYWHERE=1, on all of them."""
    for number, name in enumerate(names):
        engines = ENGINES if os.environ.get("CHEATS_EVERYWHERE") == "1" else (ENGINES[number % len(ENGINES)],)
        for place in ("namespace", *engines):
            yield pytest.param(place, name, marks=marks(place), id=f"{place}-{name}")


def grade(place, files, command=""):
    """Grades what an agent wrote, or did with a command, in its own sandbox."""
    skip_without(place)
    with closing(open_at(place)(spec_of(cheats.TASK))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        grader = Grader(open_at(place), case_timeout_s=3.0)
        return grader.grade(cheats.TASK, collect_submission(sandbox, cheats.TASK))


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.FILES)])
def test_no_cheat_is_accepted(place, name):
    assert not grade(place, cheats.FILES[name]).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.COMMANDS)])
def test_no_cheat_by_command_is_accepted(place, name):
    assert not grade(place, {}, cheats.COMMANDS[name]).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.HONEST)])
def test_every_honest_repair_is_accepted(place, name):
    result = grade(place, cheats.HONEST[name])
    assert result.solved, result.reasons


AS_ANYBODY = """
import json, os, tempfile
from contextlib import closing
from agentenv.envs.code_repair import Grader, RepairTask, collect_submission
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.sandboxes import open_sandbox
os.chdir(tempfile.mkdtemp())
task = RepairTask.model_validate_json(%r)
for name, files in json.loads(%r).items():
    with closing(open_sandbox(spec_of(task))) as sandbox:
        sandbox.upload(files)
        submission = collect_submission(sandbox, task)
    print(name, Grader(case_timeout_s=3.0).grade(task, submission).solved, sep=": ")
"""


def test_verdicts_for_an_ordinary_user(ordinary_user):
    """What leaves something behind, some of the others, and repairs; with CHEATS_EVERYWHERE=1, all."""
    step = 1 if os.environ.get("CHEATS_EVERYWHERE") == "1" else 12
    wrong = {**dict(list(cheats.FILES.items())[::step]), **cheats.LEAVING}
    right = dict(list(cheats.HONEST.items())[::step])
    for verdict, files in ((False, wrong), (True, right)):
        result = ordinary_user(AS_ANYBODY % (cheats.TASK.model_dump_json(), json.dumps(files)))
        assert result.returncode == 0, result.stderr
        assert result.stdout.splitlines() == [f"{name}: {verdict}" for name in files]


def test_there_are_enough_of_them():
    assert len(cheats.FILES) + len(cheats.COMMANDS) >= 22


def test_nothing_hidden_is_in_the_agents_sandbox():
    """Neither an input nor an expected value: not in files, environment, process list or memory files."""
    env = CodeRepair(tasks=[cheats.TASK])
    env.reset(seed=0)
    look = "cat /proc/*/environ /proc/*/cmdline 2>/dev/null; grep -rhsI . /workspace /tmp /run /dev/shm 2>/dev/null"
    with closing(env):
        action = {"tool_calls": [{"function": {"name": "run", "arguments": {"command": "true"}}}]}
        env.step({"role": "assistant", "content": "", **action})
        assert env.sandbox is not None
        seen = env.sandbox.exec(look).stdout
    assert "119.0" in seen  # the visible case
    for hidden in ("36.0", "238.0", "[200]", "yy"):
        assert hidden not in seen
