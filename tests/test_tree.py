"""Episode trees: what may be added, exact tokens, and the arrays that estimators read."""

from typing import Any

import numpy as np
import pytest
import strategies
from episode_trees import episode_trees
from hypothesis import given, settings
from hypothesis import strategies as st

from agentenv.arrays import TreeArrays, number_signatures
from agentenv.errors import TreeError
from agentenv.tree import EpisodeTree, Prompt
from agentenv.types import Action, to_observation

ROOT = to_observation("go")


def answer(text):
    return to_observation(text)


def by_hand():
    """Root 0 with children 1 and 2; 3 and 4 below 1; 4 failed, 2 and 3 ended."""
    tree = EpisodeTree(ROOT, task_id="t", env_id="E-v0", state_signature="s0", metadata={"seed": 1}, snapshot="snap")
    tree.add(0, Action("a"), answer("A"), reward=0.5, state_signature="s1", action_signature="a", snapshot="one")
    tree.add(0, Action("b"), answer("B"), reward=1, terminated=True, state_signature="s2", action_signature="b")
    tree.add(1, Action("b"), answer("C"), reward=0.25, truncated=True, state_signature="s2", action_signature="b")
    tree.add(1, Action("d"), reward=None, state_signature="", action_signature="d", info={"failure": "x"})
    return tree


def test_a_tree_by_hand():
    tree = by_hand()
    assert len(tree) == 5
    assert [list(tree.children(i)) for i in range(5)] == [[1, 2], [3, 4], [], [], []]
    assert tree.leaves() == [2, 3, 4]
    assert tree.path(3) == [0, 1, 3]
    assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0, 0.75, None]
    contents = [message["content"] for message in tree.messages(3)]
    assert contents == ["go", "a", "A", "b", "C"]
    assert [node.ended for node in tree.nodes] == [False, False, True, True, True]
    assert tree.snapshots == {0: "snap", 1: "one"}
    assert repr(tree) == "EpisodeTree(E-v0 task 't': 5 nodes, 3 leaves)"


def test_the_arrays_by_hand():
    arrays = by_hand().arrays()
    assert arrays.parents.tolist() == [-1, 0, 0, 1, 1]
    assert arrays.rewards.tolist() == [0, 0.5, 1, 0.25, 0]
    assert arrays.terminated.tolist() == [False, False, True, False, False]
    assert arrays.truncated.tolist() == [False, False, False, True, False]
    assert arrays.valid.tolist() == [True, True, True, True, False]
    assert arrays.state_ids.tolist() == [0, 1, 2, 2, 3]
    assert arrays.action_ids.tolist() == [0, 1, 2, 2, 3]
    assert arrays.tree_ids.tolist() == [0] * 5
    assert arrays.depths.tolist() == [0, 1, 1, 2, 2]
    assert [level.tolist() for level in arrays.levels] == [[0], [1, 2], [3, 4]]
    assert arrays.is_root.tolist() == [True, False, False, False, False]
    assert arrays.is_leaf.tolist() == [False, False, True, True, True]
    assert arrays.is_trajectory.tolist() == [False, False, True, True, False]
    assert arrays.leaf_counts.tolist() == [2, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parent": 5}, r"parent must be a node index in \[0, 5\), got 5"),
        ({"parent": -1}, r"parent must be a node index in \[0, 5\), got -1"),
        ({"parent": 2}, r"node 2 has ended \(terminated, truncated or failed\)"),
        ({"parent": 3}, "node 3 has ended"),
        ({"parent": 4}, "node 4 has ended"),
        ({"reward": float("nan")}, "reward must be a finite number, or None where infrastructure failed; got nan"),
        ({"reward": float("inf")}, "got inf"),
        ({"reward": "1"}, "reward must be a finite number, or None .* got '1'"),
        ({"reward": [1.0]}, r"got \[1.0\]"),
    ],
)
def test_what_breaks_a_rule_is_not_added(change, words):
    tree = by_hand()
    arguments = {"parent": 1, "reward": 0.0} | change
    with pytest.raises(TreeError, match=words):
        tree.add(arguments["parent"], Action("x"), reward=arguments["reward"])
    assert len(tree) == 5
    assert list(tree.children(1)) == [3, 4]


@pytest.mark.parametrize("method", ["children", "path", "messages", "prompt", "token_ids", "prompt_token_ids"])
@pytest.mark.parametrize("node", [-1, 5])
def test_a_node_that_does_not_exist_is_named(method, node):
    with pytest.raises(TreeError, match=rf"node must be a node index in \[0, 5\), got {node}"):
        getattr(by_hand(), method)(node)


