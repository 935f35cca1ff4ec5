"""The tests that an agent can see and run: how cases become a module of them, and which runner they need."""

import ast
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from .cases import Case

__all__ = ["VISIBLE_TESTS", "is_of_pytest", "is_test_file", "ran_none", "write_visible_tests"]

VISIBLE_TESTS = "tests/test_visible.py"
_PYTEST = re.compile(r"^(async )?def test|^[^\S\n]*(import|from) pytest\b", re.MULTILINE)
_RAN = re.compile(r"^Ran (\d{1,9}) tests? in .*\n\s*+(?:OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)
_SKIPPED = re.compile(r"\bskipped=(\d{1,9})\b")
_RAN_NONE = re.compile(r"^NO TESTS RAN|^=* ?(no tests ran|\d+ (skipped|deselected)(, \d+ \w+)?) in ", re.MULTILINE)
_VISIBLE = """class VisibleTests(unittest.TestCase):
    def check(self, found, expected, tolerance=0.0):
        if not same(found, expected, tolerance):
            self.assertEqual(found, expected)
            self.fail(f"{found!r} is of another type than {expected!r}, or not near enough")
"""
_SAME = '''def same(found, expected, tolerance=0.0):
    """Whether values are equal, and of equal types, all the way down."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, float):
        near = max(tolerance, tolerance * max(abs(found), abs(expected)))
        return found == expected or found != found != expected != expected or abs(found - expected) <= near
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(same(a, b, tolerance) for a, b in zip(found, expected))
    if isinstance(expected, dict):
        found, expected = found.items(), expected.items()
    elif not isinstance(expected, (set, frozenset)):
        return found == expected
    return len(found) == len(expected) and all(any(same(a, b, tolerance) for a in found) for b in expected)
'''


def is_test_file(path: str) -> bool:
    """Whether a file has tests, as far as its name tells."""
    name = PurePosixPath(path)
    return name.match("test*.py") or name.match("*_test.py")


def is_of_pytest(path: str, content: bytes) -> bool:
    """Whether a visible file has tests that only pytest finds: functions outside of classes, or what imports pytest."""
    is_visible = path.startswith("tests/") and is_test_file(path)
    return is_visible and _PYTEST.search(content.decode(errors="replace")) is not None


def ran_none(output: str) -> bool:
    """Whether the last lines of a test runner say that no test ran, or that all were skipped."""
    if _RAN_NONE.search(output):
        return True
    *_, last = [None, *_RAN.finditer(output)]
    skipped = _SKIPPED.search(last[2] or "") if last else None
    return last is not None and int(last[1]) == (int(skipped[1]) if skipped else 0)


def write_visible_tests(setup: str, cases: Sequence[Case]) -> str:
    """Returns the visible cases as a `unittest` module, which compares as the hidden cases are compared."""
    named = sorted({case.raises.rpartition(".")[0] for case in cases if "." in case.raises})
    lines = ["import unittest", "", *(f"import {name}" for name in named), *setup.split("\n")]
    lines += ["", "", *_SAME.split("\n"), "", *_VISIBLE.split("\n")]
    for number, case in enumerate(cases, 1):
        *before, last = [ast.unparse(statement) for statement in ast.parse(case.call).body]
        body = [line for statement in before for line in statement.split("\n")]
        if case.raises:
            body += [f"with self.assertRaises({case.raises}):", f"    {last}"]
        else:
            body += [f"self.check({last}, {case.expected}{f', {case.tolerance}' if case.tolerance else ''})"]
        lines += [f"    def test_{number}(self):", *(f"        {line}" for line in body), ""]
    return "\n".join([*lines, "", 'if __name__ == "__main__":', "    unittest.main()", ""])
