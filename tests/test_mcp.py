"""MCP both ways, with the official client and server, over standard input and output and over HTTP."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mcp
import pytest
import uvicorn
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

import agentenv as ae
from agentenv import make
from agentenv.agents import Proxy, ScriptedAgent
from agentenv.errors import InfrastructureError, SnapshotError, ToolServerError
from agentenv.mcp import McpConnection, McpServer, McpToolEnv
from agentenv.mcp.serving import Episodes, make_app
from agentenv.rollout import rollout_trees
from agentenv.serialize import read_trees

pytestmark = pytest.mark.slow

NOTES = McpServer([sys.executable, str(Path(__file__).parent / "mcp_servers" / "notes.py")])
TASK = {"question": "Compute 2 + 3.", "reference": "5"}


def call(name, **arguments):
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


class Noted(McpToolEnv):
    """Notes of a server, and an end of its own."""

    servers = (NOTES,)
    max_steps = 9

    def start(self, task):
        return "Write it down."

    @ae.tool
    def done(self, note: int) -> str:
        """Ends the episode; the note must say `right`."""
        return self.finish("done", reward=float(self.call_server("read", number=note) == "right"))


def step(env, name, **arguments) -> Any:
    observation, reward, terminated, _, info = env.step(call(name, **arguments))
    return observation[0]["content"], reward, terminated, info


# ---------------------------------------------------------------------- servers' tools in an environment


def test_an_environment_has_the_tools_of_a_server_and_its_own():
    with contextlib.closing(Noted()) as env:
        names = [tool["function"]["name"] for tool in env.tools]
        assert names == ["done", "write", "read", "clock", "draw", "crash", "pid"]
        assert env.tools[1]["function"]["description"] == "Writes a note."
        env.reset(seed=0)
        assert step(env, "write", text="right")[0] == "note 1"
        assert step(env, "done", note=1)[:3] == ("done", 1.0, True)


def test_every_episode_has_a_server_of_its_own_which_ends_with_it():
    with contextlib.closing(Noted()) as env:
        pids = []
        for _ in range(2):
            env.reset(seed=0)
            assert step(env, "write", text="x")[0] == "note 1"
            pids.append(int(step(env, "pid")[0]))
        assert len(set(pids)) == 2
        assert not Path("/proc", str(pids[0])).exists()
    assert not Path("/proc", str(pids[1])).exists()
    env.reset(seed=0)  # works again after close
    assert step(env, "write", text="x")[0] == "note 1"
    env.close()


def test_errors_of_tools_are_observations():
    with contextlib.closing(Noted()) as env:
        env.reset(seed=0)
        for name, arguments, names in (
            ("read", {"number": 7}, "read"),  # IndexError in the server
            ("read", {"number": "x"}, "number"),
            ("read", {}, "number"),
            ("rite", {}, "there is no tool 'rite'"),
            ("done", {}, "note is missing"),
        ):
            text, reward, terminated, info = step(env, name, **arguments)
            assert names in text
            assert (reward, terminated, len(info["mistakes"])) == (0.0, False, 1)
        raw = {"role": "assistant", "tool_calls": [{"function": {"name": "read", "arguments": "7, please"}}]}
        assert "must be a JSON object" in env.step(raw)[0][0]["content"]


def test_images_are_parts():
    with McpConnection(NOTES) as connection:
        (part,) = connection.call("draw", {}).content
        assert part == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def test_a_dead_server_is_a_failure_of_infrastructure_and_the_next_episode_has_another():
    with contextlib.closing(Noted()) as env:
        env.reset(seed=0)
        os.kill(int(step(env, "pid")[0]), signal.SIGKILL)
        with pytest.raises(ToolServerError, match=r"notes\.py does not answer"):
            step(env, "write", text="x")
        env.reset(seed=0)
        assert step(env, "write", text="x")[0] == "note 1"


def test_a_call_that_ends_every_server_is_the_agents_fault():
    with contextlib.closing(Noted()) as env:
        env.reset(seed=0)
        text, reward, terminated, info = step(env, "crash", message="out of ink")
        assert (reward, terminated, len(info["breakages"])) == (0.0, True, 1)
        assert "ended during this call" in text
        assert "out of ink" in text


@contextlib.contextmanager
def service():
    """A server that somebody starts again whenever it ends; gives its URL, and what ends it for good."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(64)
        again = f"while :; do {sys.executable} {NOTES.command[1]} {bound.fileno()}; done"
        group = subprocess.Popen(["sh", "-c", again], pass_fds=[bound.fileno()], start_new_session=True)

        def end():
            if group.poll() is None:
                os.killpg(group.pid, signal.SIGKILL)
                group.wait()
            bound.close()

        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", end
        finally:
            end()


def test_a_call_that_ends_a_server_behind_a_url_is_the_agents_fault_unless_none_answers():
    with service() as (url, end), contextlib.closing(Noted(servers=[McpServer(url=url)])) as env:
        env.reset(seed=0)
        assert step(env, "write", text="x")[0] == "note 1"
        text, reward, terminated, info = step(env, "crash", message="out of ink")
        assert (reward, terminated, len(info["breakages"])) == (0.0, True, 1)
        assert "ended during this call" in text
        env.reset(seed=0)
        end()
        with pytest.raises(ToolServerError, match="does not answer"):
            step(env, "crash", message="out of ink")


