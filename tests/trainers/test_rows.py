"""Token rows: every sampled token is trained once, in its own context, with its own step's credit and weight."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentenv import Action, EpisodeTree
from agentenv.credit import StepAdvantages, TokenAdvantages, sr_ppo_advantages
from agentenv.trainers.layout import CONTEXT, lay_out


def act(prompt, ids):
    return Action("x", token_ids=tuple(ids), logprobs=tuple(-0.1 * i for i in ids), prompt_token_ids=tuple(prompt))


def credit_of(advantages):
    values = np.array(advantages, dtype=np.float64)
    return StepAdvantages(values, values, values, np.ones(len(values), dtype=np.int64))


def sequence(rows, row):
    return rows.token_ids[row, : rows.lengths[row]].tolist()


def fork() -> EpisodeTree:
    """Root, one shared step, then two endings."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    trunk = tree.add(0, act([1, 2], [3, 4]), reward=0.0)
    tree.add(trunk, act([1, 2, 3, 4, 5], [6]), reward=1.0, terminated=True)
    tree.add(trunk, act([1, 2, 3, 4, 5], [7, 8]), reward=0.0, terminated=True)
    return tree


def test_a_shared_step_is_trained_in_one_row_and_context_in_the_other():
    rows = lay_out([fork()])
    assert [sequence(rows, i) for i in range(2)] == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7, 8]]
    c = CONTEXT
    assert rows.nodes.tolist() == [[c, c, 1, 1, c, 2, c], [c, c, 1, 1, c, 3, 3]]
    assert rows.trained.astype(int).tolist() == [[0, 0, 0, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1, 1]]
    assert np.allclose(rows.logprobs[1], [0, 0, -0.3, -0.4, 0, -0.7, -0.8])
    assert rows.per_token([9.0, 0.5, 1.0, -1.0]).tolist() == [[0, 0, 0, 0, 0, 1, 0], [0, 0, 0.5, 0.5, 0, -1, -1]]
    assert rows.ends.tolist() == [2, 3]


def test_nodes_are_numbered_as_in_the_arrays_of_all_trees():
    rows = lay_out([fork(), fork()])
    assert rows.arrays.num_trees == 2
    assert sorted(set(rows.nodes[rows.trained].tolist())) == [1, 2, 3, 5, 6, 7]
    assert rows.ends.tolist() == [2, 3, 6, 7]


def test_a_step_whose_tokens_were_rewritten_below_gets_a_row_of_its_own():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    thinking = tree.add(0, act([1, 2], [3, 4]), reward=0.0)
    tree.add(thinking, act([1, 2, 9], [6]), reward=1.0, terminated=True)
    rows = lay_out([tree])
    assert [sequence(rows, i) for i in range(2)] == [[1, 2, 3, 4], [1, 2, 9, 6]]
    assert rows.per_token([0.0, 0.25, 1.0]).tolist() == [[0, 0, 0.25, 0.25], [0, 0, 0, 1.0]]


def test_steps_that_lead_only_to_failures_are_not_trained():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    lost = tree.add(0, act([1], [2]), reward=0.0)
    tree.add(lost, act([1, 2], [3]), reward=None)
    tree.add(0, act([1], [4]), reward=1.0, terminated=True)
    rows = lay_out([tree])
    assert [sequence(rows, i) for i in range(len(rows))] == [[1, 4]]


def test_truncated_episodes_can_be_left_out():
    tree = fork()
    tree.add(1, act([1, 2, 3, 4, 5], [9]), reward=0.0, truncated=True)
    assert len(lay_out([tree])) == 3
    rows = lay_out([tree], train_truncated=False)
    assert [sequence(rows, i)[-1] for i in range(len(rows))] == [6, 8]


def test_actions_without_tokens_are_context():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    human = tree.add(0, Action("by hand"), reward=0.0)
    tree.add(human, act([1, 2, 3], [4]), reward=1.0, terminated=True)
    rows = lay_out([tree])
    assert sequence(rows, 0) == [1, 2, 3, 4]
    assert rows.per_token([0.0, 1.0, 2.0]).tolist() == [[0, 0, 0, 2.0]]


