"""Training rows: every sampled token is trained once, in its own context, with its own step's advantage."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentenv import Action, EpisodeTree
from agentenv.trainers.rows import pad_rows, tree_rows


def act(prompt, ids):
    return Action("x", token_ids=tuple(ids), logprobs=tuple(-0.1 * i for i in ids), prompt_token_ids=tuple(prompt))


def fork() -> EpisodeTree:
    """Root, one shared step, then two endings."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    trunk = tree.add(0, act([1, 2], [3, 4]), reward=0.0)
    tree.add(trunk, act([1, 2, 3, 4, 5], [6]), reward=1.0, terminated=True)
    tree.add(trunk, act([1, 2, 3, 4, 5], [7, 8]), reward=0.0, terminated=True)
    return tree


def test_a_shared_step_is_trained_in_one_row_and_context_in_the_other():
    rows = tree_rows(fork(), np.array([0.0, 0.5, 1.0, -1.0]))
    first, second = rows
    assert first.prompt_ids == (1, 2, 3, 4, 5)
    assert (first.completion_ids, first.mask, first.advantages) == ((6,), (1,), (1.0,))
    assert second.prompt_ids == (1, 2)
    assert second.completion_ids == (3, 4, 5, 7, 8)
    assert second.mask == (1, 1, 0, 1, 1)
    assert second.advantages == (0.5, 0.5, 0.0, -1.0, -1.0)
    assert second.logprobs == (-0.1 * 3, -0.1 * 4, 0.0, -0.1 * 7, -0.1 * 8)


def test_a_step_whose_tokens_were_rewritten_below_gets_a_row_of_its_own():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    thinking = tree.add(0, act([1, 2], [3, 4]), reward=0.0)
    tree.add(thinking, act([1, 2, 9], [6]), reward=1.0, terminated=True)
    rows = tree_rows(tree, np.array([0.0, 0.25, 1.0]))
    assert [(row.prompt_ids, row.completion_ids) for row in rows] == [((1, 2), (3, 4)), ((1, 2, 9), (6,))]
    assert [row.advantages for row in rows] == [(0.25, 0.25), (1.0,)]


def test_steps_that_lead_only_to_failures_are_not_trained():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    lost = tree.add(0, act([1], [2]), reward=0.0)
    tree.add(lost, act([1, 2], [3]), reward=None)
    tree.add(0, act([1], [4]), reward=1.0, terminated=True)
    (row,) = tree_rows(tree, np.array([0.0, 9.0, 9.0, 1.0]))
    assert row.completion_ids == (4,)


def test_truncated_episodes_can_be_left_out():
    tree = fork()
    tree.add(1, act([1, 2, 3, 4, 5], [9]), reward=0.0, truncated=True)
    credit = np.zeros(5)
    assert len(tree_rows(tree, credit)) == 3
    assert [row.completion_ids[-1] for row in tree_rows(tree, credit, train_truncated=False)] == [6, 8]


def test_actions_without_tokens_are_context():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    human = tree.add(0, Action("by hand"), reward=0.0)
    tree.add(human, act([1, 2, 3], [4]), reward=1.0, terminated=True)
    (row,) = tree_rows(tree, np.array([0.0, 1.0, 2.0]))
    assert (row.prompt_ids, row.completion_ids, row.advantages) == ((1, 2, 3), (4,), (2.0,))


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


@given(grown_trees())
def test_every_sampled_token_is_trained_exactly_once_in_its_own_context(tree):
    advantages = np.arange(len(tree), dtype=np.float64)
    trained: dict[int, int] = {}
    for row in tree_rows(tree, advantages):
        ids = [*row.prompt_ids, *row.completion_ids]
        assert row.mask[0] == 1
        for t, (token, mask, credit) in enumerate(zip(row.completion_ids, row.mask, row.advantages, strict=True)):
            if mask:
                (node,) = [i for i in range(1, len(tree)) if token in tree.nodes[i].action.token_ids]
                whole = tree.token_ids(node)
                position = whole.index(token)
                assert ids[: len(row.prompt_ids) + t + 1] == list(whole[: position + 1])
                assert credit == node
                trained[token] = trained.get(token, 0) + 1
            else:
                assert credit == 0
    expected = {token: 1 for node in tree.nodes[1:] for token in node.action.token_ids}
    assert trained == expected


def test_padding_fills_rows_and_widths():
    batch = pad_rows(tree_rows(fork(), np.array([0.0, 0.5, 1.0, -1.0])), pad_token_id=99, count=4, multiple_of=4)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "prompt_ids": (4, 8),
        "prompt_mask": (4, 8),
        **dict.fromkeys(
            ["completion_ids", "completion_mask", "tool_mask", "advantages", "old_per_token_logps"], (4, 8)
        ),
    }
    assert batch["prompt_ids"][1].tolist() == [99] * 6 + [1, 2]
    assert batch["prompt_mask"][1].tolist() == [0] * 6 + [1, 1]
    assert batch["completion_ids"][0].tolist() == [6] + [99] * 7
    assert batch["completion_mask"].sum(1).tolist() == [1, 5, 1, 1]
    assert batch["tool_mask"].sum(1).tolist() == [1, 4, 0, 0]
    assert torch.equal(batch["advantages"][2:], torch.zeros(2, 8))
