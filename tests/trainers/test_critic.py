"""The critic of tokens: what it reads, what it learns, how far it is believed, and what TRACE asks it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat import tiny

from agentenv import EpisodeTree
from agentenv.credit.predictor import Prefix
from agentenv.trainers.critic import Prefixes, TokenCritic, outcome_targets, trained_prefixes
from agentenv.trainers.critic_predictor import CriticPredictor
from agentenv.trainers.critic_record import TrackRecord, draw_reliability, scores_of, thin_out
from agentenv.trainers.layout import lay_out
from agentenv.types import Action

pytestmark = pytest.mark.model


def critic(**options) -> Any:
    model, _ = tiny()
    return TokenCritic(lambda: model, batch_size=4, **options)


def told_by_the_first_token(count=256, seed=0):
    """Rows of six random tokens whose success is decided by their first: 0.9 where it is even, else 0.1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(300, 306, (count, 6))
    rate = np.where(ids[:, 0] % 2, 0.1, 0.9)
    rows, places = np.repeat(np.arange(count), 5), np.tile(np.arange(1, 6), count)
    outcome = (rng.random(count) < rate).astype(float)
    return Prefixes(ids, rows, places), outcome[rows], rate[rows]


def test_it_reads_the_models_hidden_states_before_each_token():
    model, _ = tiny()
    prefixes, _, _ = told_by_the_first_token(5)
    asked = critic()
    with torch.no_grad():
        for a in range(len(prefixes)):
            alone = torch.tensor(prefixes.token_ids[prefixes.rows[a], : prefixes.places[a]])[None]
            state = model.base_model(input_ids=alone).last_hidden_state[0, -1]
            read = asked._read(prefixes)[a]
            assert torch.allclose(read, state, atol=1e-5)


def test_what_comes_later_and_other_rows_change_nothing():
    asked = critic()
    torch.nn.init.normal_(asked.head[-1].weight)
    prefixes, _, _ = told_by_the_first_token(9)
    whole = asked.predict(prefixes)
    assert len(np.unique(whole)) > 20
    other = prefixes.token_ids.copy()
    other[:, 4:] = 7
    early = prefixes.places <= 4
    changed = asked.predict(Prefixes(other, prefixes.rows, prefixes.places))
    np.testing.assert_allclose(changed[early], whole[early], atol=1e-6)
    few = asked.predict(Prefixes(prefixes.token_ids, prefixes.rows[10:13], prefixes.places[10:13]))
    np.testing.assert_allclose(few, whole[10:13], atol=1e-6)


@pytest.mark.parametrize("own", [False, True])
def test_it_learns_probabilities_and_leaves_the_policy_alone(own):
    policy, _ = tiny()
    before = copy.deepcopy(policy.state_dict())
    model = copy.deepcopy(policy) if own else policy
    made = TokenCritic(lambda: model, own=own, batch_size=64, learning_rate=3e-3)
    prefixes, outcomes, rates = told_by_the_first_token()
    assert made.predict(prefixes) == pytest.approx(0.5)  # it begins with no opinion
    for i in range(12):
        said = made.learn(prefixes, outcomes, seed=i)
    assert made.updates == 12
    fresh, _, rates = told_by_the_first_token(64, seed=1)
    said = made.predict(fresh)
    assert np.corrcoef(said, rates)[0, 1] > 0.8
    assert all(torch.equal(before[name], value) for name, value in policy.state_dict().items())
    assert not any(p.grad is not None for p in policy.parameters())


def test_learning_returns_what_it_said_before():
    made, again = critic(), critic()
    prefixes, outcomes, _ = told_by_the_first_token(64)
    made.learn(prefixes, outcomes)
    now = made.predict(prefixes)
    again.load_state_dict(made.state_dict())
    np.testing.assert_array_equal(made.learn(prefixes, outcomes, seed=1), now)
    # its state is all that decides what it does next
    np.testing.assert_array_equal(again.learn(prefixes, outcomes, seed=1), now)
    np.testing.assert_array_equal(again.predict(prefixes), made.predict(prefixes))


