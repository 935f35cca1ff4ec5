"""`agentenv check`: a verdict per law, and an exit code."""

from cli_runs import run

from agentenv.testing import CLAUSES


def test_a_good_environment_passes_every_law():
    result = run("check", "agentenv/MathVerifier-v0", "--steps", 3)
    assert result.exit_code == 0, result.stdout
    rows = [line.split(None, 2) for line in result.stdout.splitlines()[1 : len(CLAUSES) + 1]]
    assert rows == [[clause.name, "passed", clause.law] for clause in CLAUSES]
    assert "none broken" in result.stdout


def test_a_broken_law_is_told_with_its_cause_and_the_exit_code_is_1(here):
    words = ["check", "dice_env:Careless", "--clause", "seeded", "--clause", "json"]
    result = run(*words)
    assert result.exit_code == 1
    assert "seeded failed: " in result.stdout and "randomness comes from elsewhere" in result.stdout
    assert "2 laws tried, 1 broken" in result.stdout
    as_json = run(*words, "--json")
    assert as_json.exit_code == 1
    assert '"outcome": "failed"' in as_json.stdout
