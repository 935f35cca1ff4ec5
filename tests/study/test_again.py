"""Kept runs are run again, and come out the same."""

import json

import pytest
from rich.console import Console

from benchmarks.study.__main__ import main
from benchmarks.study.again import sampled
from benchmarks.study.cells import Results
from benchmarks.study.questions import QUESTIONS
from benchmarks.study.questions.question import Scale
from benchmarks.study.runner import run_plan


def test_what_was_run_comes_out_the_same_and_what_was_changed_does_not(tmp_path, capsys):
    words = ["--quick", "--folder", str(tmp_path), "--starts", str(tmp_path)]
    path = tmp_path / "quick.jsonl"
    results = Results(path)
    cells = {cell.setting: cell for cell in QUESTIONS[5].plan(results, Scale(1, quick=True))}
    run_plan(lambda: list(cells.values()), results, tmp_path, console=Console(quiet=True))
    drawn = sampled(results)
    assert [cell.setting for cell, _ in drawn] == ["decisive", "sokoban"]
    main(["again", *words])
    assert f"{len(drawn)} of {len(drawn)} run again, 0 differ" in capsys.readouterr().out
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for entry in entries:
        entry["curve"][-1]["success"] += 0.25
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    with pytest.raises(SystemExit) as ended:
        main(["again", *words])
    assert ended.value.code == 1
    assert f"{len(drawn)} differ; largest difference 0.25" in capsys.readouterr().out
