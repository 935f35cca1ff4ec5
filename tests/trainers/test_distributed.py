"""Two processes with different numbers of rows train in step and end with the same weights."""

from pathlib import Path

import pytest
from torchrun import run_on_two_processes


@pytest.mark.slow
@pytest.mark.model
def test_two_processes_with_unequal_trees_stay_in_step(tmp_path):
    first, second = run_on_two_processes(Path(__file__).parent / "two_processes.py", tmp_path)
    assert first["weights"] == second["weights"]
    assert first["rows"] != second["rows"]
    assert first["losses"] == second["losses"]
    # TRACE's predictor learns the trees of both, on each.
    assert first["predictor"] == second["predictor"]
    assert first["predictor"]["weights"] > 0
    # Five tasks in batches of two on two processes: accelerate fills up with tasks that were evaluated already.
    assert first["evaluated"] == second["evaluated"] == 5
    assert first["success"] == second["success"]
