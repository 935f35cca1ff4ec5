"""Rules by name on live trees: what they choose, what they may not choose, and what is said of a bad choice."""

from dataclasses import replace

import numpy as np
import pytest

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    ALLOCATORS,
    HashedPredictor,
    HiddenPredictor,
    StepAdvantages,
    TokenAdvantages,
    TraceAllocator,
    check_advantages,
    check_anchors,
    check_counts,
    make_allocator,
    rtmc_advantages,
    sr_ppo_advantages,
)
from agentenv.credit.allocators import open_nodes, spread_evenly, spread_randomly
from agentenv.credit.predictor import prefix_at
from agentenv.tree import Anchor, EpisodeTree
from agentenv.types import Action, to_observation


def grown(*rewards, steps=3, root=True, word=""):
    """A tree of chains with a snapshot after every step that does not end."""
    tree = EpisodeTree(to_observation("go"), task_id=word, snapshot=object() if root else None)
    for reward in rewards:
        above = 0
        for t in range(steps):
            last = t + 1 == steps
            above = tree.add(
                above,
                Action(f"{word} {t}"),
                reward=reward if last else 0.0,
                terminated=last,
                state_signature=f"{word}{t}{reward}",
                snapshot=None if last else object(),
            )
    return tree


TREES = [grown(1.0, 0.0), grown(0.0, 0.0, 0.0, steps=2, word="hard"), grown(None, word="broken")]


@pytest.mark.parametrize("budget", [0, 1, 5, 40])
@pytest.mark.parametrize("name", ALLOCATORS)
def test_every_rule_keeps_the_rules(name, budget):
    allocator = make_allocator(name)
    for seed in range(5):
        anchors = allocator(TREES, budget, np.random.default_rng(seed))
        assert check_anchors(TREES, anchors, budget, name) == anchors
        assert all(anchor.count > 0 for anchor in anchors)
        assert all(type(x) is int for anchor in anchors for x in (anchor.tree, anchor.node, anchor.count))
    assert allocator([grown(1.0, steps=1, root=False)], budget, np.random.default_rng(0)) == []


def test_even_gives_every_tree_its_share_and_no_node_a_second_one_too_early():
    anchors = spread_evenly(TREES[:2], 7, np.random.default_rng(0))
    spent = [sum(anchor.count for anchor in anchors if anchor.tree == i) for i in (0, 1)]
    assert spent == [4, 3]
    assert max(anchor.count for anchor in anchors) == 1
    many = spread_evenly(TREES[:2], 2 * 4 * 5, np.random.default_rng(0))
    counts = {i: {a.node: a.count for a in many if a.tree == i} for i in (0, 1)}
    assert set(counts[0]) == {0, 1, 2, 4, 5}
    assert set(counts[0].values()) == {4}
    assert sum(counts[1].values()) == 20
    different = {tuple(a.node for a in spread_evenly(TREES[:1], 2, np.random.default_rng(s))) for s in range(20)}
    assert len(different) > 3


def test_random_draws_every_open_node_alike():
    hits = np.zeros((2, 8))
    for anchor in spread_randomly(TREES[:2], 9000, np.random.default_rng(0)):
        hits[anchor.tree, anchor.node] += anchor.count
    assert hits.sum() == 9000
    assert sorted(np.flatnonzero(hits[0]).tolist()) == open_nodes(TREES[0]) == [0, 1, 2, 4, 5]
    np.testing.assert_allclose(hits[hits > 0], 1000, atol=150)


class Oracle:
    """Half at the nodes of one tree, certain elsewhere; remembers what it was told."""

    def __init__(self, word):
        self.word, self.learned = word, []

    def predict(self, prefixes):
        return np.array([0.5 if prefix.task == self.word else 0.0 for prefix in prefixes])

    def update(self, prefixes, targets, weights=None):
        self.learned.append((len(prefixes), np.asarray(targets).tolist(), np.asarray(weights).tolist()))


@pytest.mark.parametrize("outcomes", ["seen", "unseen"])
def test_trace_spends_where_the_predictor_is_undecided_and_learns_afterwards(outcomes):
    trees = [grown(1.0, 1.0, word="easy"), grown(0.0, 0.0, word="open"), grown(0.0, word="hopeless")]
    oracle = Oracle("open")
    allocator = TraceAllocator(oracle, outcomes=outcomes, maximum=3)
    anchors = allocator(trees, 12, np.random.default_rng(0))
    # A success seen where failure was certain is worth another look, unless outcomes are not looked at.
    assert {anchor.tree for anchor in anchors} == ({0, 1} if outcomes == "seen" else {1})
    assert max(anchor.count for anchor in anchors) == (2 if outcomes == "seen" else 3)
    assert not oracle.learned
    report = allocator.learn(trees)
    assert len(oracle.learned) == 1
    assert oracle.learned[0][0] == 5 + 5 + 3  # every inner node, roots too
    # Predictions were 0 for two outcomes of 1 and one of 0, 0.5 for two of 0: at every depth alike.
    assert report["brier"] == pytest.approx((2 * 1 + 2 * 0.25) / 5)
    assert {name.partition("/depth_")[2] for name in report} == {"", "0", "1", "2-3"}
    assert allocator.roots([begun("easy"), begun("open"), begun("hopeless")], 6, np.random.default_rng(0)) == [0, 6, 0]


