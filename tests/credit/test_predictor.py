"""The success predictor learns, generalizes and is calibrated; its scores are right."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.credit import HashedPredictor, HiddenPredictor
from agentenv.credit.calibration import calibration_by_depth, calibration_of
from agentenv.credit.predictor import Prefix, SuccessPredictor, predictor_targets, prefix_at
from agentenv.tree import EpisodeTree
from agentenv.types import Action, to_observation


def stream(rng, count):
    """Prefixes whose true success rate depends on the task, on the last state and on a word of the text."""
    prefixes, rates = [], []
    for _ in range(count):
        task, state, hint = int(rng.integers(20)), int(rng.integers(4)), bool(rng.integers(2))
        logit = (task - 10) / 5 + (state - 1.5) + (1.5 if hint else -1.5)
        rates.append(1 / (1 + np.exp(-logit)))
        text = f"the tests {'pass' if hint else 'fail'} after {rng.integers(1000)} steps"
        prefixes.append(Prefix(task=f"t{task}", depth=state, state=f"s{state}", action="run", text=text))
    return prefixes, np.array(rates)


def test_learns_online_and_is_calibrated():
    rng = np.random.default_rng(0)
    predictor: SuccessPredictor = HashedPredictor()
    for _ in range(40):
        prefixes, rates = stream(rng, 200)
        predictor.update(prefixes, (rng.random(200) < rates).astype(float))
    prefixes, rates = stream(rng, 4000)
    outcomes = (rng.random(4000) < rates).astype(float)
    learned, perfect = calibration_of(predictor.predict(prefixes), outcomes), calibration_of(rates, outcomes)
    constant = calibration_of(np.full(4000, outcomes.mean()), outcomes)
    assert constant.brier == pytest.approx(outcomes.mean() * (1 - outcomes.mean()))
    assert learned.brier < perfect.brier + 0.015 < constant.brier
    assert learned.error < 0.04
    assert learned.auroc > perfect.auroc - 0.03


def test_a_probe_on_hidden_states_learns_what_text_does_not_say():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=32) / np.sqrt(32)

    def states(count):
        hidden = rng.normal(size=(count, 32)) * 3 + 1
        rates = 1 / (1 + np.exp(-2 * (hidden - hidden.mean(1, keepdims=True)) @ direction))
        return [Prefix(task="t", hidden=state) for state in hidden], (rng.random(count) < rates).astype(float), rates

    predictor: SuccessPredictor = HiddenPredictor()
    for _ in range(30):
        prefixes, outcomes, _ = states(128)
        predictor.update(prefixes, outcomes)
    prefixes, outcomes, rates = states(4000)
    learned, perfect = calibration_of(predictor.predict(prefixes), outcomes), calibration_of(rates, outcomes)
    assert learned.auroc > perfect.auroc - 0.03 > 0.8
    assert learned.error < 0.05
    bare = predictor.predict([Prefix(task="t"), prefixes[0]])  # what has no state is predicted by its text
    assert bare[0] == pytest.approx(0.5, abs=0.05) and bare[1] == predictor.predict(prefixes[:1])[0]


def test_before_any_outcome_everything_is_undecided():
    predictor = HashedPredictor()
    prefixes, _ = stream(np.random.default_rng(0), 3)
    assert predictor.predict(prefixes).tolist() == [0.5] * 3
    predictor.update([], [])
    assert predictor.predict([]).shape == (0,)


def test_soft_targets_count_like_the_outcomes_behind_them():
    soft = calibration_of(np.linspace(0, 1, 50), np.full(50, 0.25), np.full(50, 4.0))
    outcomes = np.tile([1.0, 0.0, 0.0, 0.0], 50)
    hard = calibration_of(np.repeat(np.linspace(0, 1, 50), 4), outcomes)
    for field in ("count", "rate", "brier", "error", "auroc"):
        assert getattr(soft, field) == pytest.approx(getattr(hard, field))


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    p, y = np.round(rng.random(40), 1), rng.integers(0, 2, 40)
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(p[y == 1], p[y == 0])]
    assert calibration_of(p, y).auroc == pytest.approx(np.mean(pairs))
    assert np.isnan(calibration_of(p, np.ones(40)).auroc)


def test_calibration_error_by_hand():
    result = calibration_of([0.05, 0.05, 0.95, 0.95], [0, 1, 1, 1])
    assert result.error == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    by_depth = calibration_by_depth([0.05, 0.05, 0.95, 0.95], [0, 1, 1, 1], [0, 0, 3, 3])
    assert list(by_depth) == [0, 3]
    assert by_depth[0].error == pytest.approx(0.45)


def small_tree():
    tree = EpisodeTree(to_observation("fix it"), task_id="t", state_signature="s0")
    trunk = tree.add(
        0, Action("look"), to_observation("Error: nothing here"), reward=0.0, state_signature="s1", action_signature="a"
    )
    tree.add(trunk, Action("x"), to_observation("done"), reward=1.0, terminated=True, state_signature="s2")
    tree.add(trunk, Action("y"), to_observation("no"), reward=0.0, terminated=True, state_signature="s1")
    tree.add(trunk, Action("z"), (), reward=None)
    return tree


def test_prefixes_and_targets_of_episode_trees():
    tree = small_tree()
    prefixes, targets, weights = predictor_targets([tree, tree])
    assert targets.tolist() == [0.5] * 4
    assert weights.tolist() == [2.0] * 4
    assert [prefix.depth for prefix in prefixes] == [0, 1, 0, 1]
    assert prefixes[1] == Prefix("t", 1, "s1", "a", "look Error: nothing here", 0.0, 0, 1)
    assert prefix_at(tree, 3).revisits == 1
    assert prefix_at(tree, 0).text.strip() == "fix it"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HashedPredictor(size=1), "out of range"),
        (lambda: HashedPredictor().update([Prefix()], [2.0]), "must be probabilities"),
        (lambda: HashedPredictor().update([Prefix()], [0.5, 0.5]), "one length, got 1, 2, 2"),
        (lambda: calibration_of([0.5], [0.5, 1]), "one length"),
        (lambda: calibration_of([0.5], [0.5], [0.0]), "positive sum"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("seed", range(4))
def test_a_policy_that_learns_does_not_leave_it_sure_of_failure(seed):
    """Success rises from 2 to 70 in 100 as in training: a whole Newton step once led to 0 for everything, for good."""
    rng, predictor = np.random.default_rng(seed), HashedPredictor()
    scores = []
    for step in range(40):
        share = 0.02 if step < 12 else 0.7
        prefixes = [Prefix(task="t", depth=d, state=f"s{d}", text=f"step {d} said {rng.integers(3)}") for d in range(8)]
        prefixes, won = prefixes * 16, np.repeat(rng.random(16) < share, 8).astype(float)
        scores.append(float(np.mean((predictor.predict(prefixes) - won) ** 2)))
        predictor.update(prefixes, won, rng.integers(1, 5, len(won)))
    assert np.mean(scores[25:]) < 0.28
    assert 0.05 <= predictor._slope < 10


@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(0, 1), st.floats(0.1, 8)), min_size=1, max_size=60))
def test_calibration_is_the_best_line(entries):
    """Its objective is strictly convex: where the gradient vanishes is the one optimum, wherever it began."""
    predictor = HashedPredictor(size=2)
    predictor._recent = np.array(entries)
    predictor._slope, predictor._shift = 9.0, -20.0
    predictor._recalibrate()
    score, target, weight = predictor._recent.T
    slope, shift = predictor._slope, predictor._shift
    rest = weight * (1 / (1 + np.exp(-(slope * score + shift))) - target)
    if slope > 0.05:  # else it is held there
        assert abs(rest @ score + 4 * (slope - 1)) < 1e-3 * (1 + np.abs(weight * score).sum())
        assert abs(rest.sum() + 4 * shift) < 1e-3 * (1 + weight.sum())
