"""SR-PPO: by hand, by loop, and its limits."""

from typing import Any

import numpy as np
import pytest

from agentenv.credit import sr_ppo_advantages
from agentenv.credit.passk_tree import passk_values
from agentenv.credit.sr_ppo import prompt_weights

P = np.array([[0.2, 0.5, 0.9, 0.4], [0.6, 0.1, 0.3, 0.8]])
Y = np.array([1.0, 0.0])


def test_by_hand():
    result = sr_ppo_advantages(P, Y, k=1)
    np.testing.assert_allclose(result.advantages, [[0.3, 0.4, -0.5, 0.6], [-0.5, 0.2, 0.5, -0.8]])
    np.testing.assert_allclose(result.advantages.sum(1), Y - P[:, 0])


@pytest.mark.parametrize("k", [1.0, 4.0, 128.0, np.inf])
@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_by_loop_with_observations_in_between(k, decay):
    rng = np.random.default_rng(0)
    p, y, mask = rng.random((6, 11)), rng.integers(0, 2, 6).astype(float), rng.random((6, 11)) < 0.6
    mask[5] = False
    result = sr_ppo_advantages(p, y, mask, k=k, decay=decay)
    for b in range(6):
        where = np.flatnonzero(mask[b])
        v = [float(passk_values(p[b, t], k)) for t in where] + [y[b]]
        delta = np.diff(v)
        expected = np.zeros(11)
        for i, t in enumerate(where):
            expected[t] = sum(decay**j * d for j, d in enumerate(delta[i:])) if decay else delta[i]
        np.testing.assert_allclose(result.advantages[b], expected, atol=1e-12)
        if len(where):
            assert result.differences[b].sum() == pytest.approx(y[b] - v[0], abs=1e-9)
    assert not result.advantages[~mask].any()


def test_monte_carlo_form_is_outcome_minus_value():
    result = sr_ppo_advantages(P, Y, k=4, decay=1.0)
    np.testing.assert_allclose(result.advantages, Y[:, None] - passk_values(P, 4), atol=1e-12)
    plain = sr_ppo_advantages(P, Y, k=1, decay=1.0)
    np.testing.assert_allclose(plain.advantages, Y[:, None] - P, atol=1e-12)


def test_prompt_weighted_is_the_community_port():
    result = sr_ppo_advantages(P, Y, k=4, decay=1.0, prompt_weighted=True)
    np.testing.assert_allclose(result.advantages, (4 * (1 - P[:, 0]) ** 3)[:, None] * (Y[:, None] - P))
    scaled = sr_ppo_advantages(P, Y, k=4, decay=1.0, prompt_weighted=True, normalize_weights=True)
    weights = prompt_weights(P[:, 0], 4)
    np.testing.assert_allclose(scaled.advantages * weights.mean(), result.advantages)


@pytest.mark.parametrize("k", [1, 4, 64])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_sequence_without_a_sampled_token_changes_no_other(k, normalize):
    options: dict[str, Any] = {"k": k, "decay": 0.5, "prompt_weighted": True, "normalize_weights": normalize}
    alone = sr_ppo_advantages(P, Y, **options)
    with_empty = sr_ppo_advantages(
        np.insert(P, [0, 1, 2], 0.7, axis=0),
        [1, Y[0], 0, Y[1], 1],
        np.insert(np.ones(P.shape), [0, 1, 2], 0, 0),
        **options,
    )
    np.testing.assert_array_equal(with_empty.advantages[[1, 3]], alone.advantages)
    assert not with_empty.advantages[[0, 2, 4]].any()
    for empty in (np.zeros((2, 3)), np.zeros((2, 0))):
        assert not sr_ppo_advantages(empty, [1, 0], np.zeros(empty.shape), **options).advantages.any()


