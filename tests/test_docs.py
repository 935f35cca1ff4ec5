"""Every code block of the README and the docs runs, and prints what stands below it."""

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentenv

ROOT = Path(__file__).parent.parent
TOP = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "llms.txt", "examples/README.md")]
PAGES = sorted([*filter(Path.exists, TOP), *(ROOT / "docs").rglob("*.md")]) if (ROOT / "docs").exists() else []
in_repository = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="needs the repository, not a wheel")
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


@pytest.mark.slow
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
    before = [c for c in lines[: lines.index(line)] if "--out" in c and line.split()[1] in {"trees", "view"}]
    for command in [*before, line]:
        words = [sys.executable, "-c", "from agentenv.cli import main; main()", *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, input="", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}"


def command_lines() -> Iterator[Any]:
    """Every command line of ours that a page shows: in bash blocks, in indented ones, after a `$`."""
    pages = [*PAGES, *(ROOT / "agentenv" / "cli" / "templates").glob("README.md.in")]
    for page in pages:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        for line in re.findall(r"^(?:    |\$ )?agentenv ([a-z-].*)$", text, re.MULTILINE):
            words = shlex.split(line.partition("  #")[0])
            if "..." not in line and not {"|", ">", "does", "is"} & set(words):
                yield pytest.param(words, id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize("words", list(command_lines()))
def test_a_command_that_a_page_shows_exists_with_its_options(words):
    """Parsed as the command line parses it, without being run."""
    from typer.main import get_command

    from agentenv.cli import app

    words = [re.sub(r"\$module|\$cls", "m", word) for word in words]
    command: Any = get_command(app)
    context = command.make_context("agentenv", [*words], resilient_parsing=True)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, [*words], parent=context, resilient_parsing=True)
        command = context.command  # a lazy group stands for another
    strict = type(context)(command)  # the one above passes over what is wrong
    command.make_parser(strict).parse_args(words)


def test_the_first_drawing_of_the_readme_is_what_its_commands_draw(tmp_path):
    (drawn,) = [code.splitlines() for language, code in blocks(ROOT / "README.md") if language == "console"]
    said = ""
    for line in [line.removeprefix("$ ") for line in drawn if line.startswith("$ ")]:
        words = [sys.executable, "-c", "from agentenv.cli import main; main()", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
        said = done.stdout
    assert "\n".join(drawn[2:]) in said
    assert "-> correct" in said and "-> wrong" in said


@in_repository
@pytest.mark.parametrize("name", ["AGENTS.md", "CONTRIBUTING.md", "docs/release.md"])
def test_what_contributors_are_told_is_there(name):
    """Files in backticks stand, and `make` commands are targets."""
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z]+)", text)) <= set(targets)
    for path in re.findall(r"`([\w./]+/[\w.]*)`", text):
        made = path.startswith(("agentenv.", "build/", "tests/agents/test_NAME")) or "NAME" in path
        assert made or (ROOT / path).exists(), f"{name} names {path}, which does not exist"


@in_repository
def test_every_page_is_in_the_navigation():
    yaml = pytest.importorskip("yaml")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(inner)

    listed = list(pages(settings["nav"]))
    docs = ROOT / "docs"
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} | {"examples/README.md"}
    assert sorted(listed) == sorted(there), "list the page under `nav` in mkdocs.yml, and in llms.txt"


@in_repository
def test_the_pictures_show_what_the_code_says():
    draw = runpy.run_path(str(ROOT / "docs" / "images" / "draw.py"))
    for name, picture in draw["PICTURES"].items():
        drawn = (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")
        assert picture() == drawn, f"{name}.svg is out of date: python docs/images/draw.py"


@in_repository
def test_messages_of_the_troubleshooting_page_are_messages_of_ours():
    folders = ("agentenv", "agents", "credit", "sandboxes", "trainers")
    code = "".join(path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [m for head in re.findall(r"^### (.*)$", page, re.MULTILINE) for m in re.findall(r"`([^`]+)`", head)]
    assert len(messages) >= 15
    assert [message for message in messages if message not in code] == []


@in_repository
def test_the_citation_and_the_hooks_name_versions_that_there_are():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == agentenv.__version__
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    tools = {"ruff": "ruff==", "pytest": "pytest==", "lint-imports": "import-linter=="}
    for hook in hooks:
        words = hook["entry"].split()
        tool = words[2] if words[:2] == ["python", "-m"] else words[0]
        assert hook["language"] == "system"
        assert tools[tool] in pinned


REPORTS = ROOT / "docs" / "field_reports.md"


def require_tests(name: str, text: str) -> None:
    """Fails unless tests are named there, and each of them is below `tests/`."""
    held = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert held, f"{name} names no test"
    for file, test in held:
        path = ROOT / "tests" / file
        assert path.exists(), f"{name} names {file}, which does not exist"
        assert re.search(rf"^ *(async )?def {test}\(", path.read_text(encoding="utf-8"), re.MULTILINE), (
            f"{name} names {file}::{test}, which does not exist"
        )


def test_every_attack_of_the_sandboxes_page_is_held_by_a_test_that_there_is():
    page = (ROOT / "docs" / "sandboxes.md").read_text(encoding="utf-8").partition("## What was attacked")[2]
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 20))
    for number, row in rows:
        assert row.count("|") == 7, f"{number} says nothing of some back end"
        require_tests(f"attack {number}", row.rpartition(" | ")[2])


def test_no_field_report_is_left_out_and_each_is_held_by_a_test_that_there_is():
    rows = re.findall(r"^\| ([ABC]\d+) \|(.*)\|$", REPORTS.read_text(encoding="utf-8"), re.MULTILINE)
    every = [f"{part}{number}" for part, last in (("A", 14), ("B", 16), ("C", 8)) for number in range(1, last + 1)]
    assert sorted({name for name, _ in rows}) == sorted(every)
    for name, row in rows:
        require_tests(name, row.rpartition(" | ")[2])