def test_a_sampled_action_whose_prompt_is_unknown_is_not_trained():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    tree.add(0, Action("x", token_ids=(5,), logprobs=(-1.0,)), reward=1.0, terminated=True)
    rows = lay_out([tree])
    assert len(rows) == 0
    batch = rows.with_advantages(credit_of([0.0, 1.0]), np.ones(2), pad_token_id=7, count=2)
    assert batch["tool_mask"].sum() == 0 and batch["completion_ids"].tolist() == [[7], [7]]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), 0.5])
def test_log_probabilities_that_cannot_be_are_named(value):
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    tree.add(0, act([1], [2]), reward=1.0, terminated=True)
    bad = EpisodeTree(({"role": "user", "content": "q"},))
    bad.add(
        0,
        Action("x", token_ids=(3, 4), logprobs=(-1.0, value), prompt_token_ids=(1,)),
        reward=1.0,
        terminated=True,
    )
    with pytest.raises(ValueError, match=r"finite and at most 0.*tree 1, node 1, token 1"):
        lay_out([tree, bad])


@st.composite
def grown_trees(draw) -> EpisodeTree:
    """Random trees with unique tokens, some of whose prompts rewrite history."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    fresh = iter(range(1, 10_000))
    take = lambda low: [next(fresh) for _ in range(draw(st.integers(low, 3)))]
    for _ in range(draw(st.integers(1, 12))):
        open_nodes = [i for i, node in enumerate(tree.nodes) if not node.ended]
        parent = draw(st.sampled_from(open_nodes))
        prompt = tree.prompt_token_ids(parent)
        if prompt is None:
            path = tree.token_ids(parent)
            keep = draw(st.integers(0, len(path))) if draw(st.booleans()) else len(path)
            prompt = (*path[:keep], *take(1))
        tree.add(parent, act(prompt, take(1)), reward=0.0, terminated=draw(st.integers(0, 3)) == 0)
    return tree


@given(st.lists(grown_trees(), min_size=1, max_size=3), st.sampled_from([None, 4]))
def test_every_sampled_token_is_trained_exactly_once_in_its_own_context(trees, multiple_of):
    rows = lay_out(trees)
    numbers = np.arange(len(rows.arrays), dtype=np.float64)
    batch = rows.with_advantages(
        credit_of(numbers), 0.5 + numbers, pad_token_id=0, count=len(rows) + 1, multiple_of=multiple_of
    )
    located = [(tree, start + i, i) for tree, start in starts_of(trees) for i in range(1, len(tree))]
    trained: dict[tuple[int, int], int] = {}
    for prompt, seen, completion, read, mask, credit, logprob in zip(
        *(batch[name].tolist() for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask",
                                            "tool_mask", "advantages", "old_per_token_logps")),
        strict=True,
    ):  # fmt: skip
        before = [token for token, kept in zip(prompt, seen, strict=True) if kept]
        for t, token in enumerate(completion):
            if not mask[t]:
                assert credit[t] == logprob[t] == 0
                continue
            assert read[t]
            node = round(mask[t] - 0.5)
            (tree, own) = next((tree, own) for tree, number, own in located if number == node)
            whole = tree.token_ids(own)
            position = whole.index(token)
            assert before + completion[: t + 1] == list(whole[: position + 1])
            assert credit[t] == node
            assert logprob[t] == pytest.approx(-0.1 * token, rel=1e-5)
            trained[node, token] = trained.get((node, token), 0) + 1
    expected = {(number, token): 1 for tree, number, own in located for token in tree.nodes[own].action.token_ids}
    assert trained == expected


def starts_of(trees):
    sizes = np.cumsum([0, *map(len, trees)])[:-1]
    return list(zip(trees, sizes.tolist(), strict=True))


def test_padding_fills_rows_and_widths():
    rows = lay_out([fork()])
    batch = rows.with_advantages(
        credit_of([0.0, 0.5, 1.0, -1.0]), np.array([4.0, 4.0, 2.0, 2.0]), pad_token_id=99, count=4, multiple_of=4
    )
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == dict.fromkeys(
        ["prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages",
         "old_per_token_logps"], (4, 8)
    )  # fmt: skip
    assert batch["prompt_ids"][1].tolist() == [99] * 6 + [1, 2]
    assert batch["prompt_mask"][1].tolist() == [0] * 6 + [1, 1]
    assert batch["completion_ids"][0].tolist() == [6] + [99] * 7
    assert batch["completion_mask"].sum(1).tolist() == [1, 5, 1, 1]
    assert batch["tool_mask"].sum(1).tolist() == [2, 12, 0, 0]
    assert torch.equal(batch["advantages"][2:], torch.zeros(2, 8))


def test_token_credit_joins_the_same_rows():
    """SR-PPO's credit, from success probabilities `[B, L]` of a critic that reads the rows."""
    rows = lay_out([fork()])
    sampled = rows.nodes != CONTEXT
    success = np.where(sampled, 0.25 + 0.05 * np.arange(rows.nodes.shape[1]), 0.0)
    credit = sr_ppo_advantages(success, rows.arrays.succeeded[rows.ends], sampled, k=1.0)
    batch = rows.with_advantages(credit, np.ones(4), pad_token_id=0)
    assert batch["advantages"][1].tolist() == pytest.approx([0.05, 0.1, 0, 0.05, -0.55])
    assert batch["advantages"][0, 0] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(2, 6), (1, 7), (2, 7, 1)])
