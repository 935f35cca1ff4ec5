"""One run of a hidden test suite on a submission: what is sent into the sandbox, and what counts as an answer."""

import functools
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from agentenv.protocols import ExecResult, Sandbox

from .interpreter import FOLDER, guest_argv, guest_env, guest_source
from .pytest_files import install_pytest, pytest_archive
from .submissions import OpenSandbox, spec_of
from .suites import TestSuite, read_id
from .tasks import RepairTask
from .twins import Site, apply_edits

__all__ = ["Report", "Run", "function_of", "open_suite", "read_lines", "run_suite"]

_GUEST = guest_source("suite_guest")
_OUTPUT = 32 << 20
_TESTS_FAILED = 1  # pytest's exit status; there is always one test that must fail
_ORDER = ("passed", "skipped", "error", "failed")
_LINE = re.compile(r"(\d+) ([a-z]+) ([0-9a-f]*)", re.ASCII)


@dataclass(frozen=True)
class Run:
    """What one run shall be.

    Attributes:
        functions: the test functions that run, by node id without parameters.
        twins: those of them that a twin replaces, with the place that is made wrong.
    """

    functions: tuple[str, ...]
    twins: Mapping[str, Site] = field(default_factory=dict[str, Site])


@dataclass(frozen=True)
class Report:
    """What a run gave.

    Attributes:
        outcomes: by node id, `"passed"`, `"failed"`, `"error"` or `"skipped"`; empty where there is a problem.
        problem: why it counts as no report.
        detail: more on that, for whoever wrote the task; it may give away what is hidden.
        tampered: a test did not come out as it must whatever the code.
    """

    outcomes: Mapping[str, str] = field(default_factory=dict[str, str])
    problem: str = ""
    detail: str = ""
    tampered: bool = False

    def outcome(self, name: str) -> str:
        """Returns what became of a test; of one without parameters that has some, what became of the worst of them."""
        if name in self.outcomes:
            return self.outcomes[name]
        return max(self.words(name), default="missing", key=_ORDER.index)

    def words(self, function: str) -> tuple[str, ...]:
        """Returns what became of the tests of one function, in the order in which they ran."""
        return self._words.get(function, ())

    @functools.cached_property
    def _words(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, word in self.outcomes.items():
            function = name.partition("[")[0]
            found[function] = (*found.get(function, ()), word)
        return found


def function_of(name: str) -> str:
    """Returns a node id without its parameters."""
    return read_id(name).function


def open_suite(open_: OpenSandbox, task: RepairTask, suite: TestSuite) -> Any:
    """Opens a sandbox with the task's files, and with pytest.

    Raises:
        SandboxError: none could be opened, or pytest does not run in it.
    """
    spec = spec_of(task)
    archive = pytest_archive(open_, task.image, suite.python)
    sandbox = open_(replace(spec, limits=replace(spec.limits, output=_OUTPUT)))
    try:
        install_pytest(sandbox, archive, suite.python)
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def run_suite(
    prepared: Sandbox, task: RepairTask, suite: TestSuite, run: Run, generator: np.random.Generator
) -> Report:
    """Runs tests in a sandbox of their own, which is closed again: no run leaves anything behind, not even used pids.

    Args:
        prepared: a sandbox with the code and pytest, in which none of the code has run; it is forked.
        task: says what else its files hold.
        suite: the tests.
        run: which of them, and which are replaced.
        generator: draws how a twin is wrong, and the tests that show whether tests are run at all.

    Raises:
        SandboxError: it could not be forked, or broke.
    """
    (sandbox,) = prepared.fork(1)
    with closing(sandbox):
        return _run(sandbox, task, suite, run, generator)


def _run(sandbox: Sandbox, task: RepairTask, suite: TestSuite, run: Run, generator: np.random.Generator) -> Report:
    files = _test_files(task, suite, run, generator)
    prefix = suite.options.get("python_functions", "test").split()[0].strip("*").rstrip("_") or "test"
    controls, path, source = _controls(generator, prefix)
    sandbox.upload({**files, path: source})
    if suite.deleted:
        sandbox.exec(["rm", "-rf", "--", *suite.deleted])
    if suite.executable:
        sandbox.exec(["chmod", "+x", "--", *suite.executable])
    key = secrets.token_bytes(32)
    request = {
        "key": key.hex(),
        "folder": FOLDER,
        "ini": "".join(("[pytest]\n", *(f"{name} = {value}\n" for name, value in suite.options.items()))),
        "functions": [*run.functions, *controls],
        "extra": path,
        "source": suite.source,
        "plugins": suite.plugins,
    }
    argv, env = guest_argv(_GUEST, python=suite.python), guest_env(spec_of(task).env)
    result = sandbox.exec(argv, stdin=json.dumps(request), timeout_s=suite.timeout_s, env=env)
    report = read_lines(result, key)
    return report if report.problem else _check(report.outcomes, run, controls)


def _test_files(task: RepairTask, suite: TestSuite, run: Run, generator: np.random.Generator) -> dict[str, bytes | str]:
    """Returns the hidden files, and those of the task that hold tests, with twins in them."""
    files: dict[str, bytes | str] = {**suite.files}
    edits: dict[str, list[Any]] = {}
    for function, site in run.twins.items():
        edits.setdefault(read_id(function).path, []).extend(site.make(generator))
    for path, changes in edits.items():
        files[path] = apply_edits((suite.files.get(path) or task.read(path)).decode(), changes)
    return files


def _controls(generator: np.random.Generator, prefix: str) -> tuple[dict[str, str], str, str]:
    """Returns a test that must pass and one that must fail, with the path and the source of their file."""
    syllables = [a + b for a in "bdfklmnprst" for b in "aeiou"]
    file, *names = ["".join(generator.choice(syllables, size=3).tolist()) for _ in range(3)]
    path, outcomes, source = f"test_{file}.py", dict[str, str](), list[str]()
    wrong = int(generator.integers(2))
    for number, name in enumerate(names):
        left, right, more = (int(n) for n in generator.integers(1, 50, size=3))
        total = left + right + (more if number == wrong else 0)
        source.append(f"def {prefix}_{name}{number}():\n    assert sum([{left}, {right}]) == {total}\n")
        outcomes[f"{path}::{prefix}_{name}{number}"] = "failed" if number == wrong else "passed"
    return outcomes, path, "\n\n".join(source)


def read_lines(result: ExecResult, key: bytes) -> Report:
    """Returns the outcomes that a guest reported, where its lines are authentic, complete and in order."""
    for ended, problem in (
        (result.timed_out, "the tests timed out"),
        (result.oom, "the tests ran out of memory"),
        (result.truncated, "the tests' report was too long"),
    ):
        if ended:
            return Report(problem=problem)
    told: list[tuple[str, str]] = []
    for number, line in enumerate(_lines(result.stdout)):
        if (entry := _open_line(line, key)) is None:
            return Report(problem="the tests' report was not authentic")
        found, word, name = entry
        if found != str(number):
            return Report(problem="the tests' report was not in order")
        told.append((word, name))
    if failures := [name for word, name in told if word == "uncollected"]:
        return Report(problem="tests could not be collected", detail=failures[0])
    status = str(_TESTS_FAILED)
    frame = [("begun", ""), ("finished", status), ("ended", status)]
    if len(told) < 4 or [told[0], *told[-2:]] != frame or result.exit_code != _TESTS_FAILED:
        return Report(
            problem=f"the tests ended early, with exit code {result.exit_code}",
            detail=" ".join(told[-1]) if told else "",
        )
    (first, count), *tests = told[1:-2]
    outcomes = {name: word for word, name in tests}
    if (
        first != "collected"
        or len(outcomes) != len(tests)
        or str(len(tests)) != count
        or {*outcomes.values()} - {*_ORDER}
    ):
        return Report(problem="tests are missing from the report, or in it twice")
    return Report(outcomes)


def _lines(output: str) -> list[str]:
    return output.removesuffix("\n").split("\n") if output else []


def _open_line(line: str, key: bytes) -> tuple[str, str, str] | None:
    """Returns number, word and name of a sealed line; None where the seal or the form is wrong."""
    seal, _, text = line.partition(" ")
    if not secrets.compare_digest(_seal(key, text).encode(), seal.encode(errors="replace")):
        return None
    if (found := _LINE.fullmatch(text)) is None:  # code under test may find the writer, and have it seal anything
        return None
    try:
        return found[1], found[2], bytes.fromhex(found[3]).decode("utf-8", "surrogatepass")
    except ValueError:
        return None


def _seal(key: bytes, text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), key=key, digest_size=16).hexdigest()


def _check(outcomes: Mapping[str, str], run: Run, controls: Mapping[str, str]) -> Report:
    """Returns a report without the controls, if they came out as they must and nothing ran that should not."""
    if any(outcomes.get(name) != word for name, word in controls.items()):
        return Report(problem="a test came out otherwise than it must: tests were tampered with", tampered=True)
    rest = {name: word for name, word in outcomes.items() if name not in controls}
    unknown = {name for name in rest if name.partition("[")[0] not in run.functions}
    if unknown:
        return Report(problem="tests ran that do not belong to the suite", detail=min(unknown))
    return Report(rest)
