"""Runs kept results again: what the code of today, on this machine, makes of runs that others were compared by."""

import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .cells import Cell, Results, StudyError
from .runner import run_plan

__all__ = ["run_again", "sampled"]


def sampled(results: Results, seed: int = 0) -> list[tuple[Cell, dict[str, Any]]]:
    """Draws one run of every setting and version of the code that trained in it, the cheap ones first.

    Args:
        results: what was run.
        seed: of the draw.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in results:
        if entry["kind"] == "train" and "error" not in entry and entry.get("device", "cpu") == "cpu":
            groups.setdefault((entry["setting"], entry["code"]), []).append(entry)
    rng, names = np.random.default_rng(seed), [field.name for field in fields(Cell)]
    drawn = [group[int(rng.integers(len(group)))] for _, group in sorted(groups.items())]
    found = [(Cell(**{name: entry[name] for name in names if name in entry}), entry) for entry in drawn]
    return sorted(found, key=lambda pair: pair[1]["cpu_seconds"])


def run_again(
    results: Results, starts: Path, *, jobs: int = 1, minutes: float | None = None, console: Console | None = None
) -> bool:
    """Runs a sample again, prints how far it comes out the same, and returns whether all that was run does.

    Args:
        results: what was run; left as it is.
        starts: folder of the starting models.
        jobs: processes.
        minutes: no run begins later than that.
        console: where to print.

    Raises:
        StudyError: there are no results.
    """
    console = console or Console()
    if not (pairs := sampled(results)):
        msg = f"{results.path} must hold runs to be run again, it has none: choose another --folder"
        raise StudyError(msg)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Results(Path(folder) / "again.jsonl")
        run_plan(lambda: [cell for cell, _ in pairs], fresh, starts, jobs=jobs, minutes=minutes, console=console)
        table = Table("setting", "method", "seed", "rate", "code", "mean of the curve, kept", "now", title="runs again")
        gaps = list(_compared(pairs, fresh, table))
    console.print(table)
    differ = sum(gap > 0 for gap in gaps)
    console.print(
        f"{len(gaps)} of {len(pairs)} run again, {differ} differ; largest difference {max(gaps, default=0):.2g}"
    )
    if len(gaps) < len(pairs):
        console.print("The rest was not run: the time was over.")
    return not differ


def _compared(pairs: list[tuple[Cell, dict[str, Any]]], fresh: Results, table: Table) -> Iterator[float]:
    """Yields the largest difference of two curves, and writes down the means."""
    for cell, kept in pairs:
        if (now := fresh.get(cell)) is None:
            continue
        curves = [[point["success"] for point in one.get("curve", [])] for one in (kept, now)]
        same_size = len(curves[0]) == len(curves[1])
        gap = float(np.abs(np.array(curves[0]) - np.array(curves[1])).max(initial=0.0)) if same_size else float("inf")
        means = [f"{one['metrics']['mean']:.5g}" if "metrics" in one else one["error"] for one in (kept, now)]
        table.add_row(cell.setting, cell.method, str(cell.seed), f"{cell.rate:g}", kept["code"][:4], *means)
        yield gap
