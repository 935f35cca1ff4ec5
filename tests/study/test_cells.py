"""Cells, results and the runner: nothing is run twice, nothing is lost, and no seed that tunes is used again."""

import io
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tiny_chat import random_model

from benchmarks.study.cells import ROOT, TUNING_SEED, Cell, OtherStartError, Results, StudyError
from benchmarks.study.runner import run_cell, run_plan
from benchmarks.study.settings import QUICK
from benchmarks.study.starts import recipe_of, weights_of

CELL = Cell("train", "math", "GRPO", 0, 100, 1e-3, {"estimator": "GRPO"})
CREDIT = Cell("credit", "decisive", "all", 0, 0)
ROW = {"estimator": "GRPO", "signature": "exact", "size": 8, "r": 0.5, "mse": 0.1, "sign": None, "cosine": math.nan}


def trained(final: float = 0.5, **changed: Any) -> dict[str, Any]:
    """What a run of training comes to."""
    return {
        "curve": [{"tokens": 0.0, "success": 0.25}, {"tokens": 100.0, "success": final}],
        "metrics": {"final": final, "mean": final, "start": 0.25},
        "quarters": {"entropy": [0.5, 0.4, 0.3, 0.2]},
        "ledger": {"tokens_sampled": 100, "steps": 20, "episodes": 10},
        "cpu_seconds": 1.0,
        **changed,
    }


def test_a_key_is_of_what_the_run_depends_on():
    assert replace(CELL, cost=5.0).key == CELL.key
    others = [replace(CELL, seed=1), replace(CELL, rate=2e-3), replace(CELL, config={}), replace(CELL, start="x")]
    assert len({CELL.key, *(cell.key for cell in others)}) == 5


def test_results_survive_a_crash_in_mid_line(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained(0.5))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])  # the next was cut off
    again = Results(path)
    assert len(again) == 1
    again.add(replace(CELL, seed=1), trained(0.25))
    last = Results(path)
    assert [entry["metrics"]["final"] for _, entry in last.of([CELL, replace(CELL, seed=1)])] == [0.5, 0.25]
    assert len(last.codes) == 1
    assert last.cut == 1


def test_two_studies_may_write_to_one_file(tmp_path):
    one, two = Results(tmp_path / "results.jsonl"), Results(tmp_path / "results.jsonl")
    one.add(CELL, trained())
    two.add(replace(CELL, seed=1), trained())
    assert len(Results(tmp_path / "results.jsonl")) == 2


def test_runs_from_two_models_are_not_compared(tmp_path):
    """A recipe makes another model on another machine; what methods differ by would be that."""
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained(weights="a"))
    Results(path).add(replace(CELL, setting="sokoban"), trained(weights="b"))
    whole = path.read_bytes()
    with pytest.raises(StudyError, match=r"runs of math must start from one model, got weights a and b.*--folder"):
        Results(path).add(replace(CELL, seed=1), trained(weights="b"))
    assert path.read_bytes() == whole
    path.write_bytes(whole + whole.splitlines()[0].replace(b'"weights": "a"', b'"weights": "c"') + b"\n")
    with pytest.raises(StudyError, match="got weights a and c"):
        Results(path)


LINE = '{"key": "x", "kind": "train", "setting": "math", "method": "GRPO", "seed": 0, "code": ""'


@pytest.mark.parametrize("line", ["nonsense", '{"no": "key"}', "[1, 2]", LINE + "}", LINE + ', "metrics": "none"}'])
def test_a_line_that_is_no_result_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n" + json.dumps({"key": "x"}) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        Results(path)


