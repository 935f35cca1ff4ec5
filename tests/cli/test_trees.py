"""`agentenv trees`: every number on the drawing is the tree's."""

import csv
import io
import math
import re

import pytest
from cli_runs import one_line_error, run, run_json

from agentenv import Action, EpisodeTree, ToolCall, TreeArrays
from agentenv.cli.console import own_command
from agentenv.cli.drawing import describe_action
from agentenv.credit import ESTIMATORS, rtmc_advantages
from agentenv.serialize import TreeWriter, write_trees
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


def test_a_last_line_that_is_cut_is_told_on_one_line(tmp_path):
    file = tmp_path / "t.jsonl"
    with TreeWriter(file, journal=True) as writer:
        writer.begin_tree(small_tree())
    file.write_bytes(file.read_bytes() + b'{"tree":0,')
    ran = run("trees", file)
    assert ran.exit_code == 0
    told = "the last line is cut off; what had ended before it is read, and nothing of what had not"
    assert ran.stderr.splitlines() == [f"warning: {file}, line 3: {told}"]


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
    assert [record["node"] for record in rows[1].pop("records")] == [0, 1, 2, 3, 4]
    assert rows[1] == {
        "tree": 1, "task": "t", "episodes": 3, "success": 0.5, "mean return": 1.0, "failed": 1, "nodes": 5,
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
    assert own_command("trees", file, "--tree", 1) in text


@pytest.mark.parametrize(
    ("credit", "options"), [("rtmc", ["discount=1.0"]), ("passk", ["k=inf"]), ("reachability", [])]
)
def test_json_carries_the_credit_of_every_node(file, credit, options):
    words = [word for option in options for word in ("--credit-option", option)]
    rows = run_json("trees", file, "--credit", credit, *words)
    keywords = {"discount": 1.0} if credit == "rtmc" else {"k": math.inf} if credit == "passk" else {}
    expected = ESTIMATORS[credit](TreeArrays.from_trees([small_tree(), small_tree()]), **keywords)
    for name in ("advantages", "values", "action_values", "counts"):
        found = [value for row in rows for value in row["credit"][name]]
        assert found == [value if math.isfinite(value) else None for value in getattr(expected, name)]
    assert [len(row["credit"]["advantages"]) for row in rows] == [5, 5]
    assert "credit" not in run_json("trees", file)[0]
    column = [record[f"{credit}_advantage"] for row in rows for record in row["records"]]
    assert column == [value for row in rows for value in row["credit"]["advantages"]]


def test_records_carry_names_and_credit_as_json_and_as_csv(file):
    (row,) = run_json("trees", file, "--tree", 1, "--credit", "tree-grpo")
    text = run("trees", file, "--tree", 1, "--credit", "tree-grpo", "--csv").stdout
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(read) == len(row["records"]) == 5
    assert [(r["tree"], r["node"], r["env_id"], r["task_id"], r["tools"]) for r in read[:2]] == [
        ("1", "0", "Maze-v0", "t", ""),
        ("1", "1", "Maze-v0", "t", "go"),
    ]
    for record, line in zip(row["records"], read, strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in record.items()}
    credit = ESTIMATORS["tree_grpo"](TreeArrays.from_trees([small_tree(), small_tree()]))
    assert [float(line["tree_grpo_advantage"]) for line in read] == credit.advantages[5:].tolist()
    assert "'--csv'" in one_line_error(run("trees", file, "--csv", "--json"))


def outcomes(*rewards):
    tree = EpisodeTree(message("Where?"), env_id="Maze-v0", task_id=str(rewards))
    for reward in rewards:
        tree.add(0, Action(str(reward)), reward=reward, terminated=True)
    return tree


@pytest.mark.parametrize(
    ("trees", "drawn"),
    [
        ([outcomes(1, 1), outcomes(0, 0), outcomes(1, 0), outcomes(0, 1)], 2),
        ([outcomes(1, 1), outcomes(0, 0)], 0),
        ([outcomes(None, 1), outcomes(0, None, 1)], 1),
        ([outcomes(0.2, 0.3), outcomes(0.2, 0.9)], 1),
    ],
)
def test_the_first_drawing_is_of_a_tree_where_some_succeed_and_some_do_not(trees, drawn, tmp_path):
    write_trees(tmp_path / "t.jsonl", trees)
    text = run("trees", tmp_path / "t.jsonl", "--credit", "grpo").stdout
    assert re.findall(r"^tree (\d+):", text, re.MULTILINE) == [str(drawn)]
    assert f"--tree {int(drawn == 0)}" in text.splitlines()[-1]


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
    names = set(ESTIMATORS)
    assert {"rtmc", "grpo", "rloo", "gigpo", "passk", "tree_grpo"} <= names
    assert "sr_ppo" not in names  # it needs a critic's predictions
    for name, estimate in ESTIMATORS.items():
        if name not in {"passk_training", "pkpo"}:  # these need k trajectories
            assert len(estimate(TreeArrays.from_trees([small_tree()])).advantages) == 5
            assert run("trees", file, "--credit", name.replace("_", "-")).exit_code == 0


def test_actions_in_words():
    calls = (ToolCall("f", {"x": "é\n", "n": 1}), ToolCall("g", "not json"))
    assert describe_action(Action("so  be\nit", calls)) == '"so be it"; f(x="é\\n", n=1); g(not json)'
    assert describe_action(Action()) == '""'
    assert describe_action(Action("y" * 500), limit=10) == '"yyyyyyy..."'
