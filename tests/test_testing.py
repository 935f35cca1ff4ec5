"""`check_env`: good environments pass, and each broken one fails exactly its law."""

import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import broken_envs
import gymnasium
import gymnasium.utils.env_checker
import pytest
from broken_envs import BROKEN, Sound
from envs_for_tests import Boxed, Dice, Dynamic, Guess, LocalDice, Notes, guess

import agentenv as ae
from agentenv.errors import CheckError, InfrastructureError
from agentenv.testing import CLAUSES, check_env, run_clauses
from agentenv.testing.probe import play

ALL = {clause.name for clause in CLAUSES}
NUMBERS = [
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"number": n}}}]}
    for n in (3, 1, 4, 5)
]


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    broken_envs.stop_leaks()


def verdicts(env, **options):
    return {result.name: result.outcome for result in run_clauses(env, **options)}


def test_there_is_a_broken_environment_for_every_law():
    assert len(ALL) == len(CLAUSES) == 15
    assert {law for law, _ in BROKEN.values()} == ALL


@pytest.mark.parametrize("method", ["snapshot", "restore"])
@pytest.mark.parametrize(("parent", "law"), [("RaisesOnBadText", "mistakes"), ("BlamesOthers", "blame")])
def test_what_every_action_is_tried_on_is_opened_anew_where_it_cannot_be_put_back(parent, law, method):
    def fails(self, *args):
        raise RuntimeError(method)

    broken = type("Broken", (getattr(broken_envs, parent),), {method: fails})
    clauses = [clause for clause in CLAUSES if clause.name in {"mistakes", "blame"}]
    results = run_clauses(broken, actions=NUMBERS, clauses=clauses)
    assert {result.name: result.outcome for result in results} == {
        "mistakes": "passed",
        "blame": "passed",
        law: "failed",
    }
    assert method not in next(result.detail for result in results if result.name == law)


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_environment_fails_exactly_its_law_and_is_told_why(broken):
    name, report = BROKEN[broken]
    with pytest.raises(CheckError) as caught:
        check_env(broken, actions=NUMBERS, leak_wait_s=0.2)
    message = str(caught.value)
    assert re.findall(r"^law '(\w+)' is broken", message, re.MULTILINE) == [name], message
    assert next(clause.law for clause in CLAUSES if clause.name == name) in message
    assert re.search(report, message, re.DOTALL), message
    assert "Likely cause: " in message


@pytest.mark.parametrize(
    ("broken", "laws"),
    [
        (broken_envs.CountsOutside, {"gymnasium", "equal", "siblings", "travels"}),
        (broken_envs.KeepsReferences, {"equal", "valid", "undo"}),
    ],
)
def test_one_mistake_can_break_several_laws(broken, laws):
    failed = {name for name, outcome in verdicts(broken, actions=NUMBERS).items() if outcome == "failed"}
    assert failed == laws


def test_a_tool_that_raises_is_named_under_every_law_it_breaks():
    failed = [result for result in run_clauses(broken_envs.FragileTool, actions=NUMBERS) if result.outcome == "failed"]
    assert {"seeded", "equal", "siblings"} <= {result.name for result in failed}
    for result in failed:
        assert "ZeroDivisionError" in result.detail
        assert "Likely cause: the tool `add` raises; answer with text, or raise ToolError" in result.detail


def test_where_equal_episodes_differ_no_other_law_guesses_a_cause():
    class Random(Sound):
        @ae.tool
        def add(self, number: int) -> str:
            """Add a number."""
            return str(random.random())

    failed = {
        result.name: result.detail for result in run_clauses(Random, actions=NUMBERS) if result.outcome == "failed"
    }
    assert failed.keys() >= {"gymnasium", "seeded", "equal", "siblings"}
    assert "Likely cause: randomness comes from elsewhere" in failed.pop("seeded")
    for detail in failed.values():
        assert "Likely cause: that of the law 'seeded', which is broken too: mend that first" in detail


def test_infrastructure_that_is_down_is_not_said_to_be_a_tool_that_should_answer_with_text():
    class Down(Sound):
        @ae.tool
        def add(self, number: int) -> str:
            """Add a number."""
            msg = "the index is gone"
            raise InfrastructureError(msg)

    failed = {result.name: result.detail for result in run_clauses(Down, actions=NUMBERS) if result.outcome == "failed"}
    assert "seeded" in failed
    for name, detail in failed.items():
        assert "answer with text" not in detail
        assert name == "blame" or "Likely cause: the tool `add` meets broken infrastructure" in detail