WRONG: list[tuple[Cell, dict[str, Any], str]] = [
    (CELL, {"seed": "x"}, "seed must be a whole number of at least 0, got 'x'"),
    (CELL, {"seed": True}, "seed must be a whole number"),
    (CELL, {"seed": -1}, "seed must be a whole number"),
    (CELL, {"seed": 1.5}, "seed must be a whole number"),
    (CELL, {"kind": "trian"}, "kind must be one of train, credit, got 'trian'"),
    (CELL, {"kind": ["train"]}, "kind must be a text"),
    (CELL, {"setting": 3}, "setting must be a text, got 3"),
    (CELL, {"method": None}, "method must be a text, got None"),
    (CELL, {"key": []}, "key must be a text"),
    (CELL, {"size": ["tiny"]}, "size must be a text"),
    (CELL, {"error": 7}, "error must be a text"),
    (CELL, {"rate": "fast"}, "rate must be a finite number of at least 0, got 'fast'"),
    (CELL, {"rate": math.inf}, "rate must be a finite number"),
    (CELL, {"tokens": 0}, "tokens must be a whole number of at least 1, got 0"),
    (CELL, {"curve": 3}, "curve must be a list of points"),
    (CELL, {"curve": []}, "curve must be a list of points"),
    (CELL, {"curve": [{"tokens": 0.0, "success": "high"}]}, "curve must be a list of points"),
    (CELL, {"curve": [[0.0, 0.5]]}, "curve must be a list of points"),
    (CELL, {"metrics": {"final": 0.5}}, "metrics must be an object of numbers, with final, mean and start"),
    (CELL, trained(math.nan), "metrics.final must be finite, got nan"),
    (CELL, {"curve": [{"tokens": 0.0, "success": math.inf}]}, r"curve\[0\].success must be finite, got inf"),
    (CELL, {"quarters": {"entropy": []}}, "quarters must be an object of lists of numbers"),
    (CELL, {"ledger": {"tokens_sampled": "many"}}, "ledger must be an object of numbers"),
    (CREDIT, {"rows": {}}, "rows must be a list"),
    (CREDIT, {"rows": [ROW | {"size": "8"}]}, "rows must be a list"),
    (CREDIT, {"rows": [{name: ROW[name] for name in ROW if name != "r"}]}, "rows must be a list"),
    (CREDIT, {"metrics": {"noise": math.nan}}, "metrics.noise must be finite"),
    (CREDIT, {"rate": 1.0}, "rate must be 0"),
]


@pytest.mark.parametrize(("cell", "change", "said"), WRONG, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("end", ["\n", ""])
def test_a_field_of_the_wrong_kind_is_refused_by_line_and_name(tmp_path, cell, change, said, end):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained())
    Results(path).add(cell, trained() if cell is CELL else {"rows": [ROW]})
    assert len(Results(path)) == (1 if cell is CELL else 2)
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}{end}")
    with pytest.raises(StudyError, match=rf"results.jsonl, line 2: no result of the study \({said}.*remove it"):
        Results(path)


def test_a_field_that_is_missing_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained())
    line = json.loads(path.read_text())
    for name in ("seed", "rate", "curve", "ledger"):
        path.write_text(json.dumps({key: value for key, value in line.items() if key != name}) + "\n")
        with pytest.raises(StudyError, match=f"line 1: .*{name} is missing, and must be"):
            Results(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained())
    whole = path.read_bytes()
    with pytest.raises(ValueError, match=r"result of math, GRPO cannot be kept: metrics\.final must be finite"):
        Results(path).add(replace(CELL, seed=1), trained(math.nan))
    assert path.read_bytes() == whole
    Results(path).add(replace(CELL, seed=TUNING_SEED), trained(math.nan))  # such a rate is not taken
    assert len(Results(path)) == 2


@pytest.mark.parametrize("gone", [{"setting": "chess"}, {"size": "7b"}, {"device": "tpu"}])
def test_runs_of_what_is_no_more_stay_and_are_passed_over(tmp_path, gone):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, trained())
    whole = path.read_text()
    old = json.dumps(json.loads(whole) | gone | {"key": "old", "code": "before", "seed": 7})
    path.write_text(f"{whole}{old}\n")
    results = Results(path)
    assert [entry["seed"] for entry in results] == [0] and len(results) == 1
    assert list(results.gone.values()) == [1] and next(iter(gone.values())) in next(iter(results.gone))
    assert results.about("tiny", "cpu")[1] == 1 and results.elsewhere() == [] and "before" not in results.codes
    Results(path).add(replace(CELL, seed=1), trained())
    assert old in path.read_text()


def test_what_is_kept_with_the_code_is_read():
    results = Results(ROOT / "benchmarks" / "study" / "results" / "results.jsonl")
    assert len(results) > 6000
    assert (results.cut, results.gone) == (0, {})


def test_results_that_are_no_file_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "results.jsonl")
    (tmp_path / "quick.jsonl").mkdir()
    for name in ("results.jsonl", "quick.jsonl"):
        with pytest.raises(StudyError, match=f"{name} must be a file of results"):
            Results(tmp_path / name)


