"""Endless repair tasks: one small mutation in a function that works, checked to be really broken and repairable.

| kind | example |
|---|---|
| `operator` | `a + b` becomes `a - b`, `and` becomes `or`, `==` becomes `!=` |
| `boundary` | `a < b` becomes `a <= b` |
| `off by one` | `xs[1]` becomes `xs[2]` |
| `swapped arguments` | `f(a, b)` becomes `f(b, a)` |
| `wrong variable` | a name becomes another name of the same function |
| `missing branch` | an `if` without `else` is gone |
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
from typing_extensions import override

from agentenv.errors import TaskError

from .grading import Grader
from .library import Bug, Project, bundled_projects
from .submissions import Submission, solution_of
from .tasks import RepairTask

__all__ = ["KINDS", "GeneratedTasks", "Mutation", "find_mutations"]

KINDS = ("operator", "boundary", "off by one", "swapped arguments", "wrong variable", "missing branch")

_OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_BOUNDARIES: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
}


@dataclass(frozen=True, slots=True, order=True)
class Mutation:
    """One change of a source text.

    Attributes:
        start: first byte that is replaced, in UTF-8.
        end: the byte after the last.
        text: what takes its place.
        kind: one of `KINDS`.
        function: the function or method in which it is.
    """

    start: int
    end: int
    text: str
    kind: str
    function: str

    def apply(self, source: str) -> str:
        """Returns the source with the mutation in it."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def find_mutations(source: str) -> list[Mutation]:
    """Returns every mutation of the functions of a module, in order; each leaves it a valid program.

    Raises:
        SyntaxError: the source is no Python.
    """
    tree = ast.parse(source)
    search = _Search(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            search.visit_function(node)
    original = ast.dump(tree)
    found: set[Mutation] = set()
    for mutation in search.found:
        try:
            mutated = ast.dump(ast.parse(mutation.apply(source)))
        except (SyntaxError, ValueError):
            continue
        if mutated != original:
            found.add(mutation)
    return sorted(found)


class _Search:
    """Collects the mutations of one module."""

    def __init__(self, source: str) -> None:
        self.data = source.encode()
        self.lines = [0]
        for line in self.data.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.found: list[Mutation] = []
        self.function = ""
        self.names: list[str] = []

    def visit_function(self, node: ast.FunctionDef) -> None:
        """Collects the mutations inside of one function."""
        self.function = node.name
        names = {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
        }
        arguments = node.args
        names |= {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)} - {"self"}
        self.names = sorted(names)
        for statement in node.body:
            self._visit(statement)

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.FunctionDef):  # positions inside of f-strings are not reliable
            return
        match node:
            case ast.Call():
                self._swap(node)
            case ast.Constant() if type(node.value) is int:
                self._add(node, str(node.value + 1), "off by one")
                if node.value:
                    self._add(node, str(node.value - 1), "off by one")
            case ast.Name(ctx=ast.Load()) if node.id in self.names:
                for name in self.names:
                    self._add(node, name, "wrong variable")
            case ast.If() if not node.orelse and self._is_statement(node):
                self._add(node, "pass", "missing branch")
            case _:
                self._operators(node)
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _operators(self, node: ast.AST) -> None:
        match node:
            case ast.BinOp():
                self._operator(node.op, node.left, node.right)
            case ast.AugAssign():
                self._operator(node.op, node.target, node.value)
            case ast.BoolOp():
                self._operator(node.op, node.values[0], node.values[1])
            case ast.Compare():
                operands = [node.left, *node.comparators]
                for i, operator in enumerate(node.ops):
                    self._operator(operator, operands[i], operands[i + 1])
            case _:
                pass

    def _operator(self, operator: ast.AST, left: ast.AST, right: ast.AST) -> None:
        for table, kind in ((_OPERATORS, "operator"), (_BOUNDARIES, "boundary")):
            if type(operator) in table:
                symbol, other = table[type(operator)]
                start, end = self._span(left)[1], self._span(right)[0]
                position = self.data.find(symbol.encode(), start, end)
                if position >= 0:
                    self.found.append(Mutation(position, position + len(symbol), other, kind, self.function))

    def _swap(self, node: ast.Call) -> None:
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        for first, second in zip(node.args, node.args[1:], strict=False):
            (a, b), (c, d) = self._span(first), self._span(second)
            text = (self.data[c:d] + self.data[b:c] + self.data[a:b]).decode()
            self.found.append(Mutation(a, d, text, "swapped arguments", self.function))

    def _add(self, node: ast.AST, text: str, kind: str) -> None:
        start, end = self._span(node)
        self.found.append(Mutation(start, end, text, kind, self.function))

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """The bytes of a node of an expression or statement."""
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[node.end_lineno - 1] + node.end_col_offset

    def _is_statement(self, node: ast.If) -> bool:
        """Whether it is an `if` of its own, not an `elif`."""
        start = self._span(node)[0]
        return self.data[start : start + 3] in {b"if ", b"if("}


@dataclass(frozen=True)
class GeneratedTasks(Sequence[RepairTask]):
    """As many generated tasks as wanted; number `i` is the same whenever it is asked for.

    Making one grades candidates until one is really broken: a second or so.

    Attributes:
        seed: other seeds give other tasks.
        size: how many there are.
        projects: correct code with cases.
        kinds: which kinds of mutation.
        grader: checks that a task is broken and can be repaired.
    """

    seed: int = 0
    size: int = 1_000_000
    projects: tuple[Project, ...] = field(default_factory=bundled_projects)
    kinds: tuple[str, ...] = KINDS
    grader: Grader = field(default_factory=lambda: Grader(case_timeout_s=5.0))

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            msg = f"kinds must be among {', '.join(map(repr, KINDS))}, got {unknown!r}"
            raise ValueError(msg)
        if not self.projects or not self.kinds:
            msg = "projects and kinds must not be empty"
            raise ValueError(msg)

    @override
    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> RepairTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[RepairTask]: ...
    @override
    def __getitem__(self, index: int | slice) -> RepairTask | list[RepairTask]:
        """Makes task number `index`.

        Raises:
            IndexError: there is no such number.
            TaskError: no candidate was broken and could be repaired.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            msg = f"index must be below {self.size}, got {index}"
            raise IndexError(msg)
        number = index % self.size
        for candidate in self._candidates(number):
            if self._is_good(candidate):
                return candidate
        msg = f"no mutation of the projects is noticed by their cases (seed {self.seed}, task {number})"
        raise TaskError(msg)

    def _candidates(self, number: int, tries: int = 100) -> Iterator[RepairTask]:
        rng = np.random.default_rng((self.seed, number))
        for _ in range(tries):
            project = self.projects[int(rng.integers(len(self.projects)))]
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            places = [
                (path, mutation)
                for path, source in sorted(project.files.items())
                if path.endswith(".py")
                for mutation in find_mutations(source)
                if mutation.kind == kind
            ]
            if places:
                path, mutation = places[int(rng.integers(len(places)))]
                yield _task(project, path, mutation, f"generated/{self.seed}-{number}")

    def _is_good(self, task: RepairTask) -> bool:
        if self.grader.grade(task, Submission()).solved:
            return False
        repaired = solution_of(task)
        return self.grader.grade(task, repaired).solved


def _task(project: Project, path: str, mutation: Mutation, name: str) -> RepairTask:
    source = project.files[path]
    report = f"since the last change to `{mutation.function}` in {path}, some results are wrong."
    bug = Bug(
        id="x", kind=mutation.kind, difficulty=2, report=report, changes={path: ((source, mutation.apply(source)),)}
    )
    return project.task(bug).model_copy(update={"id": name})
