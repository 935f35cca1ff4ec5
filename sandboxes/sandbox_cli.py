"""The commands `agentenv sandbox probe` and `agentenv sandbox gc`."""

import json
from typing import Annotated

import typer

from .opening import Report, probe_backends
from .probing import PROMISES
from .sweeping import collect_garbage

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def sandbox() -> None:
    """Probes the sandboxes of this machine, and removes what was left."""


@app.command()
def probe(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per back end instead.")] = False,
) -> None:
    """Shows what every back end really enforces here, found by attacking a sandbox of each."""
    reports = probe_backends()
    if as_json:
        for report in reports:
            typer.echo(json.dumps(_plain(report)))
        return
    width = max(map(len, PROMISES))
    working = [report for report in reports if report.capabilities is not None]
    columns = [max(len(report.backend), 3) for report in working]
    _row("promise", [report.backend for report in working], width, columns)
    for name in PROMISES:
        held = [report.capabilities is not None and name in report.capabilities.enforced for report in working]
        _row(name, ["yes" if yes else "no" for yes in held], width, columns)
    for report in working:
        typer.echo(f"\n{report.backend} (level {report.level}) does not promise:")
        for name, reason in report.capabilities.missing.items() if report.capabilities else ():
            typer.echo(f"  {name}: {reason}")
    for report in reports:
        if report.capabilities is None:
            typer.echo(f"\n{report.backend} (level {report.level}) does not work here: {report.reason}")


def _row(name: str, cells: list[str], width: int, columns: list[int]) -> None:
    aligned = (cell.ljust(column) for cell, column in zip(cells, columns, strict=True))
    typer.echo(f"{name.ljust(width)}  {'  '.join(aligned)}".rstrip())


def _plain(report: Report) -> dict[str, object]:
    found = report.capabilities
    return {
        "backend": report.backend,
        "level": report.level,
        "works": found is not None,
        "reason": report.reason,
        "enforced": sorted(found.enforced) if found else [],
        "missing": dict(found.missing) if found else {},
    }


@app.command()
def gc() -> None:
    """Removes control groups, containers and folders of processes that no longer live."""
    removed = collect_garbage()
    for line in removed:
        typer.echo(f"removed {line}")
    typer.echo(f"{len(removed)} removed")
