"""How far the checker reaches: given actions, trees, coverage, late attributes, and what a fork costs."""

import gc
import json
import os
import sqlite3
import threading
import warnings
from typing import Any

import pytest
from envs_for_tests import Dice, Guess, call, guess

import agentenv as ae
from agentenv.errors import CheckError
from agentenv.serialize import write_trees
from agentenv.testing import CLAUSES, check_env, inspect_env, prepare_scripts, run_clauses
from agentenv.wrappers import RecordTree

pytestmark = pytest.mark.slow

GOOD = [call("run_sql", query="insert into names values (1)"), call("run_sql", query="select count(*) from names")]
ROLLS = [call("roll"), call("roll", sides=4), call("hold")]


class Database(ae.ToolEnv):
    """Keeps its database in an attribute. No random text is SQL, so random play never gets to it."""

    max_steps = 5

    def start(self, task):
        self.db = sqlite3.connect(":memory:")
        self.db.execute("create table names (id integer)")
        return "Write SQL."

    @ae.tool
    def run_sql(self, query: str) -> str:
        """Run a query."""
        if not query.strip():
            msg = "error: the query is empty"
            raise ae.ToolError(msg)
        try:
            return json.dumps(self.db.execute(query).fetchall())
        except sqlite3.Error as error:
            msg = f"error: {error}"
            raise ae.ToolError(msg) from None

    def close(self):
        if hasattr(self, "db"):
            self.db.close()
        super().close()

    def restore(self, snapshot, /):
        super().restore(snapshot)
        if not hasattr(self, "db"):
            self.start(None)

    def fork(self, n) -> Any:
        children: Any = super().fork(n)
        for child in children:
            child.start(None)
        return children


class Files(Database):
    """The same behind a private attribute."""

    def start(self, task):
        self._cursor: Any = None
        return super().start(task)


def verdict(report, name):
    return next(result.outcome for result in report.results if result.name == name)


def test_random_play_says_what_it_did_not_reach_and_which_attributes_came_late():
    report = inspect_env(Files, clauses=[])
    assert report.coverage[0].startswith("run_sql: ")
    calls, mistakes = (int(part.split()[0]) for part in report.coverage[0].removeprefix("run_sql: ").split(", "))
    assert calls == mistakes > 0
    assert report.coverage[0].endswith("mistakes: not reached")
    assert report.unreached == ("run_sql",)
    assert set(report.late_attributes) == {"_cursor", "db"}
    assert report.warnings()[0] == (
        "not reached, and so not checked: run_sql; give actions that do (actions=, --actions FILE) or trees (trees=, "
        "--trees FILE)"
    )
    assert report.warnings()[1].startswith("set after __init__: self._cursor, self.db; no snapshot holds them")


@pytest.mark.filterwarnings("ignore:unclosed database")
def test_given_actions_find_what_random_play_does_not():
    with pytest.raises(CheckError, match=r"law 'equal' is broken(?s:.*)\[\[1\]\].* and then .*\[\[2\]\]"):
        check_env(Database, actions=GOOD)
    report = inspect_env(Database, actions=GOOD)
    assert report.coverage == ("run_sql: 2 calls, 0 mistakes",)
    assert report.unreached == ()
    assert {r.name for r in report.results if r.outcome == "failed"} >= {"equal", "siblings", "travels"}


def test_an_attribute_that_comes_late_is_a_warning_where_all_laws_are_kept():
    class Remembers(Guess):
        def start(self, task):
            self.note = "constant"
            return super().start(task)

    with pytest.warns(UserWarning, match="set after __init__: self.note; no snapshot holds"):
        report = check_env(Remembers, actions=[guess(1)] * 7)
    assert report.late_attributes == ("note",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_env(Guess).warnings() == []


# ---------------------------------------------------------------------- forms of actions


def lines(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_actions_are_one_episode_or_several_or_a_file(tmp_path):
    def scripts(given):
        return [(script.actions, script.seed, script.task) for script in prepare_scripts(Dice, actions=given, seed=7)]

    one = [(tuple(ROLLS), 7, None)]
    assert scripts(ROLLS) == scripts([ROLLS]) == scripts(lines(tmp_path / "a.jsonl", *ROLLS)) == one
    assert scripts(str(lines(tmp_path / "b.jsonl", ROLLS))) == one
    assert scripts(["roll", "hold"]) == [(("roll", "hold"), 7, None)]
    episode = {"actions": ROLLS, "task": {"goal": 3}, "seed": 1}
    both = [(tuple(ROLLS), 1, {"goal": 3}), (("x",), 7, None)]
    assert scripts([episode, ["x"]]) == scripts(lines(tmp_path / "c.jsonl", episode, ["x"])) == both
    assert prepare_scripts(Dice, actions=prepare_scripts(Dice, actions=ROLLS)) == prepare_scripts(Dice, actions=ROLLS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "there are no actions in"),
        ([[]], r"actions\[0\]: an episode must be a list of actions"),
        ([ROLLS, {"steps": 3}], r"actions\[1\]: an episode must be a list .*got {'steps': 3}"),
        ([{"actions": ROLLS, "sede": 3}], r"actions\[0\]: an episode must be"),
        (["x", 5], "actions, action 1: action must be a str, .* got 5"),
        ("absent.jsonl", "cannot read rows from 'absent.jsonl'"),
    ],
)
def test_actions_that_are_none_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        check_env(Dice, actions=given)


