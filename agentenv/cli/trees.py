"""`agentenv trees`: a trees file, for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .command_line import blame, refuse

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON and draw nothing.")] = False,
) -> None:
    """Draw the episode trees of a file.

    One line per step, indented where the tree branches. Without --tree it lists all trees and draws the first.

    Examples:
        agentenv trees trees.jsonl
        agentenv trees trees.jsonl --tree 3 --credit rtmc --credit-option discount=1.0
    """
    from agentenv.errors import TreeFileError
    from agentenv.serialize import read_trees

    from .console import open_console, print_json, print_table, say_line
    from .drawing import print_tree

    with blame("FILE", TreeFileError, OSError):
        found = read_trees(file)
    if wrong := [i for i in tree or () if not 0 <= i < len(found)]:
        refuse("--tree", f"must be in [0, {len(found)}), the trees of {file}; got {wrong[0]}")
    advantages = _advantages(found, credit, credit_option or ())
    rows = [_summary(i, entry) for i, entry in enumerate(found)]
    if as_json:
        print_json(rows)
        return
    console = open_console()
    if not tree:
        print_table(console, list(rows[0]) if rows else ["tree"], [[_cell(v) for v in row.values()] for row in rows])
    for i in tree or range(min(1, len(found))):
        console.print()
        entry = found[i]
        print_tree(console, entry, title=f"tree {i}: {entry.env_id} task {entry.task_id}", advantages=advantages[i])
    if not tree and len(found) > 1:
        say_line(console, f"\nThe others: agentenv trees {file} --tree 1")


def _advantages(found: Sequence[Any], credit: str, options: Sequence[str]) -> list[Any]:
    if not credit:
        if options:
            refuse("--credit-option", "needs --credit")
        return [None] * len(found)
    import numpy as np

    from agentenv.arrays import TreeArrays

    from .estimators import choose_estimator

    estimator = choose_estimator(credit, options)
    with blame("--credit", ValueError, TypeError):
        steps = estimator(TreeArrays.from_trees(found))
    return np.split(steps.advantages, np.cumsum([len(entry) for entry in found])[:-1]) if found else []


def _summary(index: int, tree: Any) -> dict[str, Any]:
    from agentenv.types import message_text

    returns = [tree.episode_return(leaf) for leaf in tree.leaves() if leaf]
    valid = [value for value in returns if value is not None]
    question = next((message_text(m) for m in tree.nodes[0].observation if m["role"] == "user"), "")
    return {
        "tree": index,
        "task": tree.task_id,
        "episodes": len(returns),
        "success": round(sum(value > 0 for value in valid) / len(valid), 4) if valid else None,
        "mean return": round(sum(valid) / len(valid), 4) if valid else None,
        "failed": len(returns) - len(valid),
        "nodes": len(tree),
        "begins": " ".join(question.split())[:80],
    }


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