def test_a_connection_that_ends_between_two_looks_at_it():
    with service() as (url, _):
        connection = McpConnection(McpServer(url=url))
        client = connection._client
        connection.close()
        connection._client = client  # as whoever looked before the end still has it
        with pytest.raises(ToolServerError, match="does not answer"):
            connection.call("write", {"text": "x"})
        connection.close()
        connection.close()


@pytest.mark.parametrize(
    ("server", "names"),
    [
        (McpServer([sys.executable, "-c", "import no_such_package"]), "no_such_package"),
        (McpServer([sys.executable, "-c", "import time; time.sleep(99)"], timeout_s=0.5), "does not answer"),
        (McpServer(url="http://127.0.0.1:9/mcp"), "ConnectError"),
    ],
)
def test_a_server_that_does_not_start_is_a_failure_that_says_why(server, names):
    with pytest.raises(ToolServerError, match=names) as caught:
        Noted(servers=[server])
    assert isinstance(caught.value, InfrastructureError)


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({}, "needs a command"),
        ({"command": "python x.py"}, "a list of words"),
        ({"command": ["no-such-program"]}, "which is not found"),
        ({"url": "http://x", "timeout_s": 0}, "timeout_s must be above 0"),
    ],
)
def test_wrong_servers_are_named(wrong: Any, names):
    with pytest.raises(ValueError, match=names):
        McpServer(**wrong)


def test_names_that_clash_need_a_prefix():
    with pytest.raises(ValueError, match="two tools are called 'write'"):
        Noted(servers=[NOTES, NOTES])
    other = McpServer(NOTES.command, prefix="other_")
    with contextlib.closing(Noted(servers=[NOTES, other])) as env:
        env.reset(seed=0)
        assert step(env, "write", text="a")[0] == step(env, "other_write", text="b")[0] == "note 1"
        assert step(env, "other_read", number=1)[0] == "b"


# ---------------------------------------------------------------------- branching


def test_what_a_server_keeps_cannot_be_taken_and_the_message_says_what_can_be_done():
    with contextlib.closing(Noted()) as env:
        env.reset(seed=0)
        start = env.snapshot()
        step(env, "write", text="x")
        for go in (env.snapshot, lambda: env.fork(1)):
            with pytest.raises(SnapshotError, match=r"ReplayEnv.*stateless=True.*keep_snapshots=False"):
                go()
        env.restore(start)  # the beginning can be gone back to
        assert step(env, "write", text="y")[0] == "note 1"


def test_it_branches_by_replay():
    with contextlib.closing(ae.ReplayEnv(Noted())) as env:
        env.reset(seed=0)
        step(env, "write", text="right")
        left, right = env.fork(2)
        with contextlib.closing(left), contextlib.closing(right):
            assert step(left, "write", text="more")[0] == step(right, "write", text="other")[0] == "note 2"
            assert step(left, "done", note=1)[1] == 1.0
            assert step(right, "done", note=2)[1] == 0.0
        assert step(env, "write", text="z")[0] == "note 2"


def test_replay_refuses_a_server_that_does_not_repeat_itself():
    with contextlib.closing(ae.ReplayEnv(Noted())) as env:
        env.reset(seed=0)
        step(env, "clock")
        with pytest.raises(SnapshotError, match="does not do the same again"):
            env.fork(1)


def test_stateless_servers_need_no_replay_and_serve_every_episode():
    with contextlib.closing(Noted(stateless=True)) as env:
        env.reset(seed=0)
        first = step(env, "pid")[0]
        snapshot = env.snapshot()
        env.reset(seed=1)
        env.restore(snapshot)
        assert (step(env, "pid")[0], env.step_count) == (first, 2)


def test_rollouts_continue_by_replay():
    script = [call("write", text="wrong"), call("write", text="right"), call("done", note=2)]
    trees = rollout_trees(lambda: ae.ReplayEnv(Noted()), ScriptedAgent(script), [None], 1)
    assert [trees[0].episode_return(leaf) for leaf in trees[0].leaves()] == [1.0]
    assert len(trees[0].snapshots) == 3
    trees = rollout_trees(Noted, ScriptedAgent(script), [None], 1, keep_snapshots=False)
    assert trees[0].episode_return(trees[0].leaves()[0]) == 1.0


# ---------------------------------------------------------------------- an environment's tools for any client


def texts(result):
    return [block.text for block in result.content], result.is_error


SERVE = f"""
from agentenv import make
from agentenv.mcp.serving import Episodes, serve_stdio
from agentenv.serialize import TreeWriter
import sys
serve_stdio(Episodes(lambda: make("agentenv/MathVerifier-v0"), task={TASK!r}, writer=TreeWriter(sys.argv[1])))
"""


