"""Two processes with different numbers of rows train in step and end with the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.model
def test_two_processes_with_unequal_trees_stay_in_step(tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(here / "two_processes.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1))
    assert first["world"] == 2
    assert first["weights"] == second["weights"]
    assert first["rows"] != second["rows"]
    assert first["losses"] == second["losses"]
    # TRACE's predictor learns the trees of both, on each.
    assert first["predictor"] == second["predictor"]
    assert first["predictor"]["weights"] > 0
    # Five tasks in batches of two on two processes: accelerate fills up with tasks that were evaluated already.
    assert first["evaluated"] == second["evaluated"] == 5
    assert first["success"] == second["success"]
