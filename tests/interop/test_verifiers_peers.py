"""verifiers' own validator over our environments as its tasksets: solutions solve, and doing nothing does not."""

# pyright: reportMissingImports=false

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from envs_for_tests import Guess
from scripted_model import model

from agentenv.errors import InfrastructureError
from agentenv.interop import write_verifiers_folder

pytestmark = pytest.mark.peers("verifiers")

BUNDLED = ("CodeRepair", "MathVerifier", "SearchQA")

TASKSET = f"""
import verifiers.v1 as vf
from agentenv.interop.verifiers_tasks import EpisodeTask, EpisodeTaskset, as_taskset

class Given(EpisodeTask):
    async def validate(self, runtime):
        return False

    @vf.reward(weight=1.0)
    async def gift(self, trace):
        return 1.0

class Bundled(EpisodeTaskset):
    def load(self):
        for name in {BUNDLED}:
            yield from as_taskset(f"agentenv/{{name}}-v0")(self.config).load()
        yield Given(next(as_taskset("agentenv/MathVerifier-v0")(self.config).load()).data, self.config.task)

__all__ = ["Bundled"]
"""

LOOP = """
from agentenv.interop.verifiers_v1 import Loop
__all__ = ["Loop"]
"""


def theirs(command: str, folder: Path, *words: Any) -> None:
    """Runs a command of theirs, where the modules of a folder are found."""
    variables = os.environ | {"NO_KEY": "-", "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
    line = [Path(sys.executable).with_name(command), *map(str, words), "-o", folder / "out"]
    done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_gold_solves_and_no_operation_fails(tmp_path):
    """In all bundled environments; of a task that pays for nothing and is not solved their validator says both."""
    (tmp_path / "bundled.py").write_text(TASKSET)
    theirs(
        "vf-validate", tmp_path, "bundled", "--taskset.num-tasks", 2, "--runtime.type", "subprocess", "--rich", False
    )
    (found,) = tmp_path.rglob("results.jsonl")
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    said = [(row["gold"]["reason"], row["noop"]["reason"]) for row in sorted(rows, key=lambda row: row["index"])]
    assert said == [("valid", "valid")] * 2 * len(BUNDLED) + [("invalid", "invalid")]


def test_their_runner_plays_a_taskset_with_servers_of_tools_in_processes_of_their_own(tmp_path):
    (tmp_path / "loop.py").write_text(LOOP)
    write_verifiers_folder("agentenv/MathVerifier-v0", tmp_path / "math_tasks", version=1)
    (tmp_path / "math_tasks" / "math_tasks.py").rename(tmp_path / "math_tasks.py")
    with model("agentenv/MathVerifier-v0", solved=0) as server:
        theirs(
            "vf-eval", tmp_path, "math_tasks", "-m", "m", "--client.base-url", server.url,
            "--client.api-key-var", "NO_KEY", "--env.taskset.num-tasks", 2, "--env.agent.harness.id", "loop",
            "--env.agent.runtime.type", "subprocess", "--push", False, "--rich", None,
        )  # fmt: skip
    (found,) = tmp_path.rglob("traces.jsonl")
    runs = [json.loads(line) for line in found.read_text().splitlines()]
    assert all(run["ok"] and not run["errors"] for run in runs), runs
    paid = {run["task"]["data"]["seed"]: run["traces"][0]["rewards"]["episode"]["score"] for run in runs}
    assert paid == {0: 1.0, 1: 0.0}


class Fragile(Guess):
    """Has a bug for 13."""

    def respond(self, action):
        if action.tool_calls[0].arguments == {"number": 13}:
            raise KeyError(13)
        return super().respond(action)


def test_a_bug_leaves_no_reward():
    from agentenv.interop.verifiers_tasks import EpisodeState, EpisodeTask, EpisodeTools

    class Tools(EpisodeTools):
        state: Any = EpisodeState()

    tools = object.__new__(Tools)
    tools._env = Fragile()
    tools._env.reset(seed=1)
    assert asyncio.run(tools._call("guess", {"number": 13})) == "KeyError: 13"
    assert "has ended" in asyncio.run(tools._call("guess", {"number": 1}))
    trace: Any = SimpleNamespace(state=tools.state)
    with pytest.raises(InfrastructureError, match="it has no reward"):
        asyncio.run(EpisodeTask.episode(cast("Any", None), trace))


@pytest.mark.filterwarnings("ignore")
def test_their_taskset_is_one_of_ours(monkeypatch):
    here = str(Path(__file__).parent)  # their servers of tools import the module, in processes of their own
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ["PYTHONPATH"]]))
    from envs_for_tests import call

    from agentenv.interop import VerifiersEnv

    env = VerifiersEnv("their_taskset")
    assert [tool["function"]["name"] for tool in env.tools] == ["double"]
    observation, _ = env.reset(seed=1, options={"task": 2})
    assert [message["content"] for message in observation] == ["Use it.", "Double 2."]
    assert env.step(call("double", number=2))[0][0]["content"] == "4"
    kept = env.snapshot()
    assert "there is no tool 'halve'" in env.step(call("halve"))[0][0]["content"]
    ended = env.step("5")
    assert ended[1:4] == (0.0, True, False) and ended[4]["stop_condition"] == "agent_completed"
    env.restore(kept)
    observation, reward, terminated, _, info = env.step("4")
    assert (observation, reward, terminated) == ((), 1.0, True) and info["metrics"] == {"right": 1.0, "used": 1.0}
    env.close()


@pytest.mark.filterwarnings("ignore")
def test_what_an_answer_breaks_in_a_reward_is_its_fault_and_what_all_break_is_nobodys(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import verifiers.v1 as vf
    from their_taskset import Countings

    from agentenv.interop import VerifiersEnv

    env = VerifiersEnv(Countings(vf.TasksetConfig(id="countings")))
    assert env.tools == ()
    env.reset(options={"task": 0})
    kept = env.snapshot()
    observation, reward, terminated, _, info = env.step("three")
    assert (reward, terminated, len(info["breakages"])) == (0.0, True, 1)
    assert "invalid literal" in observation[0]["content"]
    env.restore(kept)
    assert env.step("3")[1:3] == (1.0, True)
    env.reset(options={"task": 1})
    with pytest.raises(InfrastructureError, match="-3"):
        env.step("-3")
    env.close()
