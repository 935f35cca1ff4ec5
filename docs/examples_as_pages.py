"""Hooks of MkDocs: the examples become pages, and links to them lead there."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


def on_files(files: Any, config: Any) -> Any:
    """Adds a page per example, a page of recipes, and the list of all."""
    from mkdocs.structure.files import File

    for path in sorted(EXAMPLES.rglob("*")):
        place = f"examples/{path.relative_to(EXAMPLES)}"
        if path.suffix == ".md":
            files.append(File.generated(config, place, content=path.read_text(encoding="utf-8")))
        elif path.suffix in {".py", ".yaml"}:
            text = path.read_text(encoding="utf-8")
            page = f"# {path.name}\n\n```{path.suffix[1:]}\n{text}```\n"
            files.append(File.generated(config, f"{place}.md", content=page))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lets links to examples lead to their pages instead of to files outside of docs."""
    inside = page.file.src_uri.startswith("examples/")
    if inside:
        return re.sub(r"\]\(([\w/.]+\.(?:py|yaml))\)", r"](\1.md)", markdown)
    markdown = re.sub(r"\]\((?:\.\./)((?:\.\./)*examples/)", r"](\1", markdown)
    return re.sub(r"\]\(((?:\.\./)*examples/[\w/.]+\.(?:py|yaml))\)", r"](\1.md)", markdown)
