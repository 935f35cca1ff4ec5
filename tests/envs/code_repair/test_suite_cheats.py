"""No cheat passes a hidden suite, and every honest repair does."""

import importlib.util
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cheats_everywhere import everywhere, shares, verdicts_of_anybody
from sandbox_backends import open_at, skip_without

from agentenv.envs.code_repair import Grader, collect_submission
from agentenv.envs.code_repair.submissions import solution_of, spec_of
from agentenv.envs.code_repair.suite_planning import draw_runs, make_plan
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


def grade(files, command="", task=given.TASK, place="namespace", rounds=4):
    """Grades what an agent wrote, or did with a command, in its own sandbox."""
    opens, grader = open_sandbox, GRADER
    if place != "namespace":
        skip_without(place)
        opens = open_at(place)
        grader = Grader(opens, secret="secret of the tests", rounds=rounds)
    with closing(opens(spec_of(task))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        return grader.grade(task, collect_submission(sandbox, task))


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.FILES, every=20)])
def test_no_cheat_is_accepted(place, name):
    assert not grade(cheats.FILES[name], place=place).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(cheats.BENDING, every=0)])
def test_no_cheat_is_accepted_where_one_test_decides(place, name):
    assert not grade(cheats.FILES[name], task=given.ONE, place=place).solved


@pytest.mark.parametrize("task", [given.TASK, given.ONE], ids=["many", "one"])
@pytest.mark.parametrize(("place", "name"), [*everywhere(guesses.FILES, every=0)])
def test_no_cheat_that_guesses_is_accepted(place, name, task):
    result = grade(guesses.FILES[name], task=task, place=place, rounds=GRADER.rounds)
    assert not result.solved
    # on gvisor numbers of processes do not go on as one of them expects, and it counts until it is out of time
    assert result.tampered or task is not given.ONE or place == "gvisor", result.reasons


@pytest.mark.parametrize(("place", "name"), [*everywhere(given.COMMANDS, every=0)])
def test_no_cheat_by_command_is_accepted(place, name):
    assert not grade({}, given.COMMANDS[name], place=place).solved


@pytest.mark.parametrize(("place", "name"), [*everywhere(given.HONEST, every=4)])
def test_every_honest_repair_is_accepted(place, name):
    result = grade(given.HONEST[name], place=place)
    assert result.solved, result.reasons


@pytest.mark.parametrize("share", shares(34))
def test_verdicts_for_an_ordinary_user(ordinary_user, share):
    wrong = {name: (files, "") for name, files in cheats.FILES.items()}
    wrong |= {name: ({}, command) for name, command in given.COMMANDS.items()}
    right = {name: (files, "") for name, files in given.HONEST.items()}
    tried = {name: wrong[name] for name in [*wrong][share::34]}
    honest = {name: right[name] for name in [*right][share::34]}
    verdicts = verdicts_of_anybody(ordinary_user, given.TASK, tried | honest, rounds=4)
    assert verdicts == {name: name in honest for name in tried | honest}


def test_there_are_enough_of_them():
    assert len(cheats.FILES) + len(given.COMMANDS) >= 22
    assert len(given.HONEST) >= 6


def test_guessing_is_right_in_one_case_of_a_thousand_and_the_grade_says_so():
    rounds = Grader().rounds
    assert 1 / (2**rounds - 2) <= 1e-3
    plan = make_plan(open_sandbox, given.TASK, given.SUITE)
    assert plan.guess_rate(rounds) == 1 / (2**rounds - 2)
    name, generator = plan.deciding[0], np.random.default_rng(0)
    patterns = [tuple(name in run.twins for run in draw_runs(plan, rounds, generator)) for _ in range(4_000)]
    assert len({*patterns}) > 950  # of 1,022, each as likely as another
    assert max(patterns.count(pattern) for pattern in {*patterns}) < 20
    assert all(any(pattern) and not all(pattern) for pattern in patterns)
    for other in plan.sampled:  # the tests that shall go on passing are as hard to bend
        drawn = {tuple(other in run.twins for run in draw_runs(plan, rounds, generator)) for _ in range(400)}
        assert len(drawn) > 250
    solved = Grader(rounds=4).grade(given.TASK, solution_of(given.TASK))
    assert (solved.solved, solved.guess_rate) == (True, 1 / 14)
    without = replace(plan, sites={key: found for key, found in plan.sites.items() if key != name})
    assert without.guess_rate(rounds) == 1.0


COIN = """
import os, pytest
is_twin, run = os.urandom(1)[0] < 128, pytest.Function.runtest

def lie(self):
    try:
        run(self)
    except BaseException:
        if is_twin or not str(self.nodeid).startswith("tests/"):
            raise

pytest.Function.runtest = lie
"""


def test_a_submission_that_flips_a_coin_in_each_run_is_found_out():
    """Of twelve, each wins in one case of 1,022; two of them do so in one of 15,000. Of three runs, two would win."""
    files = {"shop/bent.py": COIN, "shop/__init__.py": "import shop.bent\n"}
    assert sum(grade(files, task=given.ONE).solved for _ in range(12)) <= 1
