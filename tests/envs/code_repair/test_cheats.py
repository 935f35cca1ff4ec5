"""No cheat is accepted, and every honest repair is."""

import importlib.util
from contextlib import closing
from pathlib import Path

import pytest
from cheats_everywhere import everywhere, shares, verdicts_of_anybody
from sandbox_backends import open_at, skip_without

from agentenv.envs.code_repair import CodeRepair, Grader, collect_submission
from agentenv.envs.code_repair.submissions import spec_of

_SPEC = importlib.util.spec_from_file_location("code_repair_cheats", Path(__file__).parent / "cheats.py")
assert _SPEC is not None
assert _SPEC.loader is not None
cheats = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cheats)


def grade(place, files, command=""):
    """Grades what an agent wrote, or did with a command, in its own sandbox."""
    skip_without(place)
    with closing(open_at(place)(spec_of(cheats.TASK))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        grader = Grader(open_at(place), case_timeout_s=3.0)
        return grader.grade(cheats.TASK, collect_submission(sandbox, cheats.TASK))


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.FILES, every=1)])
def test_no_cheat_is_accepted(place, name):
    assert not grade(place, cheats.FILES[name]).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.COMMANDS, every=1)])
def test_no_cheat_by_command_is_accepted(place, name):
    assert not grade(place, {}, cheats.COMMANDS[name]).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.HONEST, every=1)])
def test_every_honest_repair_is_accepted(place, name):
    result = grade(place, cheats.HONEST[name])
    assert result.solved, result.reasons


@pytest.mark.parametrize("share", shares(12))
def test_verdicts_for_an_ordinary_user(ordinary_user, share):
    """What leaves something behind, and a share of the others and of the repairs; with CHEATS_EVERYWHERE=1, all."""
    wrong = {name: (files, "") for name, files in cheats.FILES.items()}
    wrong |= {name: ({}, command) for name, command in cheats.COMMANDS.items()}
    left = {name: wrong.pop(name) for name in cheats.LEAVING}
    right = {name: (files, "") for name, files in cheats.HONEST.items()}
    tried = {name: wrong[name] for name in [*wrong][share::12]} | ({} if share else left)
    honest = {name: right[name] for name in [*right][share::12]}
    verdicts = verdicts_of_anybody(ordinary_user, cheats.TASK, tried | honest, case_timeout_s=3.0)
    assert verdicts == {name: name in honest for name in tried | honest}


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
