"""The code of docs/credit.md runs, and says what it should."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from agentenv import credit
from agentenv.tree import EpisodeTree
from agentenv.types import Action, to_observation

TEXT = (Path(__file__).parents[2] / "docs" / "credit.md").read_text()


def grown(won):
    tree = EpisodeTree(to_observation("fix the bug"), task_id="t", state_signature="s0")
    trunk = tree.add(0, Action("look"), to_observation("a file"), reward=0.0, state_signature="s1", snapshot=object())
    tree.add(trunk, Action("edit"), to_observation("done"), reward=won, terminated=True, state_signature="s2")
    return tree


def test_code_blocks_run():
    names: dict[str, Any] = {"trees": [grown(1.0), grown(0.0)]}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    # The forked branch and the chain weigh one rollout each: v0 = (1/2 + 0) / 2. At the win Q = 1, and V' of its state
    # pools half a win, half a failure and the chain's failure.
    np.testing.assert_allclose(names["result"].advantages[2], 1 - (0.5 + 2 / 4) / (2 + 2))
    assert names["result"].advantages[1] > 0 > names["result"].advantages[4]
    assert sum(anchor.count for anchor in names["anchors"]) == 64
    assert {(anchor.tree, anchor.node) for anchor in names["anchors"]} == {(0, 1), (1, 1)}


def test_every_function_is_named():
    functions = [name for name in credit.__all__ if name.endswith("_advantages") or name.startswith("allocate_")]
    assert len(functions) == 17 + 8 + 1  # and check_advantages
    for name in functions:
        assert f"`{name}" in TEXT, name


def test_pictures_exist():
    folder = Path(__file__).parents[2] / "docs"
    for picture in re.findall(r"\]\((images/[^)]+)\)", TEXT):
        assert (folder / picture).is_file(), picture
