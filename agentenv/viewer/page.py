"""The page: one HTML file with its styles, its modules and, where it shall work alone, all its data."""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from agentenv.whole_files import replace_file

from .data import encode
from .view import View

__all__ = ["is_page", "live_page", "write_page"]

_ENTRY = "viewer/main"
_MODULES = ("calibration", "canvas", "cards", "charts", "colors", "curves", "diff", "dom", "keys", "layout", "main",
            "minimap", "panel", "printing", "state", "store", "tasks", "terminal", "text", "tokens")  # fmt: skip
_LIBRARY = "d3-hierarchy-3.1.3.min.mjs"


@cache
def _static(name: str) -> str:
    return files("agentenv.viewer").joinpath("static", name).read_text(encoding="utf-8")


def live_page() -> str:
    """Returns the page that asks the server it came from."""
    return _page("agentenv view", (), live=True)


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a page of ours."""
    return head.startswith(b'<!doctype html>\n<html lang="en" data-live=')


def write_page(view: View, path: str | Path) -> int:
    """Writes a page that carries everything with it, and needs no network and no server.

    Args:
        view: what it shows.
        path: of the file; written whole or not at all.

    Returns:
        Its size in bytes.
    """
    overview = view.overview()
    path = Path(path)
    replace_file(path, _page(f"{overview['title']} - agentenv", _blobs(view, overview), live=False))
    return path.stat().st_size


def _blobs(view: View, overview: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Everything a page may ask, under the address it asks for."""
    yield "overview", encode(overview)
    for row in overview["trees"]:
        columns = view.tree(row["id"])
        yield f"tree/{row['id']}", encode(columns)
        for first in columns["chunks"]:
            yield f"details/{row['id']}/{first}", encode(view.details(row["id"], first))


def _page(title: str, blobs: Any, *, live: bool) -> str:
    addresses = {f"viewer/{name}": _as_url(_static(f"{name}.js")) for name in _MODULES}
    imports = json.dumps({"imports": addresses | {"d3-hierarchy": _as_url(_static(_LIBRARY))}})
    start = f'import "{_ENTRY}";'
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (imports, start))
    policy = (
        f"default-src 'none'; script-src {allowed} data:; style-src 'unsafe-inline'; img-src data: blob:; "
        f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}; base-uri 'none'; form-action 'none'"
    )
    data = "\n".join(
        f'<script type="text/plain" data-name="{html.escape(name, quote=True)}">{_pack(blob)}</script>'
        for name, blob in blobs
    )
    return _static("page.html").format(
        title=html.escape(title),
        policy=policy,
        style=_static("page.css"),
        imports=imports,
        start=start,
        live="true" if live else "false",
        data=data,
        license=html.escape(_static("d3-hierarchy-LICENSE")),
    )


def _as_url(code: str) -> str:
    return "data:text/javascript;base64," + base64.b64encode(code.encode()).decode()


def _pack(blob: bytes) -> str:
    return base64.b64encode(gzip.compress(blob, 6, mtime=0)).decode()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
