"""Whose fault: steps that lose the sandbox, in any environment that has one; what breaks though a control works."""

import pickle
from contextlib import closing
from typing import Any

import pytest
from envs_for_tests import Notes, call

import agentenv as ae
from agentenv.control import with_control
from agentenv.errors import AgentFault, SandboxError, ToolServerError
from agentenv.types import message_text

KILL = "kill -9 $PPID; sleep 9"
pytestmark = pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")


class Shell(Notes):
    """Runs commands, counts them, and draws a number for each; nothing in it says what to do about a lost sandbox."""

    max_steps = 9

    class State(ae.State):
        commands: int = 0

    @ae.tool
    def run(self, command: str) -> str:
        """Run a command."""
        self.state.commands += 1
        self.add_reward(0.25)
        return f"{self.sandbox.exec(command).stdout}{self.np_random.integers(10**6)}"


class Plain(ae.Env):
    """Runs what it is told, without tools."""

    sandbox: Any
    make_sandbox = Notes.make_sandbox

    def start(self, task):
        return "$"

    def respond(self, action):
        return self.sandbox.exec(action.content).stdout


def begun(kind: Any = Shell, **options) -> Any:
    env = kind(**options)
    env.reset(seed=0)
    return env


def test_a_step_that_loses_the_sandbox_is_taken_back_and_the_second_ends_the_episode():
    with closing(begun()) as env, closing(begun()) as twin:
        for one in (env, twin):
            one.step(call("run", command="echo kept > a; mkdir b"))
        before = env.sandbox_content(), env.state.model_dump()
        observation, reward, terminated, truncated, info = env.step(call("run", command=f"rm -r a b; {KILL}"))
        assert "the sandbox was lost in this step" in message_text(observation[0])
        assert "If it is lost again, the episode ends" in message_text(observation[0])
        assert observation[0]["role"] == "tool"
        assert (reward, terminated, truncated, info["rewards"], len(info["breakages"])) == (0.0, False, False, {}, 1)
        assert (env.sandbox_content(), env.state.model_dump()) == before
        assert (env.step_count, env.sandboxes_lost) == (2, 1)
        look = call("run", command="cat a; ls")
        assert env.step(look)[0] == twin.step(look)[0], "files and random numbers are those of before"
        (fork,) = env.fork(1)
        snapshot = pickle.loads(pickle.dumps(env.snapshot()))
        assert env.step(call("run", command="echo fine"))[2] is False
        for other in (env, fork):
            with closing(other):
                if other is env:
                    other.restore(snapshot)
                observation, reward, terminated, _, info = other.step(call("run", command=KILL))
                assert "the episode ends" in message_text(observation[0])
                assert (reward, terminated, info["rewards"]) == (0.0, True, {"outcome": 0.0})


def test_each_episode_has_a_count_of_its_own_and_states_differ_by_it():
    with closing(begun()) as env, closing(begun()) as twin:
        env.step(call("run", command=KILL))
        assert env.state_signature() != twin.state_signature()
        env.reset(seed=0)
        assert (env.sandboxes_lost, env.state_signature()) == (0, twin.state_signature())
        assert env.step(call("run", command=KILL))[2] is False


def test_what_ends_between_steps_is_of_the_step_before():
    with closing(begun()) as env:
        env.step(call("run", command="echo kept > a"))
        for terminated in (False, True):
            with pytest.raises(SandboxError):
                env.sandbox.exec(KILL)
            observation, _, ended, _, info = env.step(call("run", command="cat a"))
            assert (ended, len(info["breakages"])) == (terminated, 1), observation


def test_before_the_first_step_nobody_is_to_blame():
    with closing(begun()) as env:
        with pytest.raises(SandboxError):
            env.sandbox.exec(KILL)
        with pytest.raises(SandboxError):
            env.step(call("run", command="true"))


def test_an_environment_without_tools():
    with closing(begun(Plain)) as env:
        observation, reward, terminated, _, info = env.step(KILL)
        assert observation[0]["role"] == "user"
        assert (reward, terminated, len(info["breakages"])) == (0.0, False, 1)
        assert message_text(env.step("cat note")[0][0]) == "0"
        assert env.step(KILL)[1:3] == (0.0, True)


def test_a_sandbox_that_another_cannot_replace_is_nobodys_fault(monkeypatch):
    with closing(begun()) as env:
        monkeypatch.setattr(env, "make_sandbox", with_no_room)
        with pytest.raises(SandboxError, match="no room"):
            env.step(call("run", command=KILL))


def with_no_room():
    msg = "no room"
    raise SandboxError(msg)


class Client(ae.ToolEnv):
    """Asks a server that one key breaks, or every key."""

    down = False

    def start(self, task):
        return "Ask."

    def fetch(self, key):
        if self.down or key == "poison":
            msg = f"no answer to {key}"
            raise ToolServerError(msg)
        return f"value of {key}"

    @ae.tool
    def ask(self, key: str) -> str:
        """Ask."""
        self.add_reward(1.0)
        return with_control(lambda: self.fetch(key), lambda: self.fetch("a known key"))


def test_what_breaks_with_the_agents_request_alone_ends_the_episode_and_what_breaks_with_any_is_nobodys_fault():
    env = begun(Client)
    assert message_text(env.step(call("ask", key="x"))[0][0]) == "value of x"
    observation, reward, terminated, _, info = env.step(call("ask", key="poison"))
    assert "no answer to poison" in message_text(observation[0])
    assert (reward, terminated, info["rewards"], len(info["breakages"])) == (0.0, True, {"outcome": 0.0}, 1)
    env = begun(Client)
    env.down = True
    with pytest.raises(ToolServerError, match="no answer to poison"):
        env.step(call("ask", key="poison"))


def test_a_control_is_tried_only_after_a_failure_and_what_fails_once_is_no_fault():
    tried: list[str] = []

    def ask():
        tried.append("ask")
        if tried.count("ask") == 1:
            raise ConnectionError
        return len(tried)

    assert with_control(ask, lambda: tried.append("control"), errors=OSError) == 3
    assert with_control(ask, lambda: tried.append("control"), errors=OSError) == 4
    with pytest.raises(ZeroDivisionError):
        with_control(lambda: 1 // 0, lambda: None, errors=OSError)
    with pytest.raises(AgentFault, match="again"):
        with_control(lambda: 1 // 0, lambda: None, again=lambda: int("again"), errors=(ArithmeticError, ValueError))
