"""`agentenv replay` and `play FILE`: saved trees go on at any node."""

import json

import pytest
from cli_runs import one_line_error, run, run_json

from agentenv import ToolEnv, tool
from agentenv.errors import SnapshotError
from agentenv.rollout import go_back
from agentenv.serialize import read_trees, write_trees

MATH = "agentenv/MathVerifier-v0"


@pytest.fixture
def saved(here):
    """Dice: every step draws; trees that branch in mid-episode."""
    run_json("rollout", "dice_env:Dice", "--tasks", 2, "--rollouts", 2, "--continuations", 3, "--out", "t.jsonl")
    return here / "t.jsonl"


def test_every_node_is_reached_again_and_goes_on_with_an_agent(saved, here):
    trees = read_trees(saved)
    for index, tree in enumerate(trees):
        for node in range(len(tree)):
            words = ("replay", "t.jsonl", "--tree", index, "--at", node, "--env", "dice_env:Dice", "--rollouts", 2)
            if tree.nodes[node].ended:
                assert f"node {node} has ended" in one_line_error(run(*words))
                continue
            done = run_json(*words, "--out", f"{index}-{node}.jsonl")
            (grown,) = read_trees(here / f"{index}-{node}.jsonl")
            assert list(grown.nodes)[: len(tree)] == list(tree.nodes), "what was there is there"
            assert len(done["continuations"]) == 2
            assert all(node in grown.path(end["leaf"]) for end in done["continuations"])


def test_a_tree_that_was_continued_is_replayed_too(saved, here):
    tree = read_trees(saved)[0]
    node = next(i for i, entry in enumerate(tree.nodes) if i and not entry.ended)
    words = ("--env", "dice_env:Dice", "--rollouts", 2, "--out")
    run_json("replay", "t.jsonl", "--at", node, *words, "more.jsonl")
    more = read_trees(here / "more.jsonl")[0]
    deep = [i for i in range(len(tree), len(more)) if not more.nodes[i].ended]
    for i in deep:
        run_json("replay", "more.jsonl", "--at", i, *words, "last.jsonl")


def test_what_a_person_played_goes_on(here):
    lines = "roll\nroll sides=4\n:goto 1\nroll\n:quit\n"
    assert run("play", "dice_env:Dice", "--seed", 3, "--trees", "mine.jsonl", stdin=lines).exit_code == 0
    before = read_trees(here / "mine.jsonl")[0]
    for node in (0, 1, 2, 3):
        if not before.nodes[node].ended:
            done = run_json("replay", "mine.jsonl", "--at", node, "--env", "dice_env:Dice")
            assert done["node"] == node
    text = run("play", "mine.jsonl", "--at", 2, "--env", "dice_env:Dice", "--trees", "next.jsonl",
               stdin="roll\n:goto 3\n:goto 1\nroll sides=4\n:tree\n").stdout  # fmt: skip
    (after,) = read_trees(here / "next.jsonl")
    assert list(after.nodes)[: len(before)] == list(before.nodes)
    last = len(after) - 1
    assert after.nodes[last].parent == 1 and after.nodes[last].observation == before.nodes[2].observation
    assert f"{last}  " in text and "<- you are here" in text


def test_where_every_continuation_failed_the_command_fails_and_says_why(here):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "crash", "arguments": {}}}]}
    (here / "crashing_agent.py").write_text(
        f"class Crash:\n    def act(self, contexts): return [{call}] * len(contexts)\n"
    )
    run_json("rollout", "dice_env:Fragile", "--tasks", 1, "--rollouts", 3, "--out", "t.jsonl")
    words = (
        "replay",
        "t.jsonl",
        "--env",
        "dice_env:Fragile",
        "--at",
        0,
        "--agent",
        "crashing_agent:Crash",
        "--out",
        "o.jsonl",
    )
    result = run(*words)
    assert result.exit_code == 1 and "the verifier is gone" in result.stderr
    assert "0 of 0 continuations succeeded" in result.stdout
    assert len(read_trees(here / "o.jsonl")) == 1, "what was written stays"


