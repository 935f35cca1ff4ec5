"""Which cheats are tried where; and verdicts as an ordinary user."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from sandbox_backends import marks

EVERYWHERE = os.environ.get("CHEATS_EVERYWHERE") == "1"
"""Whether each of them is tried on every back end, and as an ordinary user: takes about an hour."""

ENGINES = ("docker", "podman", "gvisor")

_AS_ANYBODY = """
import json, os, tempfile
from contextlib import closing
from agentenv.envs.code_repair import Grader, RepairTask, collect_submission
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.sandboxes import open_sandbox
os.chdir(tempfile.mkdtemp())
task = RepairTask.model_validate_json(%r)
for name, (files, command) in json.loads(%r).items():
    with closing(open_sandbox(spec_of(task))) as sandbox:
        sandbox.upload(files)
        if command:
            sandbox.exec(command, timeout_s=20)
        submission = collect_submission(sandbox, task)
    print(json.dumps([name, Grader(**json.loads(%r)).grade(task, submission).solved]))
"""


def everywhere(names: Iterable[str], *, every: int) -> Iterator[Any]:
    """Places and names: each on the namespace back end, and each `every`-th on one engine in turn.

    With CHEATS_EVERYWHERE=1, each on all of them. Where `every` is 0, none is on an engine without that.
    """
    for number, name in enumerate(names):
        chosen = (ENGINES[number // every % len(ENGINES)],) if every and number % every == 0 else ()
        for place in ("namespace", *(ENGINES if EVERYWHERE else chosen)):
            yield pytest.param(place, name, marks=marks(place), id=f"{place}-{name}")


def shares(count: int) -> Any:
    """Numbers of the shares that are tried as an ordinary user: the first, or all with CHEATS_EVERYWHERE=1."""
    return range(count if EVERYWHERE else 1)


def verdicts_of_anybody(
    ordinary_user: Any, task: Any, handed_in: Mapping[str, tuple[Any, str]], **options: Any
) -> dict[str, bool]:
    """Returns whether each of what an agent wrote, or did with a command, solves a task, by name."""
    given = (task.model_dump_json(), json.dumps(handed_in), json.dumps(options))
    result = ordinary_user(_AS_ANYBODY % given)
    assert result.returncode == 0, result.stderr
    return dict(map(json.loads, result.stdout.splitlines()))