def test_one_reason_for_many_laws_is_told_once():
    with pytest.raises(CheckError) as caught:
        check_env(broken_envs.FragileTool, actions=NUMBERS, leak_wait_s=0.2)
    message = str(caught.value)
    first, *others = re.findall(r"^    (.*)$", message, re.MULTILINE)
    assert "ZeroDivisionError" in first
    assert others.count("as for 'gymnasium'") + others.count("as for 'seeded'") >= 8, message


def test_what_does_not_pickle_is_said_to_be_so():
    results = run_clauses(broken_envs.NeedsALock(threading.Lock()), actions=NUMBERS)
    failed = {result.name: result.detail for result in results if result.outcome == "failed"}
    assert list(failed) == ["travels"]
    assert re.search("pickling raised TypeError: .*lock.* a constructor argument holds", failed["travels"])


def test_a_function_of_a_script_is_told_apart(tmp_path):
    """Not even one named like something of ours is found in the fresh process."""
    script = tmp_path / "script.py"
    script.write_text(
        "import functools, broken_envs\n"
        "from agentenv.testing import run_clauses\n"
        "def make(): pass\n"
        "results = run_clauses(functools.partial(broken_envs.NeedsALock, lock=make))\n"
        "print(*[result.detail for result in results if result.outcome == 'failed'])\n"
    )
    folders = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, script], env=os.environ | folders, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "another process lacks: move it to a module" in done.stdout


def test_what_cannot_be_tried_without_another_law_is_skipped_and_says_so():
    results = {result.name: result for result in run_clauses(broken_envs.Unseeded, actions=NUMBERS)}
    assert results["pure"].outcome == "skipped"
    assert "see the law 'seeded'" in results["pure"].detail


@pytest.mark.parametrize("good", [Sound, Guess, Dice, LocalDice, Boxed], ids=lambda cls: cls.__name__)
def test_a_good_environment_passes_every_law(good):
    assert verdicts(good) == dict.fromkeys(ALL, "passed")
    check_env(good)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the subprocess sandbox isolates nothing")
def test_an_environment_with_a_real_sandbox_passes():
    assert verdicts(Notes, num_steps=3) == dict.fromkeys(ALL, "passed")


def test_an_environment_without_an_end_or_a_module_is_skipped_there():
    class Local(Dynamic):
        """Cannot be imported by name, and does not end on random text."""

    expected = dict.fromkeys(ALL, "passed") | {"ended": "skipped", "travels": "skipped"}
    results = run_clauses(Local)
    assert {r.name: r.outcome for r in results} == expected
    reasons = {r.name: r.detail for r in results if r.outcome == "skipped"}
    assert "give `actions` that do, or set max_steps" in reasons["ended"]
    assert "move it to a module" in reasons["travels"]
    assert verdicts(Local, actions=["hello", "bye"])["ended"] == "passed"


def test_an_environment_that_raises_is_reported_law_by_law():
    class Raises(Sound):
        @ae.tool
        def add(self, number: int) -> str:
            """Add a number."""
            return str(1 // (self.state.bias * 0))

    results = run_clauses(Raises, actions=NUMBERS)
    failed = {result.name: result.detail for result in results if result.outcome == "failed"}
    assert {"seeded", "equal", "siblings"} <= set(failed)
    assert re.search(r"ZeroDivisionError.*test_testing\.py, line \d+", failed["seeded"])


def test_an_instance_is_checked_with_its_arguments_and_not_touched():
    env = Guess(max_steps=2)
    env.reset(seed=3)
    env.step(guess(1))
    check_env(env, actions=[guess(1)] * 3)
    assert env.step_count == 1
    assert env.step(guess(1))[3]


def test_only_the_laws_asked_for_are_tried():
    (result,) = run_clauses(Guess, clauses=[clause for clause in CLAUSES if clause.name == "pure"])
    assert (result.name, result.outcome, result.detail) == ("pure", "passed", "")


def test_play_stops_at_the_end():
    env = Guess()
    env.reset(seed=0)
    assert [row[3] for row in play(env, [guess(0)] * 10)] == [False] * 6 + [True]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ae.env_ids())
def test_every_registered_environment_keeps_every_law(env_id):
    assert verdicts(env_id) == dict.fromkeys(ALL, "passed")


@pytest.mark.parametrize("env_id", ae.env_ids())
def test_gymnasium_finds_nothing_wrong_with_what_it_makes(env_id):
    env: Any = gymnasium.make(env_id)
    try:
        assert env.unwrapped is env, "a wrapper of gymnasium would hide snapshot"
        gymnasium.utils.env_checker.check_env(env)
        env.reset(seed=0)
        env.restore(env.snapshot())
    finally:
        env.close()
