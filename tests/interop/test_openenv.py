"""OpenEnv both ways without its package: our server, the extension for branching, and our client before it."""

import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from envs_for_tests import Dice, Guess, call
from websockets.sync.client import connect

from agentenv.errors import InfrastructureError, SnapshotError, TaskError, ToolServerError
from agentenv.interop import OpenEnvEnv, OpenEnvServer, openenv_client
from agentenv.testing import check_env


class Shaky(Dice):
    """Dice that fall off the table where somebody asks for a die of 131,313 sides; bugs for 171,717 and 181,818."""

    name = "tests/Shaky"

    def start(self, task):
        if task.goal == 181818:
            msg = "a bug in start"
            raise ValueError(msg)
        return super().start(task)

    def respond(self, action):
        arguments = action.tool_calls[0].arguments if action.tool_calls else {}
        if arguments == {"sides": 131313}:
            msg = "the table is gone"
            raise InfrastructureError(msg)
        if arguments == {"sides": 171717}:
            msg = "a bug"
            raise KeyError(msg)
        if arguments == {"sides": 181818}:
            msg = "a bug with a value"
            raise ValueError(msg)
        return super().respond(action)


@pytest.fixture(scope="module")
def served():
    with OpenEnvServer(Shaky, port=0, max_sessions=16, max_snapshots=64) as server:
        yield server


@pytest.fixture(scope="module")
def plain():
    with OpenEnvServer(Shaky, port=0, branching=False) as server:
        yield server


