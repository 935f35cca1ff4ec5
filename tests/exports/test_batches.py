"""Batches for other trainers: the same update as our own loss, in each form."""

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_trees import random_trees

from agentenv import Action, EpisodeTree, TreeArrays
from agentenv.credit import rloo_advantages, step_weights
from agentenv.exports import prime_rl_batches, skyrl_batch, token_rows, verl_batch
from agentenv.trainers.layout import lay_out


def act(prompt, ids):
    return Action("x", token_ids=tuple(ids), logprobs=tuple(-0.1 * i for i in ids), prompt_token_ids=tuple(prompt))


def fork() -> EpisodeTree:
    """Root, one shared step, then two endings."""
    tree = EpisodeTree(({"role": "user", "content": "q"},), task_id="t", env_id="E-v0")
    trunk = tree.add(0, act([1, 2], [3, 4]), reward=0.5)
    tree.add(trunk, act([1, 2, 3, 4, 5], [6]), reward=1.0, terminated=True)
    tree.add(trunk, act([1, 2, 3, 4, 5], [7, 8]), reward=0.0, terminated=True)
    return tree


def credit_of(count):
    return np.arange(count) * 0.25 - 1.0


def test_verl_by_hand():
    batch = verl_batch(token_rows(fork(), [0, 10, 20, -30], weights=[2, 1, 0.5, 0.25]), pad_token_id=99)
    tensors = {name: tensor.tolist() for name, tensor in batch["tensors"].items()}
    assert tensors["prompts"] == [[1, 2, 3, 4, 5], [99, 99, 99, 1, 2]]
    assert tensors["responses"] == [[6, 99, 99, 99, 99], [3, 4, 5, 7, 8]]
    assert tensors["input_ids"] == [[1, 2, 3, 4, 5, 6, 99, 99, 99, 99], [99, 99, 99, 1, 2, 3, 4, 5, 7, 8]]
    assert tensors["attention_mask"] == [[1] * 6 + [0] * 4, [0] * 3 + [1] * 7]
    assert tensors["position_ids"][1] == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert tensors["response_mask"] == [[1, 0, 0, 0, 0], [1, 1, 0, 1, 1]]
    assert tensors["advantages"] == [[20, 0, 0, 0, 0], [10, 10, 0, -30, -30]]
    assert tensors["rollout_is_weights"] == [[0.5, 0, 0, 0, 0], [1, 1, 0, 0.25, 0.25]]
    assert np.allclose(tensors["old_log_probs"], [[-0.6, 0, 0, 0, 0], [-0.3, -0.4, 0, -0.7, -0.8]])
    assert tensors["token_level_rewards"] == [[1.5, 0, 0, 0, 0], [0, 0, 0, 0, 0.5]]
    assert {name: array.tolist() for name, array in batch["non_tensors"].items()} == {
        "uid": ["tree-0"] * 2, "task_id": ["t"] * 2, "leaf": [2, 3],
    }  # fmt: skip


