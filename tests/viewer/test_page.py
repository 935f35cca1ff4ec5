"""The page in a real Chromium: each promise of docs/viewer.md, as a user would see it kept."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from viewer_trees import HOSTILE, long_tree, message, rich_tree, view_of, wide_tree, write

from agentenv import Action, EpisodeTree, ToolCall, TreeArrays, make
from agentenv.agents import ScriptedAgent
from agentenv.cli.estimators import choose_estimator
from agentenv.rollout import Rollout
from agentenv.serialize import TreeWriter, read_trees
from agentenv.tree import Node
from agentenv.viewer import ViewServer, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: .ci/browser installs it"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
LONG = 60_000  # milliseconds: a busy machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=LONG)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder: two generations, metrics, a configuration."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "trees").mkdir()
    write(folder / "trees" / "step_1.jsonl", rich_tree("a", question=HOSTILE), rich_tree("b", wins=False))
    write(folder / "trees" / "step_2.jsonl", wide_tree(400), rich_tree("c"))
    rows = [{"step": step, "success": step / 10, "reward": step / 20, "eval_success": 0.3} for step in range(1, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.json").write_text(json.dumps({"env": HOSTILE, "settings": {}}))
    return folder


@pytest.fixture(scope="module")
def file(folder, tmp_path_factory):
    """The folder as one file."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(view_of(folder, ("rtmc", "grpo")), path)
    return path


@pytest.fixture
def open_page(browser):
    """Opens a page; at the end, nothing may have gone wrong in it."""
    contexts, errors = [], []

    def opened(url, *, width=1280, height=800, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.requests = []
        page.on("request", lambda request: page.requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(str(url))
        page.wait_for_selector("body[data-ready=true]")
        page.wait_for_selector("#step h2", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def serve():
    """Serves a view in a thread of its own."""
    started = []

    def served(path, **options):
        server = ViewServer(view_of(path, **options))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        started.append((server, thread))
        return server

    yield served
    for server, thread in started:
        server.shutdown()
        thread.join()
        server.server_close()


def at(file, tree, node, tab="tree"):
    return f"file://{file}#tree={tree.replace('#', '%23')}&node={node}&tab={tab}"


def step_text(page, node):
    page.wait_for_selector(f'#step[data-node$="/{node}"]', state="attached")
    return page.text_content("#step")


def colors_on(page):
    """How many different colors the canvas shows."""
    return page.evaluate("""() => {
        const canvas = document.querySelector("#stage canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
    }""")


def test_a_file_works_offline_and_asks_for_nothing(open_page, file):
    page = open_page(f"file://{file}", offline=True)
    for tab in ("compare", "curves", "calibration", "tree"):
        page.click(f"nav [data-tab={tab}]")
    asked = [url for url in page.requests if not url.startswith(("data:", "file:"))]
    assert asked == []
    assert [url for url in page.requests if url.startswith("file:")] == [f"file://{file}"]
    assert colors_on(page) > 20


def test_a_step_shows_everything_that_is_known_of_it(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 1))
    text = step_text(page, 1)
    assert page.locator("#step .cells dd").nth(3).inner_text() == "2"
    for said in (
        *("I look.", "look", "12345678901234567890", "Maybe left.", "shaping", "+0.250", "slow", "3 tokens"),
        *("tokens sampled", "went on from here (1)", "Chosen by hand: agentenv replay --at 1", "63 %", "50 % (2)"),
    ):
        assert said in text, said
    text = step_text(open_page(at(file, "trees/step_1.jsonl#0", 5)), 5)
    assert "Infrastructure failed here" in text
    assert "SandboxError: gone" in text


def test_play_from_here_gives_the_command_of_the_node_or_of_the_one_before_an_end(open_page, file, folder):
    where = folder / "trees" / "step_1.jsonl"
    for node, start in ((1, 1), (4, 3)):
        page = open_page(at(file, "trees/step_1.jsonl#0", node))
        step_text(page, node)
        assert page.locator("#step code").all_inner_texts() == [
            f"agentenv play {where} --tree 0 --at {start}",
            f"agentenv replay {where} --tree 0 --agent human --at {start}",
        ]


def test_200_steps_of_32k_tokens_can_be_read(open_page, tmp_path):
    tree = long_tree(200, 32)  # as many steps; one of them as long as they come
    text = "word " * 32_000
    tree.nodes[150].observation[0]["content"] = f"begin {text}end"
    write_page(view_of(write(tmp_path / "long.jsonl", tree)), tmp_path / "long.html")
    page = open_page(at(tmp_path / "long.html", "long.jsonl#0", 150))
    shown = step_text(page, 150)
    assert len(shown) < 20_000
    assert "begin word" in shown
    assert "end" in shown
    page.locator("#step .text:not(.action) .more").click()
    assert len(page.text_content("#step")) > 150_000
    assert page.locator("#step .tokens span").count() == 32
    page.keyboard.press("ArrowRight")
    assert "150 lorem" in step_text(page, 151)


def test_tokens_are_shaded_by_their_probability(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 1))
    step_text(page, 1)
    spans = page.locator(".tokens span")
    assert [spans.nth(i).inner_text() for i in range(3)] == ["5", "6", "7"]
    assert "log p −2.500, p 0.082" in spans.nth(1).get_attribute("title")
    shades = [spans.nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(3)]
    alpha = [float(shade.rstrip(")").split("/")[-1]) if "/" in shade else 0.0 for shade in shades]
    assert alpha[1] > alpha[0] >= alpha[2]


def test_what_an_environment_wrote_is_text_and_nothing_else(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 1))
    assert HOSTILE in step_text(page, 1)
    for tab in ("curves", "compare"):
        page.click(f"nav [data-tab={tab}]")
    page.keyboard.press("d")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hit") is None
    assert HOSTILE in page.inner_text("#heading")