def test_numpy_numbers_become_plain_ones():
    tree: Any = by_hand()
    node = tree.nodes[tree.add(np.int64(1), Action("x"), reward=np.float32(0.5), terminated=np.bool_(True))]
    assert [type(value) for value in (node.parent, node.reward, node.terminated)] == [int, float, bool]


def test_arrays_of_what_is_no_number_or_no_list_of_trees_are_refused():
    with pytest.raises(TreeError, match=r"^rewards must be numbers; entry 1 is 'x'$"):
        TreeArrays.build([-1, 0], [0, "x"])
    with pytest.raises(TreeError, match=r"^thresholds must be numbers; entry 0 is 'x'$"):
        TreeArrays.build([-1, 0], [0, 1], thresholds="x")
    assert TreeArrays.build([-1, 0], np.array([0, 1], dtype=object)).rewards.tolist() == [0.0, 1.0]
    wrong: Any = by_hand()
    with pytest.raises(TypeError, match=r"trees must be a list of .*, got one EpisodeTree: from_trees\(\[tree\]\)"):
        TreeArrays.from_trees(wrong)


# ---------------------------------------------------------------------- tokens


def test_tokens_are_stored_once_and_come_back_exactly():
    tree = EpisodeTree(ROOT)
    first = tree.add(0, Action("a", (), (10, 11), (-0.5, -0.25), (1, 2, 3)), answer("A"), reward=0.0)
    tree.add(0, Action("b", (), (12,), None, (1, 2, 3)), reward=0.0)
    second = tree.add(first, Action("c", (), (20,), None, (1, 2, 3, 10, 11, 4, 5)), reward=0.0)
    assert tree.token_ids(0) == ()
    assert tree.token_ids(first) == (1, 2, 3, 10, 11)
    assert tree.token_ids(second) == (1, 2, 3, 10, 11, 4, 5, 20)
    assert tree.prompt_token_ids(0) == (1, 2, 3)
    assert tree.prompt_token_ids(first) == (1, 2, 3, 10, 11, 4, 5)
    assert tree.prompt_token_ids(second) is None
    assert tree.prompt(first) == Prompt(5, (4, 5))
    assert tree.nodes[first].action.prompt_token_ids is None, "kept at the parent"  # pyright: ignore[reportOptionalMemberAccess]
    assert tree.nodes[first].action.logprobs == (-0.5, -0.25)  # pyright: ignore[reportOptionalMemberAccess]


def test_a_template_that_rewrites_history_keeps_what_is_equal():
    tree = EpisodeTree(ROOT)
    first = tree.add(0, Action("a", (), (10, 11), None, (1, 2)), reward=0.0)
    second = tree.add(first, Action("b", (), (20,), None, (1, 2, 10, 7, 8)), reward=0.0)  # 11 was cut
    assert tree.prompt(first) == Prompt(3, (7, 8))
    assert tree.token_ids(second) == (1, 2, 10, 7, 8, 20)
    assert tree.token_ids(first) == (1, 2, 10, 11)
    shorter = tree.add(second, Action("c", (), (30,), None, (1,)), reward=0.0)
    assert tree.prompt(second) == Prompt(1, ())
    assert tree.token_ids(shorter) == (1, 30)


def test_tokens_are_unknown_from_an_action_of_unknown_tokens_until_the_next_prompt():
    tree = EpisodeTree(ROOT)
    first = tree.add(0, Action("a", (), (10,)), reward=0.0)  # what it saw is unknown
    second = tree.add(first, Action("b", (), (20,), None, (1, 10, 5)), reward=0.0)
    assert (tree.token_ids(first), tree.token_ids(second)) == ((), (1, 10, 5, 20))
    tree.add(0, Action("c", (), (30,), None, (1, 2)), reward=0.0)  # and now known, by a sibling
    assert tree.token_ids(first) == (1, 2, 10)
    assert tree.prompt_token_ids(first) == (1, 10, 5), "what is stored does not change with what is learned later"
    third = tree.add(second, Action("d", (), None, None, (1, 10, 5, 20, 6)), reward=0.0)
    assert tree.token_ids(third) == ()


def test_two_actions_from_one_node_saw_one_prompt():
    tree = EpisodeTree(ROOT)
    tree.add(0, Action("a", (), (1,), None, (1, 2)), reward=0.0)
    with pytest.raises(TreeError, match=r"two actions from node 0 of .* saw different prompts \(2 and 3 tokens\)"):
        tree.add(0, Action("b", (), (1,), None, (1, 2, 3)), reward=0.0)
    assert len(tree) == 2


