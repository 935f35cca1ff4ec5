"""Two processes: one critic, one record, one policy, though each sees other episodes."""

from pathlib import Path

import pytest
from torchrun import run_on_two_processes


@pytest.mark.slow
@pytest.mark.model
def test_two_processes_keep_one_critic_and_one_policy(tmp_path):
    first, second = run_on_two_processes(Path(__file__).parent / "sr_ppo_processes.py", tmp_path)
    assert first["tasks"] != second["tasks"]
    for name in ("policy", "critic", "record", "logs"):
        assert first[name] == second[name], name
    assert all(first["logs"][0])
