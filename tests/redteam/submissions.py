"""Mutated and combined cheats: submissions for the tasks of `envs/code_repair`, none of which repairs anything."""

from __future__ import annotations

import ast
import copy
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redteam.scripts import HEAD, random_script

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

__all__ = ["data", "draw_submission"]

_FOLDER = Path(__file__).resolve().parent.parent / "envs" / "code_repair"
_MODULE, _PACKAGE = "shop/prices.py", "shop/__init__.py"
_ATOMS = (
    *("0", "1", "-1", "2", "36.0", "238.0", "None", "True", "''", "'passed'", "'nonce'", "'returned'", "'raised'"),
    *("'changed'", "float('nan')", "[]", "{}", "KeyError", "ValueError", "object()", "sys.modules", "globals()"),
)
_NAMES = (
    *("runtest", "makereport", "pytest_runtest_makereport", "pytest_pyfunc_call", "excinfo", "outcome", "wasxfail"),
    *("exit", "_exit", "write", "dup", "dup2", "dumps", "settrace", "setprofile", "addaudithook", "modules"),
    *("__eq__", "__ne__", "__hash__", "__class__", "__name__", "__module__", "__qualname__", "__mro__", "__bases__"),
    *("__round__", "__float__", "__repr__", "__iter__", "__len__", "f_locals", "f_globals", "f_back", "meta_path"),
)


@cache
def data(name: str) -> Any:
    """Returns a module of data that lies beside the tests of code repair."""
    spec = importlib.util.spec_from_file_location(f"redteam_{name}", _FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cheats() -> list[Mapping[str, str]]:
    return [*data("cheats").FILES.values(), *data("suite_cheats").FILES.values(), *data("suite_guesses").FILES.values()]


def draw_submission(rng: random.Random) -> dict[str, str]:
    """Returns files of one to three cheats, laid over each other, mutated, at times beside a random script."""
    cheats = _cheats()
    files: dict[str, str] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        for path, text in rng.choice(cheats).items():
            files[path] = f"{files[path]}\n{text}" if path in files and rng.random() < 0.7 else text
    paths = sorted(path for path in files if path.endswith(".py"))
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        if paths:
            path = rng.choice(paths)
            files[path] = _mutated(files[path], rng)
    if rng.random() < 0.35:
        _add_script(files, rng)
    return files


def _add_script(files: dict[str, str], rng: random.Random) -> None:
    """Runs a random script where the submission is imported, called, or ended."""
    path = rng.choice((_MODULE, _PACKAGE))
    source = f"exec({HEAD + random_script(rng)!r}, {{}})"
    text = files.get(path, data("cheats").BROKEN if path == _MODULE else "")
    where = rng.randrange(3)
    if where == 0:
        files[path] = f"{text}\n{source}\n"
    elif where == 1:
        files[path] = f"{text}\nimport atexit\natexit.register(lambda: {source})\n"
    else:
        files[path] = f"{text}\nif 'total' in globals():\n    _total = total\n    def total(prices, country):\n"
        files[path] += f"        {source}\n        return _total(prices, country)\n"


def _mutated(text: str, rng: random.Random) -> str:
    """Returns a source with one place changed; one that cannot be read is returned with lines exchanged."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        lines = text.splitlines()
        rng.shuffle(lines)
        return "\n".join(lines)
    change = rng.choice((_other_atom, _other_name, _moved_statement, _borrowed_statement))
    change(tree, rng)
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, RecursionError):
        return text


def _other_atom(tree: ast.Module, rng: random.Random) -> None:
    found: list[Any] = [node for node in ast.walk(tree) if isinstance(getattr(node, "value", None), ast.expr)]
    if found:
        rng.choice(found).value = ast.parse(rng.choice(_ATOMS), mode="eval").body


def _other_name(tree: ast.Module, rng: random.Random) -> None:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.FunctionDef)]
    if found:
        node = rng.choice(found)
        setattr(node, "attr" if isinstance(node, ast.Attribute) else "name", rng.choice(_NAMES))


def _bodies(tree: ast.AST) -> list[list[ast.stmt]]:
    bodies: list[Any] = [getattr(node, "body", None) for node in ast.walk(tree)]
    return [body for body in bodies if isinstance(body, list) and body]


def _moved_statement(tree: ast.Module, rng: random.Random) -> None:
    source, target = (rng.choice(_bodies(tree)) for _ in range(2)) if tree.body else ([], [])
    if source:
        target.insert(rng.randint(0, len(target)), copy.deepcopy(rng.choice(source)))


def _borrowed_statement(tree: ast.Module, rng: random.Random) -> None:
    """Puts a statement of another cheat somewhere."""
    texts = [text for files in _cheats() for path, text in files.items() if path.endswith(".py")]
    try:
        other = ast.parse(rng.choice(texts))
    except (SyntaxError, ValueError):
        return
    if other.body and tree.body:
        target = rng.choice(_bodies(tree))
        target.insert(rng.randint(0, len(target)), rng.choice(rng.choice(_bodies(other))))