def test_token_credit_of_another_shape_is_named(shape):
    zeros = np.zeros(shape)
    with pytest.raises(ValueError, match=r"advantages must have shape \[B, L\] = \[2, 7\], the shape of the rows, got"):
        lay_out([fork()]).with_advantages(
            TokenAdvantages(zeros, zeros, zeros, zeros.astype(bool)), np.ones(4), pad_token_id=0
        )


@pytest.mark.parametrize("field", ["advantages", "values", "differences"])
@pytest.mark.parametrize(("tree", "row", "token", "node"), [(0, 1, 3, 1), (1, 2, 5, 2)])
def test_token_credit_that_is_not_finite_is_named(field, tree, row, token, node):
    rows = lay_out([fork(), fork()])
    given = np.where(rows.trained, 0.0, np.inf)  # what is not trained does not matter
    parts: dict[str, Any] = {"advantages": given, "values": given, "differences": given, "mask": rows.trained}
    batch = rows.with_advantages(TokenAdvantages(**parts), np.ones(8), pad_token_id=0)
    assert torch.isfinite(batch["advantages"]).all()
    bad = given.copy()
    bad[row, token] = np.nan
    credit = TokenAdvantages(**parts | {field: bad})
    words = rf"mine: {field} must be finite; it is nan at node {node} of tree {tree}, row {row}, token {token}"
    with pytest.raises(ValueError, match=words):
        rows.check_tokens(credit, "mine")
    with pytest.raises(ValueError, match=f"{field} must be finite"):
        rows.with_advantages(credit, np.ones(8), pad_token_id=0)


def test_what_is_no_token_credit_is_named():
    rows = lay_out([fork()])
    zeros: Any = np.zeros(rows.trained.shape)
    for credit in (None, zeros, credit_of(np.zeros(4))):
        with pytest.raises(TypeError, match=f"mine must return TokenAdvantages, got {type(credit).__name__}"):
            rows.check_tokens(credit, "mine")
    for wrong, words in (
        (zeros, "mask must be booleans, got float64"),
        (zeros.astype(bool)[:1], "mask must have shape"),
    ):
        with pytest.raises(ValueError, match=f"mine: {words}"):
            rows.check_tokens(TokenAdvantages(zeros, zeros, zeros, wrong), "mine")
    text: Any = np.full(zeros.shape, "0.5")
    with pytest.raises(ValueError, match="mine: advantages must be numbers, got <U3"):
        rows.check_tokens(TokenAdvantages(text, zeros, zeros, rows.trained), "mine")


@pytest.mark.parametrize("number", [0, 1])
def test_a_sampled_action_without_a_token_before_it_is_named(number):
    """Nothing predicts its first token; a packed row would take the last token of the row for it."""
    tree = EpisodeTree(({"role": "user", "content": ""},))
    tree.add(0, act([], [3, 4]), reward=1.0, terminated=True)
    trees = [fork()] * number + [tree]
    with pytest.raises(ValueError, match=rf"must follow a token, got tree {number}, node 1, .*give the tree's root a"):
        lay_out(trees)