def test_a_task_is_played_and_every_law_is_tried_on_every_episode():
    class Choosy(Dice):
        def start(self, task):
            self.last = task.goal if task.goal == 3 else 0
            return super().start(task)

    episodes = [{"actions": ROLLS, "task": {"goal": goal}} for goal in (1, 2, 3)]
    report = inspect_env(Choosy, actions=episodes)
    assert report.episodes == 3
    assert {result.outcome for result in report.results} <= {"passed", "skipped"}

    class Broken(Choosy):
        @ae.tool
        def hold(self) -> str:
            """Stop rolling."""
            return str(1 // (self.task.goal - 2))

    failed = [r for r in run_clauses(Broken, actions=episodes) if r.outcome == "failed"]
    assert {"seeded", "equal"} <= {result.name for result in failed}
    assert all(result.detail.startswith("episode 2 of 3: ") for result in failed)
    assert not [r for r in run_clauses(Broken, actions=episodes[::2]) if r.outcome == "failed" and r.name != "ended"]


# ---------------------------------------------------------------------- trees


@pytest.fixture
def trees(tmp_path):
    env: Any = RecordTree(Dice())
    found = []
    for seed, goal in ((0, 1), (1, 2)):
        env.reset(seed=seed, options={"task": {"goal": goal}})
        for number in range(6):
            env.goto(0)
            env.step(call("roll", sides=number + 2))
            env.step(call("no_such_tool") if number else call("hold"))
        found.append(env.tree)
    write_trees(tmp_path / "trees.jsonl", found)
    return tmp_path / "trees.jsonl"


def test_of_many_trajectories_the_few_that_reach_most_are_played(trees):
    scripts = prepare_scripts(Dice, trees=trees)
    assert 1 <= len(scripts) <= 4
    report = check_env(Dice, trees=trees)
    assert report.unreached == ()
    assert scripts[0].task in ({"id": "", "goal": 1}, {"id": "", "goal": 2})
    assert check_env(Dice, trees=trees, actions=[call("roll")] * 8).episodes <= 4
    with pytest.raises(ValueError, match="trees must be of 'Guess-v0', got one of 'Dice-v0'"):
        check_env(Guess, trees=trees)
    with pytest.raises(ValueError, match="there is no action in the trees"):
        check_env(Dice, trees=[])


# ---------------------------------------------------------------------- costs


def test_a_fork_says_what_it_costs():
    cost: Any = check_env(Dice, actions=ROLLS).fork_cost
    assert (cost.step, cost.replayed_steps) == (2, 0)
    assert 0 < cost.snapshot_ms < 1000
    assert cost.num_bytes > 100
    assert str(cost).startswith("a fork at step 2 costs ")
    replayed: Any = check_env(ae.ReplayEnv("FrozenLake-v1", max_steps=5), actions=["0"] * 5).fork_cost
    assert replayed.replayed_steps == replayed.step == 4
    assert str(replayed).endswith("to restore it, in which 4 steps are taken again")


def test_how_long_to_wait_for_what_goes_away_is_an_argument():
    goes, seconds = threading.Event(), 600.0

    class Slow(Guess):
        def close(self):
            if self.state is not None:
                threading.Thread(target=goes.wait, args=(seconds,)).start()
            super().close()

    leaks = [clause for clause in CLAUSES if clause.name == "leaks"]
    assert run_clauses(Slow, clauses=leaks, leak_wait_s=0.0)[0].outcome == "failed"
    goes.set()
    goes, seconds = threading.Event(), 1.0  # nobody sets it: each goes after a second
    assert run_clauses(Slow, clauses=leaks, leak_wait_s=60.0)[0].outcome == "passed"


@pytest.mark.parametrize("frozen", [False, True])
def test_what_goes_away_in_a_cycle_of_references_is_not_left_and_the_collector_stays_as_it_was(frozen):
    class Held:
        """Is closed by the collector alone."""

        def __init__(self):
            self.file, self.itself = os.open(os.devnull, os.O_RDONLY), self

        def __del__(self):
            os.close(self.file)

    class Cyclic(Guess):
        def close(self):
            if self.state is not None:
                Held()
            super().close()

    leaks = [clause for clause in CLAUSES if clause.name == "leaks"]
    gc.unfreeze()
    try:
        if frozen:
            gc.freeze()
        before = gc.get_freeze_count()
        assert run_clauses(Cyclic, clauses=leaks, leak_wait_s=0.0)[0].outcome == "passed"
        assert bool(gc.get_freeze_count()) == bool(before) == frozen
    finally:
        gc.freeze()  # as `conftest.py` did
