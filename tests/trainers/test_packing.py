"""Packed rows: every shared beginning stands once, and every token sees its own row and nothing else."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_trees import random_trees

from agentenv import Action, EpisodeTree
from agentenv.trainers.layout import lay_out
from agentenv.trainers.packed_model import ancestor_mask
from agentenv.trainers.packing import cut, fold, fold_size, plan


class Model:
    """As much of a model as a mask depends on."""

    def __init__(self, kind, dtype=torch.float32):
        self.dtype = dtype
        self.config = self
        self._attn_implementation = kind

    def get_text_config(self):
        return self


def beginnings(rows, which):
    return {tuple(rows.token_ids[row, :n]) for row in which for n in range(1, rows.lengths[row] + 1)}


@given(st.lists(random_trees(), min_size=1, max_size=3))
def test_a_fold_holds_every_beginning_once_and_every_token_sees_its_own_row(trees):
    rows = lay_out(trees)
    which = np.arange(len(rows))
    folded = fold(rows, which)
    assert len(folded.token_ids) == fold_size(rows, which) == len(beginnings(rows, which))
    seen = ancestor_mask(torch.from_numpy(folded.ends)[None], Model("sdpa"))[0, 0].numpy()
    for row in which.tolist():
        own = folded.places[row]
        length = rows.lengths[row]
        assert folded.token_ids[own].tolist() == rows.token_ids[row, :length].tolist()
        assert folded.positions[own].tolist() == list(range(length))
        for t, place in enumerate(own.tolist()):
            assert np.flatnonzero(seen[place]).tolist() == own[: t + 1].tolist()


def test_by_hand():
    """A trunk of two tokens, two branches of one and two, and a row that keeps one token and rewrites the rest."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    add = lambda parent, prompt, ids: tree.add(
        parent, Action("x", token_ids=ids, logprobs=(-1.0,) * len(ids), prompt_token_ids=prompt), reward=0.0
    )
    add(0, (1, 2), (3,))
    below = add(0, (1, 2), (4, 5))
    add(below, (1, 9), (6,))
    folded = fold(lay_out([tree]), np.arange(3))
    assert folded.token_ids.tolist() == [1, 2, 3, 4, 5, 9, 6]
    assert folded.positions.tolist() == [0, 1, 2, 2, 3, 1, 2]
    assert folded.ends.tolist() == [7, 5, 3, 5, 5, 7, 7]


def test_the_masks_of_all_implementations_are_the_same():
    ends = torch.tensor([[7, 5, 3, 5, 5, 7, 7], [1, 2, 3, 4, 5, 6, 7]])
    seen = ancestor_mask(ends, Model("sdpa"))
    for dtype in (torch.float32, torch.bfloat16):
        added = ancestor_mask(ends, Model("eager", dtype))
        assert added.dtype == dtype
        assert torch.equal(added == 0, seen)
        assert (added[~seen] == torch.finfo(dtype).min).all()
    blocks = ancestor_mask(ends, Model("flex_attention"))
    q, k = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    for row in range(2):
        assert torch.equal(blocks.mask_mod(torch.tensor(row), torch.tensor(0), q, k), seen[row, 0])


@given(random_trees(), st.integers(1, 30))
def test_a_tree_is_cut_into_parts_that_fit_and_repeats_as_little_as_it_can(tree, budget):
    rows = lay_out([tree])
    which = np.arange(len(rows))
    parts = cut(rows, which, budget)
    assert sorted(np.concatenate(parts).tolist()) == which.tolist()
    assert all(fold_size(rows, part) <= budget or len(part) == 1 for part in parts)
    order = np.concatenate(cut(rows, which, 10**6))
    if len(order) > 9:
        return
    best = min(
        (
            sum(fold_size(rows, part) for part in divided)
            for bits in range(2 ** (len(order) - 1))
            for divided in [split_at(order, [i + 1 for i in range(len(order) - 1) if bits >> i & 1])]
            if all(fold_size(rows, part) <= budget or len(part) == 1 for part in divided)
        ),
    )
    assert sum(fold_size(rows, part) for part in parts) == best