def test_an_environment_that_names_itself_needs_no_option(here):
    run_json("rollout", MATH, "--agent", "scripted", "--tasks", 2, "--rollouts", 1, "--out", "m.jsonl")
    done = run_json("replay", "m.jsonl", "--tree", 1, "--at", 1, "--agent", "scripted")
    assert [end["succeeded"] for end in done["continuations"]] == [True]
    text = run(
        "replay", "m.jsonl", "--at", 0, "--agent", "human", stdin="> no idea\nsubmit 1\nsubmit 1\nsubmit 1\n"
    ).stdout
    assert "<- you are here" in text and "of 1 continuations succeeded" in text


def test_one_that_does_not_repeat_itself_is_told_apart(here):
    run_json("rollout", "dice_env:Careless", "--tasks", 1, "--rollouts", 1, "--out", "c.jsonl")
    tree = read_trees(here / "c.jsonl")[0]
    node = next(i for i, entry in enumerate(tree.nodes) if i and "." in str(entry.observation))
    line = one_line_error(run("replay", "c.jsonl", "--at", node, "--env", "dice_env:Careless"))
    assert "did not repeat itself" in line and "step" in line


def test_other_options_are_noticed(here):
    options = ("--env", "dice_env:Dice", "--option", 'tasks=[{"goal": 40}]', "--option", "bonus=5")
    run("play", "dice_env:Dice", *options[2:], "--seed", 1, "--trees", "b.jsonl", stdin="roll\n")
    words = ("replay", "b.jsonl", "--at", 1)
    assert "did not repeat itself" in one_line_error(run(*words, *options[:4]))
    run_json(*words, *options)


def test_an_end_that_comes_earlier_is_noticed(saved, here):
    """Also at the node itself, which shows and pays the same."""
    paths = [(number, tree.path(leaf)) for number, tree in enumerate(read_trees(saved)) for leaf in tree.leaves()]
    number, path = max(paths, key=lambda found: len(found[1]))
    for node in path[1:3]:
        words = ("--tree", number, "--at", node, "--env", "dice_env:Dice", "--option", "max_steps=1")
        line = one_line_error(run("replay", "t.jsonl", *words))
        assert "step 1: end of the episode was False, now it is True; is it made with the same options?" in line


class Uncertain(ToolEnv):
    """Begins anew with other words."""

    count = 0

    def start(self, task):
        type(self).count += 1
        return f"beginning {self.count}"

    @tool
    def wait(self) -> str:
        """Wait."""
        return "waited"


def test_a_beginning_that_differs_is_named(tmp_path):
    from agentenv.agents import RandomAgent
    from agentenv.rollout import rollout_trees

    write_trees(tmp_path / "u.jsonl", rollout_trees(lambda: Uncertain(max_steps=2), RandomAgent(), [None]))
    with pytest.raises(SnapshotError, match=r"does not begin as task .*beginning 1"):
        go_back(Uncertain(max_steps=2), read_trees(tmp_path / "u.jsonl")[0], 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("replay", "t.jsonl", "--at", 0), "'--env' is needed, module:Class: t.jsonl names its environment"),
        (("replay", "t.jsonl", "--at", 0, "--env", MATH), "must be the environment of the tree"),
        (("replay", "t.jsonl", "--at", 999, "--env", "dice_env:Dice"), "'--at'"),
        (("replay", "t.jsonl", "--tree", 9, "--at", 0, "--env", "dice_env:Dice"), "must be in [0, 2)"),
        (("replay", "none.jsonl", "--at", 0), "'FILE'"),
        (("replay", "t.jsonl", "--at", 0, "--env", "dice_env:Dice", "--out", "t.jsonl"), "must be another file"),
        (("play", "t.jsonl", "--env", "dice_env:Dice", "--seed", 3), "a saved tree has its own"),
        (("play", "t.jsonl", "--env", "dice_env:Dice", "--trees", "t.jsonl"), "must be another file"),
        (("play", "t.jsonl", "--env", "dice_env:Dice", "--at", 99), "'--at'"),
    ],
)
def test_wrong_use_is_named(saved, words, message):
    assert message in one_line_error(run(*words)).replace("Invalid value for '--env': ", "'--env' ")
    assert json.loads(saved.read_text().splitlines()[0])