def test_skyrl_by_hand():
    batch = skyrl_batch(token_rows(fork(), [0, 10, 20, -30], weights=[2, 1, 0.5, 0.25]), pad_token_id=99)
    fields = {name: tensor.tolist() for name, tensor in batch["fields"].items()}
    assert fields["sequences"] == [[99, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7, 8]]
    assert fields["attention_mask"] == [[0] + [1] * 6, [1] * 7]
    assert fields["loss_mask"] == [[0, 0, 0, 0, 1], [1, 1, 0, 1, 1]]
    assert fields["response_mask"] == [[0, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert fields["advantages"] == [[0, 0, 0, 0, 10], [10, 10, 0, -7.5, -7.5]]
    assert fields["rewards"] == [[0, 0, 0, 0, 1.5], [0, 0, 0, 0, 0.5]]
    assert np.allclose(fields["rollout_logprobs"], [[0, 0, 0, 0, -0.6], [-0.3, -0.4, 0, -0.7, -0.8]])
    assert batch["metadata"] == {"uids": ["tree-0"] * 2, "response_length": 5}
    assert {tensor.dtype for tensor in batch["fields"].values()} == {torch.int64, torch.float32}


def test_prime_rl_by_hand_and_with_several_ranks():
    rows = token_rows([fork(), fork()], [0, 10, 20, -30] * 2, weights=[2, 1, 0.5, 0.25] * 2)
    ranks = [msgpack.unpackb(data) for data in prime_rl_batches(rows, ranks=3, temperature=0.5)]
    assert [len(rank) for rank in ranks] == [2, 2, 2]
    ids, mask, advantages, logprobs, positions, lengths, temperatures, envs, lens, *absent, weights = ranks[1][0]
    assert (ids, mask) == ([1, 2, 3, 4, 5, 7, 8], [False, False, True, True, False, True, True])
    assert advantages == [0, 0, 10, 10, 0, -30, -30]
    assert weights == [0, 0, 1, 1, 0, 0.25, 0.25]
    assert np.allclose(logprobs, [0, 0, -0.3, -0.4, 0, -0.7, -0.8])
    assert (positions, lengths, lens) == ([*range(7)], [7], [7])
    assert (temperatures, envs, absent) == ([0.5] * 7, ["E-v0"] * 7, [None] * 4)
    assert [sum(batch[1]) > 0 for rank in ranks for batch in rank] == [True, True, True, False, True, False]


@settings(max_examples=30)
@given(st.lists(random_trees(), min_size=1, max_size=3), st.sampled_from(["occupancy", "counts", "unique"]))
def test_every_form_asks_for_the_update_of_our_own_loss(trees, weights):
    ours = lay_out(trees)
    assume(len(ours))
    credit = credit_of(len(ours.arrays))
    rows = token_rows(trees, credit, weights=weights)
    expected = ours.per_token(credit) * ours.per_token(step_weights(ours.arrays, weights))
    assert [row.token_ids.tolist() for row in rows] == [
        list(trees[row.tree].token_ids(row.leaf)) for row in rows
    ]  # in its own context, token for token
    assert sum(int(row.trained.sum()) for row in rows) == int(ours.trained.sum())
    by_token = sorted(expected[ours.trained].tolist())
    verl, sky = verl_batch(rows)["tensors"], skyrl_batch(rows)["fields"]
    found = (verl["advantages"] * verl["rollout_is_weights"])[verl["response_mask"] == 1]
    assert np.allclose(sorted(found.tolist()), by_token, atol=1e-5)
    assert np.allclose(sorted(sky["advantages"][sky["loss_mask"] == 1].tolist()), by_token, atol=1e-5)
    (rank,) = map(msgpack.unpackb, prime_rl_batches(rows))
    prime = [a * w for batch in rank for m, a, w in zip(batch[1], batch[2], batch[-1], strict=True) if m]
    assert np.allclose(sorted(prime), by_token, atol=1e-5)
    for tensors, ids in ((verl, "input_ids"), (sky, "sequences")):
        sequences = [s[m == 1].tolist() for s, m in zip(tensors[ids], tensors["attention_mask"], strict=True)]
        assert sequences == [row.token_ids.tolist() for row in rows]


def test_an_estimator_sees_all_trees_and_its_weights_are_of_steps():
    rows = token_rows([fork(), fork()], rloo_advantages)
    arrays = TreeArrays.from_trees([fork(), fork()])
    assert rows[0].advantages[-1] == rloo_advantages(arrays).advantages[2]
    assert rows[1].weights[rows[1].trained].tolist() == step_weights(arrays)[[1, 1, 3, 3]].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: token_rows(EpisodeTree(()), [0.0]), "no step can be trained: batches need actions with token_ids"),
        (lambda: token_rows(fork(), [0.0]), r"credit must be finite numbers \[N\] = \[4\].* got \[1\]"),
        (lambda: token_rows(fork(), [0, 1, float("nan"), 0]), "credit must be finite numbers"),
        (lambda: token_rows(fork(), rloo_advantages, weights="none"), "weights must be 'occupancy'"),
        (lambda: prime_rl_batches(token_rows(fork(), rloo_advantages), ranks=0), "ranks must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        change()