def test_the_keyboard_goes_everywhere(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 0))
    page.keyboard.press("ArrowRight")
    step_text(page, 1)
    assert "Node 1 of 6" in page.text_content("#say")
    page.keyboard.press("ArrowRight")
    step_text(page, 2)
    page.keyboard.press("ArrowDown")
    step_text(page, 3)
    page.keyboard.press("f")
    assert "went on from here" in step_text(page, 1)
    page.keyboard.press("s")
    assert "success" in step_text(page, 2)
    page.keyboard.press("d")
    page.wait_for_selector("#compare h2")
    page.keyboard.press("2")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")  # folds everything below the start
    page.keyboard.press("ArrowRight")  # and opens it again
    page.keyboard.press("?")
    assert page.is_visible("dialog#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("wide")
    assert page.locator("[role=option]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") != "BODY"


def test_tasks_are_filtered_and_sorted(open_page, file):
    page = open_page(f"file://{file}")
    rows = page.locator("[role=option]")
    counts = {}
    for name in ("success", "mixed", "failed", "all"):
        page.click(f"[data-filter={name}]")
        counts[name] = rows.count()
    assert counts == {"success": 0, "mixed": 3, "failed": 1, "all": 4}
    page.select_option("select[aria-label=order]", "longest")
    assert "10 steps" in rows.first.inner_text()
    page.select_option("select[aria-label=step]", "1")
    assert rows.count() == 2


def test_siblings_are_compared_from_where_they_part(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 2))
    step_text(page, 2)
    page.keyboard.press("d")
    page.wait_for_selector("#compare h2")
    assert "Two ways on from node 1" in page.inner_text("#compare h2")
    assert page.locator("#compare .pair:not(.heads)").count() == 2  # one step against two
    marked = page.locator("#compare mark").all_inner_texts()
    assert marked[:2] == ["left", "found it"]
    assert "now" not in marked


