"""The drawings show every number they claim to, and parse."""

import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from agentenv.arrays import TreeArrays
from agentenv.credit import rtmc_advantages
from agentenv.explain import explain, explain_svg
from agentenv.tree import EpisodeTree
from agentenv.types import Action, ToolCall, to_observation

TREE = TreeArrays.build(
    [-1, 0, 1, 1, 0, 4, -1, 6],
    [0, 0, 1, 0, 0, 0, 0, 0],
    tree_ids=[0] * 6 + [1] * 2,
    valid=[True] * 5 + [False, True, True],
    truncated=[False] * 3 + [True] + [False] * 4,
    terminated=[False, False, True, False, False, False, False, True],
)
RESULT = rtmc_advantages(TREE, discount=1.0)


def printed(drawing):
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(drawing)
    return captured.get()


def test_terminal_shows_visits_values_and_sign_by_color():
    text = printed(explain(TREE, RESULT, labels=["", "look", "win", "lose", "wait", "broken", "", "other"]))
    lines = text.splitlines()
    assert "2 trajectories" in lines[0]
    look = next(line for line in lines if "look" in line)
    advantage, value = RESULT.advantages[1], RESULT.values[1]
    assert f"A {advantage:+.3f}" in look
    assert f"V {value:.3f}" in look
    assert "visits 2" in look
    assert any("win" in line and "return 1" in line for line in lines)
    assert any("lose" in line and "cut off" in line for line in lines)
    assert any("broken" in line and "failed" in line for line in lines)
    assert "other" not in text
    console = Console(width=120, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(explain(TREE, RESULT))
    assert "\x1b[1;32mA +" in captured.get()
    assert "\x1b[1;31mA -" in captured.get()


def test_svg_parses_and_holds_a_box_per_node():
    root = ET.fromstring(explain_svg(TREE, RESULT, labels=["", "a<b", "win", "lose", "w", "x", "", "o"]))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 1 + 6
    assert len(root.findall(f"{space}path")) == 5
    texts = [node.text for node in root.findall(f"{space}text")]
    assert "a<b" in texts
    assert f"A {RESULT.advantages[1]:+.3f}  n 2" in texts
    boxes = [(float(r.get("x", 0)), float(r.get("y", 0))) for r in root.findall(f"{space}rect")[1:]]
    assert len(set(boxes)) == len(boxes)


def test_episode_trees_show_their_tool_calls():
    tree = EpisodeTree(to_observation("go"))
    tree.add(0, Action(tool_calls=(ToolCall("guess", {"number": 50}),)), reward=1.0, terminated=True)
    tree.add(0, Action("I give up, this is far too hard for me"), reward=0.0, terminated=True)
    result = rtmc_advantages(tree.arrays())
    text = printed(explain(tree, result))
    assert "guess(50)" in text
    assert "I give up, this is f…" in text
    assert "guess(50)" in explain_svg(tree, result)


def test_the_first_mixed_tree_is_drawn_with_its_actions():
    def episodes(word, *rewards):
        tree = EpisodeTree(to_observation("go"))
        for reward in rewards:
            tree.add(0, Action(f"{word} {reward:g}"), reward=reward, terminated=True)
        return tree

    trees = [episodes("easy", 1.0, 1.0), episodes("open", 0.25, 1.0), episodes("also", 1.0, 0.0)]
    result = rtmc_advantages(TreeArrays.from_trees(trees))
    for text in (printed(explain(trees, result)), explain_svg(trees, result)):
        assert "open 0.25" in text
        assert "easy" not in text
        assert "also" not in text
    assert "also 0" in printed(explain(trees, result, which=2))
    assert "tree 1: 2 trajectories" in printed(explain(TreeArrays.from_trees(trees), result))
    alike = [episodes("one", 1.0), episodes("two", 1.0)]
    assert "one 1" in printed(explain(alike, rtmc_advantages(TreeArrays.from_trees(alike))))


def test_large_trees_are_cut_and_say_so():
    chain = TreeArrays.build(range(-1, 299), [0] * 299 + [1])
    result = rtmc_advantages(chain)
    text = printed(explain(chain, result, most=10))
    assert "289 more nodes" in text
    assert max(len(line) for line in text.splitlines()) < 80  # a chain stays one column
    assert "250 nodes not drawn" in explain_svg(chain, result, most=50)


@pytest.mark.parametrize("draw", [explain, explain_svg])
def test_refuses(draw):
    with pytest.raises(ValueError, match=r"which must be a tree index in \[0, 2\), got 2"):
        draw(TREE, RESULT, which=2)
    with pytest.raises(ValueError, match="one entry per node, 8; got 8 and 1"):
        draw(TREE, RESULT, labels=["a"])
    with pytest.raises(ValueError, match="one entry per node, 2"):
        draw(TreeArrays.build([-1, 0], [0, 1]), RESULT)