def test_a_prompt_is_the_same_when_what_comes_before_it_became_known_in_between():
    tree = EpisodeTree(ROOT)
    first = tree.add(0, Action("a", (), (10,)), reward=0.0)
    tree.add(first, Action("b", (), (20,), None, (1, 10, 5)), reward=0.0)  # all of it is new
    tree.add(0, Action("c", (), (30,), None, (1,)), reward=0.0)  # now (1, 10) is
    tree.add(first, Action("d", (), (21,), None, (1, 10, 5)), reward=0.0)
    assert tree.prompt_token_ids(first) == (1, 10, 5)
    with pytest.raises(TreeError, match=r"two actions from node 1 of .* saw different prompts \(3 and 3 tokens\)"):
        tree.add(first, Action("e", (), (22,), None, (1, 10, 6)), reward=0.0)


@pytest.mark.parametrize("kept", [-1, 3])
def test_a_stored_prompt_must_fit(kept):
    tree = EpisodeTree(ROOT)
    tree.add(0, Action("a", (), (2,), None, (1,)), reward=0.0)
    with pytest.raises(TreeError, match=rf"prompt.kept must be in \[0, 2\] at node 1, got {kept}"):
        tree.restore_prompt(1, Prompt(kept, ()))


def test_of_prompts_that_differ_none_is_kept_and_the_error_says_where_and_what_to_do():
    tree = EpisodeTree(ROOT, task_id="seven")
    words = (
        r"two actions from node 0 of the tree of task 'seven' saw different prompts \(2 and 2 tokens\), and a node has "
        r"one; make what the agent shows its model depend on the conversation alone .*, or grow a tree for every "
    )
    with pytest.raises(TreeError, match=words):
        tree.restore_prompt(0, Prompt(0, (1, 2)), Prompt(0, (1, 2)), Prompt(0, (1, 3)))
    assert tree.prompt(0) is None
    tree.restore_prompt(0, Prompt(0, (1, 3)), Prompt(0, (1, 3)))
    tree.restore_prompt(0)
    assert tree.prompt(0) == Prompt(0, (1, 3))


@settings(max_examples=150)
@given(episode_trees())
def test_tokens_and_prompts_equal_those_that_were_seen(drawn):
    tree, tokens, prompts = drawn
    assert [tree.prompt_token_ids(i) for i in range(len(tree))] == prompts
    assert [tree.token_ids(i) for i in range(len(tree))] == tokens


# ---------------------------------------------------------------------- arrays

GOOD = {"parents": [-1, 0, 0, -1, 3], "rewards": [0, 1, 2, 0, 3], "tree_ids": [0, 0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"parents": [-1, 1, 0, -1, 3]},
            r"parents\[i\] must be in \[-1, i\): parents .*; parents\[1\] is 1",
        ),
        ({"parents": [-1, 0, 4, -1, 3]}, r"parents\[2\] is 4"),
        ({"parents": [-2, 0, 0, -1, 3]}, r"parents\[0\] is -2"),
        ({"rewards": [0, 1, np.nan, 0, 3]}, r"rewards must be finite; rewards\[2\] is nan"),
        ({"rewards": [0, 1, 2, 0, -np.inf]}, r"rewards\[4\] is -inf"),
        ({"rewards": [1, 1, 2, 0, 3]}, r"the entry of a root must be 0; rewards\[0\] is 1.0"),
        ({"rewards": [0, 1]}, r"rewards must have shape \[N\] = \[5\], got \[2\]"),
        ({"rewards": [[0, 1, 2, 0, 3]]}, r"rewards must have shape \[N\] = \[5\], got \[1, 5\]"),
        ({"tree_ids": [0, 0, 0, 2, 2]}, r"tree_ids must number the trees 0, 1, .*; tree_ids\[3\] is 2"),
        ({"tree_ids": [1, 1, 1, 2, 2]}, r"tree_ids\[0\] is 1"),
        ({"tree_ids": [-1, -1, -1, 0, 0]}, r"tree_ids\[0\] is -1"),
        ({"tree_ids": [0, 0, 0, 1, 0]}, r"tree_ids\[4\] is 0"),
        ({"tree_ids": [0, 0, 1, 1, 1]}, r"in blocks that start at a root; tree_ids\[2\] is 1"),
        ({"parents": [-1, 0, 0, -1, 2]}, r"a node must be in its parent's tree; tree_ids\[4\] is 1"),
        ({"terminated": [0, 0, 0, 1, 0]}, r"nothing comes after an ended or failed node; parents\[4\] is 3"),
        ({"truncated": [1, 0, 0, 0, 0]}, r"nothing comes after an ended or failed node; parents\[1\] is 0"),
        ({"valid": [0, 1, 1, 1, 1]}, r"nothing comes after an ended or failed node; parents\[1\] is 0"),
        ({"state_ids": [0, 1]}, r"state_ids must have shape \[N\] = \[5\], got \[2\]"),
    ],
)
def test_an_array_that_breaks_a_rule_is_named_with_entry_and_value(change, words):
    TreeArrays.build(**GOOD)
    with pytest.raises(TreeError, match=words):
        TreeArrays.build(**{**GOOD, **change})


