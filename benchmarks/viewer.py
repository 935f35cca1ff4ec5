"""How fast the viewer's page opens and moves in a real Chromium, with large trees.

    python benchmarks/viewer.py [--small] [--out viewer.json]

Prints a table and writes JSON: nodes, size of the file, seconds to write it, milliseconds from opening the file to the
first drawing of the tree, frames per second while zooming and panning with everything unfolded (60 is the most).
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from viewer_trees import long_tree, view_of, wide_tree, write  # pyright: ignore[reportMissingImports]

from agentenv.viewer import write_page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FRAMES = """async (count) => {
    const canvas = await import("viewer/canvas"), layout = await import("viewer/layout");
    const { state } = await import("viewer/state");
    state.tree.folded.clear();
    layout.arrange(state.tree);
    canvas.fitAll();
    await new Promise((done) => setTimeout(done, 300));
    const began = performance.now();
    for (let i = 0; i < count; i++) {
        canvas.zoomBy(i < count / 2 ? 1.06 : 1 / 1.06);
        canvas.panBy(i % 2 ? 3 : -3, 2);
        await new Promise(requestAnimationFrame);
    }
    return (1000 * count) / (performance.now() - began);
}"""


def measure(browser: Any, name: str, tree: Any, folder: Path, frames: int) -> dict[str, Any]:
    """Writes a page of one tree, opens it, and moves it."""
    view = view_of(write(folder / f"{name}.jsonl", tree))
    page_file = folder / f"{name}.html"
    began = time.perf_counter()
    size = write_page(view, page_file)
    written = time.perf_counter() - began
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"file://{page_file}")
    page.wait_for_selector("#stage canvas[data-drawn]", timeout=120_000)
    opened = page.evaluate("performance.getEntriesByName('drawn')[0].startTime")
    speed = page.evaluate(FRAMES, frames)
    page.close()
    return {"tree": name, "nodes": len(tree), "MB": round(size / 1e6, 2), "write s": round(written, 2),
            "open ms": round(opened), "fps": round(speed, 1)}  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny trees, for the tests")
    parser.add_argument("--out", type=Path, help="where to write JSON")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    small = arguments.small
    trees = {
        "wide": wide_tree(300 if small else 10_000),
        "wider": wide_tree(600 if small else 50_000),
        "long": long_tree(10, 40) if small else long_tree(200, 32_000),
    }
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        rows = [measure(browser, name, tree, Path(folder), 20 if small else 120) for name, tree in trees.items()]
        browser.close()
    print("  ".join(f"{name:>8}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value!s:>8}" for value in row.values()))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
