"""What the commands that train settle before torch, and with it OpenMP, is loaded."""

import os
import subprocess
import sys

import pytest

LOOK = """
import os, sys
class Look:
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print("spins", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(7)
sys.meta_path.insert(0, Look())
from agentenv.__main__ import main
main()
"""


@pytest.mark.parametrize("given", [None, "5"])
@pytest.mark.parametrize("words", ["demo --quick", "train agentenv/MathVerifier-v0 --model tiny"])
def test_threads_of_a_small_model_wait_briefly(tmp_path, words, given):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    environment |= {"GOMP_SPINCOUNT": given} if given else {}
    command = [sys.executable, "-c", LOOK, *words.split()]
    ran = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 7, ran.stderr
    assert ran.stdout.split()[-2:] == ["spins", given or "1000"]
