"""RTMC's file signatures: the tables of the ports, order, repetition, buckets, and what coarsening merges."""

import hashlib

import numpy as np
import pytest

from agentenv.credit import rtmc_visits
from agentenv.credit.file_signatures import FileStep, action_signature, signature_arrays, state_signatures
from agentenv.tree import EpisodeTree
from agentenv.types import Action, to_observation

EDIT = FileStep("modify", "core.py", old="a", new="b")
HASH = hashlib.md5(b"ab").hexdigest()[:4]


@pytest.mark.parametrize(
    ("step", "paper", "coarse"),
    [
        (FileStep("view", "core.py"), "view:full@core.py", "view@core.py"),
        (FileStep("view", "core.py", (100, 299)), "view:partial[1-2]@core.py", "view@core.py"),
        (FileStep("view", "core.py", (1, 50)), "view:partial[0]@core.py", "view@core.py"),
        (FileStep("view", "core.py", (99, 100)), "view:partial[0-1]@core.py", "view@core.py"),
        (FileStep("view", "core.py", (199, 200)), "view:partial[1-2]@core.py", "view@core.py"),
        (FileStep("search", "src/"), "search@src/", "search@src/"),
        (EDIT, f"modify:replace:{HASH}@core.py", "modify@core.py"),
        (FileStep("modify", "core.py", new="ab"), f"modify:insert:{HASH}@core.py", "modify@core.py"),
        (FileStep("create", "new.py"), "create@new.py", "create@new.py"),
        (FileStep("test", "tests/t.py", outcome="ok"), "test@tests/t.py:ok", "test@tests/t.py:ok"),
        (FileStep("think"), "think", "think"),
        (FileStep("finish"), "finish", "finish"),
    ],
)
def test_actions(step, paper, coarse):
    assert action_signature(step) == paper
    assert action_signature(step, style="coarse") == coarse


def test_states_are_cumulative_and_exclude_the_current_action():
    steps = [FileStep("view", "b.py"), EDIT, FileStep("test", outcome="error"), FileStep("view", "b.py", (200, 210))]
    assert state_signatures(steps) == [
        "()",
        "b.py:Vf|()",
        f"b.py:Vf|core.py:M:{HASH}|()",
        f"b.py:Vf|core.py:M:{HASH}|(test:error)",
        f"b.py:V[2],Vf|core.py:M:{HASH}|(test:error)",
    ]
    assert state_signatures(steps, style="coarse")[-1] == "b.py:V|core.py:M|(test:error)"


def test_order_and_repetition_do_not_matter():
    steps = [FileStep("view", "a.py"), EDIT, FileStep("search", "src"), FileStep("think")]
    ends = {state_signatures(order)[-1] for order in (steps, steps[::-1], steps + steps)}
    assert len(ends) == 1


def grown():
    tree = EpisodeTree(to_observation("fix"), state_signature="e0")
    for i, new in enumerate(["x", "y"]):
        look = tree.add(0, Action(f"view {i}"), reward=0.0, state_signature=f"e1.{i}", action_signature="look")
        edit = tree.add(
            look, Action(f"edit {new}"), reward=0.0, state_signature=f"e2.{i}", action_signature=f"edit {new}"
        )
        tree.add(edit, Action("test"), reward=float(i), terminated=True, state_signature=f"e3.{i}")
    return tree


def read(node):
    word, _, rest = node.action.content.partition(" ")
    match word:
        case "view":
            return FileStep("view", "core.py")
        case "edit":
            return FileStep("modify", "core.py", old="a", new=rest)
        case _:
            return None


def test_coarser_signatures_match_more():
    tree = grown()
    overlap = {}
    for style in ("exact", "paper", "coarse"):
        overlap[style] = rtmc_visits(signature_arrays([tree, tree], read, style=style)).state.tolist()[:7]
    assert overlap["exact"] == [0, 2, 1, 1, 2, 1, 1]  # only the start is shared
    assert overlap["paper"] == [0, 2, 2, 1, 2, 2, 1]  # the same file was viewed
    assert overlap["coarse"] == [0, 2, 2, 2, 2, 2, 2]  # the same file was edited
    arrays = signature_arrays([tree, tree], read, style="coarse")
    np.testing.assert_array_equal(arrays.rewards, signature_arrays([tree, tree], read, style="exact").rewards)


def test_refuses_an_unknown_style():
    with pytest.raises(ValueError, match="style must be 'exact', 'paper' or 'coarse', got 'loose'"):
        signature_arrays([grown()], read, style="loose")  # pyright: ignore[reportArgumentType]