class Socket:
    """A client that sends what it is told."""

    def __init__(self, server, query=""):
        self._socket = connect(server.url.replace("http", "ws") + "/ws" + query, proxy=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def text(self, text):
        self._socket.send(text)
        return self.read()

    def read(self):
        return json.loads(self._socket.recv(60))

    def ask(self, kind, **data) -> Any:
        return self.text(json.dumps({"type": kind, "data": data}))

    def roll(self, sides=6):
        calls = [{"id": "c", "function": {"name": "roll", "arguments": json.dumps({"sides": sides})}}]
        return self.ask("step", tool_calls=calls)


def get(server, path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_an_episode_over_the_wire_is_the_episode_itself(served):
    env = Shaky()
    env.reset(seed=3, options={"task": {"goal": 2}})
    with Socket(served) as client:
        begun = client.ask("reset", seed=3, task={"goal": 2}, episode_id="mine")["data"]
        assert (begun["reward"], begun["done"]) == (None, False)
        assert begun["observation"]["messages"] == [{"role": "user", "content": "Reach 2."}]
        for name, arguments in (("roll", {"sides": 20}), ("roll", {"sides": 0}), ("wrong", {}), ("hold", {})):
            observation, reward, terminated, _, info = env.step(call(name, **arguments))
            answer = client.ask("step", tool_calls=call(name, **arguments)["tool_calls"])["data"]
            assert answer["observation"]["messages"] == list(observation)
            assert (answer["reward"], answer["done"]) == (reward, terminated)
            assert {key: answer["metadata"][key] for key in info} == info
        assert client.ask("state")["data"] == {"episode_id": "mine", "step_count": 4}
        ended = client.roll()
        assert ended["data"]["kind"] == "EpisodeError" and "the episode ended at step 4" in ended["data"]["message"]


def test_what_is_wrong_is_refused_and_the_session_goes_on(served):
    with Socket(served) as client:
        for text, code in (
            ("{", "INVALID_JSON"),
            ("[1]", "VALIDATION_ERROR"),
            ('{"type": "fly"}', "UNKNOWN_TYPE"),
            ('{"type": "reset", "data": 3}', "VALIDATION_ERROR"),
            ('{"type": "reset", "data": {"seed": -1}}', "VALIDATION_ERROR"),
            ('{"type": "reset", "data": {"sed": 1}}', "VALIDATION_ERROR"),
            ('{"type": "step", "data": {"value": 1}}', "VALIDATION_ERROR"),
            ('{"type": "step", "data": {"type": "call_tool"}}', "VALIDATION_ERROR"),
            ('{"type": "fork", "data": {"n": true}}', "VALIDATION_ERROR"),
            ('{"type": "snapshot"}', "EXECUTION_ERROR"),
            ('{"type": "restore", "data": {"snapshot_id": "no"}}', "EXECUTION_ERROR"),
        ):
            answer = client.text(text)
            assert (answer["type"], answer["data"]["code"]) == ("error", code), (text, answer)
        assert "seed, task, got ['sed']" in client.ask("reset", sed=1)["data"]["message"]
        refused = client.ask("reset", task={"goal": "far"})["data"]
        assert (refused["kind"], refused["code"]) == ("TaskError", "VALIDATION_ERROR")
        client.ask("reset", seed=1)
        assert client.roll(131313)["data"]["kind"] == "InfrastructureError"
        client.ask("reset", seed=1)
        assert client.roll(171717)["data"]["kind"] == "KeyError"
        assert client.ask("reset", seed=1)["type"] == "observation"


def test_a_bug_of_the_environment_is_never_the_mistake_of_its_client(served):
    with Socket(served) as client:
        client.ask("reset", seed=1)
        failed = client.roll(181818)["data"]
        assert (failed["kind"], failed["code"]) == ("ValueError", "EXECUTION_ERROR")
    env = OpenEnvEnv(served.url)
    env.reset(seed=1)
    *_, terminated, _, info = env.step(call("roll", sides=181818))  # ours says what the agent broke, elsewhere tried
    assert terminated and not info["mistakes"] and "a bug with a value" in info["breakages"][0]
    env.close()


def test_snapshots_go_back_and_forks_go_on_alike(served):
    with Socket(served) as client:
        client.ask("reset", seed=5)
        client.roll()
        kept = client.ask("snapshot")["data"]
        assert kept["step_count"] == 1
        names = client.ask("fork", n=2)["data"]["session_ids"]
        first = [client.roll() for _ in range(3)]
        back = client.ask("restore", snapshot_id=kept["snapshot_id"])["data"]
        assert back["metadata"]["step_count"] == 1 and not back["done"]
        assert [client.roll() for _ in range(3)] == first
        with Socket(served, f"?session_id={names[0]}") as child:
            assert child.ask("state")["data"]["step_count"] == 1
            assert [child.roll() for _ in range(3)] == first
            with Socket(served, f"?session_id={names[0]}") as other:
                assert "has a client already" in other.read()["data"]["message"]
        with Socket(served, f"?session_id={names[1]}") as child:
            child.ask("reseed", seed=8)
            assert [child.roll(1000) for _ in range(3)] != [client.ask("restore", **kept_id(kept))] * 3
        assert client.ask("release", **kept_id(kept))["type"] == "release"
        assert client.ask("restore", **kept_id(kept))["data"]["kind"] == "SnapshotError"


def kept_id(kept):
    return {"snapshot_id": kept["snapshot_id"]}


def test_a_server_is_full_when_it_is_and_keeps_the_newest_snapshots(monkeypatch):
    monkeypatch.setattr(openenv_client, "ROOM_WAIT_S", 0.2)
    with OpenEnvServer(Guess, port=0, max_sessions=2, max_snapshots=2) as server, Socket(server) as client:
        client.ask("reset", seed=1)
        assert client.ask("fork", n=2)["data"]["code"] == "CAPACITY_REACHED"
        assert len(client.ask("fork", n=1)["data"]["session_ids"]) == 1
        with Socket(server) as late:
            assert late.read()["data"]["code"] == "CAPACITY_REACHED"
        with pytest.raises(InfrastructureError, match="CAPACITY_REACHED: there are 2 sessions, of at most 2"):
            OpenEnvEnv(server.url)
        server.book.idle_seconds = 0.0  # nobody came for the fork
        kept = [client.ask("snapshot")["data"] for _ in range(3)]
        assert [client.ask("restore", **kept_id(one))["type"] for one in kept] == [
            "error",
            "observation",
            "observation",
        ]
        with Socket(server) as free:
            assert free.ask("reset")["type"] == "observation"
    with pytest.raises(ValueError, match="max_sessions must be at least 1, got 0"):
        OpenEnvServer(Guess, max_sessions=0)


def test_requests_alone_and_sessions_that_they_open(served):
    assert get(served, "/health") == (200, {"status": "healthy"})
    assert get(served, "/metadata")[1]["name"] == "tests/Shaky-v0"
    assert set(get(served, "/schema")[1]) == {"action", "observation", "state"}
    assert {"/reset", "/step", "/state"} <= set(get(served, "/openapi.json")[1]["paths"])
    assert get(served, "/reset", {"seed": 3})[1]["observation"]["messages"]
    status, answer = get(served, "/step", {"action": {}})
    assert status == 409 and "/ws" in answer["detail"]
    assert get(served, "/reset", {"seed": "x"})[0] == 422
    status, answer = get(served, "/reset", {"task": {"goal": "far"}})
    assert status == 422 and "goal: Input should be a valid integer" in answer["detail"]
    assert get(served, "/reset", {"task": {"goal": 181818}})[0] == 500
    with OpenEnvServer(Shaky, port=0, tasks=[{"goal": "far"}]) as server:  # nobody asked for that one
        assert get(server, "/reset", {})[0] == 500

    def rpc(method, **params) -> Any:
        return get(served, "/mcp", {"jsonrpc": "2.0", "id": 4, "method": method, "params": params})[1]

    assert [tool["name"] for tool in rpc("tools/list")["result"]["tools"]] == ["roll", "hold"]
    name = rpc("openenv/session/create")["result"]["session_id"]
    with Socket(served, f"?session_id={name}") as client:
        client.ask("reset", seed=3)
        assert rpc("tools/call", name="roll", arguments={"sides": 9}, session_id=name)["result"]["data"].count("total")
        assert rpc("tools/call", name="fly", arguments={}, session_id=name)["result"]["isError"]
        assert client.ask("state")["data"]["step_count"] == 2
    assert rpc("openenv/session/close", session_id=name)["result"]["closed"]
    assert "not there" in rpc("tools/list", session_id=name)["error"]["message"]


def test_a_page_of_another_site_is_refused(served):
    assert get(served, "/health", Host="evil.example")[0] == 403
    assert get(served, "/health", Origin="http://evil.example")[0] == 403
    assert get(served, "/health", Origin="http://localhost:3000")[0] == 200
    with pytest.raises(Exception, match="403"):
        connect(served.url.replace("http", "ws") + "/ws", origin="http://evil.example", proxy=None)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------- our client


@pytest.mark.slow
@pytest.mark.parametrize("which", ["served", "plain"])
def test_the_client_keeps_the_contract_by_state_and_by_replay(which, request):
    server = request.getfixturevalue(which)
    env = OpenEnvEnv(server.url)
    check_env(env, num_steps=3)
    env.close()


@pytest.mark.parametrize("which", ["served", "plain"])
def test_the_client_steps_and_branches_as_the_environment_itself(which, request):
    server = request.getfixturevalue(which)
    env, remote = Shaky(), OpenEnvEnv(server.url)
    assert remote.env_id == "openenv/tests/Shaky-v0" and remote.tools == env.tools
    own, seen = (each.begin(seed=4, options={"task": {"goal": 9}}) for each in (env, remote))
    assert seen.observation == own.observation and seen.info == own.info
    assert remote.task_id == env.task_id
    for name, arguments in (("roll", {}), ("roll", {"sides": 1}), ("roll", {"sides": "x"}), ("roll", {"sides": 9})):
        own, seen = (each.advance(call(name, **arguments), snapshot=True) for each in (env, remote))
        assert seen.observation == own.observation
        assert (seen.reward, seen.info) == (own.reward, own.info)
        if which == "served":
            assert (seen.state_signature, seen.action_signature) == (own.state_signature, own.action_signature)
    before = remote.replayed_steps
    kept = remote.snapshot()
    after = [remote.step(call("roll", sides=1000)) for _ in range(2)]
    children = remote.fork(2)
    other = OpenEnvEnv(server.url)
    other.restore(kept)
    assert [other.step(call("roll", sides=1000)) for _ in range(2)] == after
    assert all(child.step_count == 6 for child in children)
    replayed = sum(each.replayed_steps for each in (remote, other, *children)) - before
    assert replayed == (0 if which == "served" else 4 + 2 * 6)
    for each in (remote, other, *children):
        each.close()


def test_a_snapshot_that_the_server_dropped_is_replayed():
    with OpenEnvServer(Dice, port=0, max_snapshots=1) as server:
        env = OpenEnvEnv(server.url)
        env.reset(seed=4)
        env.step(call("roll"))
        kept = env.snapshot()
        seen = env.step(call("roll"))
        env.snapshot()  # the only place is taken
        env.restore(kept)
        assert env.step(call("roll")) == seen and env.replayed_steps == 1
        env.close()


def test_failures_on_the_other_side_are_failures_here(served):
    env = OpenEnvEnv(served.url)
    with pytest.raises(TaskError, match="goal"):
        env.reset(options={"task": {"goal": "far"}})
    env.reset(seed=1)
    env.close()
    env.reset(seed=1)
    env.close()


@pytest.mark.parametrize("branching", [True, False])
@pytest.mark.parametrize(("sides", "why"), [(131313, "InfrastructureError: the table is gone"), (171717, "KeyError")])
def test_an_action_that_breaks_the_environment_again_in_another_session_is_the_agents_fault(
    request, branching, sides, why
):
    env = OpenEnvEnv(request.getfixturevalue("served" if branching else "plain").url)
    env.reset(seed=1)
    env.step(call("roll"))
    kept = env.snapshot()
    observation, reward, terminated, _, info = env.step(call("roll", sides=sides))
    assert (reward, terminated, info["rewards"], len(info["breakages"])) == (0.0, True, {"outcome": 0.0}, 1)
    assert why in observation[0]["content"]
    assert (observation[0]["role"], info["breakages"]) == ("tool", [observation[0]["content"]])
    ended = env.snapshot()
    env.restore(kept)
    seen = env.step(call("roll"))
    env.restore(ended)
    env.restore(kept)
    assert env.step(call("roll")) == seen
    env.close()


class Once(Shaky):
    """Breaks at the first die of 191,919 sides that anybody asks for, and at no other; every reset fails after it."""

    name = "tests/Once"
    broken = False
    for_ever = False

    def start(self, task):
        if self.for_ever and Once.broken:
            msg = "the machine is gone"
            raise InfrastructureError(msg)
        return super().start(task)

    def respond(self, action):
        if action.tool_calls[0].arguments == {"sides": 191919} and not Once.broken:
            Once.broken = True
            msg = "the cable"
            raise InfrastructureError(msg)
        return super().respond(action)


@pytest.mark.parametrize("for_ever", [False, True])
def test_what_breaks_once_is_no_fault_and_what_breaks_with_any_session_is_nobodys(monkeypatch, for_ever):
    monkeypatch.setattr(Once, "broken", False)
    monkeypatch.setattr(Once, "for_ever", for_ever)
    with OpenEnvServer(Once, port=0, branching=False) as server:
        env, twin = OpenEnvEnv(server.url), Dice()
        for one in (env, twin):
            one.reset(seed=1)
            one.step(call("roll"))
        if for_ever:
            with pytest.raises(InfrastructureError, match="the cable"):
                env.step(call("roll", sides=191919))
        else:
            again = env.step(call("roll", sides=191919))
            assert again[:4] == twin.step(call("roll", sides=191919))[:4]
            assert "breakages" not in again[4]
        env.close()


def test_a_server_that_is_gone_or_none_at_all():
    server = OpenEnvServer(Dice, port=0)
    server.start()
    env = OpenEnvEnv(server.url)
    env.reset(seed=1)
    server.close()
    with pytest.raises(ToolServerError, match="does not answer"):
        env.step(call("roll"))
    with pytest.raises(ToolServerError, match="does not answer /metadata"):
        OpenEnvEnv(server.url)
    env.close()
    for wrong in ("127.0.0.1:8000", "ftp://x", ""):
        with pytest.raises(ValueError, match="url must be that of an OpenEnv server"):
            OpenEnvEnv(wrong)


def test_a_foreign_snapshot_is_refused(served):
    env, other = OpenEnvEnv(served.url), Dice()
    other.reset(seed=1)
    with pytest.raises(SnapshotError, match="id and version must be equal"):
        env.restore(other.snapshot())
    env.close()