def test_weights_count_and_nothing_at_all_may_be_learned():
    prefixes, outcomes, _ = told_by_the_first_token(64)
    half = np.where(outcomes > 0, 1.0, 0.0)
    made = critic(learning_rate=1e-2)
    for i in range(10):
        made.learn(prefixes, outcomes, half, seed=i)
    assert made.predict(prefixes).mean() > 0.8  # failures weigh nothing
    nothing = Prefixes(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    before = made.predict(prefixes)
    assert len(made.learn(nothing, [])) == 0
    made.learn(prefixes, outcomes, 0 * outcomes)
    np.testing.assert_array_equal(made.predict(prefixes), before)


def test_wrong_targets_and_numbers_that_are_not_finite_are_named():
    made = critic()
    prefixes, outcomes, _ = told_by_the_first_token(4)
    with pytest.raises(ValueError, match=r"targets must have shape \[A\] = \[20\]"):
        made.learn(prefixes, outcomes[:3])
    with pytest.raises(ValueError, match=r"targets must be finite and in \[0, 1\]; entry 0 is 2.0"):
        made.learn(prefixes, np.full(20, 2.0))
    with pytest.raises(ValueError, match="weights must be finite"):
        made.learn(prefixes, outcomes, np.full(20, np.nan))
    torch.nn.init.constant_(made.head[1].weight, float("nan"))
    with pytest.raises(FloatingPointError, match="critic's predictions must be finite"):
        made.predict(prefixes)


def test_a_state_of_the_other_kind_of_critic_is_refused():
    model = copy.deepcopy(tiny()[0])
    own = TokenCritic(lambda: model, own=True)
    with pytest.raises(ValueError, match="this critic reads the policy's hidden states, that of the checkpoint has a"):
        critic().load_state_dict(own.state_dict())
    with pytest.raises(ValueError, match="this critic has a model of its own"):
        own.load_state_dict(critic().state_dict())


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=12))
def test_sequences_that_others_begin_with_share_their_rows(sequences):
    made = Prefixes.of_tokens(sequences)
    for own, row, place in zip(sequences, made.rows, made.places, strict=True):
        assert made.token_ids[row, :place].tolist() == own
    maximal = {tuple(s) for s in sequences}
    maximal = {s for s in maximal if not any(o != s and o[: len(s)] == s for o in maximal)}
    assert len(made.token_ids) == len(maximal)


# ---------------------------------------------------------------------- targets


def forked():
    """A trunk of one step with a fork (one of its two ends wins), and a chain that fails."""
    tree = EpisodeTree(({"role": "user", "content": "go"},))

    def act(parent, prompt, tokens, reward, **end):
        action = Action("x", token_ids=tokens, logprobs=(-0.5,) * len(tokens), prompt_token_ids=prompt)
        return tree.add(parent, action, reward=reward, **end)

    trunk = act(0, (1, 2), (3, 4), 0.0)
    act(trunk, (1, 2, 3, 4, 5), (6,), 1.0, terminated=True)
    act(trunk, (1, 2, 3, 4, 5), (7, 8), 0.0, terminated=True)
    act(0, (1, 2), (9,), 0.0, terminated=True)
    return tree


def test_targets_are_shares_of_success_below_and_a_tree_weighs_its_rollouts():
    rows = lay_out([forked(), forked()])
    prefixes, nodes = trained_prefixes(rows)
    assert nodes.tolist() == [1, 1, 2, 3, 3, 4, 6, 6, 7, 8, 8, 9]
    ends = [tuple(prefixes.token_ids[r, :p]) for r, p in zip(prefixes.rows, prefixes.places, strict=True)]
    assert ends[:6] == [(1, 2), (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 7), (1, 2)]
    targets, weights = outcome_targets(rows, nodes, "occupancy")
    assert targets[:6].tolist() == [0.5, 0.5, 1, 0, 0, 0]
    # occupancy: the trunk 1 a token, its branches one half, the chain 1; in all two rollouts from the root
    np.testing.assert_allclose(weights[:6], np.array([1, 1, 0.5, 0.5, 0.5, 1]) * 2 / 4.5)
    assert weights.sum() == pytest.approx(4)


# ---------------------------------------------------------------------- the record


def record_of(said, rate, episodes, seed=0, prefixes=4):
    rng = np.random.default_rng(seed)
    record = TrackRecord(episodes)
    p = np.repeat(said[:episodes], prefixes)
    y = np.repeat((rng.random(episodes) < rate[:episodes]).astype(float), prefixes)
    record.add(p, y, np.full(len(p), 1 / prefixes))
    return record


