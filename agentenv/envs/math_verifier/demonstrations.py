"""Scripted play of arithmetic and equation tasks: what a careful solver calls, and what a sloppy one does.

Made for imitation: a policy that copies a mixture of the two knows the tools, is right some of the time, and has
something left to learn. Every call is a step of its own, and every calculation a single operation, so that it works
under `operations_per_call=1`.
"""

import re
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from agentenv.types import ToolCall

from .exact import evaluate
from .expressions import Call, Expression, parse_expression, show_number
from .tasks import MathTask

__all__ = ["careful_calls", "noisy_calls"]

_QUESTION = re.compile(r"Compute (?P<expression>.+)\.|Solve (?P<left>.+) = (?P<right>.+) for x\.", re.DOTALL)


def careful_calls(task: MathTask) -> list[ToolCall]:
    """Returns the calls of a solver who computes one operation at a time, in a right order, and submits the result.

    Raises:
        ValueError: the task is neither of kind `arithmetic` nor `equation`.
    """
    solver = _Solver()
    answer = _solve(_read(task), solver)
    return [*solver.calls, _submit(answer)]


def noisy_calls(
    task: MathTask,
    rng: np.random.Generator,
    *,
    left_to_right: float = 0.4,
    mistype: float = 0.1,
    early: float = 0.1,
) -> list[ToolCall]:
    """Returns the calls of a solver who slips, and goes on with what came of it.

    Args:
        task: of kind `arithmetic` or `equation`.
        rng: draws the slips.
        left_to_right: probability of ignoring precedence and parentheses (arithmetic only).
        mistype: probability, per calculation, that its second operand becomes a random number from 1 to 9.
        early: probability, per calculation after the first, of submitting the last result instead.

    Raises:
        ValueError: the task is neither of kind `arithmetic` nor `equation`.
    """
    parts = _read(task)
    solver = _Solver(rng, mistype, early)
    try:
        flat = parts["expression"] and rng.random() < left_to_right
        answer = _solve_flat(parts["expression"], solver) if flat else _solve(parts, solver)
    except _GaveUpError:
        answer = solver.last
    return [*solver.calls, _submit(answer)]


class _GaveUpError(Exception):
    """The solver submits what it has."""


@dataclass
class _Solver:
    """Computes one operation at a time, and slips."""

    rng: np.random.Generator | None = None
    mistype: float = 0.0
    early: float = 0.0
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    last: Fraction = Fraction(0)

    def compute(self, a: Fraction, operator: str, b: Fraction) -> Fraction:
        if self.rng is not None:
            if self.calls and self.rng.random() < self.early:
                raise _GaveUpError
            if self.rng.random() < self.mistype:
                b = Fraction(int(self.rng.integers(1, 10)))
        if operator == "/" and not b:
            raise _GaveUpError
        expression = f"{show_number(a)} {operator} {show_number(b)}"
        self.calls.append(ToolCall("calculate", {"expression": expression}))
        self.last = evaluate(Call(operator, (a, b)))
        return self.last


def _read(task: MathTask) -> dict[str, str]:
    match = _QUESTION.fullmatch(task.question)
    if match is None or task.kind not in {"arithmetic", "equation"}:
        msg = f"task must be of kind 'arithmetic' or 'equation', got {task.kind!r}: {task.question!r:.200}"
        raise ValueError(msg)
    return match.groupdict()


def _solve(parts: dict[str, str], solver: _Solver) -> Fraction:
    if parts["expression"]:
        return _reduce(parse_expression(parts["expression"]), solver)
    a, b = _linear(parse_expression(parts["left"]), solver)
    c, d = _linear(parse_expression(parts["right"]), solver)
    factor = solver.compute(a, "-", c) if c else a
    rest = solver.compute(d, "-", b) if b else d
    return solver.compute(rest, "/", factor) if factor != 1 else rest


def _solve_flat(expression: str, solver: _Solver) -> Fraction:
    words = expression.replace("(", "").replace(")", "").split()
    value = Fraction(words[0])
    for operator, number in zip(words[1::2], words[2::2], strict=True):
        value = solver.compute(value, operator, Fraction(number))
    return value


def _reduce(tree: Expression, solver: _Solver) -> Fraction:
    """Returns the value of a tree of numbers, computed innermost first."""
    if not isinstance(tree, Call):
        return evaluate(tree)
    a, b = (_reduce(argument, solver) for argument in tree.arguments)
    return solver.compute(a, tree.operator, b)


def _linear(tree: Expression, solver: _Solver) -> tuple[Fraction, Fraction]:
    """Returns `(a, b)` of a tree that equals `a x + b`; what anybody sees at a glance is not computed."""
    if isinstance(tree, Fraction):
        return Fraction(0), tree
    if not isinstance(tree, Call):
        return Fraction(1), Fraction(0)
    (a, b), (c, d) = (_linear(argument, solver) for argument in tree.arguments)
    if tree.operator == "*":  # a number times something
        return (solver.compute(b, "*", c) if c != 1 else b), (solver.compute(b, "*", d) if d else d)
    return (solver.compute(a, "+", c) if a and c else a + c), (solver.compute(b, "+", d) if b and d else b + d)


def _submit(answer: Fraction) -> ToolCall:
    return ToolCall("submit", {"answer": show_number(answer)})
