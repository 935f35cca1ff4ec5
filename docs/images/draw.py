"""Draws the pictures of docs/concepts; what is a number in them is computed here.

python docs/images/draw.py [FOLDER]
"""

import sys
from html import escape
from pathlib import Path

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.credit import allocate_prefixes, allocate_roots, rtmc_advantages
from agentenv.credit.trace import root_contrast

GOOD, BAD, PLAIN, INK, SOFT, EDGE = "#21833e", "#be2d26", "#9aa3ad", "#1d232a", "#5b6672", "#c3cad2"
Point = tuple[float, float]


class Drawing:
    """A picture in SVG on white, so that it reads the same on a dark page."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="system-ui, sans-serif" font-size="14" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def text(
        self, at: Point, words: str, *, size: int = 14, color: str = INK, anchor: str = "middle", bold: bool = False
    ) -> None:
        """Writes lines of text, the first at the point."""
        for number, line in enumerate(words.split("\n")):
            weight = ' font-weight="600"' if bold else ""
            x, y = at[0], at[1] + 1.35 * size * number
            self.parts.append(
                f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
                f"{escape(line)}</text>"
            )

    def line(self, start: Point, end: Point, *, color: str = EDGE, width: float = 2, arrow: bool = False) -> None:
        """Draws a line, with a head where it is an arrow."""
        (x, y), (u, v) = start, end
        self.parts.append(f'<path d="M{x:g} {y:g}L{u:g} {v:g}" stroke="{color}" stroke-width="{width:g}" fill="none"/>')
        if arrow:
            length = np.hypot(u - x, v - y)
            a, b = 9 * (u - x) / length, 9 * (v - y) / length
            corners = f"{u:g},{v:g} {u - a - b / 2:g},{v - b + a / 2:g} {u - a + b / 2:g},{v - b - a / 2:g}"
            self.parts.append(f'<polygon points="{corners}" fill="{color}"/>')

    def dot(self, at: Point, color: str, *, radius: float = 8) -> None:
        """Draws a node."""
        self.parts.append(f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{radius:g}" fill="{color}"/>')

    def box(self, at: Point, size: Point, *, fill: str = "#f4f6f8", edge: str = EDGE) -> None:
        """Draws a rectangle by its upper left corner."""
        shape = f'x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}"'
        self.parts.append(f'<rect {shape} rx="6" fill="{fill}" stroke="{edge}"/>')

    def svg(self) -> str:
        """Returns the file."""
        return "\n".join([*self.parts, "</svg>", ""])


def why_trees() -> str:
    """Four episodes as chains and as a tree: what an outcome says of the steps before it."""
    draw = Drawing(760, 330, "Four episodes as chains, and as one tree")
    draw.text((190, 30), "four chains", size=16, bold=True)
    for row, won in enumerate((True, False, False, True)):
        y = 70 + 50 * row
        color = GOOD if won else BAD
        draw.line((30, y), (290, y), color=color)
        for step in range(6):
            draw.dot((30 + 52 * step, y), PLAIN if step == 0 else color)
        draw.text((352, y + 5), "1" if won else "0", size=16, bold=True, color=color, anchor="start")
    draw.text((190, 280), "told once, at the end:\nevery step of a failure is blamed alike", color=SOFT)
    draw.text((570, 30), "one tree", size=16, bold=True)
    root, trunk, fork = (420.0, 145.0), (480.0, 145.0), (540.0, 145.0)
    draw.line(root, fork)
    draw.line(fork, (600, 95), color=GOOD, width=4)
    draw.line(fork, (600, 195), color=BAD, width=4)
    ends = (((600, 95), (660, 70), True), ((600, 95), (660, 120), True))
    ends += (((600, 195), (660, 170), False), ((600, 195), (660, 220), False))
    for start, end, won in ends:
        draw.line(start, end)
        draw.line(end, (705, end[1]))
        draw.dot(end, PLAIN)
        draw.dot((705, end[1]), PLAIN)
        draw.text(
            (722, end[1] + 5), "1" if won else "0", size=16, bold=True, color=GOOD if won else BAD, anchor="start"
        )
    for at in (root, trunk, fork):
        draw.dot(at, PLAIN)
    draw.dot((600, 95), GOOD)
    draw.dot((600, 195), BAD)
    draw.text((540, 180), "fork", color=SOFT)
    draw.text((570, 280), "the step where success and failure part\nis the one that is credited", color=SOFT)
    return draw.svg()


def snapshot() -> str:
    """What a snapshot holds, where it comes from, and what is made of it."""
    draw = Drawing(760, 380, "What a snapshot holds")
    draw.box((20, 130), (130, 90))
    draw.text((85, 165), "environment\nat step 5", bold=True)
    draw.line((150, 175), (228, 175), arrow=True, color=SOFT)
    draw.text((190, 163), "snapshot()", size=12, color=SOFT)
    draw.box((232, 40), (300, 270), fill="#eef4fb", edge="#7ba3cf")
    draw.text((382, 66), "snapshot: immutable, pickles", size=15, bold=True)
    held = ["id and version of the environment", "the task", "the step count", "State: all that its class declares"]
    held += [
        "the random generator's state",
        "the sandbox: its files as layers",
        "   (on gVisor: running processes, too)",
    ]
    for row, words in enumerate(held):
        draw.text((252, 100 + 30 * row), words, anchor="start")
    for y, words in ((75, "environment"), (175, "environment"), (275, "environment")):
        draw.line((532, 175), (606, y), arrow=True, color=SOFT)
        draw.box((610, y - 28), (130, 56))
        draw.text((675, y + 5), words)
    draw.text((640, 34), "restore(), fork(n)", size=12, color=SOFT)
    draw.text(
        (382, 340), "not in it: other attributes of self (check_env finds them), the agent, the weights", color=SOFT
    )
    return draw.svg()


def worked_credit() -> str:
    """RTMC on the tree of docs/concepts/credit.md, number by number."""
    parents, rewards = [-1, 0, 1, 1, 0], [0, 0, 1, 0, 0]
    tree = TreeArrays.build(parents=parents, rewards=rewards, state_ids=[0, 1, 2, 3, 4], action_ids=[0, 1, 2, 3, 4])
    credit = rtmc_advantages(tree, discount=1.0, prior_count=2.0)
    draw = Drawing(760, 340, "RTMC's credit of every step of a small tree")
    names = ["Compute 9 - 2 * 3.", "calculate(2*3)", "submit(3)", "submit(6)", "submit(21)"]
    places: list[Point] = [(90, 190), (360, 115), (640, 70), (640, 170), (640, 275)]
    for node in range(1, 5):
        advantage = float(credit.advantages[node])
        color = GOOD if advantage > 0 else BAD
        draw.line(places[parents[node]], places[node], color=color, width=1.5 + 6 * abs(advantage))
    for node, (x, y) in enumerate(places):
        draw.box((x - 82, y - 34), (164, 68), fill="#ffffff")
        draw.text((x, y - 14), names[node], bold=True)
        if node:
            q, v, a = (float(part[node]) for part in (credit.action_values, credit.values, credit.advantages))
            draw.text((x, y + 5), f"Q {q:.3f},  V' {v:.3f}", size=12, color=SOFT)
            draw.text((x, y + 25), f"A {a:+.3f}", bold=True, color=GOOD if a > 0 else BAD)
        else:
            draw.text((x, y + 12), "the start", size=12, color=SOFT)
    for node in (2, 3, 4):
        draw.text((734, places[node][1] + 5), str(rewards[node]), size=16, bold=True)
    draw.text((265, 320), "edge: A of the step, green above 0, red below; at the right: the reward", color=SOFT)
    return draw.svg()


def budget() -> str:
    """Where TRACE spends: full episodes by prompt, continuations by prefix."""
    draw = Drawing(760, 350, "Where the budget goes")
    chances = np.array([0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.95, 0.99])
    roots = allocate_roots(chances, budget=32)
    even, best = float(root_contrast(chances, np.full(8, 4)).sum()), roots.value
    draw.text((190, 30), "32 episodes for 8 prompts", size=16, bold=True)
    draw.line((30, 260), (350, 260))
    for place, (chance, count) in enumerate(zip(chances, roots.counts, strict=True)):
        x = 40 + 39 * place
        height = 20.0 * int(count)
        draw.box((x, 260 - height), (28, height), fill="#7ba3cf", edge="#7ba3cf")
        draw.text((x + 14, 252 - height), str(int(count)), size=13, bold=True)
        draw.text((x + 14, 278), f"{chance:g}", size=12, color=SOFT)
    draw.line((30, 180), (350, 180), color=PLAIN, width=1)
    draw.text((352, 176), "4 each", size=12, color=SOFT, anchor="end")
    draw.text((190, 300), "predicted success of the prompt", size=12, color=SOFT)
    words = f"expected groups with both outcomes:\n{even:.2f} with 4 each, {best:.2f} so"
    draw.text((190, 322), words, size=13)
    draw.text((570, 30), "8 continuations for 6 prefixes", size=16, bold=True)
    success = np.array([0.9, 0.4, 0.05, 0.95, 0.6, 0.2])
    outcomes = np.array([0, 0, 0, 1, 1, 1])
    chosen = allocate_prefixes(success, outcomes, budget=8)
    for x, head in ((450, "episode"), (540, "predicted"), (660, "continuations")):
        draw.text((x, 64), head, size=12, color=SOFT)
    for row in range(6):
        y, won = 92 + 32 * row, bool(outcomes[row])
        draw.text((450, y), "succeeded" if won else "failed", color=GOOD if won else BAD)
        draw.text((540, y), f"{success[row]:g}")
        for number in range(int(chosen.counts[row])):
            draw.dot((625 + 22 * number, y - 5), "#7ba3cf", radius=7)
        if not chosen.counts[row]:
            draw.text((625, y), "none", color=SOFT, size=12, anchor="start")
    draw.text((570, 310), "failures at promising prefixes,\nsuccesses at shaky ones", color=SOFT)
    return draw.svg()


LAYERS: list[tuple[str, list[tuple[str, str]]]] = [
    ("#5b3f8c", [("cli", "commands: new, envs, play, rollout, view, train, check, doctor, ...")]),
    ("#6a4797", [("exports · interop", "trees and environments in the forms of other tools, and back")]),
    ("#7a4fa3", [("trainers", "TreeTrainer, SRPPOTrainer on TRL; layout, run folder, warm start")]),
    (
        "#2f6f9f",
        [
            ("agents", "models, servers, programs"),
            ("envs", "math, search, code repair"),
            ("viewer", "trees as a page"),
        ],
    ),
    ("#2f8f83", [("credit", "trees to step advantages; budgets"), ("sandboxes", "where commands run; fork in ms")]),
    ("#4d8f3f", [("testing", "the laws, checked"), ("rollout", "episodes, executors, journals")]),
    ("#b07d2b", [("registry · wrappers · env", "Env, ToolEnv, ReplayEnv: snapshot, restore, fork")]),
    (
        "#b0582b",
        [
            ("protocols · tools · tasks", "what layers hand each other"),
            ("serialize · stats · tree · arrays", "episodes: on disk, counted, kept, as numbers"),
        ],
    ),
    ("#7a808a", [("rows · types · tokens · spaces · errors", "words")]),
]


def layers() -> str:
    """The layers of the code, a row each."""
    draw = Drawing(900, 64 * len(LAYERS) + 60, "The layers: a module imports only from the lines below its own")
    for row, (color, boxes) in enumerate(LAYERS):
        width = (860 - 10 * (len(boxes) - 1)) / len(boxes)
        for place, (name, what) in enumerate(boxes):
            x, y = 20 + place * (width + 10), 20 + 64 * row
            draw.box((x, y), (width, 54), fill=color, edge=color)
            draw.text((x + width / 2, y + 23), name, size=16, color="#ffffff", bold=True)
            draw.text((x + width / 2, y + 42), what, size=13, color="#ffffff")
    rule = "A module imports only from the lines below its own. Boxes above the environments do not know each other."
    draw.text((450, 64 * len(LAYERS) + 42), rule, size=13, color=SOFT)
    return draw.svg()


PICTURES = {
    "layers": layers,
    "why_trees": why_trees,
    "snapshot": snapshot,
    "worked_credit": worked_credit,
    "budget": budget,
}


def main() -> None:
    """Writes all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, picture in PICTURES.items():
        (folder / f"{name}.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
