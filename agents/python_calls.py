"""Tool calls that models write as Python: `[f(a=1), g(b='x')]`."""

import ast
import json
import re
from typing import Any, cast

from agentenv.types import ToolCall, decode_json

__all__ = ["BROKEN", "parse_python", "read_python"]

BROKEN = (ValueError, TypeError, AttributeError, SyntaxError, RecursionError, MemoryError)
"""What decoding raises on text that is no call."""

_PYTHON_CALL = re.compile(r"\s*([A-Za-z_][\w.]*)\(\s*")
_PYTHON_VALUE = re.compile(
    r"(\w+)\s*=\s*('.*?'|\".*?\"|[^'\"\s].*?)(?<!\s)\s*+(?=,\s*\w+\s*=|\)\s*(?:,\s*[A-Za-z_][\w.]*\(|\Z))", re.DOTALL
)
_NEXT_VALUE = re.compile(r",?\s*")
_PYTHON_CLOSE = re.compile(r"\)[ \n,]*")


def read_python(source: str) -> list[ToolCall]:
    """Reads `f(a=1), g(b='x')`, with or without brackets; quotes and line breaks within strings may be as they are.

    Raises:
        One of `BROKEN`: it is no list of calls with arguments by name.
    """
    try:
        return parse_python(source)
    except BROKEN:
        return _loose_python_calls(source)


class _Names(ast.NodeTransformer):
    """Puts Python's constants where JSON's names are."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        constants = {"true": True, "false": False, "null": None}
        return ast.Constant(constants[node.id]) if node.id in constants else node


def parse_python(source: str) -> list[ToolCall]:
    """Reads `f(a=1), g(b='x')`, with or without brackets, where it is valid Python. Raises one of `BROKEN`."""
    tree = _Names().visit(ast.parse(source.strip(), mode="eval")).body
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    calls: list[ToolCall] = []
    for node in nodes:
        if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
            msg = "it is no call with arguments by name"
            raise ValueError(msg)
        values = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
        calls.append(ToolCall.parse({"name": ast.unparse(node.func), "arguments": json.dumps(values)}))
    return calls


def _loose_python_calls(source: str) -> list[ToolCall]:
    """Reads the same where quotes and line breaks within strings were written as they are. Raises ValueError."""
    inner, calls, position = source.strip().removeprefix("[").removesuffix("]"), list[ToolCall](), 0
    while (name := _PYTHON_CALL.match(inner, position)) is not None:
        position, values = name.end(), dict[str, Any]()
        while (pair := _PYTHON_VALUE.match(inner, position)) is not None:
            quoted = pair[2][0] in "'\"" and len(pair[2]) > 1
            values[pair[1]] = pair[2][1:-1] if quoted else _literal(pair[2])
            position = cast("re.Match[str]", _NEXT_VALUE.match(inner, pair.end())).end()
        calls.append(ToolCall(name[1], values))
        if (close := _PYTHON_CLOSE.match(inner, position)) is None:
            break
        position = close.end()
    if not calls or position != len(inner):
        msg = "it is no list of calls"
        raise ValueError(msg)
    return calls


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except BROKEN:
        value, end = decode_json(text)
        value = text if text[end:].strip() else value
    if isinstance(value, str):
        msg = f"{text!r} is no value"
        raise ValueError(msg)
    return value
