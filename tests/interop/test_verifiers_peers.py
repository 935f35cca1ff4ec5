"""verifiers' own validator over our environments as its tasksets: solutions solve, and doing nothing does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.peers("verifiers")

MODULE = """
from agentenv.interop.verifiers_tasks import as_taskset
Episodes = as_taskset({env_id!r})
__all__ = ["Episodes"]
"""


BUNDLED = ("CodeRepair", "MathVerifier", "SearchQA")


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    """Starts their validator on two episodes of an environment; it takes most of its time to import."""
    folder.mkdir()
    module = f"episodes_{name.lower()}"
    (folder / f"{module}.py").write_text(MODULE.format(env_id=f"agentenv/{name}-v0"))
    command = [Path(sys.executable).with_name("vf-validate"), module, "--taskset.num-tasks", "2"]
    command += ["--runtime.type", "subprocess", "--rich", "False", "-o", folder / "out"]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]])}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=variables, **pipes)


def test_gold_solves_and_no_operation_fails(tmp_path):
    started = {name: start(name, tmp_path / name) for name in BUNDLED}
    said = {name: process.communicate(timeout=280)[0] for name, process in started.items()}
    for name in BUNDLED:
        (summary,) = tmp_path.glob(f"{name}/out/**/summary.json")
        checks = json.loads(summary.read_text())["checks"]
        assert checks["gold"]["valid"] == checks["noop"]["valid"] == 2, (name, checks, said[name])


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
