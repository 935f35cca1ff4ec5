"""No cheat passes a hidden suite, and every honest repair does."""

import importlib.util
from contextlib import closing
from pathlib import Path

import pytest

from agentenv.envs.code_repair import Grader, collect_submission
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.sandboxes import open_sandbox


def load(name):
    """Returns a module of data that lies beside this one."""
    spec = importlib.util.spec_from_file_location(f"code_repair_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cheats, guesses, given = load("suite_cheats"), load("suite_guesses"), load("suite_task")
GRADER = Grader(secret="secret of the tests")


def grade(files, command="", task=given.TASK):
    """Grades what an agent wrote, or did with a command, in its own sandbox."""
    with closing(open_sandbox(spec_of(task))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        return GRADER.grade(task, collect_submission(sandbox, task))


@pytest.mark.parametrize("name", cheats.FILES)
def test_no_cheat_is_accepted(name):
    assert not grade(cheats.FILES[name]).solved


@pytest.mark.parametrize("name", cheats.BENDING)
def test_no_cheat_is_accepted_where_one_test_decides(name):
    assert not grade(cheats.FILES[name], task=given.ONE).solved


@pytest.mark.parametrize("task", [given.TASK, given.ONE], ids=["many", "one"])
@pytest.mark.parametrize("name", guesses.FILES)
def test_no_cheat_that_guesses_is_accepted(name, task):
    result = grade(guesses.FILES[name], task=task)
    assert not result.solved
    assert result.tampered or task is not given.ONE, result.reasons


@pytest.mark.parametrize("name", given.COMMANDS)
def test_no_cheat_by_command_is_accepted(name):
    assert not grade({}, given.COMMANDS[name]).solved


@pytest.mark.parametrize("name", given.HONEST)
def test_every_honest_repair_is_accepted(name):
    result = grade(given.HONEST[name])
    assert result.solved, result.reasons


def test_there_are_enough_of_them():
    assert len(cheats.FILES) + len(given.COMMANDS) >= 22
    assert len(given.HONEST) >= 6
