"""Every example runs, says what it shows, and fits on a screen.

Two are run where what they need stands already: training one's own environment in `trainers/test_demonstrations.py`,
the Ray cluster in `rollout/test_ray.py`.
"""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
ELSEWHERE = {"own_environment": "trainers/test_demonstrations.py", "ray_cluster": "rollout/test_ray.py"}
SCREEN = 100

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="needs the repository, not a wheel")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder, as its first line of usage says, and returns what it printed."""

    def run_example(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_a_database_forks(run):
    assert run("database").splitlines() == [
        "WHERE name = 'Al': reward 0",
        "WHERE name LIKE 'Al%': reward 1",
        "the original still says 35",
    ]


@pytest.mark.sandbox
def test_a_sandbox_forks(run):
    said = run("sandboxed")
    assert re.findall(r"^reward (\d)$", said, re.MULTILINE) == ["0", "1"]
    assert "\n3\nreward 1" in said


def test_sokoban_finds_a_push_that_cannot_be_undone(run):
    ((solved, fatal),) = re.findall(r"^(\d+) of 64 episodes solved it; (\d+) steps", run("sokoban"), re.MULTILINE)
    assert int(solved) > 0
    assert int(fatal) > 0


def test_an_agent_over_http_survives_an_outage(run):
    said = run("http_agent")
    assert said.startswith("16 of 16 episodes solved; ")
    (outages,) = re.findall(r"(\d+) attempts met", said)
    assert 3 <= int(outages) <= 16


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.filterwarnings("ignore")  # TRL says that its tool loop is experimental
def test_trls_own_trainer_beside_ours(run):
    said = re.findall(r"^(\w+): step 1, reward [01]\.\d\d, loss \S+$", run("stock_trl"), re.MULTILINE)
    assert said == ["GRPOTrainer", "TreeTrainer"]


def test_rtmc_by_hand_is_rtmc(run, tmp_path):
    said = run("rtmc_by_hand")
    (difference,) = re.findall(r"largest difference: (\S+)", said)
    assert float(difference) < 1e-12
    assert "+0." in said
    assert "-0." in said
    assert run("rtmc_by_hand", tmp_path / "eight.jsonl") == said


def test_trace_finds_where_outcomes_are_undecided(run):
    mixed = [int(share) for share in re.findall(r"(\d+)% of \d+ trees", run("trace_step_by_step"))]
    assert len(mixed) == 4
    assert mixed[-1] > 1.5 * mixed[0]


@pytest.mark.slow
def test_a_black_box_branches(run):
    lines = run("black_box").splitlines()
    assert len(lines) == 3
    assert {line.split(" -> ")[0] for line in lines} == {"calculate(2*3)"}
    assert {(line.split(" -> ")[1]) for line in lines} == {"submit(3) 1.0", "submit(21) 0.0"}


def test_an_environment_is_served_to_openenv_and_branches_over_the_wire(run):
    assert run("openenv_server").splitlines()[1:] == [
        "50: higher, reward 0, done False",
        "75: higher, reward 0, done False",
        "86: correct, reward 1, done True",
    ]


def test_every_example_fits_on_a_screen_says_how_to_run_it_and_is_run():
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= SCREEN, f"{path.name} is longer than a screen"
        assert f"python examples/{path.name}" in text, f"{path.name} does not say how to run it"
        if place := ELSEWHERE.get(path.stem):
            assert path.name in (EXAMPLES.parent / "tests" / place).read_text(encoding="utf-8")
        else:
            assert f'run("{path.stem}"' in tests, f"{path.name} is run by no test"
