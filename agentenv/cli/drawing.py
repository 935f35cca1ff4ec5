"""Episode trees as text: one line per step, indented only where the tree branches."""

import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.text import Text
from rich.tree import Tree

from agentenv.tree import EpisodeTree, Node
from agentenv.types import Action, message_text

from .console import say, visible

__all__ = ["describe_action", "draw_tree", "print_tree"]

_LEGEND = "each line: node, reward, xN: trajectories through it"


def print_tree(
    console: Console,
    tree: EpisodeTree,
    *,
    title: str = "",
    advantages: NDArray[np.float64] | None = None,
    here: int | None = None,
) -> None:
    """Prints a tree, with what its numbers mean.

    Args:
        console: where.
        tree: what.
        title: the first line.
        advantages: `[N]` of this tree's steps, to show as `A`.
        here: a node to point at.
    """
    legend = _LEGEND + (", A: advantage" if advantages is not None else "") + ", action -> answer"
    say(console, Text(title or f"{tree.env_id} task {tree.task_id}", "bold"))
    say(console, Text(legend, "dim"))
    console.print(draw_tree(tree, advantages=advantages, here=here), soft_wrap=not console.is_terminal)


def draw_tree(tree: EpisodeTree, *, advantages: NDArray[np.float64] | None = None, here: int | None = None) -> Tree:
    """Returns a tree of text: every unbranched stretch is one branch, with a line per step; see `print_tree`."""
    counts = tree.arrays().leaf_counts
    width = len(str(len(tree) - 1))

    def line(node: int) -> Text:
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{node:>{width}} ", "bold reverse" if node == here else "dim")
        if node:
            text.append_text(_numbers(tree.nodes[node], int(counts[node])))
            if advantages is not None:
                value = float(advantages[node])
                text.append(f"A{value:+.3f} ", "green" if value > 0 else "red" if value < 0 else "dim")
        text.append_text(_story(tree.nodes[node]))
        if node == here:
            text.append("  <- you are here", "bold")
        return text

    return _grow(tree, line)


def _grow(tree: EpisodeTree, line: Callable[[int], Text]) -> Tree:
    """Builds the branches without recursion: trees may be deeper than Python's stack."""
    stretch = _stretch(tree, 0)
    root = Tree(Group(*map(line, stretch)), guide_style="dim")
    open_branches = [(root, stretch[-1])]
    while open_branches:
        branch, end = open_branches.pop()
        for child in tree.children(end):
            stretch = _stretch(tree, child)
            open_branches.append((branch.add(Group(*map(line, stretch))), stretch[-1]))
    return root


def _stretch(tree: EpisodeTree, node: int) -> list[int]:
    """Returns the nodes from `node` to the next branching or end."""
    stretch = [node]
    while len(children := tree.children(stretch[-1])) == 1:
        stretch.append(children[0])
    return stretch


def _numbers(node: Node, count: int) -> Text:
    if node.reward is None:
        return Text("failed ", "bold red")
    style = "bold green" if node.reward > 0 else "bold red" if node.reward < 0 else "dim"
    return Text.assemble((f"{node.reward:+g} " if node.reward else " 0 ", style), (f"x{count} ", "dim"))


def _story(node: Node) -> Text:
    """What was done and what came of it, on one line."""
    text = Text()
    if node.action is not None:
        text.append(describe_action(node.action), "cyan")
    answers = [visible(" ".join(message_text(message).split())) for message in node.observation]
    if node.reward is None:
        answers = [str(node.info.get("failure", "infrastructure failed"))]
    if node.action is not None and any(answers):
        text.append(" -> ")
    text.append(" | ".join(filter(None, answers)))
    if node.terminated or node.truncated:
        text.append("  [end]" if node.terminated else "  [cut by a limit]", "yellow")
    return text


def describe_action(action: Action, *, limit: int = 200) -> str:
    """Returns an action on one line: its calls as `name(key=value)`, and its text in quotes."""
    parts = [json.dumps(_short(" ".join(action.content.split()), limit), ensure_ascii=False)] if action.content else []
    for call in action.tool_calls:
        if isinstance(call.arguments, str):
            inside = call.arguments
        else:
            inside = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in call.arguments.items())
        parts.append(f"{call.name}({_short(' '.join(inside.split()), limit)})")
    return visible("; ".join(parts)) or '""'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