def split_at(order, cuts):
    return [order[a:b] for a, b in pairwise([0, *cuts, len(order)])]


@given(st.lists(random_trees(), min_size=1, max_size=5), st.integers(1, 4), st.sampled_from([None, 4, 12, 40]))
def test_a_plan_trains_every_row_once_and_keeps_trees_whole(trees, parts, budget):
    rows = lay_out(trees)
    planned = plan(rows, parts=parts, budget=budget)
    assert len(planned) == parts
    packed = [row for micro in planned for row in micro]
    assert sorted(int(i) for row in packed for i in row) == list(range(len(rows)))
    tree_of = rows.arrays.tree_ids[rows.ends]
    sizes = [fold_size(rows, np.flatnonzero(tree_of == tree)) for tree in range(len(trees))]
    capacity = budget or max(sizes)
    assert all(fold_size(rows, row) <= capacity or len(row) == 1 for row in packed)
    for tree, size in enumerate(sizes):
        if size <= capacity:
            assert sum(bool((tree_of[row] == tree).any()) for row in packed) <= 1


def bush(leaves, trunk, branch):
    """A tree of some leaves: a trunk of context, and branches of one action each."""
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    for i in range(leaves):
        ids = (10 + i,) * branch
        action = Action("x", token_ids=ids, logprobs=(-1.0,) * branch, prompt_token_ids=tuple(range(trunk)))
        tree.add(0, action, reward=0.0, terminated=True)
    return tree


def cost_of(rows, planned, token_cost):
    """Operations of one forward pass over padded batches of packed rows."""
    widths = [[fold_size(rows, row) for row in micro] for micro in planned]
    return sum(len(w) * max(w, default=0) * (token_cost + max(w, default=0)) for w in widths)


@given(random_trees(), st.integers(1, 3), st.sampled_from([0.5, 5.0, 50.0, 5000.0]))
def test_without_a_budget_no_size_of_packed_rows_that_was_tried_costs_less(tree, parts, token_cost):
    rows = lay_out([tree])
    found = cost_of(rows, plan(rows, parts=parts, token_cost=token_cost), token_cost)
    whole = fold_size(rows, np.arange(len(rows)))
    for size in {whole, int(whole * 2**-0.5), int(rows.lengths.max(initial=0))}:
        if size >= rows.lengths.max(initial=0) and size:
            assert found <= cost_of(rows, plan(rows, parts=parts, budget=size), token_cost)


@pytest.mark.parametrize(
    ("leaves", "trunk", "branch", "token_cost", "cut"),
    [
        (40, 4, 20, 100.0, True),  # attention costs most, the trunk is short
        (40, 4, 20, 10**5, False),  # a wide model: matrices cost most
        (40, 4, 20, math.inf, False),
        (40, 500, 2, 100.0, False),  # the trunk is nearly all
        (1, 500, 2, 1.0, False),  # one row cannot be cut
        (3, 0, 0, 1.0, False),
    ],
)
def test_a_tree_is_cut_where_attention_costs_more_than_its_trunk(leaves, trunk, branch, token_cost, cut):
    rows = lay_out([bush(leaves, trunk, branch)])
    ((*packed,),) = plan(rows, parts=1, token_cost=token_cost)
    assert (len(packed) > 1) == cut
    if cut:
        assert cost_of(rows, [packed], token_cost) < 0.6 * cost_of(rows, [[np.arange(len(rows))]], token_cost)


def test_micro_batches_have_about_as_many_tokens():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    for i in range(6):
        tree.add(
            0,
            Action("x", token_ids=(i, 7, 7), logprobs=(-1.0,) * 3, prompt_token_ids=(1, 2)),
            reward=0.0,
            terminated=True,
        )
    planned = plan(lay_out([tree] * 6), parts=3)
    assert [sum(len(row) for row in micro) for micro in planned] == [12, 12, 12]


@pytest.mark.parametrize("parts", [1, 3])
def test_nothing_to_train_is_a_plan_without_rows(parts):
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    assert plan(lay_out([tree]), parts=parts) == [[]] * parts
