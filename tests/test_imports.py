"""Importing does nothing: measured in fresh interpreters."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import agentenv as ae

HEAVY = {
    "accelerate",
    "datasets",
    "docker",
    "aiohttp",
    "httpx",
    "httpx2",
    "math_verify",
    "matplotlib",
    "openai",
    "pandas",
    "ray",
    "rich",
    "scipy",
    "sympy",
    "torch",
    "transformers",
    "trl",
    "typer",
    "vllm",
}
SIDE_EFFECTS = """
import json, os, sys, threading
before = dict(os.environ), os.listdir(), threading.active_count(), list(sys.path)
import {module}
after = dict(os.environ), os.listdir(), threading.active_count(), list(sys.path)
assert before == after, "the import changed the environment, the folder, the threads or the path"
loaded = sorted({{name.partition(".")[0] for name in sys.modules}})
"""


def fresh(code, cwd):
    """Runs code in an interpreter of its own and returns what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_importing_the_package_loads_nothing_heavy_and_says_and_changes_nothing(tmp_path):
    stdout, stderr = fresh(SIDE_EFFECTS.format(module="agentenv"), tmp_path)
    assert (stdout, stderr) == ("", "")
    stdout, _ = fresh(SIDE_EFFECTS.format(module="agentenv") + "print(json.dumps(loaded))", tmp_path)
    loaded = set(json.loads(stdout))
    assert not loaded & HEAVY
    assert {"agentenv", "gymnasium", "numpy", "pydantic"} <= loaded


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("agentenv.rollout, agentenv.serialize, agentenv.testing, agentenv.wrappers", set()),
        ("agentenv.testing.pytest_plugin", set()),
        ("agentenv.credit", {"scipy"}),
        ("agentenv.sandboxes", set()),
        ("agentenv.agents", set()),
        ("agentenv.cli", {"rich", "typer"}),
    ],
)
def test_every_layer_loads_only_what_it_needs(module, allowed, tmp_path):
    stdout, _ = fresh(SIDE_EFFECTS.format(module=module) + "print(json.dumps(loaded))", tmp_path)
    assert not (set(json.loads(stdout)) & HEAVY) - allowed


@pytest.mark.parametrize("env_id", ae.env_ids())
def test_a_registered_environment_is_imported_when_it_is_made(env_id, tmp_path):
    code = f"""
import sys, agentenv
assert not any(name.startswith("agentenv.envs") for name in sys.modules)
agentenv.make({env_id!r}).close()
assert not {{"torch", "transformers", "trl"}} & set(sys.modules)
"""
    assert fresh(code, tmp_path) == ("", "")


def test_the_modules_that_this_measures_are_there():
    names = {name for _, name, _ in pkgutil.iter_modules([str(Path(ae.__file__).parent)])}
    assert {"agents", "credit", "envs", "sandboxes", "trainers", "env", "rollout", "testing"} <= names
