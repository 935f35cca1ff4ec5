"""RTMC's signatures for agents that work on files: when are two states, or two actions, the same?

Environments have exact signatures of their own (`Env.state_signature`); these are the coarser ones of the paper, by
which rollouts of one repair task meet more often. The caller says what each step did (`FileStep`); how to read that
from a tool call or a shell command is the environment's business.

Source: RTMC (arXiv 2604.11037), through two public ports that agree on the core. Not recoverable from them: what
exactly the paper's flags hold (here: a set of what was done apart from files, as in one port), and its notation for
`head` and `tail` (say `lines`).
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentenv.arrays import TreeArrays, number_signatures
from agentenv.tree import EpisodeTree, Node

__all__ = ["FileStep", "action_signature", "signature_arrays", "state_signatures"]

Style = Literal["exact", "paper", "coarse"]
Kind = Literal["view", "search", "modify", "create", "test", "execute", "think", "finish"]

_ON_FILES = ("view", "search", "modify", "create")


@dataclass(frozen=True, slots=True)
class FileStep:
    """What one step of an agent did, as far as signatures care.

    Attributes:
        kind: what was done.
        path: the file or directory, relative to the repository; `""` where there is none.
        lines: first and last line viewed, both included; `None` for the whole file.
        old: text that was replaced; `""` for an insertion.
        new: text that replaced it.
        outcome: `"ok"` or `"error"`, for tests and commands.
    """

    kind: Kind
    path: str = ""
    lines: tuple[int, int] | None = None
    old: str = ""
    new: str = ""
    outcome: str = ""


def action_signature(step: FileStep, *, style: Literal["paper", "coarse"] = "paper") -> str:
    """Names an action: `category[:detail]@target[:outcome]`.

    In the paper's style a view is bucketed by 100 lines (`view:partial[1-2]@f` for lines 100 to 299) and an edit
    carries the first 4 hex digits of the MD5 of old and new text (`modify:replace:b1c9@f`). The coarse style drops
    both. The outcome of a test is part of the action, and so of the next state.
    """
    detail = ""
    if style == "paper" and step.kind == "view":
        detail = f":partial{_bucket(step.lines)}" if step.lines else ":full"
    if style == "paper" and step.kind == "modify":
        detail = f":{'replace' if step.old else 'insert'}:{_content(step)}"
    target = f"@{step.path}" if step.path else ""
    return f"{step.kind}{detail}{target}{f':{step.outcome}' if step.outcome else ''}"


def state_signatures(steps: Sequence[FileStep], *, style: Literal["paper", "coarse"] = "paper") -> list[str]:
    """Names the state before each step, and after the last: cumulative, and blind to order and repetition.

        file1:op,op|file2:op|(flag,flag)

    Files in order, each with its set of operations: `Vf` viewed whole, `V[b1-b2]` viewed in part, `S` searched,
    `M:hhhh` replaced, `I:hhhh` inserted, `C` created (coarse: `V`, `S`, `M`, `C`); then the set of what happened
    apart from files, with outcomes (coarse: tests only).

    Args:
        steps: `[T]` in order.
        style: the paper's, or coarse.

    Returns:
        `[T + 1]` texts.
    """
    marks: frozenset[tuple[str, str]] = frozenset()
    out = [_state(marks)]
    for step in steps:
        marks |= _marks(step, style)
        out.append(_state(marks))
    return out


def signature_arrays(
    trees: Sequence[EpisodeTree], read: Callable[[Node], FileStep | None], *, style: Style = "paper"
) -> TreeArrays:
    """Builds TreeArrays whose states and actions are matched by file signatures.

    Args:
        trees: as grown.
        read: says what the step into a node did; `None` for nothing worth noting (an action of its own kind).
        style: `"exact"` keeps the environment's own signatures, `"paper"` and `"coarse"` replace them.

    Raises:
        ValueError: an unknown style.
    """
    if style not in ("exact", "paper", "coarse"):
        msg = f"style must be 'exact', 'paper' or 'coarse', got {style!r}"
        raise ValueError(msg)
    arrays = TreeArrays.from_trees(trees)
    if style == "exact":
        return arrays
    states, actions = list[str](), list[str]()
    for tree in trees:
        marks: list[frozenset[tuple[str, str]]] = []
        for node in tree.nodes:
            step = read(node) if node.action is not None else None
            above = marks[node.parent] if node.parent >= 0 else frozenset[tuple[str, str]]()
            marks.append(above | _marks(step, style) if step else above)
            states.append(_state(marks[-1]))
            actions.append(action_signature(step, style=style) if step else "none")
    return replace(
        arrays,
        state_ids=number_signatures(arrays.tree_ids, states),
        action_ids=number_signatures(arrays.tree_ids, actions),
    )


def _marks(step: FileStep, style: Literal["paper", "coarse"]) -> frozenset[tuple[str, str]]:
    """What a step adds to the state: (file, operation), or ("", flag)."""
    if step.kind not in _ON_FILES or not step.path:
        if style == "coarse" and step.kind != "test":
            return frozenset()
        return frozenset({("", f"{step.kind}:{step.outcome}" if step.outcome else step.kind)})
    if style == "coarse":
        return frozenset({(step.path, step.kind[0].upper())})
    match step.kind:
        case "view":
            operation = f"V{_bucket(step.lines)}" if step.lines else "Vf"
        case "modify":
            operation = f"{'M' if step.old else 'I'}:{_content(step)}"
        case _:
            operation = step.kind[0].upper()
    return frozenset({(step.path, operation)})


def _state(marks: frozenset[tuple[str, str]]) -> str:
    files = sorted({path for path, _ in marks if path})
    parts = [f"{path}:{','.join(sorted(op for at, op in marks if at == path))}" for path in files]
    return "|".join([*parts, f"({','.join(sorted(op for path, op in marks if not path))})"])


def _bucket(lines: tuple[int, int] | None) -> str:
    first, last = lines or (0, 0)
    low, high = first // 100, last // 100
    return f"[{low}]" if low == high else f"[{low}-{high}]"


def _content(step: FileStep) -> str:
    return hashlib.md5((step.old + step.new).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()[:4]
