"""`agentenv eval` and `compare`: the numbers by hand, failures apart, and pairs."""

import json
import math

import numpy as np
import pytest
from cli_runs import one_line_error, run, run_json

from agentenv.evaluation import Evaluation, TaskResult, compare, evaluate_trees
from agentenv.serialize import read_trees

MATH = "agentenv/MathVerifier-v0"


def results(*counts, name="t"):
    """One task for each (episodes, successes)."""
    made = [TaskResult(f"{name}{i}", n, c, mean_return=c / n, mean_steps=2.0) for i, (n, c) in enumerate(counts)]
    return Evaluation(tuple(made), {"env": "E"})


def test_pass_at_k_is_the_mean_of_the_unbiased_estimates():
    found = results((4, 1), (4, 2), (4, 0))
    assert found.pass_at(1).value == pytest.approx((1 / 4 + 2 / 4 + 0) / 3)
    assert found.pass_at(2).value == pytest.approx(((1 - 3 / 6) + (1 - 1 / 6) + 0) / 3)
    assert found.pass_at(4).value == pytest.approx(2 / 3)
    assert (found.pass_at(5).tasks, math.isnan(found.pass_at(5).value)) == (0, True)
    assert results((4, 1), (2, 1)).pass_at(3).tasks == 1, "a task with fewer episodes is left out"


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    """200 evaluations of 40 tasks whose chances are uniform in [0, 1]: pass@1 is 1/2, pass@2 is 2/3."""
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(200):
        chances = rng.uniform(size=40)
        found = results(*((4, int(rng.binomial(4, p))) for p in chances))
        one, two = found.pass_at(1), found.pass_at(2)
        covered += [one.low <= 1 / 2 <= one.high, two.low <= 2 / 3 <= two.high]
    assert (covered / 200 > 0.88).all() and (covered / 200 < 0.99).all()


@pytest.mark.parametrize(("tasks", "low"), [(1, 0.025), (10, 0.6915), (100, 0.9638)])
def test_where_all_tasks_say_the_same_the_interval_is_that_of_clopper_and_pearson(tasks, low):
    right, wrong = results(*[(4, 4)] * tasks).pass_at(1), results(*[(4, 0)] * tasks).pass_at(1)
    assert (right.value, right.high) == (1.0, 1.0) and right.low == pytest.approx(low, abs=1e-4)
    assert (wrong.value, wrong.low) == (0.0, 0.0) and wrong.high == pytest.approx(1 - low, abs=1e-4)


@pytest.mark.parametrize("tasks", [1, 3, 50])
def test_where_all_tasks_take_as_many_steps_the_interval_is_around_them_and_not_below_none(tasks):
    steps = results(*[(4, 4)] * tasks).mean("mean_steps")
    assert 0 <= steps.low < steps.value == 2 < steps.high <= 4


@pytest.mark.parametrize("value", [-2.0, 0.0, 0.5])
@pytest.mark.parametrize("tasks", [1, 30])
def test_where_all_tasks_have_one_return_no_interval_is_known(tasks, value):
    first, second = (
        Evaluation(tuple(TaskResult(f"t{i}", 2, 1, mean_return=much, mean_steps=much + 3) for i in range(tasks)))
        for much in (0.0, value)
    )
    assert str(second.mean("mean_return")) == f"{value:.3f} [-]"
    assert str(second.pass_at(1)) != "0.500 [-]"
    chance, *others, _ = compare(first, second)
    assert chance.change.low < 0 < chance.change.high
    assert [(str(entry.change), entry.verdict) for entry in others] == [(f"{value:.3f} [-]", "undecided")] * 2


