"""`agentenv doctor`: what this machine has, and what is missing."""

from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["doctor"]

_STYLES = {"ok": "green", "missing": "yellow", "note": "cyan", "problem": "bold red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False) -> None:
    """Tell what this machine has, and what to install.

    It looks at Python, packages, devices and isolation. What can be tried is tried: namespaces are entered, an overlay
    is mounted, the Docker engine is asked. Missing parts are optional; exit code 1 where something is a problem.

    Examples:
        agentenv doctor
        agentenv doctor --json
    """
    from itertools import groupby

    from rich.text import Text

    from .console import open_console, print_json, print_table
    from .machine import find_everything

    with open_console(stderr=True).status("looking"):
        findings = list(find_everything())
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
