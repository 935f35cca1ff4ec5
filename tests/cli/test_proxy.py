"""`agentenv proxy` and `agentenv mcp`: as a server, with a program, and over standard input and output."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import mcp
import pytest
from cli_runs import one_line_error, run
from proxy_clients import converse_chat, http

from agentenv.serialize import read_trees

MATH = "agentenv/MathVerifier-v0"
PLAIN = str(Path(__file__).parents[1] / "agents" / "programs" / "plain_program.py")
COMMAND = [sys.executable, "-c", "from agentenv.cli import main; main()"]
AGENT = '''
class Answers:
    """Submits 7."""

    def act(self, contexts):
        call = {"function": {"name": "submit", "arguments": {"answer": "7"}}}
        return [{"role": "assistant", "content": "", "tool_calls": [call]} for _ in contexts]
'''


def test_it_serves_until_it_is_stopped_and_writes_what_was_done(here):
    (here / "mine.py").write_text(AGENT)
    words = ["proxy", MATH, "--agent", "mine:Answers", "--port", "0", "--out", "trees.jsonl"]
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdout is not None
        try:
            found = re.match(r"listening at (\S+), key (\S+)", process.stdout.readline())
            assert found is not None
            assert "/sessions -H" in process.stdout.readline()
            _, session = http("POST", f"{found[1]}/sessions", found[2], {"seed": 1})
            assert session["messages"]
            converse_chat(session)
            assert http("POST", f"{found[1]}/sessions/{session['id']}/end", found[2])[0] == 200
            _, left = http("POST", f"{found[1]}/sessions", found[2], {"seed": 2})
            converse_chat(left, most=1)
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    trees = read_trees(here / "trees.jsonl")
    assert [tree.nodes[1].info["ending"] for tree in trees] == ["the program has ended", "the proxy was closed"]


def test_tools_are_served_at_an_address_until_it_is_stopped(here):
    words = ["mcp", MATH, "--http", "--port", "0", "--out", "trees.jsonl"]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stderr is not None
        try:
            found = re.match(r"listening at http://127.0.0.1:(\d+)/NAME/mcp", process.stderr.readline())
            assert found is not None
            socket.create_connection(("127.0.0.1", int(found[1])), timeout=10).close()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.parametrize("words", [["mcp", MATH, "--http"], ["serve", MATH, "--openenv"], ["proxy", MATH]])
def test_an_address_that_cannot_be_listened_at_is_refused_before_it_is_told(here, words):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = [
            run(*words, *more)
            for more in (
                ["--port", taken.getsockname()[1]],
                ["--port", 70_000],
                ["--host", "no-host.invalid"],
                ["--host", "192.0.2.1"],
            )
        ]
    assert [one.exit_code for one in found] == [2] * 4
    assert [one.stdout for one in found] == [""] * 4
    names = [
        ("'--port'", "in use"),
        ("'--port'", "70000"),
        ("'--host'", "'no-host.invalid'"),
        ("'--host'", "'192.0.2.1'"),
    ]
    assert all(part in one_line_error(one) for one, parts in zip(found, names, strict=True) for part in parts)


def test_with_a_command_it_grows_trees(here):
    words = ["--agent", "scripted", "--tasks", 2, "--rollouts", 2, "--continuations", 1, "--out", "trees.jsonl"]
    result = run("proxy", MATH, *words, "--", sys.executable, PLAIN)
    assert result.exit_code == 0, result.output
    trees = read_trees(here / "trees.jsonl")
    assert [len(tree.leaves()) for tree in trees] == [3, 3]
    assert {tree.episode_return(leaf) for tree in trees for leaf in tree.leaves()} == {1.0}
    assert re.search(r"^success\s+1$|^success\s+1\.0$", result.stdout, re.MULTILINE)
    assert re.search(r"^left the record early\s+0$", result.stdout, re.MULTILINE)
    assert "agentenv trees trees.jsonl" in result.stdout


@pytest.mark.parametrize("command", [[sys.executable, "mine.py"], ["./mine.py"]])
def test_files_of_this_folder_are_found_by_a_program_that_runs_in_another(here, command):
    (here / "mine.py").write_text(f"#!{sys.executable}\n{Path(PLAIN).read_text()}")
    (here / "mine.py").chmod(0o755)
    result = run("proxy", MATH, "--agent", "scripted", "--out", "trees.jsonl", "--", *command)
    assert result.exit_code == 0, result.output
    (tree,) = read_trees(here / "trees.jsonl")
    assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0]


def test_a_program_that_never_runs_fails_the_command_with_what_it_wrote_at_last(here):
    program = [sys.executable, "-c", f"raise SystemExit('{'x' * 900} no module named nothing')"]
    result = run("proxy", MATH, "--agent", "scripted", "--out", "trees.jsonl", "--", *program)
    assert result.exit_code == 1
    line = result.stderr.strip()
    assert line.startswith("Error: no episode could be played") and line.endswith("no module named nothing")
    assert "ended with code 1 before it asked" in line and len(line) < 600 and "\n" not in line
    assert len(read_trees(here / "trees.jsonl")) == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([MATH, "--agent", "scripted"], "must know the tasks before"),
        ([MATH, "--agent", "rendom"], "did you mean 'random'"),
        (["no/such-v0"], "ENV_ID"),
        (["--option", "x=1"], "needs an ENV_ID"),
        ([MATH, "--key", "short"], "at least 8 characters"),
        ([MATH, "--out", "there"], "'--out': must name a new file, 'there' exists"),
        ([MATH, "--out", "new", "--key", "short"], "'--key'"),
        ([MATH, "--", "no-such-program"], "which is not found"),
        ([MATH, "--out", "new", "--", "no-such-program"], "'COMMAND': command must name a program"),
        ([MATH, "--max-calls", "0"], "max-calls"),
    ],
)
def test_wrong_words_are_named(words, names, here):
    (here / "there").write_text("x")
    assert names in one_line_error(run("proxy", *words))


def test_mcp_over_standard_input_and_output(here):
    async def play():
        args = [
            *COMMAND[1:],
            "mcp",
            MATH,
            "--task",
            '{"question": "Compute 3 + 4.", "reference": "7"}',
            "--out",
            "t.jsonl",
        ]
        parameters = mcp.StdioServerParameters(command=COMMAND[0], args=args, env=dict(os.environ), cwd=str(here))
        async with mcp.Client(parameters) as client:
            assert client.instructions == "Compute 3 + 4."
            await client.call_tool("submit", {"answer": "7"})

    asyncio.run(play())
    (tree,) = read_trees(here / "t.jsonl")
    assert tree.episode_return(1) == 1.0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["no/such-v0"], "ENV_ID"),
        ([MATH, "--task", "{"], "--task"),
        ([MATH, "--task", '{"question": 1}'], "does not fit MathTask"),
        ([MATH, "--out", "there"], "must name a new file"),
    ],
)
def test_wrong_words_for_mcp_are_named(words, names, here):
    (here / "there").write_text("x")
    assert names in one_line_error(run("mcp", *words))
