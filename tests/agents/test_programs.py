"""Programs that know nothing of us, one process per episode, before a proxy."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from proxy_clients import call

from agentenv import make
from agentenv.agents import ProgramRollout, ScriptedAgent
from agentenv.errors import AgentError, TreeError
from agentenv.rollout import rollout_trees
from agentenv.serialize import read_trees
from agentenv.tree import Anchor

pytestmark = pytest.mark.slow

PROGRAMS = Path(__file__).parent / "programs"
TASK = {"question": "Compute (9 - 2) * 3.", "reference": "21"}
SCRIPT = [call("calculate", expression="9 - 2"), call("calculate", expression="7 * 3"), call("submit", answer="21")]


def command(name, *words):
    return [sys.executable, str(PROGRAMS / f"{name}_program.py"), *words]


def math():
    return make("agentenv/MathVerifier-v0", max_steps=12)


def rolls(agent, name, *words, envs: Any = math, **options: Any):
    variables = {"PYTHONPATH": ""}  # openai-agents' `agents`, not a checkout's
    return ProgramRollout(envs, agent, command=command(name, *words), variables=variables, **options)


def taken(tree):
    nodes = tree.nodes[1:]
    return [(node.parent, node.reward, [(c.name, c.arguments) for c in node.action.tool_calls]) for node in nodes]


@pytest.mark.parametrize("words", [("plain",), ("openai_chat", "--stream"), ("anthropic",)])
def test_a_programs_tree_is_that_of_a_native_rollout(words, tmp_path):
    (native,) = rollout_trees(math, ScriptedAgent(SCRIPT), [TASK], 2, seed=4)
    with rolls(ScriptedAgent(SCRIPT), *words, seed=4, record=tmp_path / "trees.jsonl") as rollout:
        (tree,) = rollout.grow([TASK], 2)
    assert taken(tree) == taken(native)
    assert (tree.task_id, tree.metadata["seed"]) == (native.task_id, native.metadata["seed"])
    assert (rollout.ledger.episodes, rollout.ledger.steps, rollout.failures) == (2, 6, 0)
    (read,) = read_trees(tmp_path / "trees.jsonl")
    assert read.nodes == tree.nodes


class Manager:
    """Plays both agents of the program."""

    def act(self, contexts):
        return [self.answer(context.messages) for context in contexts]

    def answer(self, messages):
        if messages[0]["content"] == "You estimate.":
            return "about 20"
        script = [SCRIPT[0], call("estimate", input="7 times 3"), *SCRIPT[1:], "done"]
        return script[sum(message["role"] == "assistant" for message in messages)]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--responses", "--stream")])
def test_openai_agents_with_a_sub_agent(words):
    with rolls(Manager(), "openai_agents", *words) as rollout:
        (tree,) = rollout.grow([TASK])
        assert [node.kept_messages for node in tree.nodes] == [None, None, None, 0, None, None, None]
        assert [node.parent for node in tree.nodes] == [-1, 0, 1, 0, 3, 2, 5]
        assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0, 1.0]
        if not words:
            rollout.extend([tree], [Anchor(0, 5)])
            assert tree.nodes[7].info["replay"] == {
                "wanted": 4, "answered": 4, "live": True, "left_early": False, "why": "",
            }  # fmt: skip
            assert (len(tree), tree.nodes[7].parent, tree.episode_return(7)) == (8, 5, 1.0)


def test_continuations_replay_the_program_and_those_that_leave_early_are_told_apart():
    def policy(context):
        step = sum(message["role"] == "assistant" for message in context.messages)
        return SCRIPT[step] if context.seed % 2 or step < 2 else call("submit", answer="0")

    with rolls(ScriptedAgent(policy), "plain", seed=1) as rollout:
        (tree,) = rollout.grow([TASK])
        rollout.extend([tree], [Anchor(0, 2, 4)])
        assert len(tree.children(2)) == 5
        assert {tree.episode_return(leaf) for leaf in tree.leaves()} == {0.0, 1.0}
        assert [node.rollout for node in tree.nodes[4:]] == [1, 2, 3, 4]
        again = list(taken(tree))
    with rolls(ScriptedAgent(policy), "plain", "--pid", seed=1) as rollout:
        (tree,) = rollout.grow([TASK])
        rollout.extend([tree], [Anchor(0, 2, 1)])
        replay = tree.nodes[5].info["replay"]
        assert (replay["answered"], replay["left_early"]) == (0, True)
        assert "request 0 differs in message 0: it was system" in replay["why"]
    varying = [r"program \d+"]
    with rolls(ScriptedAgent(policy), "plain", "--pid", seed=1, varying=varying) as rollout:
        (tree,) = rollout.grow([TASK])
        rollout.extend([tree], [Anchor(0, 2, 1)])
        replay = tree.nodes[4].info["replay"]
        assert (replay["answered"], replay["left_early"], tree.nodes[4].parent) == (2, False, 2)
    with rolls(ScriptedAgent(policy), "plain", seed=1) as rollout:
        (tree,) = rollout.grow([TASK])
        rollout.extend([tree], [Anchor(0, 2, 4)])
        assert taken(tree) == again


def test_a_tree_read_from_a_file_goes_on(tmp_path):
    path = tmp_path / "trees.jsonl"
    with rolls(ScriptedAgent(SCRIPT), "plain", record=path) as rollout:
        rollout.grow([TASK])
    (tree,) = read_trees(path)
    with rolls(ScriptedAgent(SCRIPT), "plain") as rollout:
        rollout.extend([tree], [Anchor(0, 1)])
        assert [node.parent for node in tree.nodes] == [-1, 0, 1, 2, 1, 4]
        for node, names in ((3, "it has ended"), (17, "no such node")):
            with pytest.raises(TreeError, match=names):
                rollout.extend([tree], [Anchor(0, node)])
        for anchor in (Anchor(1, 0), Anchor(-1, 0), Anchor(0, 1, -1)):
            with pytest.raises(TreeError, match="an anchor needs a tree in"):
                rollout.extend([tree], [anchor])


# ---------------------------------------------------------------------- ends


def alive(folder):
    return [path.name for path in folder.iterdir() if Path("/proc", path.name).exists()]


@pytest.mark.parametrize("ends", [("0",), ("3",), ("0", "hang")])
def test_nothing_is_left_running(ends, tmp_path):
    limit = 600.0 if len(ends) == 1 else 4.0
    with rolls(ScriptedAgent(["hello"]), "spawning", str(tmp_path), *ends, max_seconds=limit, retries=0) as rollout:
        (tree,) = rollout.grow([TASK])
    assert len(list(tmp_path.iterdir())) == 3
    assert alive(tmp_path) == []
    assert [node.action and node.action.content for node in tree.nodes[1:]] == ["hello"]
    assert tree.nodes[1].truncated is (len(ends) > 1)
    assert tree.nodes[1].reward == 0.0
    assert ("code 3" in tree.nodes[1].info["ending"]) is (ends[0] == "3")


def test_a_program_that_cannot_run_is_a_failure_that_is_counted(tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package")
    options: dict[str, Any] = {"command": [sys.executable, str(tmp_path / "broken.py")], "retries": 1}
    with ProgramRollout(math, ScriptedAgent(SCRIPT), **options) as rollout:
        (tree,) = rollout.grow([TASK])
    assert [(node.reward, node.attempt) for node in tree.nodes[1:]] == [(None, 0), (None, 1)]
    assert "No module named 'no_such_package'" in tree.nodes[1].info["failure"]
    assert rollout.failures == 2


def test_an_outage_of_the_agent_is_tried_again_and_a_bug_stops_the_run():
    class Away:
        left = 1

        def act(self, contexts):
            if self.left:
                self.left -= 1
                msg = "no GPU"
                raise AgentError(msg)
            return ScriptedAgent(SCRIPT).act(contexts)

    with rolls(Away(), "plain") as rollout:
        (tree,) = rollout.grow([TASK])
        assert [(node.reward, node.attempt) for node in tree.nodes[1:]] == [(None, 0), (0.0, 1), (0.0, 1), (1.0, 1)]
        assert "no GPU" in tree.nodes[1].info["failure"]
        rollout.agent = ScriptedAgent([1])  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="action must be a str"):
            rollout.grow([TASK])


def test_without_an_environment_a_function_gives_the_reward(tmp_path):
    def reward(session):
        assert session.exit_code == 0
        return float(session.task in session.messages[0]["content"]) + (session.messages[-1]["content"] == "hello")

    (tmp_path / "left").mkdir()
    options = {"envs": None, "reward": reward}
    with rolls(ScriptedAgent(["hello"]), "spawning", str(tmp_path / "left"), "0", **options) as rollout:
        (tree,) = rollout.grow(["say hello"])
    assert (tree.task_id, tree.episode_return(1)) == ("say hello", 2.0)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"command": "python agent.py"}, "command must be a list of words"),
        ({"command": []}, "command must be a list of words"),
        ({"command": ["no-such-program"]}, "which is not found"),
        ({"max_programs": 0}, "max_programs must be at least 1"),
        ({"max_seconds": 0}, "max_seconds must be above 0"),
    ],
)
def test_wrong_arguments_are_named(wrong, names):
    with pytest.raises(ValueError, match=names):
        ProgramRollout(math, ScriptedAgent([]), **{"command": ["true"]} | wrong)


def test_words_and_variables_tell_a_program_where_everything_is(tmp_path):
    script = tmp_path / "show.py"
    seen = f"open({str(tmp_path / 'seen')!r}, 'w')"
    told = "[sys.argv[1:], dict(os.environ), sys.stdin.read(), os.getcwd()]"
    script.write_text(f"import json, os, sys\njson.dump({told}, {seen})\n")
    words = [sys.executable, str(script), "--url={base_url}", "{prompt}", "{other}"]
    with ProgramRollout(math, ScriptedAgent([]), command=words, variables={"MINE": "1"}) as rollout:
        rollout.grow([TASK])
    arguments, variables, prompt, folder = json.loads((tmp_path / "seen").read_text())
    assert arguments == [f"--url={variables['OPENAI_BASE_URL']}", TASK["question"], "{other}"]
    assert prompt == variables["AGENTENV_PROMPT"] == TASK["question"]
    assert variables["ANTHROPIC_BASE_URL"] + "/v1" == variables["OPENAI_BASE_URL"]
    assert variables["MINE"] == "1"
    assert not os.path.exists(folder)  # noqa: PTH110
