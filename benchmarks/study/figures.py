"""Figures, each as PNG and SVG: learning curves, performance profiles, credit by group size."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .cells import Runs
from .statistics import INCONCLUSIVE, NO_DIFFERENCE, Interval, interval_of, median, profile

__all__ = ["draw_accuracy", "draw_against", "draw_curves", "draw_gaps", "draw_intervals", "draw_profiles"]

SHARES = np.linspace(0.0, 1.0, 5)
COLORS = ("#1f5f8b", "#d1495b", "#2e8b57", "#8e6bbf", "#e08e0b", "#4a4a4a", "#17a2b8", "#a0522d", "#7f9c3b", "#c71585")
OF_VERDICT = {"better": COLORS[2], "worse": COLORS[1], INCONCLUSIVE: COLORS[4], NO_DIFFERENCE: "#9a9a9a"}
"""Of several settings with two runs each or more, of which none are too few."""
ROW = 4
BANDS = 4
"""Methods, at most, whose bands can be told from each other."""


def draw_curves(found: Runs, path: Path) -> None:
    """Draws median success by the share of the tokens spent; a panel per setting, with bands where few share it.

    Args:
        found: runs that went through.
        path: of the files, without an ending.
    """
    settings = list(dict.fromkeys(cell.setting for cell, _ in found))
    methods = list(dict.fromkeys(cell.method for cell, _ in found))
    figure, panels = _panels(len(settings))
    for panel, setting in zip(panels, settings, strict=True):
        for number, method in enumerate(methods):
            runs = [_at_shares(c.tokens, e["curve"]) for c, e in found if (c.setting, c.method) == (setting, method)]
            if runs:
                points = [interval_of([[column]], median, samples=400) for column in np.stack(runs, axis=1)]
                color, line = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
                panel.plot(SHARES, [p.value for p in points], line, color=color, label=method, linewidth=1.4)
                low, high = ([max(0.0, min(1.0, getattr(p, end))) for p in points] for end in ("low", "high"))
                if len(runs) > 1 and len({c.method for c, _ in found if c.setting == setting}) <= BANDS:
                    panel.fill_between(SHARES, low, high, color=color, alpha=0.12, linewidth=0)
        panel.set(title=setting, ylim=(0, 1.02), xlabel="share of the sampled tokens", ylabel="success")
    _save(figure, panels, path)


def _at_shares(tokens: int, curve: Sequence[dict[str, float]]) -> Any:
    return np.interp(SHARES * tokens, [p["tokens"] for p in curve], [p["success"] for p in curve])


def draw_intervals(scores: Mapping[str, Mapping[str, Sequence[float]]], across: str, path: Path) -> None:
    """Draws the median of every method with its interval; a panel per setting, the best at the top.

    Args:
        scores: by method and setting.
        across: what they are.
        path: of the files, without an ending.
    """
    settings = list(dict.fromkeys(setting for by in scores.values() for setting in by))
    found = [
        sorted(((interval_of([[by[s]]], median), m) for m, by in scores.items() if s in by), key=lambda x: x[0].value)
        for s in settings
    ]
    rows = [max(len(one) for one in found[i : i + ROW]) for i in range(0, len(found), ROW)]
    figure, panels = _panels(len(settings), [0.8 + 0.17 * count for count in rows])
    for panel, setting, intervals in zip(panels, settings, found, strict=True):
        _draw_rows(panel, [(m, one, COLORS[list(scores).index(m) % len(COLORS)], None) for one, m in intervals])
        panel.set(title=setting, xlabel=across)
    _save(figure, panels, path)


def draw_gaps(gaps: Mapping[str, Sequence[tuple[str, Interval, str]]], path: Path) -> None:
    """Draws by how much methods are above what they are compared with; a panel per question, the best at the top.

    Args:
        gaps: by the title of a panel, the name of each method, its difference, and what that shows.
        path: of the files, without an ending.
    """
    columns, counts = 3, [len(of) for of in gaps.values()]
    heights = [1.1 + 0.17 * max(counts[i : i + columns]) for i in range(0, len(counts), columns)]
    figure, panels = _panels(len(gaps), heights, columns=columns)
    for panel, (title, of) in zip(panels, gaps.items(), strict=True):
        panel.axvline(0.0, color="#888888", linewidth=0.8)
        ordered = sorted(of, key=lambda one: one[1].value)
        _draw_rows(panel, [(name, gap, OF_VERDICT[word], word) for name, gap, word in ordered])
        panel.set_title(title, fontsize=9, loc="right")
        panel.set_xlabel("difference of the mean of the curve", fontsize=8)
        panel.tick_params(axis="x", labelsize=7)
    _save(figure, panels, path)


def _draw_rows(panel: Any, rows: Sequence[tuple[str, Interval, str, str | None]]) -> None:
    """Draws numbers with their intervals, from the bottom up: name, number, color, and label in the legend of each."""
    for place, (_, one, color, label) in enumerate(rows):
        if one.runs > 1:
            panel.plot([one.low, one.high], [place, place], color=color, linewidth=1.6)
        panel.plot([one.value], [place], "o", color=color, label=label, markersize=4)
    panel.set(yticks=range(len(rows)), ylim=(-0.6, len(rows) - 0.4))
    panel.set_yticklabels([name for name, *_ in rows], fontsize=7)


def draw_profiles(scores: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draws the share of runs above each success, for the methods and settings that have most in common.

    Those are a method's settings, with all methods that were run in them, so that methods times settings are most.

    Args:
        scores: by method and setting.
        path: of the files, without an ending.
    """
    groups = [(set(own), [m for m, by in scores.items() if set(own) <= set(by)]) for own in scores.values()]
    shared, methods = max(groups, key=lambda group: (len(group[0]) * len(group[1]), len(group[0])))
    figure, panels = _panels(1)
    at = np.linspace(0.0, 1.0, 41)
    for number, (method, by) in enumerate(scores.items()):
        if method in methods:
            value, low, high = profile([by[s] for s in sorted(shared)], at, samples=400)
            color, line = COLORS[number % len(COLORS)], ("-", "--", ":")[number // len(COLORS) % 3]
            panels[0].plot(at, value, line, color=color, label=method, linewidth=1.4)
            if len(methods) <= BANDS:
                panels[0].fill_between(at, low, high, color=color, alpha=0.1, linewidth=0)
    title = f"{len(shared)} settings" if len(shared) != 1 else next(iter(shared))
    panels[0].set(title=title, xlabel="mean of the curve", ylabel="share of runs above it", ylim=(0, 1.02))
    _save(figure, panels, path)


def draw_accuracy(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Draws correlation, error, sign and cosine by group size, on exact states.

    Args:
        rows: of `credit_cell`, of all seeds.
        title: of the setting.
        path: of the files, without an ending.
    """
    rows = [row for row in rows if row["signature"] == "exact" and "prior" not in row["estimator"]]
    figure, panels = _panels(4)
    for panel, measure in zip(panels, ("r", "mse", "sign", "cosine"), strict=True):
        for number, name in enumerate(dict.fromkeys(row["estimator"] for row in rows)):
            here = [row for row in rows if row["estimator"] == name and np.isfinite(row[measure])]
            if sizes := sorted({row["size"] for row in here}):
                points = [float(np.median([row[measure] for row in here if row["size"] == size])) for size in sizes]
                color = "black" if name == "(true)" else COLORS[number % len(COLORS)]
                panel.plot(sizes, points, "o-", color=color, label=name, linewidth=1.2, markersize=3)
        panel.set(title=f"{title}: {measure}", xlabel="size of groups")
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:.0f}")
        if measure == "mse":
            panel.set_yscale("symlog", linthresh=1e-3)
            panel.set_ylim(bottom=0)
    _save(figure, panels, path)


def draw_against(points: Mapping[str, Mapping[str, tuple[float, float]]], across: str, up: str, path: Path) -> None:
    """Draws a point per method; a panel per setting.

    Args:
        points: where, by setting and method.
        across: what the horizontal axis is.
        up: what the vertical axis is.
        path: of the files, without an ending.
    """
    figure, panels = _panels(len(points))
    for panel, (setting, by) in zip(panels, points.items(), strict=True):
        for number, (method, (x, y)) in enumerate(by.items()):
            panel.plot([x], [y], "o", color=COLORS[number % len(COLORS)], label=method, markersize=5)
        panel.set(title=setting, xlabel=across, ylabel=up)
    _save(figure, panels, path)


def _panels(count: int, heights: Sequence[float] = (), *, columns: int = ROW) -> tuple[Figure, list[Any]]:
    lines, columns = -(-count // columns), min(count, columns)
    heights = heights or [3.2] * lines
    figure = Figure(figsize=(4.2 * columns, sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(lines, columns, squeeze=False, height_ratios=list(heights)).flat)
    for left in axes[count:]:
        left.axis("off")
    return figure, axes[:count]


def _save(figure: Figure, panels: Sequence[Any], path: Path) -> None:
    for panel in panels:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    named = {name: line for panel in panels for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if named:
        figure.legend(
            list(named.values()),
            list(named),
            loc="outside lower center",
            ncols=min(4, 2 * len(panels)),
            fontsize=7,
            frameon=False,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "study"}):  # equal results give equal files
        figure.savefig(path.with_name(f"{path.name}.png"), dpi=110, metadata={"Software": None})
        figure.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None})
