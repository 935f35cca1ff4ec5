"""The benchmark of agents runs, on little work, and says what it measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "agents.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not installed")
def test_the_part_with_a_server_runs(tmp_path):
    out = tmp_path / "agents.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", str(SCRIPT), "server", "--small", "--repeats", "1", "--json", str(out)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=250, capture_output=True)
    rows = json.loads(out.read_text())
    assert {row["ratio"] for row in rows} >= {"ideal / ours", "AsyncOpenAI alone / ours"}
    assert all(row["value"] > 0 for row in rows)
