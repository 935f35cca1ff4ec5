"""`agentenv trees`: every number on the drawing is the tree's."""

import re

import pytest
from cli_runs import one_line_error, run, run_json

from agentenv import Action, EpisodeTree, ToolCall, TreeArrays
from agentenv.cli.drawing import describe_action
from agentenv.cli.estimators import estimators
from agentenv.credit import rtmc_advantages
from agentenv.serialize import write_trees
from agentenv.types import Observation


def message(text: str) -> Observation:
    return ({"role": "user", "content": text},)


def small_tree():
    """Root - a - (b: 1 | c: 0), root - d: failed."""
    tree = EpisodeTree(message("Where?"), env_id="Maze-v0", task_id="t")
    a = tree.add(0, Action(tool_calls=(ToolCall("go", {"to": "a"}),)), message("at a\n\x1b[31m"), reward=0.5,
                 state_signature="a", action_signature="a")  # fmt: skip
    tree.add(a, Action("b"), reward=1.0, terminated=True, state_signature="b", action_signature="b")
    tree.add(a, Action("c"), reward=0.0, truncated=True, state_signature="c", action_signature="c")
    tree.add(0, Action("d"), reward=None, info={"failure": "SandboxError: gone"})
    return tree


@pytest.fixture
def file(tmp_path):
    write_trees(tmp_path / "t.jsonl", [small_tree(), small_tree()])
    return tmp_path / "t.jsonl"


def test_a_line_per_step_with_reward_visits_and_advantage(file):
    credit = rtmc_advantages(small_tree().arrays(), discount=1.0).advantages
    text = run("trees", file, "--tree", 0, "--credit", "rtmc", "--credit-option", "discount=1.0").stdout
    lines = {int(match[1]): line for line in text.splitlines() if (match := re.match(r"[^\d\w]*(\d) ", line))}
    assert lines[0].endswith("0 Where?")
    assert lines[1].endswith(f'1 +0.5 x2 A{credit[1]:+.3f} go(to="a") -> at a \\x1b[31m')
    assert lines[2].endswith(f'2 +1 x1 A{credit[2]:+.3f} "b"  [end]')
    assert lines[3].endswith(f'3  0 x1 A{credit[3]:+.3f} "c"  [cut by a limit]')
    assert lines[4].endswith('4 failed A+0.000 "d" -> SandboxError: gone')
    indents = [len(lines[i]) - len(lines[i].lstrip(" │├└─")) for i in range(5)]
    assert indents == [0, 4, 8, 8, 4]
    assert "\x1b" not in text


def test_an_unbranched_stretch_is_not_indented_however_deep(tmp_path):
    tree = EpisodeTree(message("go"))
    node = 0
    for i in range(2000):
        node = tree.add(node, Action(str(i)), reward=0.0, terminated=i == 1999)
    write_trees(tmp_path / "deep.jsonl", [tree])
    lines = run("trees", tmp_path / "deep.jsonl", "--tree", 0).stdout.splitlines()[-2001:]
    assert {len(line) - len(line.lstrip(" ")) for line in lines[:10]} == {3}
    assert lines[-1] == '2000  0 x1 "1999"  [end]'


def test_the_table_and_its_json(file):
    rows = run_json("trees", file)
    assert rows[1] == {
        "tree": 1, "task": "t", "episodes": 3, "success": 1.0, "mean return": 1.0, "failed": 1, "nodes": 5,
        "begins": "Where?",
    }  # fmt: skip
    text = run("trees", file).stdout
    assert text.splitlines()[0].split() == [
        "tree",
        "task",
        "episodes",
        "success",
        "mean",
        "return",
        "failed",
        "nodes",
        "begins",
    ]
    assert f"agentenv trees {file} --tree 1" in text


def test_broken_lines_are_named(file):
    broken = file.read_text().splitlines()
    broken[2] = broken[2].replace('"from":[0,0,0]', '"from":[0,0,9]', 1)
    file.write_text("\n".join(broken) + "\n")
    line = one_line_error(run("trees", file))
    assert "'FILE'" in line and "t.jsonl, line 3" in line and "9" in line


def test_a_tree_that_is_not_there(file):
    line = one_line_error(run("trees", file, "--tree", 2))
    assert "'--tree'" in line and "[0, 2)" in line and "got 2" in line
    assert "'--credit-option'" in one_line_error(run("trees", file, "--credit-option", "discount=1"))


def test_every_estimator_by_name_works_on_real_trees(file):
    names = set(estimators())
    assert {"rtmc", "grpo", "rloo", "gigpo", "passk", "tree_grpo"} <= names
    assert "sr_ppo" not in names  # it needs a critic's predictions
    for name, estimate in estimators().items():
        if name not in {"passk_training", "pkpo"}:  # these need k trajectories
            assert len(estimate(TreeArrays.from_trees([small_tree()])).advantages) == 5
            assert run("trees", file, "--credit", name.replace("_", "-")).exit_code == 0


def test_actions_in_words():
    calls = (ToolCall("f", {"x": "é\n", "n": 1}), ToolCall("g", "not json"))
    assert describe_action(Action("so  be\nit", calls)) == '"so be it"; f(x="é\\n", n=1); g(not json)'
    assert describe_action(Action()) == '""'
    assert describe_action(Action("y" * 500), limit=10) == '"yyyyyyy..."'
