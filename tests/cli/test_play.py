"""`agentenv play`: a person steps, goes back and chooses differently; by a pipe and at a real terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runs import one_line_error, run

from agentenv import Action
from agentenv.cli.console import own_command
from agentenv.serialize import read_trees
from agentenv.types import message_text

MATH = "agentenv/MathVerifier-v0"


def play(lines, *words, env_id=MATH):
    result = run("play", env_id, "--seed", 0, "--trees", "played.jsonl", *words, stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_one_episode_forked_at_every_step_going_back_and_choosing_differently(here):
    """Task: Compute 4 + 8 * 5 - 1. The right way, and at each of its steps one other choice, made after going back."""
    right = ["calculate 8 * 5", "calculate 4 + 40", "calculate 44 - 1", "submit 43"]
    wrong = ["calculate 4 + 8", "calculate 5 - 1", "calculate 8 * 8", "submit 44"]
    lines = []
    for step, (good, bad) in enumerate(zip(right, wrong, strict=True)):
        lines += [good, ":undo", bad, f":goto {2 * step + 1}"]  # nodes 1, 3, 5, 7 are the right way
    play([*lines, ":quit"])
    (tree,) = read_trees(here / "played.jsonl")
    assert len(tree) == 9
    trunk = [0, 1, 3, 5]
    assert [list(tree.children(node)) for node in trunk] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    answers = {node: message_text(tree.nodes[node].observation[0]) for node in range(1, 9)}
    assert answers == {1: "40", 2: "12", 3: "44", 4: "4", 5: "43", 6: "64", 7: "correct", 8: "wrong"}
    assert [tree.nodes[node].reward for node in (7, 8)] == [1.0, 0.0]
    assert tree.nodes[7].terminated and tree.nodes[8].terminated


def test_a_live_fork_goes_its_own_way_and_the_original_stays(here):
    text = play([":fork", "submit 1", ":switch 1", "calculate 8 * 5", ":switch 2", ":switch 3", "submit 2"])
    (tree,) = read_trees(here / "played.jsonl")
    assert list(tree.children(0)) == [1, 2]
    assert tree.nodes[1].terminated and not tree.nodes[2].terminated
    assert "environment 2, node 0> submit 1" in text
    assert "environment 1, node 0> calculate" in text
    assert ":switch needs the number of an environment from 1 to 2, got '3'" in text
    assert "The episode has ended here." in text


def test_chance_is_restored_too(here):
    """Dice: equal choices after going back give equal rolls; the drawing shows where one is."""
    text = play(["roll", ":undo", "roll sides=6", ":undo", ":fork", "roll", ":tree"], env_id="dice_env:Dice")
    (tree,) = read_trees(here / "played.jsonl")
    assert len({message_text(tree.nodes[node].observation[0]) for node in tree.children(0)}) == 1
    assert len(tree.children(0)) == 3
    here_lines = [line for line in text.splitlines() if "<- you are here" in line]
    assert len(here_lines) == 1 and " 3  0 x1 roll(" in here_lines[0]


def test_actions_by_name_as_json_and_as_text(here):
    play(['calculate expression="8 * 5"', '{"name": "submit", "arguments": {"answer": "43"}}', ":new", "> submit it"])
    first, second = read_trees(here / "played.jsonl")
    assert [node.action_signature[:10] for node in first.nodes[1:]] == ["calculate(", "submit(43)"]
    assert first.episode_return(2) == 1.0
    assert second.metadata["seed"] == 1 and second.nodes[1].action == Action("submit it")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("calculat 1", "did you mean 'calculate'?"),
        (":gto 1", "No command :gto. Did you mean :goto?"),
        (":xyz", "There are :help, :tools, :tree"),
        (":goto", ":goto needs the number of a node from 0 to 0, got ''"),
        (":goto 7", "from 0 to 0, got '7'"),
        (":undo", "Nothing to undo"),
        (":new one", "a whole number, got 'one'"),
        (":help", "take back the last step"),
        ("?", "take back the last step"),
        (":tools", "calculate EXPRESSION"),
        (":history", "[user] Compute 4 + 8 * 5 - 1."),
        ("{broken", "not valid JSON"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(here, line, answer):
    text = play([line])
    assert answer in text
    assert not (here / "played.jsonl").exists()


def test_a_task_a_limit_and_the_step_after_the_end(here):
    text = play(["roll 1", "roll 1", "roll 1", "roll 1", "roll 1"], "--task", '{"goal": 50}', env_id="dice_env:Dice")
    assert "[user] Reach 50." in text
    assert "A limit ended the episode: return 0 after 4 steps" in text
    assert text.count("reward 0") == 4
    assert "The episode has ended here." in text
    (tree,) = read_trees(here / "played.jsonl")
    assert tree.task == {"id": "", "goal": 50} and tree.nodes[4].truncated


def test_a_task_of_the_list_by_its_id(here):
    (here / "tasks.jsonl").write_text('{"id": "low", "goal": 3}\n{"id": "high", "goal": 50}\n')
    text = play(["roll 1"], "--option", "tasks=tasks.jsonl", "--task", "high", env_id="dice_env:Dice")
    assert "[user] Reach 50." in text
    error = one_line_error(run("play", "dice_env:Dice", "--option", "tasks=tasks.jsonl", "--task", "middle"))
    assert "'--task'" in error and "'middle'" in error and "id of one of its 2 tasks" in error


def test_a_step_that_infrastructure_broke_can_be_taken_back(here):
    lines = ["crash", "roll", ":fork", ":goto 1", ":undo", "roll"]
    text = play(lines, env_id="dice_env:Fragile")
    assert "Infrastructure failed: the verifier is gone" in text
    assert "Node 1 failed, so nothing was kept there" in text
    (tree,) = read_trees(here / "played.jsonl")
    assert [node.reward for node in tree.nodes] == [0.0, None, 0.0]


def test_an_agent_acts_where_it_is_asked_to(here):
    text = play(["calculate 8 * 5", ":undo", ":act 1", ":act", ":act", ":goto 1", ":act 0"], "--agent", "scripted")
    (tree,) = read_trees(here / "played.jsonl")
    assert tree.episode_return(tree.leaves()[-1]) == 1.0 and tree.nodes[2].parent == 0
    assert text.count("[assistant] ") == len(tree) - 2 + 1  # and the first node once more, at :goto
    assert "The episode has ended here." in text and ":act takes a number of steps from 1 on, got '0'" in text
    assert "There is no agent: begin with" in play([":act"])


def test_sessions_add_to_one_file(here):
    play(["roll"], env_id="dice_env:Dice")
    text = play(["roll", ":new 5", ":new", "roll"], env_id="dice_env:Dice")
    assert f"2 written: {own_command('trees', 'played.jsonl')}" in text
    assert [tree.metadata["seed"] for tree in read_trees(here / "played.jsonl")] == [0, 0, 6]


def test_the_session_in_the_docs_is_what_happens(here):
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    session = text.split("$ agentenv play agentenv/MathVerifier-v0 --seed 0\n")[1].split("```")[0]
    typed = [line.split("> ", 1)[1] for line in session.splitlines() if line.startswith("node ")]
    result = run("play", MATH, "--seed", 0, stdin="\n".join(typed) + "\n:quit\n")
    assert result.stdout.rpartition("node 3, ended> :quit")[0] == session


class Terminal:
    """A real pseudo-terminal with `agentenv play` in it."""

    def __init__(self, folder, *words):
        main, side = pty.openpty()
        command = [sys.executable, "-c", "from agentenv.cli import main; main()", "play", *words]
        env = os.environ | {"TERM": "xterm", "COLUMNS": "90"}
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, cwd=folder, env=env, start_new_session=True
        )
        os.close(side)
        self.main, self.text = main, ""

    def wait_for(self, part, seconds=60):
        """Reads until `part` has come since the last call."""
        end = time.monotonic() + seconds
        while part not in self.text:
            ready, _, _ = select.select([self.main], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {part!r} in {self.text!r}"
            self.text += os.read(self.main, 65536).decode()
        before, _, self.text = self.text.partition(part)
        return before + part

    def type(self, line):
        os.write(self.main, line.encode() + b"\n")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.main)


@pytest.fixture
def terminal(here):
    session = Terminal(here, MATH, "--seed", "0", "--trees", "typed.jsonl")
    yield session
    session.close()


def test_at_a_terminal_going_back_works_and_ctrl_c_leaves_cleanly(here, terminal):
    terminal.wait_for("node 0> ")
    terminal.type("calculate 8 * 5")
    assert "40" in terminal.wait_for("node 1> ")
    terminal.type(":goto 0")
    assert "Compute 4 + 8 * 5 - 1." in terminal.wait_for("node 0> ")
    terminal.type("calculate 4 + 8")
    assert "12" in terminal.wait_for("node 2> ")
    terminal.type(":tree")
    drawing = terminal.wait_for("node 2> ")
    assert "├── " in drawing and "└── " in drawing and "\x1b[36mcalculate" in drawing
    time.sleep(0.5)  # until it waits for a line: readline misses a signal that comes between the prompt and that
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.wait_for("Interrupted.")
    assert terminal.process.wait(30) == 130
    assert "Traceback" not in terminal.text
    (tree,) = read_trees(here / "typed.jsonl")
    assert list(tree.children(0)) == [1, 2]


def test_at_a_terminal_ctrl_d_leaves(terminal):
    terminal.wait_for("node 0> ")
    os.write(terminal.main, b"\x04")
    assert terminal.process.wait(30) == 0


FLAKY = """
class Flaky:
    retryable = (KeyError,)

    def __init__(self, max_tokens: int = 1, temperature: float = 0.0):
        self.asked, self.answer = 0, f"{max_tokens} at {temperature:g}"

    def act(self, contexts):
        self.asked += 1
        if self.asked == 1:
            raise TimeoutError("nobody home")
        if self.asked == 2:
            raise KeyError("mine")
        call = {"function": {"name": "submit", "arguments": {"answer": self.answer}}}
        return [{"role": "assistant", "tool_calls": [call]}]