def test_pan_zoom_fold_and_click(open_page, file):
    page = open_page(at(file, "trees/step_2.jsonl#0", 5))
    step_text(page, 5)
    before = page.evaluate("import('viewer/canvas').then((m) => ({ ...m.viewport }))")
    page.mouse.move(600, 400)
    page.mouse.wheel(0, -300)
    page.mouse.down()
    page.mouse.move(660, 430)
    page.mouse.up()
    after = page.evaluate("import('viewer/canvas').then((m) => ({ ...m.viewport }))")
    assert after["k"] > before["k"]
    assert after["x"] != before["x"]
    page.keyboard.press("c")
    folded = page.evaluate("import('viewer/state').then((m) => m.state.tree.places.order.length)")
    page.keyboard.press("e")
    opened = page.evaluate("import('viewer/state').then((m) => m.state.tree.places.order.length)")
    assert folded < 400 <= opened
    for _ in range(3):
        page.keyboard.press("-")
    place = page.evaluate("""Promise.all([import('viewer/canvas'), import('viewer/state')]).then(([c, s]) => {
        const node = s.state.tree.parents[s.state.node], { x, y } = s.state.tree.places, v = c.viewport;
        const box = document.querySelector('#stage canvas').getBoundingClientRect();
        return { node, x: box.left + v.x + (x[node] + 60) * v.k, y: box.top + v.y + y[node] * v.k };
    })""")
    page.mouse.click(place["x"], place["y"])
    step_text(page, place["node"])


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_widths_in_both_colors(open_page, file, width, height, scheme):
    page = open_page(at(file, "trees/step_1.jsonl#0", 1), width=width, height=height, color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    for tab in ("tasks", "tree", "step", "compare", "curves", "calibration"):
        if page.is_visible(f"nav [data-tab={tab}]"):
            page.click(f"nav [data-tab={tab}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    narrow = page.is_visible("nav [data-tab=step]")
    assert narrow == (width == 390)
    page.click("nav [data-tab=tree]")
    box = page.locator("#stage > canvas").bounding_box()
    assert box["height"] > 400
    page.click("#theme")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 28)"


def test_paper_shows_the_tree_and_all_words_on_white(open_page, file):
    page = open_page(at(file, "trees/step_1.jsonl#0", 1), color_scheme="dark")
    step_text(page, 1)
    pdf = page.pdf()
    assert pdf[:5] == b"%PDF-"
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.is_visible("canvas.paper")
    assert not page.is_visible("#tasks")
    assert page.is_visible("#step")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--text').trim()") == "#000000"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("canvas.paper").count() == 0


def test_curves_and_calibration_say_their_numbers(open_page, file):
    page = open_page(f"file://{file}#tab=curves")
    told = page.locator("#curves svg").first.get_attribute("aria-label")
    assert told == "Success: training episodes from 0.100 to 0.800; held-out tasks from 0.300 to 0.300"
    page.click("nav [data-tab=calibration]")
    assert page.locator("#calibration .disk").count() >= 2
    assert "Brier score" in page.inner_text("#calibration")


def test_a_live_run_is_followed(open_page, serve, tmp_path):
    tree = rich_tree("first")
    path = write(tmp_path / "t.jsonl", tree)
    server = serve(path)
    page = open_page(server.url)
    assert page.locator("[role=option]").count() == 1
    with TreeWriter(path, append=True, journal=True) as writer:
        grown = EpisodeTree(message("A new question", "user"), task_id="second", env_id="Maze-v0")
        number = writer.begin_tree(grown)
        writer.add_rollout(number, (0, 0, 0), [[(Node(0, Action("go"), message("there"), 1.0, terminated=True), None)]])
    page.wait_for_selector("[role=option] >> nth=1")
    assert "A new question" in page.inner_text(".rows")
    assert all(url.startswith((server.url.partition("#")[0], "data:")) for url in page.requests)


def test_a_step_is_played_in_the_page(open_page, serve, tmp_path):
    task = {"question": "Compute 9 - 2 * 3.", "reference": "3"}
    play = ScriptedAgent(lambda context: Action(tool_calls=(ToolCall("calculate", {"expression": "9 - 2"}),)))
    with Rollout(lambda: make("agentenv/MathVerifier-v0"), play, seed=0, max_steps=2) as rollout:
        trees = rollout.grow([task], 1)
    server = serve(write(tmp_path / "math.jsonl", *trees))
    page = open_page(f"{server.url}&tree=math.jsonl%230&node=0")
    page.click("#step .play")
    page.wait_for_selector("#terminal pre:has-text('Compute 9 - 2 * 3.')")
    page.fill("#terminal input", "submit 3")
    page.keyboard.press("Enter")
    page.wait_for_selector("#terminal pre:has-text('[tool submit] correct')")
    page.reload()  # the token is kept in the address
    page.wait_for_selector("body[data-ready=true]")
    page.keyboard.press("p")
    page.wait_for_selector("#terminal pre:has-text('node 0 of')")
    with page.expect_response("**/api/play/stop"):
        page.click("#terminal header button")
    assert not page.is_visible("#terminal")


def test_another_estimator_is_computed_on_request(open_page, serve, file, folder):
    server = serve(folder)
    page = open_page(f"{server.url}&tree=trees%2Fstep_1.jsonl%230&node=1")
    step_text(page, 1)
    trees = read_trees(folder / "trees" / "step_1.jsonl")
    for name, options in (("grpo", ()), ("rtmc", ("discount=0.5",))):
        page.select_option("#estimator", name)
        page.fill("#options", " ".join(options))
        page.press("#options", "Enter")
        wanted = choose_estimator(name, options)(TreeArrays.from_trees(trees)).action_values[1]
        page.wait_for_function(
            "(text) => document.querySelector('#legend').textContent.includes(text)", arg=" ".join((name, *options))
        )
        page.wait_for_function(
            "(text) => document.querySelectorAll('#step .cells dd')[1].textContent === text", arg=f"{wanted:.3f}"
        )


def test_the_benchmark_opens_and_moves_small_trees(tmp_path):
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "viewer.py"
    out = tmp_path / "viewer.json"
    subprocess.run([sys.executable, str(script), "--small", "--out", str(out)], check=True, timeout=240)
    rows = json.loads(out.read_text())
    assert [row["nodes"] for row in rows] == [302, 609, 11]
    assert all(row["open ms"] > 0 and row["fps"] > 0 for row in rows)


OPEN = "(id) => import('viewer/state').then((m) => { m.state.id = id; m.emit('tree'); })"
IN_SIGHT = """async () => {
    const [c, s, l] = await Promise.all([import('viewer/canvas'), import('viewer/state'), import('viewer/layout')]);
    const { tree, node } = s.state, { x, y, box } = tree.places, v = c.viewport, { width, height } = c.size();
    const inside = (left, top, right, bottom) => left * v.k + v.x >= 0 && right * v.k + v.x <= width &&
        top * v.k + v.y >= 0 && bottom * v.k + v.y <= height;
    const half = l.CARD.height / 2;
    const card = (n) => inside(x[n], y[n] - half, x[n] + l.CARD.width, y[n] + half);
    return { k: v.k, path: l.path(tree, node).every(card), map: !document.querySelector('#map').hidden,
             whole: inside(box.left, box.top, box.right, box.bottom) };
}"""


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_first_sight_is_the_start_and_a_way_readable_and_the_whole(open_page, tmp_path, width):
    trees = {"forked": rich_tree(), "wide": wide_tree(300), "deep": long_tree(60, 5), "root": EpisodeTree(message("?"))}
    write_page(view_of(write(tmp_path / "t.jsonl", *trees.values())), tmp_path / "page.html")
    page = open_page(f"file://{tmp_path / 'page.html'}", width=width)
    for index, kind in enumerate(trees):
        page.evaluate(OPEN, f"t.jsonl#{index}")
        page.wait_for_selector(f'#stage > canvas[data-drawn="t.jsonl#{index}"]')
        seen = page.evaluate(IN_SIGHT)
        assert seen["path"], kind  # from the start to the step that the panel tells of
        assert seen["k"] >= 0.36, kind  # cards hold words of 10 pixels
        assert seen["whole"] != seen["map"], kind
        assert seen["whole"] or kind in (("wide", "deep") if width > 390 else ("forked", "wide", "deep"))
        if kind == "deep":
            page.locator("#map canvas").click(position={"x": 160, "y": 56})
            assert not page.evaluate(IN_SIGHT)["path"]
