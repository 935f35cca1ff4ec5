"""Every code block of the README and the docs runs, and prints what stands below it."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]) if (ROOT / "docs").exists() else []
OWN_TEST = {"credit.md"}  # tests/credit/test_docs.py gives its code the trees that it speaks of
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if "```python" in p.read_text(encoding="utf-8") and p.name not in OWN_TEST],
    ids=lambda p: p.name,
)
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