def test_numbers_of_the_notes():
    np.testing.assert_allclose(passk_values([0.5, 0.9, 0.01], 4), [0.9375, 0.9999, 0.0394], atol=5e-5)
    assert passk_values(0.01, 128) == pytest.approx(0.7237, abs=5e-5)
    np.testing.assert_allclose(prompt_weights([0.5, 0.9, 0.01], 4), [0.5, 0.004, 3.88], atol=2e-3)
    assert prompt_weights([0.01], 128)[0] == pytest.approx(35.7, abs=0.05)
    assert passk_values(1e-8, 128) == pytest.approx(1.28e-6, rel=1e-5)  # cancels to 6 digits in the naive form
    assert passk_values(1e-18, 128) == pytest.approx(1.28e-16, rel=1e-12)  # 0 in the naive form
    assert passk_values([0, 1e-300, 1], np.inf).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"success": P * 2}, r"success must be probabilities in \[0, 1\]; entry 2 is 1.8"),
        ({"success": P[0]}, r"success must have shape \[B, L\], got \[4\]"),
        ({"outcomes": [1, 2]}, "outcomes must be"),
        ({"outcomes": [1]}, "outcomes must be"),
        ({"mask": np.full(P.shape, 0.5)}, r"mask must be True or False \(1 or 0\); entry 0 is 0.5"),
        ({"mask": [[True]]}, "mask must have the shape of success"),
        ({"k": 0.5}, "k must be at least 1"),
        ({"k": np.inf, "prompt_weighted": True}, "k must be finite for prompt weights"),
        ({"decay": 1.1}, r"decay must be in \[0, 1\], got 1.1"),
    ],
)
def test_refuses(change, message):
    arguments = {"success": P, "outcomes": Y} | change
    positional = [arguments.pop(name) for name in ("success", "outcomes", "mask") if name in arguments]
    with pytest.raises(ValueError, match=message):
        sr_ppo_advantages(*positional, **arguments)


def test_padding_may_hold_anything():
    p = np.full((1, 3), np.nan)
    p[0, :2] = [0.5, 0.25]
    result = sr_ppo_advantages(p, [1.0], [[True, True, False]], k=1)
    np.testing.assert_allclose(result.advantages, [[-0.25, 0.75, 0]])


# ---------------------------------------------------------------------- against the truth, on a small MDP of tokens

WIN = np.array([0.9, 0.2, 0.6, 0.0, 0.3, 1.0, 0.5, 0.1])  # probability of success after each string of three bits
LOGITS = np.array([0.3, -0.8, 0.5, 1.1, -0.2, 0.7, -1.3])  # of bit 1, in the 7 prefixes shorter than three


def _prefixes():
    """Every string of three bits with the numbers of its prefixes, the tokens, and its probability."""
    one = 1 / (1 + np.exp(-LOGITS))
    for number in range(8):
        bits = [number >> 2 & 1, number >> 1 & 1, number & 1]
        places = [0, 1 + bits[0], 3 + 2 * bits[0] + bits[1]]
        chance = np.prod([one[s] if b else 1 - one[s] for s, b in zip(places, bits, strict=True)])
        yield number, places, bits, float(chance)


def _truth():
    """Exact success probability of the 7 prefixes, and its gradient by the logits, at the prompt."""
    one = 1 / (1 + np.exp(-LOGITS))
    p, mass = np.zeros(7), np.zeros(7)
    for number, places, _, chance in _prefixes():
        p[places] += chance * WIN[number]
        mass[places] += chance
    p /= mass
    after = np.array([[p[1], p[2]], [p[3], p[4]], [p[5], p[6]], *WIN.reshape(4, 2)])
    return p, mass * one * (1 - one) * (after[:, 1] - after[:, 0])


def _expected_update(critic, **options):
    """Sums P(episode) * sum_t A_t grad log pi over all 16 episodes and outcomes."""
    one, update = 1 / (1 + np.exp(-LOGITS)), np.zeros(7)
    for number, places, bits, chance in _prefixes():
        for outcome, luck in ((1.0, WIN[number]), (0.0, 1 - WIN[number])):
            credit = sr_ppo_advantages(critic[places][None], [outcome], **options).advantages[0]
            update[places] += chance * luck * credit * (np.array(bits) - one[places])
    return update


@pytest.mark.parametrize("decay", [0.0, 0.4, 0.95, 1.0])
def test_with_the_true_critic_the_expected_update_is_the_policy_gradient(decay):
    p, gradient = _truth()
    np.testing.assert_allclose(_expected_update(p, k=1, decay=decay), gradient, atol=1e-12)


def test_with_any_critic_the_monte_carlo_form_is_unbiased():
    wrong = np.random.default_rng(0).random(7)
    np.testing.assert_allclose(_expected_update(wrong, k=1, decay=1.0), _truth()[1], atol=1e-12)
    assert np.abs(_expected_update(wrong, k=1, decay=0.0) - _truth()[1]).max() > 0.02  # which differences are not
    # and Pass@k as a baseline changes nothing in expectation
    np.testing.assert_allclose(_expected_update(wrong, k=4, decay=1.0), _truth()[1], atol=1e-12)


@pytest.mark.parametrize("k", [2.0, 4.0, 16.0])
def test_prompt_weights_give_the_gradient_of_pass_at_k(k):
    p, gradient = _truth()
    slope = k * (1 - p[0]) ** (k - 1)
    update = _expected_update(p, k=k, decay=1.0, prompt_weighted=True)
    np.testing.assert_allclose(update, slope * gradient, atol=1e-12)
