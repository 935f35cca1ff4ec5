"""`agentenv trees`: a trees file, for people."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .command_line import blame, refuse

if TYPE_CHECKING:
    from agentenv.credit import StepAdvantages
    from agentenv.stats import Tally
    from agentenv.tree import EpisodeTree

__all__ = ["trees"]


def trees(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that rollout, train or play wrote.", show_default=False)
    ],
    tree: Annotated[
        list[int] | None, typer.Option("--tree", metavar="I", help="Draw this tree, counted from 0; may be repeated.")
    ] = None,
    credit: Annotated[
        str, typer.Option(metavar="NAME", help="Show each step's advantage by this estimator, e.g. rtmc.")
    ] = "",
    credit_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting of the estimator as key=value, e.g. discount=1.0."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table, and a record of each node with names and credit, as JSON.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the records of the nodes as CSV.")] = False,
) -> None:
    """Draw the episode trees of a file.

    One line per step, indented where the tree branches. Without --tree it lists all trees and draws the first in which
    some episodes succeed and some do not, or else the first.

    Examples:
        agentenv trees trees.jsonl
        agentenv trees trees.jsonl --tree 3 --credit rtmc --credit-option discount=1.0
        agentenv trees trees.jsonl --credit rtmc --csv > nodes.csv
    """
    if as_json and as_csv:
        refuse("--csv", "and --json exclude each other")
    from .console import open_console, own_command, print_json, print_table, say_line
    from .drawing import print_tree
    from .saved_trees import read_file

    found = read_file(file)
    if wrong := [i for i in tree or () if not 0 <= i < len(found)]:
        refuse("--tree", f"must be in [0, {len(found)}), the trees of {file}; got {wrong[0]}")
    steps = _credit(found, credit, credit_option or ())
    tallies = [_tally(entry) for entry in found]
    rows = [_summary(i, entry, tally) for i, (entry, tally) in enumerate(zip(found, tallies, strict=True))]
    if as_json or as_csv:
        records = _records(found, credit, steps)
        shown = tree or range(len(found))
        if as_csv:
            from agentenv.exports import write_csv

            write_csv([record for i in shown for record in records[i]], sys.stdout)
        else:
            print_json([rows[i] | _columns(steps[i]) | {"records": records[i]} for i in shown])
        return
    console = open_console()
    if not tree:
        print_table(console, list(rows[0]) if rows else ["tree"], [[_cell(v) for v in row.values()] for row in rows])
    mixed = next((i for i, tally in enumerate(tallies) if 0 < tally.successes < tally.episodes), 0)
    for i in tree or range(mixed, min(mixed + 1, len(found))):
        console.print()
        entry, part = found[i], steps[i]
        title = f"tree {i}: {entry.env_id} task {entry.task_id}"
        print_tree(console, entry, title=title, advantages=None if part is None else part.advantages)
    if not tree and len(found) > 1:
        say_line(console, f"\nThe others: {own_command('trees', file, '--tree', int(mixed == 0))}")


def _credit(found: "Sequence[EpisodeTree]", name: str, options: Sequence[str]) -> "list[StepAdvantages | None]":
    """Returns the credit of each tree, computed from all of them together; `None` where none is asked for."""
    if not name:
        if options:
            refuse("--credit-option", "needs --credit")
        return [None] * len(found)
    from dataclasses import fields, replace

    import numpy as np

    from agentenv.exports.credited import estimate

    from .estimators import choose_estimator

    estimator = choose_estimator(name, options)
    if not found:
        return []
    with blame("--credit", ValueError, TypeError):
        steps = cast("StepAdvantages", estimate(estimator, found))
    ends = np.cumsum([len(entry) for entry in found])[:-1]
    names = [field.name for field in fields(steps)]
    parts = zip(*(np.split(getattr(steps, field), ends) for field in names), strict=True)
    return [replace(steps, **dict(zip(names, part, strict=True))) for part in parts]


def _records(found: "Sequence[EpisodeTree]", name: str, steps: "Sequence[StepAdvantages | None]") -> list[list[Any]]:
    """Returns a record for each node of each tree, with its names and its credit."""
    from dataclasses import fields

    import numpy as np

    from agentenv.exports import node_rows

    parts = [part for part in steps if part is not None]
    named = {}
    if parts:
        names = [field.name for field in fields(parts[0])]
        whole = {field: np.concatenate([getattr(part, field) for part in parts]) for field in names}
        named = {name.removesuffix("_advantages").replace("-", "_").lower(): type(parts[0])(**whole)}
    records: list[list[Any]] = [[] for _ in found]
    for record in node_rows(found, **named):
        records[record["tree"]].append(record)
    return records


def _columns(steps: "StepAdvantages | None") -> dict[str, Any]:
    """Returns a tree's credit, each field with one entry per node; `null` for what no number says."""
    from dataclasses import asdict

    import numpy as np

    if steps is None:
        return {}
    credit = {name: [v if np.isfinite(v) else None for v in values.tolist()] for name, values in asdict(steps).items()}
    return {"credit": credit}


def _tally(tree: "EpisodeTree") -> "Tally":
    from agentenv.stats import episode_stats

    return episode_stats([tree]).everything


def _summary(index: int, tree: "EpisodeTree", tally: "Tally") -> dict[str, Any]:
    from agentenv.types import message_text

    question = next((message_text(m) for m in tree.nodes[0].observation if m["role"] == "user"), "")
    return {
        "tree": index,
        "task": tree.task_id,
        "episodes": tally.episodes + tally.failed,
        "success": round(tally.success, 4) if tally.episodes else None,
        "mean return": round(tally.mean_return, 4) if tally.episodes else None,
        "failed": tally.failed,
        "nodes": len(tree),
        "begins": " ".join(question.split())[:80],
    }


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