def test_trust_is_one_for_a_calibrated_critic_and_nothing_for_noise():
    rng = np.random.default_rng(0)
    rate = rng.beta(1, 1, 4000)
    assert record_of(rate, rate, 4000).trust() > 0.85
    assert record_of(rng.random(4000), rate, 4000).trust() < 0.05
    shrunk = record_of(0.5 + 0.5 * (rate - 0.5), rate, 4000)
    assert shrunk.trust() > 0.95  # timid, and right
    bold = record_of(np.clip(0.5 + 2 * (rate - 0.5), 0.01, 0.99), rate, 4000)
    assert 0.35 < bold.trust() < 0.75
    assert record_of(1 - rate, rate, 4000).trust() == 0.0


def test_few_episodes_or_one_answer_earn_no_trust():
    rate = np.linspace(0, 1, 64)
    assert record_of(rate, rate, 24).trust() == 0.0
    assert record_of(np.full(64, 0.4), rate, 64).trust() == 0.0
    assert TrackRecord().trust() == 0.0
    noise = [record_of(np.random.default_rng(i).random(64), np.full(64, 0.3), 64, seed=i).trust() for i in range(40)]
    assert np.mean(noise) < 0.08  # the standard error is taken off
    # and it counts episodes, not prefixes
    assert abs(record_of(rate, rate, 64, prefixes=100).trust() - record_of(rate, rate, 64).trust()) < 1e-9


def test_the_record_keeps_the_last_episodes():
    record = TrackRecord(32)
    for i in range(40):
        record.add([i / 100] * 3, [1.0] * 3, [1 / 3] * 3)
    assert record.entries[:, 2].sum() == pytest.approx(32)
    assert record.entries[0, 0] == pytest.approx(0.08)
    other = TrackRecord(32)
    other.load_state_dict(record.state_dict())
    np.testing.assert_array_equal(other.entries, record.entries)


@given(st.lists(st.integers(1, 9), min_size=0, max_size=6), st.integers(1, 5))
def test_thinning_keeps_the_first_and_the_weight(sizes, most):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    weights = np.arange(1.0, len(groups) + 1)
    index, shares = thin_out(groups, weights, most)
    assert len(np.unique(index)) == len(index) == sum(min(size, most) for size in sizes)
    for group in range(len(sizes)):
        assert np.flatnonzero(groups == group)[0] in index
        assert shares[groups[index] == group].sum() == pytest.approx(weights[groups == group].sum())


def test_scores_and_the_plot(tmp_path):
    scores = scores_of(np.array([0.8, 0.3]), np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert scores["brier"] == pytest.approx((0.04 + 0.09) / 2)
    assert scores["loss"] == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    assert scores["ece"] == pytest.approx((0.2 + 0.3) / 2)
    assert scores["auroc"] == 1.0
    assert scores_of(np.zeros(0), np.zeros(0), np.zeros(0)) == {}
    draw_reliability(TrackRecord(), tmp_path / "critic.png")
    assert not (tmp_path / "critic.png").exists()
    draw_reliability(record_of(np.linspace(0, 1, 64), np.linspace(0, 1, 64), 64), tmp_path / "critic.png")
    assert (tmp_path / "critic.png").read_bytes().startswith(b"\x89PNG")


# ---------------------------------------------------------------------- what TRACE asks


def test_the_predictor_asks_the_critic_and_remembers_prompts():
    asked = []

    def success(sequences):
        asked.append([tuple(s) for s in sequences])
        return np.array([len(s) / 10 for s in sequences])

    predictor = CriticPredictor(success)
    known = Prefix(task="a", token_ids=(1, 2))
    unseen = Prefix(task="b")
    assert predictor.predict([known, unseen]).tolist() == [0.2, 0.5]
    predictor.update([known, Prefix(task="a", depth=1, token_ids=(1, 2, 3))], [0.0, 1.0])
    assert asked[-1] == [(1, 2)]
    assert predictor.predict([Prefix(task="a"), unseen]).tolist() == [0.2, 0.2]
    again = CriticPredictor(success)
    again.load_state_dict(predictor.state_dict())
    assert again.predict([Prefix(task="a")]).tolist() == [0.2]
    assert predictor.predict([]).tolist() == []


def test_the_critics_own_predictor():
    made = critic()
    torch.nn.init.normal_(made.head[-1].weight)
    sequences = [(5, 6, 7), (5, 6), (8,)]
    said = made.predictor().predict([Prefix(token_ids=s) for s in sequences])
    np.testing.assert_allclose(said, [made.success_after([s])[0] for s in sequences], atol=1e-6)