def begun(word):
    return EpisodeTree(to_observation("go"), task_id=word, snapshot=object())


class Says:
    """Predicts by task."""

    def __init__(self, **success):
        self.success = success

    def predict(self, prefixes):
        return np.array([self.success[prefix.task] for prefix in prefixes])

    def update(self, prefixes, targets, weights=None):
        pass


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 8, 13])
def test_roots_get_two_or_more_or_none_where_outcomes_are_open(budget):
    predictor = Says(a=0.5, b=0.02, c=0.9, d=0.0)
    trees = [begun(word) for word in "abcd"]
    for seed in range(5):
        counts = TraceAllocator(predictor, root_maximum=6).roots(trees, budget, np.random.default_rng(seed))
        assert counts[3] == 0
        assert 1 not in counts and max(counts) <= 6
        assert sum(counts) == (budget if budget != 1 else 0)
        assert (counts[0] >= 2) == (budget >= 2)
    assert TraceAllocator(predictor).roots([], budget, np.random.default_rng(0)) == []


def test_a_predictor_that_is_sure_of_everything_goes_on_being_tested():
    trees = [begun(word) for word in "abcd"]
    sure = TraceAllocator(Says(a=0.0, b=1.0, c=0.0, d=1.0))
    assert sure.roots(trees, 16, np.random.default_rng(0)) == [4, 4, 4, 4]
    some = [sure.roots(trees, 5, np.random.default_rng(seed)) for seed in range(9)]
    assert all(sorted(counts) == [0, 0, 2, 2] for counts in some)
    assert len(set(map(tuple, some))) > 1


def test_equal_prospects_are_taken_in_random_order():
    trees = [begun(word) for word in "abcd"]
    even = TraceAllocator(Says(a=0.5, b=0.5, c=0.5, d=0.5))
    assert len({tuple(even.roots(trees, 4, np.random.default_rng(seed))) for seed in range(20)}) > 3


@pytest.mark.parametrize(
    ("counts", "error", "message"),
    [
        ([2, 2], ValueError, "one count for each of 3 trees, got 2"),
        ([2, -2, 2], ValueError, "at least 0 .* got -2 for one"),
        ([4, 2, 3], ValueError, "at most 8 in all .* got 9 in all"),
        ([2.5, 1.5, 2.0], TypeError, "roots of mine must return a list of integers"),
        (None, TypeError, "got None"),
        ("223", TypeError, "'223'"),
    ],
)
def test_bad_counts_are_refused_by_name_and_rule(counts, error, message):
    with pytest.raises(error, match=message):
        check_counts(counts, 3, 8, "mine")
    assert check_counts(np.array([2, 0, 6]), 3, 8) == [2, 0, 6]


def test_what_was_learned_goes_into_a_state_and_back():
    trees = [grown(1.0, 0.0, word="a"), grown(0.0, 0.0, word="b")]
    for predictor in (HashedPredictor, HiddenPredictor):
        one, other = TraceAllocator(predictor()), TraceAllocator(predictor())
        for allocator in (one, other):
            allocator.read = with_hidden
        for _ in range(3):
            one.learn(trees)
        other.load_state_dict(one.state_dict())
        for _ in range(2):
            assert one.learn(trees) == other.learn(trees)
    fixed = TraceAllocator(Says())
    assert fixed.state_dict() == {}
    fixed.load_state_dict({})


def with_hidden(tree, node):
    return replace(prefix_at(tree, node), hidden=np.random.default_rng(node).normal(size=8))


def test_trace_without_outcomes_chooses_before_they_are_known():
    """The same prefixes with other endings get the same continuations."""
    wins, losses = [grown(1.0, 1.0), grown(1.0)], [grown(0.0, 0.0), grown(0.0)]
    for tree, other in zip(wins, losses, strict=True):
        for i in range(len(tree)):
            assert prefix_at(tree, i).text == prefix_at(other, i).text
    predictor = Oracle("")
    chosen = [
        TraceAllocator(predictor, outcomes="unseen", maximum=4)(trees, 9, np.random.default_rng(1))
        for trees in (wins, losses)
    ]
    assert chosen[0] == chosen[1]