"""


def test_an_agent_that_breaks_has_done_nothing_and_is_asked_again(here):
    (here / "flaky.py").write_text(FLAKY)
    words = ["--agent", "flaky:Flaky", "--temperature", 0.5, "--max-action-tokens", 9]
    text = play([":act", ":act", ":act"], *words)
    assert "The agent did not act: TimeoutError: nobody home" in text
    assert "The agent did not act: KeyError: 'mine'" in text
    tree: Any = read_trees(here / "played.jsonl")[0]
    assert [call.arguments for node in tree.nodes[1:] for call in node.action.tool_calls] == [{"answer": "9 at 0.5"}]


def test_options_of_no_agent_are_refused(here):
    error = one_line_error(run("play", MATH, "--agent-option", "top_p=0.5"))
    assert "'--agent-option'" in error and "needs --agent, got 'top_p=0.5'" in error


COUNTS = """
from agentenv import Action

class Counts:
    def act(self, contexts):
        (context,) = contexts
        prompt = tuple(context.token_ids) + tuple(range(100, 100 + len(context.messages) - context.covered))
        return [Action("?", token_ids=(7, 8), logprobs=(-1.0, -1.0), prompt_token_ids=prompt)]
"""


def test_an_agent_sees_the_exact_tokens_of_what_it_said_and_none_after_a_person(here):
    (here / "counts.py").write_text(COUNTS)
    play([":act 1", ":act 1", "calculate 1", ":act 1"], "--agent", "counts:Counts")
    tree: Any = read_trees(here / "played.jsonl")[0]
    assert tree.prompt_token_ids(0) == (100,)
    assert tree.token_ids(2)[:3] == (100, 7, 8), "untouched, and what is new after it"
    assert tree.token_ids(2)[-2:] == (7, 8) and tree.prompt(1).kept == 3
    assert tree.token_ids(3) == ()
    assert len(tree.prompt_token_ids(3)) == len(tree.messages(3)), "the whole conversation"
