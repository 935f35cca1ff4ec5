"""The house: links, names and sizes of files. Skipped where the package is installed from a wheel."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("agents", "credit", "sandboxes", "trainers")
FOLDERS = (*LINKS, "agentenv", "tests", "benchmarks", "examples", "docs")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs the repository, not a wheel")


def files():
    """Every Python file of the repository, once: not through the links."""
    for folder in FOLDERS:
        for parent, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__"))]
            yield from (Path(parent, name) for name in names if name.endswith(".py"))


FILES = sorted(files())


@pytest.mark.parametrize("name", LINKS)
def test_a_link_stands_is_relative_and_leads_to_the_folder(name):
    link = ROOT / "agentenv" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"  # noqa: PTH115  the text of the link, not the path
    assert (link / "__init__.py").samefile(ROOT / name / "__init__.py")


def test_the_files_are_found():
    assert {"tests", "agentenv", *LINKS} <= {path.relative_to(ROOT).parts[0] for path in FILES}
    assert len(FILES) > 80


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_keeps_the_rules_of_the_house(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 500, "a file has at most 500 lines"
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|NotImplementedError", text) or path == Path(__file__).resolve()
    bare = [name for name in imported(ast.parse(text)) if name.partition(".")[0] in LINKS]
    of_others = path.parent == ROOT / "tests" / "agents" / "programs"  # openai-agents' package is called `agents`
    assert of_others or not bare, "say agentenv.credit, never credit"


def imported(tree):
    """The absolute names of modules that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_bare_names_are_found():
    code = "import credit\nfrom agents.chat import x\nfrom .sandboxes import y\nimport agentenv.credit"
    assert [name for name in imported(ast.parse(code)) if name.partition(".")[0] in LINKS] == ["credit", "agents.chat"]
