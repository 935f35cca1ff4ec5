"""`agentenv doctor`: what this machine has, and what is missing."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_line import refuse

if TYPE_CHECKING:
    from .machine import Finding

__all__ = ["doctor"]

_STYLES = {"ok": "green", "missing": "yellow", "note": "cyan", "problem": "bold red"}


def doctor(
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Look at a model instead: its chat template, tool calls and history."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Tell what this machine has, and what to install.

    It looks at Python, packages, devices and isolation. What can be tried is tried: namespaces are entered, an overlay
    is mounted, the Docker engine is asked. Missing parts are optional; exit code 1 where something is a problem.

    With --model it tells of a model instead whether its template can be used with tools, which parser reads its calls,
    and whether prompts that keep what was sampled are those that the template itself would write, after each kind of
    turn. No weights are loaded.

    Examples:
        agentenv doctor
        agentenv doctor --model models/qwen
        agentenv doctor --json
    """
    from itertools import groupby

    from rich.text import Text

    from .console import open_console, print_json, print_table
    from .machine import find_everything

    with open_console(stderr=True).status("looking"):
        findings = list(find_everything() if model is None else _of_model(model))
    problems = [finding for finding in findings if finding.status == "problem"]
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        console = open_console()
        for area, group in groupby(findings, lambda finding: finding.area):
            rows = [[f.name, Text(f.status, _STYLES[f.status]), f.value, f.remedy] for f in group]
            print_table(console, [area, "", "found", "remedy" if any(row[3] for row in rows) else ""], rows)
            console.print()
        missing = sum(finding.status == "missing" for finding in findings)
        verdict = f"{len(problems)} to repair" if problems else "nothing to repair"
        console.print(f"{verdict}, {missing} optional parts missing")
    if problems:
        raise typer.Exit(1)


def _of_model(folder: str) -> "Iterator[Finding]":
    from .actors import quiet_transformers
    from .model_folder import find_model

    if not Path(folder).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", folder):
        refuse("--model", f"must be a model's folder, or NAME/NAME on the hub, got {folder!r}: no such folder")
    quiet_transformers("--model")
    return find_model(folder)
