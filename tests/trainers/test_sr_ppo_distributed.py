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
    losses, *critic = zip(*first["logs"], strict=True)
    assert None not in losses  # 0 where all of a generation failed: there is nothing to prefer then
    assert all(all(values) for values in critic)