def test_a_run_that_diverged_is_one_that_broke(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.study.runner._work_of", lambda _: lambda cell, folder: trained(math.nan))
    assert run_cell(CELL, tmp_path)["error"] == "metrics.final must be finite, got nan: the run diverged"
    assert "error" not in run_cell(replace(CELL, seed=TUNING_SEED), tmp_path)


@pytest.mark.parametrize(
    ("cell", "result", "said"),
    [
        (CELL, trained(0.5), "success 0.50"),
        (CREDIT, {"rows": [ROW]}, "done"),
        (CREDIT, {"rows": [], "metrics": {"noise": 0.1}}, "done"),
        (replace(CELL, seed=1), {"error": "it broke"}, "it broke"),
    ],
)
def test_the_progress_says_what_came_of_a_run(tmp_path, monkeypatch, cell, result, said):
    monkeypatch.setattr("benchmarks.study.runner._work_of", lambda _: lambda cell, folder: dict(result))
    shown = io.StringIO()
    run_plan(lambda: [cell], Results(tmp_path / "r.jsonl"), tmp_path, console=Console(file=shown, width=200))
    (line,) = [line for line in shown.getvalue().splitlines() if " | seed " in line]
    assert line.rstrip().endswith(f"| {said}")
    assert "nan" not in shown.getvalue()


def test_no_error_hides_a_success(tmp_path):
    """As of two studies that run one cell at once."""
    path = tmp_path / "results.jsonl"
    for result in ({"error": "x"}, trained(0.5), {"error": "y"}):
        Results(path).add(CELL, dict(result))
    assert Results(path).get(CELL)["metrics"]["final"] == 0.5  # pyright: ignore[reportOptionalSubscript]
    assert Results(path).broken == {}


def broken(seed: int) -> Cell:
    return replace(CELL, kind="nothing", seed=seed)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_breaks_is_a_result_and_is_run_again_only_when_asked(tmp_path, jobs):
    results, cells = Results(tmp_path / "results.jsonl"), [broken(0), broken(1), broken(2)]
    quiet = Console(quiet=True)
    assert run_plan(lambda: cells, results, tmp_path, jobs=jobs, console=quiet) == 3
    assert "kind must be" in results.get(cells[2])["error"]  # pyright: ignore[reportOptionalSubscript]
    assert sum(results.broken.values()) == 3
    assert results.of(cells) == []
    assert run_plan(lambda: cells, Results(results.path), tmp_path, jobs=1, console=quiet) == 0
    assert run_plan(lambda: cells, results, tmp_path, jobs=1, retry=True, console=quiet) == 3


def test_no_cell_begins_after_the_time_is_over(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    assert run_plan(lambda: [broken(0)], results, tmp_path, minutes=0.0, console=Console(quiet=True)) == 0
    assert len(results) == 0


def test_a_plan_is_asked_again_after_every_result(tmp_path):
    """As the runs of a method follow from those that tune it."""
    results = Results(tmp_path / "results.jsonl")

    def plan() -> list[Cell]:
        return [broken(0)] if broken(0) not in results else [broken(0), broken(1)]

    assert run_plan(plan, results, tmp_path, console=Console(quiet=True)) == 2


def test_results_that_cannot_be_kept_are_not_computed(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(OSError, match="file"):
        run_plan(lambda: [broken(0)], Results(place / "results.jsonl"), tmp_path, console=Console(quiet=True))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_setting_that_starts_from_another_model_here_is_passed_over_before_it_is_run(tmp_path, jobs):
    """On another processor imitation makes another model; all that needs none of those is run."""
    results, shown = Results(tmp_path / "results.jsonl"), io.StringIO()
    place, key = QUICK["sokoban"], recipe_of(QUICK["sokoban"])
    model, tokenizer = random_model()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / f"{place.name}-{key}")
    there = replace(CELL, setting="sokoban", quick=True, config={"no such": "method"})
    results.add(there, trained(weights="made elsewhere"))
    cells = [replace(there, seed=1), replace(there, seed=2), broken(0), broken(1)]
    console = Console(file=shown, width=300)
    with pytest.raises(OtherStartError, match=r"passed over sokoban, whose runs .* with a --folder of their own"):
        run_plan(lambda: cells, results, tmp_path, jobs=jobs, console=console)
    assert cells[2] in results and cells[3] in results
    assert cells[0] not in results and cells[1] not in results
    assert f"starts from weights made elsewhere, what is made here has {weights_of(model)}" in shown.getvalue()
    results = Results(tmp_path / "own" / "results.jsonl")
    assert run_plan(lambda: cells[:1], results, tmp_path, console=console) == 1


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_with_a_study_that_is_killed(tmp_path):
    program = """
import os, sys, time
from concurrent.futures import wait
from pathlib import Path
from benchmarks.study.runner import _workers

if __name__ == "__main__":
    with _workers(2) as submit:
        wait([submit(time.sleep, 0.1) for _ in range(2)])
        running = [submit(time.sleep, 600.0) for _ in range(2)]
        print(*(process.pid for process in __import__("multiprocessing").active_children()), flush=True)
        wait(running)
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as study:
        assert study.stdout
        workers = [int(word) for word in study.stdout.readline().split()]
        assert len(workers) == 2
        study.kill()
    end = time.monotonic() + 60
    while any(runs(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.model
def test_errors_say_what_broke(tmp_path):
    assert "math" in run_cell(replace(CELL, setting="maths", quick=True), tmp_path)["error"]
    assert np.isfinite(run_cell(broken(0), tmp_path)["cpu_seconds"])