def test_pairs_see_what_two_intervals_do_not():
    rng = np.random.default_rng(1)
    hard = rng.integers(0, 7, 60)
    first, second = results(*((8, int(c)) for c in hard)), results(*((8, int(c) + 1) for c in hard))
    assert second.pass_at(1).low < first.pass_at(1).high, "side by side they overlap"
    (change, *_) = compare(first, second)
    assert change.change.value == pytest.approx(1 / 8) and change.verdict == "higher"
    assert compare(second, first)[0].verdict == "lower"
    assert compare(first, first)[0].verdict == "undecided"
    assert compare(results((4, 0)), results((4, 4)))[0].verdict == "undecided", "one task decides nothing"


def test_only_tasks_that_both_have_are_compared_and_mistakes_are_named():
    first, other = results((4, 1), (4, 2)), results((4, 1), (4, 2), name="x")
    assert [entry.verdict for entry in compare(first, other)] == ["no task in common"] * 4
    with pytest.raises(ValueError, match="'t0' comes twice in evaluation 2"):
        compare(first, Evaluation(first.results * 2, first.about))
    with pytest.raises(ValueError, match="of one environment to be compared, got 'E' and 'F'"):
        compare(first, Evaluation(first.results, {"env": "F"}))
    with pytest.raises(ValueError, match="an evaluation has 'format'"):
        Evaluation.from_dict([1])


def test_it_survives_json():
    found = Evaluation((TaskResult("a", 0, 0, failed=3), TaskResult("b", 2, 1, 0, 1, 0.5, 3.0, 7.0, 1)), {"env": "E"})
    again = Evaluation.from_dict(json.loads(json.dumps(found.to_dict())))
    assert repr(again) == repr(found) and found.failed == 3 and again.most_episodes == 2


def test_the_command_counts_what_the_trees_say(here):
    words = ("eval", MATH, "--agent", "sloppy", "--tasks", 6, "--rollouts", 4, "--trees", "t.jsonl", "--out", "a.json")
    found = run_json(*words)
    trees = read_trees(here / "t.jsonl")
    assert found["tasks"] == evaluate_trees(trees).to_dict()["tasks"]
    share = np.mean([bool(tree.succeeded(leaf)) for tree in trees for leaf in tree.leaves()])
    assert found["summary"]["pass@1"]["value"] == pytest.approx(share)
    assert set(found["summary"]) >= {"pass@1", "pass@2", "pass@4", "mean steps", "mean tokens", "failed"}
    assert json.loads((here / "a.json").read_text()) == found


def test_failures_stand_apart(here):
    found = run_json("eval", "dice_env:Fragile", "--tasks", 4, "--rollouts", 3, "-k", 1)
    broken = sum(task["failed"] for task in found["tasks"])
    assert found["summary"]["failed"] == broken
    assert found["summary"]["retries"] > 0
    assert sum(task["episodes"] for task in found["tasks"]) + broken == 12
    text = run("eval", "dice_env:Fragile", "--tasks", 4, "--rollouts", 3, "-k", 1).stdout
    assert f"failed       {broken} episodes, and" in text


def test_two_runs_are_compared_task_by_task(here):
    for agent, name in (("scripted", "a.json"), ("random", "b.json")):
        run_json("eval", MATH, "--agent", agent, "--tasks", 8, "--rollouts", 2, "--out", name)
    first, *_ = run_json("compare", "a.json", "b.json")
    assert (first["name"], first["first"], first["tasks"], first["verdict"]) == ("pass@1", 1.0, 8, "lower")
    assert first["low"] <= first["difference"] <= first["high"] < 0
    text = run("compare", "a.json", "b.json", "-k", 2).stdout
    assert "pass@2" in text and "pass@1" not in text and "8 tasks in both, 0 in one alone" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval", MATH, "--rollouts", 2, "-k", 3), "'-k'"),
        (("eval", MATH, "--trees", "dice_env.py"), "must name a new file"),
        (("eval", MATH, "--out", ".", "--tasks", 1), "'--out'"),
        (("compare", "a.json", "b.json"), "'A.json'"),
        (("compare", "dice_env.py", "b.json"), "must be what eval --out wrote"),
    ],
)
def test_wrong_use_is_named(here, words, message):
    assert message in one_line_error(run(*words))
