"""verifiers' version 0: our environments by `load_environment`, and theirs as ours, branching by replay."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from envs_for_tests import Guess, call
from scripted_model import model

import agentenv as ae
from agentenv.errors import InfrastructureError, TaskError
from agentenv.interop import VerifiersEnv, write_verifiers_folder
from agentenv.interop.solutions import solution_calls
from agentenv.testing import check_env
from agentenv.types import Action

pytestmark = [pytest.mark.peers("verifiers-v0"), pytest.mark.filterwarnings("ignore")]
sys.path.append(str(Path(__file__).parent))  # where their_verifiers is
BUNDLED = ("CodeRepair", "MathVerifier", "SearchQA")


class Fragile(Guess):
    """Breaks when it is asked for anything, and has a bug for 13."""

    def respond(self, action):
        if action.tool_calls[0].arguments == {"number": 13}:
            raise KeyError(13)
        msg = "the table is gone"
        raise InfrastructureError(msg)


def end_of(env: Any, actions: list[Any]) -> Any:
    """Plays actions in the first row of an environment of theirs, by its own loop; then says that it is done."""
    from agentenv.interop.verifiers_v0 import play_v0

    left = iter(actions)

    async def ask(_: Any) -> Any:
        return next(left, {"role": "assistant", "content": "I am done."})

    return asyncio.run(play_v0(env, env.get_dataset()[0], ask))


@pytest.mark.parametrize("name", BUNDLED)
def test_gold_solves_and_no_operation_fails(name):
    from agentenv.interop.verifiers_v0 import as_v0_environment

    env = as_v0_environment(f"agentenv/{name}-v0", num_episodes=1, seed=3)
    ours = ae.make(f"agentenv/{name}-v0")
    ours.reset(seed=3)
    calls = solution_calls(ours)
    ours.close()
    assert calls
    gold = end_of(env, [{"role": "assistant", "content": "", "tool_calls": [one.to_dict()]} for one in calls])
    assert gold["reward"] > env.pass_threshold and not gold["truncated"] and gold["stop"] == "has_final_env_response"
    env.max_turns = 2
    assert end_of(env, [])["reward"] <= env.pass_threshold


def test_a_broken_episode_is_an_error_and_no_reward():
    from agentenv.interop.verifiers_v0 import EpisodeEnv

    env = EpisodeEnv(f"{__name__}:Fragile", [(0, None)], {})
    for number, why in ((1, "the table is gone"), (13, "KeyError: 13")):
        error = end_of(env, [Action.parse(call("guess", number=number)).to_message()])["error"]
        assert error.startswith("InfraError") and why in error


def test_their_loader_takes_the_package_that_ours_writes(tmp_path, monkeypatch):
    import verifiers as vf

    folder = write_verifiers_folder("agentenv/MathVerifier-v0", tmp_path / "math_episodes", version=0)
    monkeypatch.syspath_prepend(str(folder))
    env = vf.load_environment("math_episodes", num_episodes=2)
    assert len(env.get_dataset()) == 2 and [tool.name for tool in env.tool_defs] == ["calculate", "submit"]
    env.max_turns = 1
    assert end_of(env, [])["reward"] == 0.0


def test_their_runner_plays_the_package_in_processes_of_its_own(tmp_path):
    """`vf-eval`: a server and a worker load the environment again, by the name that it goes by."""
    write_verifiers_folder("agentenv/MathVerifier-v0", tmp_path / "math_episodes", version=0)
    variables = os.environ | {"NO_KEY": "-", "PYTHONPATH": f"{tmp_path / 'math_episodes'}:{os.environ['PYTHONPATH']}"}
    with model("agentenv/MathVerifier-v0", solved=0) as server:
        command = [Path(sys.executable).with_name("vf-eval"), "math_episodes", "-b", server.url, "-k", "NO_KEY"]
        command += ["-m", "m", "-n", "2", "-r", "1", "-s", "-d", "-A", "-o", tmp_path]
        done = subprocess.run(
            command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False, timeout=280
        )
    (found,) = tmp_path.rglob("results.jsonl")
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert {row["info"]["seed"]: row["reward"] for row in rows} == {0: 1.0, 1: 0.0}, done.stderr
    assert not any(row.get("error") for row in rows)


def test_their_environment_of_turns_branches_by_replay():
    env = VerifiersEnv("their_verifiers")
    assert env.env_id == "verifiers/their_verifiers-v0" and env.tools == ()
    observation, info = env.reset(seed=1, options={"task": 2})
    assert observation == ({"role": "user", "content": "Guess number 2."},) and info["task_id"] == "2"
    assert env.step("9")[0][0]["content"] == "lower"
    kept = env.snapshot()
    (twin,) = env.fork(1)
    for each in (env, twin):
        assert each.step("1")[0][0]["content"] == "higher"
    assert env.step("5")[:4] == (({"role": "user", "content": "right"},), 1.0, True, False)
    env.restore(kept)
    *_, last = [env.step("8") for _ in range(3)]
    assert last[:4] == ((), 0.0, False, True) and last[4]["stop_condition"] == "max_turns_reached"
    env.restore(kept)
    ended = env.step("5")
    assert ended[1] == 1.0 and ended[4]["metrics"]["right"] == 1.0 and env.replayed_steps == 2
    with pytest.raises(TaskError, match="0 to 5, got 6"):
        env.reset(options={"task": 6})
    check_env(env, num_steps=3)
    env.close()
    twin.close()


def test_their_environments_of_one_turn_and_of_tools():
    one = VerifiersEnv("their_verifiers", arguments={"kind": "one"})
    assert [m["role"] for m in one.reset(options={"task": 0})[0]] == ["system", "user"]
    assert one.step("3")[1:4] == (1.0, True, False)
    one.close()
    env = VerifiersEnv("their_verifiers", arguments={"kind": "tools"})
    assert [tool["function"]["name"] for tool in env.tools] == ["double", "fail"]
    env.reset(options={"task": 1})
    assert env.step(call("double", number=4))[0][0]["content"] == "8"
    (fork,) = env.fork(1)
    for each in (env, fork):
        assert each.step(call("fail", number=4))[0][0]["content"] == "no 4 here"
        assert each.step("4")[1:4] == (1.0, True, False)
        each.close()


@pytest.mark.parametrize(
    ("kind", "action", "why"),
    [
        ("exact", "five", "exact: ValueError: invalid literal"),
        ("stops", call("fail", number=4), "ToolCallError"),
        ("turns", "break", "KeyError: 'break'"),
    ],
)
def test_what_an_action_breaks_again_is_the_agents_fault(kind, action, why):
    """In a reward function, which their rubric would make a 0 of; in a tool that stops the episode; in a turn."""
    env = VerifiersEnv("their_verifiers", arguments={"kind": kind})
    env.reset(options={"task": 1})
    kept = env.snapshot()
    observation, reward, terminated, _, info = env.step(action)
    assert (reward, terminated, len(info["breakages"])) == (0.0, True, 1)
    assert why in str(observation[0]["content"])
    env.restore(kept)
    assert env.step("4")[1] == 1.0
    env.close()


def test_what_breaks_whatever_is_said_is_nobodys_fault(monkeypatch):
    """A judge that is never there, even for the right answer; and a tool that fails once."""
    env = VerifiersEnv("their_verifiers", arguments={"kind": "judged"})
    env.reset(options={"task": 1})
    with pytest.raises(InfrastructureError, match="judged: ConnectionError: no judge for 1 messages"):
        env.step("4")
    env.close()
    env = VerifiersEnv("their_verifiers", arguments={"kind": "stops"})
    env.reset(options={"task": 1})
    calls: list[int] = []

    def once(number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            raise LookupError(number)
        return number

    monkeypatch.setitem(env._source.inside.tool_map, "fail", once)
    observation, _, terminated, _, info = env.step(call("fail", number=4))
    assert (observation[0]["content"], terminated, "breakages" in info, calls) == ("4", False, False, [4, 4])
    env.close()