def test_an_environment_is_served_over_standard_input_and_output(tmp_path):
    async def play(mode):
        parameters = mcp.StdioServerParameters(
            command=sys.executable, args=["-c", SERVE, str(tmp_path / "trees.jsonl")], env=dict(os.environ)
        )
        async with mcp.Client(parameters, mode=mode) as client:
            assert client.instructions == "Compute 2 + 3."
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["calculate", "submit"]
            assert tools[0].input_schema["required"] == ["expression"]
            prompt = await client.get_prompt("task")
            assert prompt.messages[0].content.text == "Compute 2 + 3."  # pyright: ignore[reportAttributeAccessIssue]
            return [
                texts(await client.call_tool("calculate", {"expression": "2 + 3"})),
                texts(await client.call_tool("calculate", {"wrong": 1})),
                texts(await client.call_tool("submit", {"answer": "5"})),
                texts(await client.call_tool("submit", {"answer": "6"})),
            ]

    for mode in ("auto", "legacy"):
        first, wrong, right, late = asyncio.run(play(mode))
        assert first == (["5"], False)
        assert wrong[1]
        assert "expression is missing" in wrong[0][0]
        assert right == (["correct"], False)
        assert late == (["The episode has ended."], True)
        (tree,) = read_trees(tmp_path / "trees.jsonl")
        assert (len(tree), tree.episode_return(3), tree.nodes[3].terminated) == (4, 1.0, True)


@contextlib.contextmanager
def unwrapped():
    """Raises the exception that is in a group, as clients in task groups give it."""
    try:
        yield
    except BaseExceptionGroup as group:
        problem: BaseException = group
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
        raise problem from None


@contextlib.contextmanager
def running(app):
    """Serves an application in a thread."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def test_over_http_every_path_is_an_episode():
    async def use(url, name, **arguments):
        async with mcp.Client(url) as client:
            return texts(await client.call_tool(name, arguments))

    episodes = Episodes(lambda: make("agentenv/MathVerifier-v0"), task=TASK)
    with running(make_app(episodes)) as url:
        assert asyncio.run(use(f"{url}/a/mcp", "submit", answer="5")) == (["correct"], False)
        assert asyncio.run(use(f"{url}/a/mcp", "submit", answer="5"))[1]
        assert asyncio.run(use(f"{url}/b/mcp", "submit", answer="6"))[1] is False
        assert asyncio.run(use(f"{url}/mcp", "calculate", expression="1 + 1")) == (["2"], False)
    returns = {name: tree.episode_return(len(tree) - 1) for name, tree in episodes.trees.items()}
    assert returns == {"a": 1.0, "b": 0.0, "": 0.0}
    episodes.close()


def test_a_broken_environment_is_an_error_of_the_protocol_and_no_answer():
    class Broken(ae.ToolEnv):
        """Breaks."""

        def start(self, task):
            return "go"

        @ae.tool
        def use(self) -> str:
            """Breaks."""
            msg = "the disk is full"
            raise InfrastructureError(msg)

    async def use(url):
        async with mcp.Client(url) as client:
            await client.call_tool("use", {})

    episodes = Episodes(Broken)
    with running(make_app(episodes)) as url, pytest.raises(mcp.MCPError, match="the disk is full"), unwrapped():
        asyncio.run(use(f"{url}/mcp"))
    assert episodes.find().tree.nodes[1].reward is None
    episodes.close()


def test_our_environment_as_a_server_in_our_environment():
    class Wrapped(McpToolEnv):
        """Has another environment's tools."""

        def start(self, task):
            return "go"

    episodes = Episodes(lambda: make("agentenv/MathVerifier-v0"), task=TASK)
    with running(make_app(episodes)) as url:
        env = Wrapped(servers=[McpServer(url=f"{url}/x/mcp", prefix="math_")])
        env.reset(seed=0)
        assert step(env, "math_calculate", expression="2 + 3")[0] == "5"
        env.close()
    episodes.close()


def test_a_proxys_session_serves_its_tools_over_mcp_behind_its_key():
    async def use(told, key):
        headers = {"authorization": f"Bearer {key}"}
        async with (
            create_mcp_http_client(headers=headers) as http,
            mcp.Client(streamable_http_client(told["mcp_url"], http_client=http)) as client,
        ):
            names = [tool.name for tool in (await client.list_tools()).tools]
            wrong = texts(await client.call_tool("calculate", {}))
            return names, wrong[1], texts(await client.call_tool("submit", {"answer": "5"}))

    with Proxy(ScriptedAgent([]), lambda: make("agentenv/MathVerifier-v0")) as proxy:
        session = proxy.open(task=TASK, tree="t")
        told = proxy.describe(session)
        names, wrong, submitted = asyncio.run(use(told, told["api_key"]))
        assert (names, wrong, submitted) == (["calculate", "submit"], True, (["correct"], False))
        assert session.total() == 1.0
        with pytest.raises(BaseException) as caught:
            asyncio.run(use(told, "sk-wrong"))
        assert caught.value is not None
        assert proxy.end(session)["reward"] == 1.0
        assert proxy.trees["t"].episode_return(1) == 1.0


def test_importing_the_package_needs_nothing():
    heavy = "[m for m in ('mcp', 'starlette', 'uvicorn') if m in sys.modules]"
    code = f"import sys, agentenv.mcp, agentenv.agents.proxy; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
