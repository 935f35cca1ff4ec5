"""The search as an ordinary user, a slice of it at each turn, in a process of that user."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ordinary_user import as_ordinary_user

from redteam.trying import Finding, Try

if TYPE_CHECKING:
    import random

__all__ = ["AsUser"]

_SLICE_S = 15
_CODE = """
import os, pathlib, sys, tempfile
import agentenv
sys.path.insert(0, str(pathlib.Path(agentenv.__file__).resolve().parents[1] / "tests"))
os.chdir(tempfile.mkdtemp())
from redteam.__main__ import main
sys.argv[1:] = {arguments}
code = main()
print(pathlib.Path("found.json").read_text())
"""


class AsUser:
    """Searches on the namespace back end as a user without privileges.

    Args:
        gradings: whether submissions are graded, too.
    """

    def __init__(self, *, gradings: bool) -> None:
        self._options = [] if gradings else ["--no-gradings"]
        self._stack = ExitStack()
        self._run = self._stack.enter_context(as_ordinary_user())

    def run(self, rng: random.Random) -> Try:
        """Searches for some seconds, from a seed that is drawn."""
        seed = rng.randrange(2**32)
        arguments = ["--seconds", str(_SLICE_S), "--seed", str(seed), "--places", "namespace", "--json", "found.json"]
        arguments += self._options
        result = self._run(_CODE.format(arguments=arguments))
        try:
            report = json.loads(result.stdout[result.stdout.index("\n{") :])
        except ValueError:
            detail = f"exit code {result.returncode}: {result.stderr[-400:]}"
            return Try(arguments, [Finding("no report", detail)], "no report")
        findings = [Finding(each["kind"], f"seed {seed}, {each['try']}: {each['detail']}") for each in report["found"]]
        outcomes = [
            word
            for tried in report["tried"].values()
            for word, count in tried["outcomes"].items()
            for _ in range(count)
        ]
        return Try([each["what"] for each in report["found"]], findings, ", ".join(outcomes))

    def close(self) -> None:
        """Removes the user."""
        self._stack.close()
