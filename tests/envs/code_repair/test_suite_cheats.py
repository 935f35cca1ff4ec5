"""No cheat passes a hidden suite, and every honest repair does."""

import importlib.util
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sandbox_backends import marks, open_at, skip_without

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
ENGINES = ("docker", "podman")
GRADER = Grader(secret="secret of the tests")


def grade(files, command="", task=given.TASK, place=""):
    """Grades what an agent wrote, or did with a command, in its own sandbox."""
    opens, grader = open_sandbox, GRADER
    if place:
        skip_without(place)
        opens = open_at(place)
        grader = Grader(opens, secret="secret of the tests", rounds=4)
    with closing(opens(spec_of(task))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        return grader.grade(task, collect_submission(sandbox, task))


@pytest.mark.parametrize("name", cheats.FILES)
def test_no_cheat_is_accepted(name):
    assert not grade(cheats.FILES[name]).solved


def on_engines(names):
    """One on each engine; with CHEATS_EVERYWHERE=1, all."""
    for number, name in enumerate(names):
        for offset, place in enumerate(ENGINES):
            if os.environ.get("CHEATS_EVERYWHERE") == "1" or number % 80 == offset * 40:
                yield pytest.param(place, name, marks=marks(place), id=f"{place}-{name}")


@pytest.mark.parametrize(("place", "name"), [*on_engines(cheats.FILES)])
def test_no_cheat_is_accepted_on_an_engine(place, name):
    assert not grade(cheats.FILES[name], place=place).solved


@pytest.mark.parametrize("place", [pytest.param(place, marks=marks(place)) for place in ENGINES])
def test_an_honest_repair_is_accepted_on_an_engine(place):
    assert grade(given.HONEST["the reference"], place=place).solved


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
