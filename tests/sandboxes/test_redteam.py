"""The bounded search finds nothing in a few tries, finds what is there, and repeats itself."""

import ast
import random

import pytest
from redteam.__main__ import search, teams_at
from redteam.scripts import HEAD, random_script
from redteam.submissions import draw_submission
from redteam.trying import Scripts


def test_scripts_and_submissions_come_from_the_seed_alone():
    for seed in range(200):
        script = random_script(random.Random(seed))
        assert ast.parse(HEAD + script)
        assert script == random_script(random.Random(seed))
    for seed in range(20):
        assert draw_submission(random.Random(seed)) == draw_submission(random.Random(seed))
    assert len({random_script(random.Random(seed)) for seed in range(200)}) > 150


@pytest.mark.kernel
def test_a_few_tries_find_nothing():
    teams = teams_at(["namespace"], gradings=True)
    assert search(teams, seed=3, seconds=1.0) == []
    assert sum(team.tries for team in teams.values()) >= 1
    assert sum(sum(team.outcomes.values()) for team in teams.values()) == sum(team.tries for team in teams.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")
def test_what_is_there_is_found(monkeypatch):
    """Where there is no isolation, the host and the sibling run out of what the script takes, and files stay."""
    monkeypatch.setattr("redteam.trying._SCRIPT_S", 60.0)
    scripts = Scripts("subprocess")
    try:
        # Again and again: other processes of the user give back what they took before.
        script = "for _ in range(400):\n    repeat(200, lambda: hold(libc.inotify_init()) + 1)\n    time.sleep(0.02)"
        found = scripts.run_script(script).findings
    finally:
        scripts.close()
    assert {"the host feels it", "a sibling feels it"} <= {finding.kind for finding in found}
