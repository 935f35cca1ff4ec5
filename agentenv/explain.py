"""Explaining the credit of an episode tree by drawing it: in the terminal, and as SVG."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.tree import EpisodeTree
from agentenv.types import Action, message_text

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["explain", "explain_svg"]

Label = Callable[[int], str]
Trees = TreeArrays | EpisodeTree | Sequence[EpisodeTree]

_WIDTH, _HEIGHT, _GAP, _MARGIN = 150, 62, 26, 14
_GOOD, _BAD, _NONE = (33, 131, 62), (190, 45, 38), (110, 110, 110)


def explain(
    tree: Trees,
    advantages: StepAdvantages,
    *,
    which: int | None = None,
    labels: Sequence[str] | None = None,
    most: int = 200,
) -> "Tree":
    """Draws one tree for the terminal: `rich.print(explain(tree, advantages))`.

    Every step shows its action, the trajectories through it (visits), the value V it started from, the action value Q
    and the advantage A, green where positive and red where negative; a leaf also shows its trajectory's return. Steps
    are indented at forks only, so a long trajectory stays one column.

    Args:
        tree: what `advantages` was computed from: the EpisodeTree, a list of them, or their arrays (which hold no
            actions: steps are then called by the number of their signature).
        advantages: of any estimator.
        which: index of the tree to draw; default: the first with a success and a failure, or else the first.
        labels: `[N]` what to call each step; default: its tool calls, or its text.
        most: nodes drawn at most; what is left out is counted.

    Raises:
        ValueError: the lengths differ, or there is no tree of this index.
    """
    from rich.text import Text
    from rich.tree import Tree as RichTree

    arrays, which, name = _read(tree, advantages, which, labels)
    nodes = np.flatnonzero(arrays.tree_ids == which)
    children = _children(arrays, nodes)
    limit = float(np.abs(advantages.advantages[nodes]).max(initial=0.0))
    returns = arrays.returns
    root = RichTree(f"tree {which}: {int(arrays.leaf_counts[nodes[arrays.is_root[nodes]]].sum())} trajectories")
    stack = [(int(node), root, False) for node in reversed(nodes[arrays.is_root[nodes]])]
    drawn = 0
    while stack and drawn < most:
        node, parent, straight = stack.pop()
        line = Text()
        if arrays.is_root[node]:
            line.append("start", style="bold")
        else:
            drawn += 1
            color = {_GOOD: "green", _BAD: "red", _NONE: "dim"}[_color(float(advantages.advantages[node]), limit)]
            line.append(f"{name(node)}  ", style="bold")
            line.append(f"A {advantages.advantages[node]:+.3f}", style=f"bold {color}" if color != "dim" else "dim")
            line.append(f"  Q {advantages.action_values[node]:.3f}  V {advantages.values[node]:.3f}", style="dim")
            line.append(f"  visits {advantages.counts[node]}", style="dim")
        line.append(_ending(arrays, node, returns), style="italic")
        branch = parent.add(line)
        alone = len(children[node]) == 1
        stack += [(child, parent if alone and straight else branch, alone) for child in reversed(children[node])]
    if stack:
        root.add(Text(f"... {len(nodes) - drawn - 1} more nodes (most={most})", style="dim"))
    return root


def explain_svg(
    tree: Trees,
    advantages: StepAdvantages,
    *,
    which: int | None = None,
    labels: Sequence[str] | None = None,
    most: int = 200,
) -> str:
    """Draws one tree as SVG text: time runs downward, a box per step filled by the sign and size of its advantage.

    Args:
        tree: what `advantages` was computed from, see `explain`.
        advantages: of any estimator.
        which: index of the tree to draw; default: the first with a success and a failure, or else the first.
        labels: `[N]` what to call each step.
        most: nodes drawn at most, the shallowest first.

    Raises:
        ValueError: the lengths differ, or there is no tree of this index.
    """
    arrays, which, name = _read(tree, advantages, which, labels)
    nodes = np.flatnonzero(arrays.tree_ids == which)
    order = nodes[np.argsort(arrays.depths[nodes], kind="stable")][:most]
    kept = set(order.tolist())
    below = _children(arrays, nodes)
    children = {node: [child for child in below[node] if child in kept] for node in kept}
    column = _columns(order, arrays.parents, children)
    limit, returns = float(np.abs(advantages.advantages[nodes]).max(initial=0.0)), arrays.returns
    place = {
        node: (_MARGIN + column[node] * (_WIDTH + 12), _MARGIN + int(arrays.depths[node]) * (_HEIGHT + _GAP))
        for node in kept
    }
    width = max(x for x, _ in place.values()) + _WIDTH + _MARGIN
    height = max(y for _, y in place.values()) + _HEIGHT + _MARGIN + (16 if len(nodes) > most else 0)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Menlo, Consolas, monospace" font-size="11">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    out += [_edge(place, node, child) for node in order.tolist() for child in children[node]]
    for node in order.tolist():
        title, value = "start" if arrays.is_root[node] else name(node), float(advantages.advantages[node])
        rows = [title, *_figures(arrays, advantages, node), _ending(arrays, node, returns)]
        out.append(_box(place[node], rows, _color(value, limit), _strength(value, limit)))
    if len(nodes) > most:
        out.append(f'<text x="{_MARGIN}" y="{height - 6:.0f}" fill="#666">{len(nodes) - most} nodes not drawn</text>')
    return "\n".join([*out, "</svg>"])


def _read(
    tree: Trees, advantages: StepAdvantages, which: int | None, labels: Sequence[str] | None
) -> tuple[TreeArrays, int, Label]:
    trees = [tree] if isinstance(tree, EpisodeTree) else [] if isinstance(tree, TreeArrays) else list(tree)
    arrays = tree if isinstance(tree, TreeArrays) else TreeArrays.from_trees(trees)
    if len(advantages) != len(arrays) or (labels is not None and len(labels) != len(arrays)):
        got = len(advantages) if labels is None else f"{len(advantages)} and {len(labels)}"
        msg = f"advantages and labels must have one entry per node, {len(arrays)}; got {got}"
        raise ValueError(msg)
    if which is None:
        which = _first_mixed(arrays)
    if not 0 <= which < arrays.num_trees:
        msg = f"which must be a tree index in [0, {arrays.num_trees}), got {which}"
        raise ValueError(msg)
    actions = [node.action for one in trees for node in one.nodes]

    def name(node: int) -> str:
        if labels is not None:
            return _short(labels[node])
        if actions:
            return _short(_spoken(actions[node]))
        return f"action {arrays.action_ids[node]}"

    return arrays, which, name


def _first_mixed(arrays: TreeArrays) -> int:
    """Returns the first tree that holds a success and a failure; 0 where none does."""
    won = np.bincount(arrays.tree_ids[arrays.succeeded], minlength=arrays.num_trees)
    ended = np.bincount(arrays.tree_ids[arrays.is_trajectory], minlength=arrays.num_trees)
    mixed = (won > 0) & (won < ended)
    return int(np.argmax(mixed)) if mixed.any() else 0


def _spoken(action: Action | None) -> str:
    """What an action did: its tool calls, or its text."""
    if action is None:
        return ""
    calls = [f"{call.name}({_arguments(call.arguments)})" for call in action.tool_calls]
    return "; ".join(calls) or message_text(action.content)


def _arguments(arguments: object) -> str:
    if isinstance(arguments, dict):
        values: list[object] = list(arguments.values())  # pyright: ignore[reportUnknownArgumentType]
        return ", ".join(str(value) for value in values)
    return str(arguments)


def _short(text: str, limit: int = 21) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _children(arrays: TreeArrays, nodes: NDArray[np.int64]) -> dict[int, list[int]]:
    below: dict[int, list[int]] = {int(node): [] for node in nodes}
    for node in nodes[~arrays.is_root[nodes]]:
        below[int(arrays.parents[node])].append(int(node))
    return below


def _ending(arrays: TreeArrays, node: int, returns: NDArray[np.float64]) -> str:
    if not arrays.is_leaf[node]:
        return ""
    if not arrays.valid[node]:
        return "  failed: no reward"
    return f"  return {returns[node]:g}" + (" (cut off)" if arrays.truncated[node] else "")


def _figures(arrays: TreeArrays, advantages: StepAdvantages, node: int) -> list[str]:
    if arrays.is_root[node]:
        return [f"{arrays.leaf_counts[node]} trajectories"]
    return [
        f"A {advantages.advantages[node]:+.3f}  n {advantages.counts[node]}",
        f"Q {advantages.action_values[node]:.3f}  V {advantages.values[node]:.3f}",
    ]


def _strength(value: float, limit: float) -> float:
    return 0.0 if limit <= 0 else min(1.0, abs(value) / limit)


def _color(value: float, limit: float) -> tuple[int, int, int]:
    if _strength(value, limit) < 1e-9:
        return _NONE
    return _GOOD if value > 0 else _BAD


def _columns(order: NDArray[np.int64], parents: NDArray[np.int64], children: dict[int, list[int]]) -> dict[int, float]:
    """Gives leaves the columns 0, 1, ... from left to right, and every other node the middle of its children."""
    column: dict[int, float] = {}
    following = 0
    stack = [int(node) for node in reversed(order) if parents[node] < 0]
    walk: list[int] = []
    while stack:
        node = stack.pop()
        walk.append(node)
        if not children[node]:
            column[node], following = float(following), following + 1
        stack += reversed(children[node])
    for node in reversed(walk):
        if children[node]:
            column[node] = (column[children[node][0]] + column[children[node][-1]]) / 2.0
    return column


def _edge(place: Mapping[int, tuple[float, float]], node: int, child: int) -> str:
    (x0, y0), (x1, y1) = place[node], place[child]
    top, bottom = y0 + _HEIGHT, y1
    middle = (top + bottom) / 2.0
    start, end = x0 + _WIDTH / 2.0, x1 + _WIDTH / 2.0
    return (
        f'<path d="M{start:.1f} {top:.1f} C{start:.1f} {middle:.1f} {end:.1f} {middle:.1f} {end:.1f} {bottom:.1f}" '
        f'fill="none" stroke="#999" stroke-width="1.2"/>'
    )


def _box(place: tuple[float, float], rows: Sequence[str], color: tuple[int, int, int], strength: float) -> str:
    x, y = place
    red, green, blue = color
    lines = "".join(
        f'<text x="{x + 8:.1f}" y="{y + 15 + 14 * i:.1f}" fill="#222" font-weight="{"normal" if i else "bold"}">'
        f"{escape(row.strip())}</text>"
        for i, row in enumerate(rows)
        if row
    )
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="rgb({red},{green},{blue})" '
        f'fill-opacity="{0.06 + 0.4 * strength:.2f}" stroke="rgb({red},{green},{blue})"/>{lines}'
    )
