"""The benchmark of the trainer runs, and counts what it must."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "trainer.py"


@pytest.mark.model
def test_packed_rows_compute_unique_tokens_only(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-P", str(SCRIPT), "--small", "--only", "packed", "flat", "--json", str(out)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    for shape in found["packed"]:
        assert shape["whole_tokens"] == shape["unique"] <= shape["packed_tokens"] < shape["padded_positions"]
    assert found["flat"]["stock_seconds"] > 0
