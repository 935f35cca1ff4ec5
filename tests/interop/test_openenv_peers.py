"""OpenEnv's own package before our server, our client before its servers, and its validator in full."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportGeneralTypeIssues=false, reportUntypedBaseClass=false

import json
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from envs_for_tests import Dice, call

from agentenv.errors import InfrastructureError
from agentenv.interop import OpenEnvEnv, OpenEnvServer
from agentenv.interop.openenv_package import write_openenv_folder
from agentenv.types import message_text

pytestmark = [
    pytest.mark.peers("openenv"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def served():
    with OpenEnvServer("agentenv/MathVerifier-v0", port=0) as server:
        yield server


def test_their_validator_passes_a_running_server(served):
    command = [Path(sys.executable).with_name("openenv"), "validate", "--url", served.url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"]) == (0, True), report
    assert report["summary"]["passed_count"] == report["summary"]["total_count"] == 6


def test_their_validator_passes_a_folder_at_every_level_that_it_grades(tmp_path):
    from openenv.validation import Level, run_validation
    from openenv_process import ProcessProvider

    actions = [call("calculate", expression="2 + 3"), call("calculate", expression="2 +"), call("submit", answer="1")]
    folder = write_openenv_folder("agentenv/MathVerifier-v0", tmp_path / "math", actions=actions)
    report = run_validation(folder, max_level=Level.SEMANTIC, provider=ProcessProvider())
    graded = {result.check_id: result.status.value for result in report.results if result.status.value != "skip"}
    assert graded == dict.fromkeys(
        ("static.manifest", "runtime.startup", "runtime.reward_well_formed", "runtime.observation_schema",
         "runtime.state_contract"), "pass",
    ), report  # fmt: skip
    (folder / "openenv.yaml").write_text("name: x\n")
    assert run_validation(folder, max_level=Level.STATIC).verdict.value == "fail"


def test_their_client_plays_and_their_client_for_tools_calls(served):
    from openenv.core.generic_client import GenericEnvClient
    from openenv.core.mcp_client import MCPToolClient

    with GenericEnvClient(base_url=served.url).sync() as client:
        assert client.reset(seed=3).observation["messages"][0]["role"] == "user"
        answer: Any = client.step(call("calculate", expression="4 * 8") | {"role": "assistant"})
        assert answer.observation["messages"][0]["content"] == "32" and not answer.done
        assert client.state()["step_count"] == 1
    with MCPToolClient(base_url=served.url).sync() as client:
        client.reset(seed=3)
        assert [tool.name for tool in client.list_tools()] == ["calculate", "submit"]
        assert client.call_tool("calculate", expression="4 * 8 + 10") == "42"
        assert client.state().step_count == 1


@contextmanager
def listening(app):
    """Runs an application of theirs in a thread, and says where it listens."""
    import uvicorn

    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="websockets-sansio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def their_server():
    """A server of OpenEnv's own making: a counter, whose action has fields."""
    from openenv.core.env_server.http_server import create_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Add(Action):
        amount: int

    class Total(Observation):
        total: int = 0

    class Counter(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self):
            super().__init__()
            self._state = State()
            self._total = 0

        def reset(self, seed=None, episode_id=None, start=0, **_):
            self._total = start + (seed or 0) % 10
            self._state = State(episode_id=episode_id, step_count=0)
            return Total(total=self._total)

        def step(self, action, timeout_s=None, **_):
            if action.amount == 99:
                msg = "overflow"
                raise OverflowError(msg)
            self._total += action.amount
            self._state.step_count += 1
            return Total(total=self._total, reward=float(self._total == 20), done=self._total >= 20)

        @property
        def state(self):
            return self._state

    globals()["Add"], globals()["Total"] = Add, Total
    with listening(create_app(Counter, Add, Total, env_name="counter", max_concurrent_envs=16)) as url:
        yield url


def test_their_environment_is_one_of_ours_and_branches_by_replay(their_server):
    env = OpenEnvEnv(their_server)
    (tool,) = env.tools
    assert tool["function"]["name"] == "act"
    assert tool["function"]["parameters"]["properties"]["amount"]["type"] == "integer"
    observation, _ = env.reset(seed=4, options={"task": {"start": 3}})
    assert json.loads(message_text(observation[0])) == {"total": 7}
    env.step(call("act", amount=5))
    observation, reward, *_, info = env.step(call("act", amount="many"))
    assert reward == 0 and "refused" in observation[0]["content"] and info["mistakes"]
    kept = env.snapshot()
    children = env.fork(2)
    ends = [child.step(call("act", amount=8)) for child in (env, *children)]
    assert all((end[1], end[2]) == (1.0, True) for end in ends)
    env.restore(kept)
    assert env.replayed_steps == 1
    _, reward, terminated, _, info = env.step(call("act", amount=99))  # it breaks a session of its own, too
    assert (reward, terminated) == (0.0, True)
    assert "overflow" in str(info["breakages"])
    env.restore(kept)
    assert env.step(call("act", amount=8))[1] == 1.0
    for each in (env, *children):
        each.close()


def test_the_environment_that_their_package_brings_is_one_of_ours_in_its_only_session(tmp_path, monkeypatch):
    """`openenv init` writes it, whole; its server has room for one client at a time."""
    from openenv.cli.commands.init import init

    with monkeypatch.context() as alone:
        alone.setenv("PATH", "")  # without uv, which would ask the network for versions
        init("word_echo", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    with listening(import_module("word_echo.server.app").app) as url:
        env = OpenEnvEnv(url)
        assert env.env_id == "openenv/WordEchoEnvironment-v0"
        observation, _ = env.reset(seed=1)
        assert "ready" in message_text(observation[0])
        first = env.step(call("act", message="hello"))
        assert json.loads(message_text(first[0][0]))["echoed_message"] == "hello" and first[1] == 0.5
        assert "refused" in env.step(call("act", words="hello"))[0][0]["content"]
        kept = env.snapshot()
        ends = [env.step(call("act", message="a")) for _ in range(2) if env.restore(kept) is None]
        assert ends[0] == ends[1] and env.replayed_steps == 1
        with pytest.raises(InfrastructureError, match="one environment at a time"):
            env.fork(1)
        env.close()
        again = OpenEnvEnv(url)
        assert again.reset(seed=1)[0] == observation
        again.close()


def test_their_environments_for_mcp_have_their_tools_here(tmp_path):
    """Through our server in their words: actions that call a tool."""
    with OpenEnvServer(Dice, port=0) as server:
        from openenv.core.env_server.mcp_types import CallToolAction
        from openenv.core.generic_client import GenericEnvClient

        with GenericEnvClient(base_url=server.url).sync() as client:
            client.reset(seed=1)
            answer: Any = client.step(CallToolAction(tool_name="roll", arguments={"sides": 4}).model_dump())
            assert answer.observation["tool_name"] == "roll" and "total" in answer.observation["result"]
            assert answer.reward == -0.125
