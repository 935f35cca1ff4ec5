"""The benchmark of rollouts runs, on little work, and says what it measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "rollout.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks are not installed"),
]


def test_every_part_runs(tmp_path):
    out = tmp_path / "rollout.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-P", str(SCRIPT), "--small", "--repeats", "1", "--json", str(out)]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=250, capture_output=True)
    rows = {row["work"] + ", " + row["ratio"]: row["value"] for row in json.loads(out.read_text())}
    assert {name.partition(":")[0] for name in rows} == {"overhead", "many", "slow", "branching", "long"}
    assert all(value > 0 for value in rows.values())
    tokens = {name: value for name, value in rows.items() if "tokens: from the root" in name}
    assert sorted(tokens.values()) == pytest.approx([1.8, 100 / 52]), "counted, not timed: 9 x 2 over 2 + 8, ..."