def test_arrays_are_read_only_copies_of_what_was_given():
    rewards = np.array([0.0, 1.0])
    arrays = TreeArrays.build([-1, 0], rewards)
    rewards[1] = 5
    assert arrays.rewards.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        arrays.rewards[0] = 1
    dtypes = [arrays.parents.dtype, arrays.rewards.dtype, arrays.valid.dtype, arrays.state_ids.dtype]
    assert dtypes == [np.int64, np.float64, np.bool_, np.int64]


def test_the_defaults_of_build():
    arrays = TreeArrays.build([-1, 0, 0, 1], [0, 1, 2, 3])
    assert arrays.terminated.tolist() == [False, False, True, True]
    assert not arrays.truncated.any()
    assert arrays.valid.all()
    assert arrays.state_ids.tolist() == arrays.action_ids.tolist() == [0, 1, 2, 3]
    assert arrays.num_trees == 1


def test_no_nodes_at_all_and_a_root_alone():
    empty = TreeArrays.from_trees([])
    assert (len(empty), empty.num_trees, empty.levels, empty.depths.tolist()) == (0, 0, [], [])
    alone = EpisodeTree(ROOT).arrays()
    assert (alone.num_trees, alone.depths.tolist(), alone.leaf_counts.tolist()) == (1, [0], [0])
    assert not alone.is_trajectory.any(), "no step was taken"


def brute_force_depth(parents, i):
    return 0 if parents[i] == -1 else 1 + brute_force_depth(parents, parents[i])


@given(strategies.tree_arrays())
def test_depths_levels_and_leaves_equal_a_walk_over_the_nodes(arrays):
    size = range(len(arrays))
    depths = [brute_force_depth(arrays.parents, i) for i in size]
    assert arrays.depths.tolist() == depths
    levels = [[i for i in size if depths[i] == depth] for depth in range(max(depths) + 1)]
    assert [level.tolist() for level in arrays.levels] == levels
    children = [[j for j in size if arrays.parents[j] == i] for i in size]
    assert arrays.is_leaf.tolist() == [not below for below in children]

    def trajectories(i):
        if not children[i]:
            return int(arrays.valid[i] and arrays.parents[i] != -1)
        return sum(trajectories(child) for child in children[i])

    assert arrays.leaf_counts.tolist() == [trajectories(i) for i in size]
    assert arrays.num_trees == len(set(arrays.tree_ids.tolist()))


def test_depths_of_a_chain_that_16_bits_cannot_count():
    length = 2**15 + 10
    arrays = TreeArrays.build(np.arange(length) - 1, np.zeros(length))
    assert arrays.depths.tolist() == list(range(length))
    assert len(arrays.levels) == length
    assert arrays.levels[-1].tolist() == [length - 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=1)), max_size=30))
def test_numbers_of_signatures_are_equal_within_a_tree_exactly_where_they_are(pairs):
    trees, signatures = [tree for tree, _ in pairs], [signature for _, signature in pairs]
    numbers = number_signatures(trees, signatures)
    assert numbers.dtype == np.int64
    for i, first in enumerate(pairs):
        for j, second in enumerate(pairs):
            if first[0] == second[0]:
                assert (numbers[i] == numbers[j]) == (first[1] == second[1])
    for tree in set(trees):
        own = [int(number) for number, (t, _) in zip(numbers, pairs, strict=True) if t == tree]
        firsts = list(dict.fromkeys(own))
        assert firsts == list(range(len(firsts))), "by first appearance"


@given(st.lists(episode_trees(max_nodes=5), max_size=3))
def test_concatenated_trees_are_the_trees_one_after_the_other(drawn):
    trees = [tree for tree, *_ in drawn]
    together = TreeArrays.from_trees(trees)
    assert together.num_trees == len(trees)
    start = 0
    for number, tree in enumerate(trees):
        alone = tree.arrays()
        part = slice(start, start + len(tree))
        assert set(together.tree_ids[part].tolist()) == {number}
        shifted = [parent if parent == -1 else parent + start for parent in alone.parents.tolist()]
        assert together.parents[part].tolist() == shifted
        for name in ("rewards", "terminated", "truncated", "valid", "state_ids", "action_ids", "depths", "leaf_counts"):
            assert getattr(together, name)[part].tolist() == getattr(alone, name).tolist(), name
        start += len(tree)
    assert len(together) == start