def test_unknown_rules_are_named():
    with pytest.raises(ValueError, match=r"must be a function or one of 'even', 'random', 'trace', .* 'best'"):
        make_allocator("best")
    assert make_allocator(spread_evenly) is spread_evenly
    assert make_allocator("trace") is not make_allocator("trace")
    with pytest.raises(ValueError, match="outcomes must be 'seen' or 'unseen', got 'hidden'"):
        TraceAllocator(outcomes="hidden")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="root_maximum must be at least 2 or None, got 1"):
        TraceAllocator(root_maximum=1)
    for name in ("maximum", "group_maximum"):
        with pytest.raises(ValueError, match=rf"^{name} must be at least 1 or None, got 0"):
            TraceAllocator(**{name: 0})  # pyright: ignore[reportArgumentType]
    for wrong in (HashedPredictor, object()):
        with pytest.raises(TypeError, match="predictor must predict"):
            TraceAllocator(wrong)  # pyright: ignore[reportArgumentType]
    for wrong in (TraceAllocator, None, 3):
        with pytest.raises(TypeError, match="allocator must be a name, a function or an allocator that was made"):
            make_allocator(wrong)  # pyright: ignore[reportArgumentType]


BARE = grown(1.0)
BARE.snapshots.clear()


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([Anchor(0, 1, 9)], "greedy must spend at most its budget of 8 continuations; its anchors ask for 9"),
        ([Anchor(0, 1, 5), Anchor(1, 1, 4)], "ask for 9"),
        ([Anchor(0, 1, -1)], r"greedy returned Anchor\(tree=0, node=1, count=-1\): count must be at least 0"),
        ([Anchor(0, 3)], r"Anchor\(tree=0, node=3, count=1\): the episode ended at this node"),
        ([Anchor(2, 3)], "the episode ended"),
        ([Anchor(3, 1)], r"node=1, count=1\): this node has no snapshot; Rollout\(keep_snapshots=True\)"),
        ([Anchor(4, 1)], r"tree must be an index in \[0, 4\)"),
        ([Anchor(-1, 1)], r"tree must be an index in \[0, 4\)"),
        ([Anchor(0, 7)], r"node must be an index in \[0, 7\), the nodes of tree 0"),
        ([Anchor(0, 1, 1.5)], "count must be an integer"),  # pyright: ignore[reportArgumentType]
        ([Anchor(0, 1, True)], "count must be an integer"),
    ],
)
def test_bad_anchors_are_refused_by_name_anchor_and_rule(anchors, message):
    with pytest.raises(ValueError, match=message):
        check_anchors([*TREES, BARE], anchors, 8, "greedy")


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (None, r"allocator must return a list of agentenv\.tree\.Anchor, got NoneType"),
        (iter([Anchor(0, 1)]), "got list_iterator"),
        ([(0, 1, 1)], "entry 0 is of type tuple"),
    ],
)
def test_what_is_no_list_of_anchors_is_refused(anchors, message):
    with pytest.raises(TypeError, match=message):
        check_anchors(TREES, anchors, 8)


def test_good_anchors_pass():
    anchors = [Anchor(0, 1, 5), Anchor(0, 1, 2), Anchor(1, np.int64(1), np.int64(1)), Anchor(0, 0, 0)]  # pyright: ignore[reportArgumentType]
    assert check_anchors(TREES, anchors, 8) == anchors


ARRAYS = TreeArrays.from_trees(TREES)
GOOD = rtmc_advantages(ARRAYS)


def spoiled(**fields):
    return StepAdvantages(**{name: getattr(GOOD, name) for name in vars(GOOD)} | fields)


def broken_at(node, value):
    array = GOOD.advantages.copy()
    array[node] = value
    return array


@pytest.mark.parametrize(
    ("credit", "message"),
    [
        (spoiled(advantages=broken_at(9, np.inf)), "mine: advantages must be finite; it is inf at node 2 of tree 1"),
        (spoiled(values=broken_at(1, np.nan)), "mine: values must be finite; it is nan at node 1 of tree 0"),
        (spoiled(action_values=broken_at(0, -np.inf)), "it is -inf at node 0 of tree 0"),
        (
            spoiled(advantages=GOOD.advantages[:-1]),
            r"advantages must have shape \[N\] = \[18\], one per node",
        ),
        (spoiled(counts=np.zeros((2, 2))), r"counts must have shape .* got \[2, 2\]"),
        (spoiled(values=np.array([None] * len(ARRAYS))), "mine: values must be numbers, got object"),
    ],
)
def test_bad_advantages_are_refused_by_name_tree_and_node(credit, message):
    with pytest.raises(ValueError, match=message):
        check_advantages(credit, ARRAYS, "mine")


def test_what_is_no_credit_is_refused():
    for credit in (None, GOOD.advantages, sr_ppo_advantages([[0.5]], [1.0])):
        with pytest.raises(TypeError, match=f"mine must return StepAdvantages, got {type(credit).__name__}"):
            check_advantages(credit, ARRAYS, "mine")
    assert check_advantages(GOOD, ARRAYS, "mine") is GOOD
    assert isinstance(sr_ppo_advantages([[0.5]], [1.0]), TokenAdvantages)
