"""Every code block of the README and the docs runs, and prints what stands below it."""

import contextlib
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]) if (ROOT / "docs").exists() else []
OWN_TEST = {"credit.md"}  # tests/credit/test_docs.py gives its code the trees that it speaks of
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def with_code() -> Iterator[Any]:
    """The pages with Python in them; those that need torch have the mark `model`."""
    for page in PAGES:
        code = "".join(code for language, code in blocks(page) if language == "python")
        if code and page.name not in OWN_TEST:
            needs_torch = re.search(r"agentenv\.trainers|TransformersAgent|import torch", code)
            yield pytest.param(page, id=page.name, marks=[pytest.mark.model] if needs_torch else [])


@pytest.mark.parametrize("page", list(with_code()))
def test_python_blocks_run_and_print_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    printed = ""
    checked = 0
    for language, code in blocks(page):
        if language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out), warnings.catch_warnings():
                warnings.simplefilter("default")
                exec(compile(code, f"{page.name}: {code.splitlines()[0]}", "exec"), names)
            printed = out.getvalue()
            checked += 1
        elif language == "text":
            assert printed.strip().splitlines()[-len(code.strip().splitlines()) :] == code.strip().splitlines()
    assert checked


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_files_stand(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


def commands(page: Path) -> list[str]:
    """The shell commands of a page's bash blocks, without their comments."""
    lines = [line for language, code in blocks(page) if language == "bash" for line in code.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def test_make_commands_of_the_readme_are_targets():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = [line.split()[1] for line in commands(ROOT / "README.md") if line.startswith("make ")]
    assert named
    assert set(named) <= set(targets)


@pytest.mark.parametrize(
    "line", [c for c in commands(ROOT / "README.md") if c.startswith("agentenv ")] if PAGES else []
)
def test_agentenv_commands_of_the_readme_run(line, tmp_path):
    """In one folder, in order: later lines read what earlier ones wrote. `play` is given an end of input."""
    lines = [c for c in commands(ROOT / "README.md") if c.startswith("agentenv ")]
    before = [c for c in lines[: lines.index(line)] if "--out" in c and line.split()[1] == "trees"]
    for command in [*before, line]:
        words = [sys.executable, "-c", "from agentenv.cli import main; main()", *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, input="", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}"


REPORTS = ROOT / "docs" / "field_reports.md"


def test_no_field_report_is_left_out_and_each_is_held_by_a_test_that_there_is():
    rows = re.findall(r"^\| ([ABC]\d+) \|(.*)\|$", REPORTS.read_text(encoding="utf-8"), re.MULTILINE)
    every = [f"{part}{number}" for part, last in (("A", 14), ("B", 16), ("C", 8)) for number in range(1, last + 1)]
    assert sorted({name for name, _ in rows}) == sorted(every)
    for name, row in rows:
        held = re.findall(r"`([\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2])
        assert held, f"{name} names no test"
        for file, test in held:
            path = ROOT / "tests" / file
            assert path.exists(), f"{name} names {file}, which does not exist"
            assert re.search(rf"^ *(async )?def {test}\(", path.read_text(encoding="utf-8"), re.MULTILINE), (
                f"{name} names {file}::{test}, which does not exist"
            )
