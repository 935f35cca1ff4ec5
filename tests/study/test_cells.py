"""Cells, results and the runner: nothing is run twice, nothing is lost, and no seed that tunes is used again."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.study.cells import Cell, Results, StudyError
from benchmarks.study.runner import run_cell, run_plan

CELL = Cell("train", "math", "GRPO", 0, 100, 1e-3, {"estimator": "GRPO"})


def test_a_key_is_of_what_the_run_depends_on():
    assert replace(CELL, cost=5.0).key == CELL.key
    others = [replace(CELL, seed=1), replace(CELL, rate=2e-3), replace(CELL, config={}), replace(CELL, start="x")]
    assert len({CELL.key, *(cell.key for cell in others)}) == 5


def test_results_survive_a_crash_in_mid_line(tmp_path):
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, {"metrics": {"final": 0.5}})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])  # the next was cut off
    again = Results(path)
    assert len(again) == 1
    again.add(replace(CELL, seed=1), {"metrics": {"final": 0.25}})
    last = Results(path)
    assert [entry["metrics"]["final"] for _, entry in last.of([CELL, replace(CELL, seed=1)])] == [0.5, 0.25]
    assert len(last.codes) == 1
    assert last.cut == 1


def test_two_studies_may_write_to_one_file(tmp_path):
    one, two = Results(tmp_path / "results.jsonl"), Results(tmp_path / "results.jsonl")
    one.add(CELL, {"metrics": {}})
    two.add(replace(CELL, seed=1), {"metrics": {}})
    assert len(Results(tmp_path / "results.jsonl")) == 2


def test_runs_from_two_models_are_not_compared(tmp_path):
    """A recipe makes another model on another machine; what methods differ by would be that."""
    path = tmp_path / "results.jsonl"
    Results(path).add(CELL, {"metrics": {}, "weights": "a"})
    Results(path).add(replace(CELL, setting="sokoban"), {"metrics": {}, "weights": "b"})
    whole = path.read_bytes()
    with pytest.raises(StudyError, match=r"runs of math must start from one model, got weights a and b.*--folder"):
        Results(path).add(replace(CELL, seed=1), {"metrics": {}, "weights": "b"})
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


def test_no_error_hides_a_success(tmp_path):
    """As of two studies that run one cell at once."""
    path = tmp_path / "results.jsonl"
    for result in ({"error": "x"}, {"metrics": {"final": 0.5}}, {"error": "y"}):
        Results(path).add(CELL, dict(result))
    assert Results(path).get(CELL)["metrics"] == {"final": 0.5}  # pyright: ignore[reportOptionalSubscript]
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
