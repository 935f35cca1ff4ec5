"""Question 1, last part: is an estimator with better credit, or a better gradient, also one that learns faster?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.cells import Results
from benchmarks.study.figures import draw_against
from benchmarks.study.methods import METHODS, POOLING
from benchmarks.study.statistics import interval_of, rank_agreement

from . import estimators
from .question import TABLES, Scale, markdown, scores_of

__all__ = ["tell_of_policies"]

ORDERS = ("r with the cosine", "r with the curve", "cosine with the curve")
LEAST = 5
"""Fewer methods make no order."""


def tell_of_policies(credit: Mapping[str, Sequence[dict[str, Any]]], results: Results, scale: Scale, stem: Path) -> str:
    """Compares the order of estimators by their credit with the order by the learning curves of question 2.

    Args:
        credit: rows of `credit_cell`, by setting.
        results: where the curves are.
        scale: how much of question 2 to read.
        stem: of the figure's files.

    Returns:
        A paragraph, a figure and a table of rank correlations; empty where question 2 was not run.
    """
    curves = scores_of(estimators.QUESTION.runs(results, scale), "mean")
    lines: list[Sequence[str]] = [["setting", "methods", *ORDERS]]
    shown = {order: [0, 0] for order in ORDERS}
    points: dict[str, dict[str, tuple[float, float]]] = {}
    for setting, rows in credit.items():
        learned = {m: curves[m][setting] for m in _chains() if len(curves.get(m, {}).get(setting, [])) > 1}
        scored = {name: _credit(rows, setting, name) for name in ("r", "cosine")}
        methods = [m for m in learned if all(scored[name].get(_estimator(m)) for name in scored)]
        if len(methods) < LEAST:
            continue
        r, cosine = ([by[_estimator(m)] for m in methods] for by in scored.values())
        curve = [learned[m] for m in methods]
        agree = [interval_of(pair, rank_agreement) for pair in ((r, cosine), (r, curve), (cosine, curve))]
        for order, one in zip(ORDERS, agree, strict=True):
            shown[order][0] += one.low > 0
            shown[order][1] += one.high < 0
        lines.append([setting, str(len(methods)), *map(str, agree)])
        points[setting] = {
            m: (float(np.median(scored["cosine"][_estimator(m)])), float(np.median(learned[m]))) for m in methods
        }
    if not points:
        return ""
    draw_against(points, "cosine to the true gradient", "mean of the learning curve", stem)
    title = "**From credit to policies**: rank correlation over methods of question 2, on one kind of states each"
    command = f"    python -m benchmarks.study 1 2 report{scale.words}"
    orders = "; ".join(f"{order} in {same} (the reverse in {other})" for order, (same, other) in shown.items())
    reading = f"Shown to be one order, of {len(points)} settings: {orders}. In the others it is not known."
    picture = f"![Credit and learning](images/study/{stem.name}.png)"
    return f"{picture}\n\n{command}\n\n{title}\n\n{markdown(lines)}\n\n{reading}"


def _chains() -> list[str]:
    """Methods that differ in their estimator alone."""
    base = METHODS["GRPO"]
    return [
        name for name in estimators.QUESTION.methods if METHODS[name] | {"estimator": ""} == base | {"estimator": ""}
    ]


def _estimator(method: str) -> str:
    return METHODS[method]["estimator"]


def _credit(rows: Sequence[dict[str, Any]], setting: str, measure: str) -> dict[str, list[float]]:
    """Returns a measure at groups of 8, by estimator, on the states that were trained with.

    In tables named `aliased` these are the coarse ones, which are measured only for some of the estimators that ask for
    states; the others of them are left out there. An estimator that asks for none has the same credit on any.
    """
    aliased = setting in TABLES and setting.startswith("aliased")
    found: dict[str, list[float]] = {}
    for row in rows:
        asks = row["estimator"] in POOLING or row["estimator"].startswith("RTMC")
        states = "coarse" if aliased and asks else "exact"
        if row["size"] == 8 and row["signature"] == states and np.isfinite(row[measure]):
            found.setdefault(row["estimator"], []).append(row[measure])
    return found
