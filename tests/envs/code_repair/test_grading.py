"""Comparison by type and value, and what counts as an answer."""

import ast
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.code_repair import Case, Grader, RepairTask, Submission, TestProgram, matches, outcomes, read_case
from agentenv.envs.code_repair.outcomes import Outcome, read_outcome
from agentenv.envs.code_repair.wire import decode, encode
from agentenv.errors import SandboxError, TaskError
from agentenv.protocols import ExecResult
from agentenv.sandboxes import open_sandbox

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
        | st.frozensets(st.binary(), max_size=4)
    ),
    max_leaves=12,
)


def same(left, right):
    """Equality of type and value, written down once more."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    return left == right


@given(plain)
def test_encoding_keeps_type_and_value(value):
    wire = json.loads(json.dumps(encode(value)))
    assert same(decode(wire), value)
    assert matches(encode(value), wire)


@given(plain, plain)
def test_encodings_match_exactly_where_type_and_value_are_equal(left, right):
    assert matches(encode(left), encode(right)) == same(left, right)


def returned(value):
    return Outcome("returned", value=encode(value))


def raised(*names):
    return Outcome("raised", names=names)


class Sub(int):
    pass


@pytest.mark.parametrize(
    ("expected", "value", "right"),
    [
        ("1", 1, True),
        ("1", 1.0, False),
        ("1", True, False),
        ("1", Sub(1), False),
        ("[1, 2]", (1, 2), False),
        ("{1: 'a', 2: 'b'}", {2: "b", 1: "a"}, True),
        ("{1, 2}", {2, 1}, True),
        ("{1, 2}", frozenset({1, 2}), False),
        ("b'x'", bytearray(b"x"), False),
        ("0.0", -0.0, True),
        ("0.3", 0.1 + 0.2, False),
        ("'a'", "a", True),
        (str(10**30), 10**30, True),
        ("None", None, True),
        ("[]", [object()], False),
    ],
)
def test_cases_compare_by_type_and_value(expected, value, right):
    assert Case(call="f()", expected=expected).accepts(returned(value)) is right


def test_tolerance_is_for_floats_only():
    case = Case(call="f()", expected="[0.3, 2]", tolerance=1e-9)
    assert case.accepts(returned([0.1 + 0.2, 2]))
    assert not case.accepts(returned([0.3, 2.0]))
    assert not case.accepts(returned([0.31, 2]))


def test_exceptions_match_by_name_and_by_base():
    case = Case(call="f()", raises="LookupError")
    assert case.accepts(raised("KeyError", "LookupError", "Exception", "BaseException"))
    assert not case.accepts(raised("ValueError", "Exception", "BaseException"))
    assert not case.accepts(Outcome("died", why="LookupError"))
    assert not case.accepts(returned("LookupError"))
    system = raised("FileNotFoundError", "OSError", "Exception", "BaseException")
    assert Case(call="f()", raises="IOError").accepts(system)  # another name of OSError


def test_a_subclass_of_an_exception_of_the_workspace_counts_where_the_reference_tells_its_bases():
    case = Case(call="f()", raises="shop.Empty")
    bases = ("shop.Error", "ValueError", "Exception", "BaseException")
    assert case.accepts(raised("shop.Empty", *bases))
    assert not case.accepts(raised("own.Empty", "shop.Empty", *bases))
    reference = raised("shop.Empty", *bases)
    assert case.accepts(raised("own.Empty", "shop.Empty", *bases), reference)
    assert not case.accepts(raised("own.All", "shop.Empty", "shop.Full", *bases), reference)


def test_cases_are_written_as_assertions():
    assert read_case("f(1) == [2]") == Case(call="f(1)", expected="[2]")
    assert read_case("f(1) == 2 == True") == Case(call="f(1) == 2", expected="True")
    assert read_case("f('') raises a.b.Error") == Case(call="f('')", raises="a.b.Error")
    for wrong in ("f(1)", "f(1) == g(2)", "x = 1", "f(1) < 2", "f("):
        with pytest.raises(ValueError, match=r"."):
            read_case(wrong)


@pytest.mark.parametrize(
    "fields",
    [
        {"call": "", "expected": "1"},
        {"call": "x = 1", "expected": "1"},
        {"call": "f()", "expected": "g()"},
        {"call": "f()"},
        {"call": "f()", "expected": "1", "raises": "ValueError"},
    ],
)
def test_a_case_that_cannot_be_right_is_an_error(fields):
    with pytest.raises(ValueError, match=r"."):
        Case(**fields)


@pytest.mark.parametrize(
    "result",
    [
        ExecResult(0, ""),
        ExecResult(0, '{"nonce": "n", "value": 1}'),
        ExecResult(0, '{"nonce": "n", "value": 1}\n' * 2),
        ExecResult(0, '{"nonce": "m", "value": 1}\n'),
        ExecResult(0, '{"value": 1}\n'),
        ExecResult(1, '{"nonce": "n", "value": 1}\n'),
        ExecResult(0, '{"nonce": "n", "value": 1}\n', timed_out=True),
        ExecResult(0, '{"nonce": "n", "value": 1}\n', truncated=True),
        ExecResult(0, '{"nonce": "n", "value": 1}\n', oom=True),
        ExecResult(0, "[1]\n"),
        ExecResult(0, "[" * 100_000 + "\n"),
        ExecResult(0, "nonsense\n"),
    ],
)
def test_missing_late_doubled_or_unauthenticated_answers_are_none(result):
    outcome = read_outcome(result, "n")
    assert outcome.kind in {"timed out", "died"}
    assert not Case(call="f()", expected="1").accepts(outcome)
    assert not Case(call="f()", raises="BaseException").accepts(outcome)


def test_one_authentic_answer_counts():
    line = '{"nonce": "n", "returned": 1}\n'
    assert read_outcome(ExecResult(0, line), "n") == Outcome("returned", value=1, record={"returned": 1})


EVERYTHING = ["ValueError", "KeyError", "LookupError", "Exception", "BaseException"]


@pytest.mark.parametrize(
    "answer",
    [
        {"returned": 1, "raised": ["ValueError", "Exception", "BaseException"]},
        {"returned": 1, "died": "x"},
        {"returned": 1, "more": 1},
        {"raised": EVERYTHING},
        {"raised": ["a.E", "ValueError", "a.F", "Exception", "BaseException"]},
        {"raised": ["a.E"]},
        {"raised": ["ValueError"]},
        {"raised": ["int", "object"]},
        {"raised": ["__doc__"]},
        {"raised": "ValueError"},
        {"raised": []},
        {"raised": {"ValueError": 1}},
        {"raised": [["ValueError"], "Exception", "BaseException"]},
        {"raised": ["a.E"] * 2 + ["Exception", "BaseException"]},
        {"raised": [f"a.E{n}" for n in range(1000)] + ["Exception", "BaseException"]},
        {},
        {"died": {"returned": 1}},
    ],
)
def test_an_answer_with_several_outcomes_or_none_died(answer):
    outcome = read_outcome(ExecResult(0, json.dumps({"nonce": "n", **answer}) + "\n"), "n")
    assert outcome.kind == "died", outcome


@pytest.mark.parametrize(
    "line", ['"returned": 1, "returned": 2', '"returned": 1.0', '"returned": NaN', '"returned": -Infinity']
)
def test_an_answer_that_no_guest_writes_died(line):
    assert read_outcome(ExecResult(0, f'{{"nonce": "n", {line}}}\n'), "n").kind == "died"


BOTH = """
import json, os, sys

def f(x):
    nonce, out, frame = "?", None, sys._getframe()
    while frame and out is None:
        request, out = frame.f_locals.get("request"), frame.f_locals.get("out")
        nonce = request["nonce"] if isinstance(request, dict) else nonce
        frame = frame.f_back
    answer = {"nonce": nonce, "returned": x, "value": x, "raised": RAISED}
    os.write(out, (json.dumps(answer) + "\\n").encode())
    os._exit(0)
"""
CLASSES = """
class Empty(ValueError): pass
class Full(KeyError): pass
class All(Empty, Full, TypeError): pass

def f(x):
    if WHEN:
        raise All("all of them")
    return x
"""
ALL = '["ValueError", "LookupError", "KeyError", "m.Empty", "m.Full", "Exception", "BaseException"]'


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        (BOTH.replace("RAISED", ALL), [False] * 4),
        (BOTH.replace('"raised": RAISED', '"changed": {}').replace('"value": x, ', ""), [False] * 4),
        (BOTH.replace('"returned": x, "value": x, ', "").replace("RAISED", ALL), [False] * 4),
        (CLASSES.replace("WHEN", "x < 0"), [True, True, False, False]),
        (CLASSES.replace("WHEN", "False"), [True, False, False, False]),
    ],
    ids=[
        "both outcomes",
        "an outcome and more",
        "raised everything, written by hand",
        "raised a class of everything",
        "untouched",
    ],
)
def test_a_submission_cannot_say_that_it_raised_everything(text, passed):
    raises = ("ValueError", "KeyError", "TypeError")
    cases = (read_case("f(1) == 1"), *(Case(call="f(-1)", raises=name) for name in raises))
    found = [Grader().grade(TASK.model_copy(update={"hidden": (case,)}), submit(text)).solved for case in cases]
    assert found == passed


TASK = RepairTask(
    instruction="x",
    files={"m.py": "def f(x):\n    return x\n"},
    setup="from m import f",
    hidden=(read_case("f(1) == 2"), read_case("f(5) == 6"), read_case("f(0) == 0")),
)


def submit(text):
    return Submission({"m.py": text.encode()})


def test_the_fraction_counts_every_case():
    grade = Grader().grade(TASK, submit("def f(x):\n    return x + (x > 0)\n"), stop_early=False)
    assert (grade.passed, grade.total, grade.solved) == (3, 3, True)
    grade = Grader().grade(TASK, submit("def f(x):\n    return x + 1\n"), stop_early=False)
    assert (grade.passed, grade.fraction) == (2, 2 / 3)


def test_cases_do_not_see_each_other():
    counting = """
import os
def f(x):
    seen = len(os.listdir("/tmp")) + len(os.listdir("."))
    open("/tmp/seen%d" % x, "w").close()
    open("seen%d" % x, "w").close()
    return seen
"""
    cases = tuple(Case(call=f"f({i})", expected="2") for i in range(3))  # m.py, and the workspace's only other: none
    task = TASK.model_copy(update={"hidden": cases})
    first = Grader().grade(task, submit(counting), stop_early=False)
    assert first.passed in (0, 3)  # the same number every time, whatever it is
    alone = task.model_copy(update={"hidden": tuple(Case(call=f"f({i})", expected="1") for i in range(3))})
    assert first.passed + Grader().grade(alone, submit(counting), stop_early=False).passed == 3


def test_a_submission_with_files_that_it_may_not_hold_fails():
    right = b"def f(x):\n    return x + (x > 0)\n"
    assert Grader().grade(TASK, Submission({"m.py": right})).solved
    for path in ("tests/test_visible.py", "conftest.py", "pkg/conftest.py", "data.json", "setup.py"):
        assert not Grader().grade(TASK, Submission({"m.py": right, path: b""})).solved


def breaking(broken):
    """Opens sandboxes whose guest is killed as the first command starts, where `broken(number)` says so."""
    opened = []

    def opener(spec):
        sandbox: Any = open_sandbox(spec)
        opened.append(sandbox)
        if broken(len(opened)):
            signal.pidfd_send_signal(sandbox._held.pidfd, signal.SIGKILL)
            sandbox._begin = refuse  # a restore does not bring it back either
        return sandbox

    def refuse(origin):
        msg = "the machine has no more of them"
        raise SandboxError(msg)

    return opener, opened


RIGHT = "def f(x):\n    return x + (x > 0)\n"


def test_a_sandbox_that_breaks_is_nobodys_fault_where_the_untouched_code_breaks_it_too():
    opener, opened = breaking(lambda _: True)
    with pytest.raises(SandboxError):
        Grader(opener).grade(TASK, submit(RIGHT))
    assert len(opened) == 2  # the submission's, and the control's


def test_a_sandbox_that_breaks_once_is_replaced():
    opener, opened = breaking(lambda number: number == 1)
    grade = Grader(opener).grade(TASK, submit(RIGHT))
    assert grade.solved
    assert not grade.blamed
    assert len(opened) == 3


def test_a_submission_that_breaks_its_sandbox_again_and_again_fails():
    opener, _ = breaking(lambda number: number != 2)
    grade = Grader(opener).grade(TASK, submit(RIGHT))
    assert (grade.solved, grade.passed, grade.total, grade.blamed) == (False, 0, 3, True)
    assert "broke, twice" in grade.reasons[0]


def test_visible_cases_that_a_submission_breaks_again_and_again_fail():
    opener, opened = breaking(lambda number: number != 2)
    task = TASK.model_copy(update={"visible": TASK.hidden[:2]})
    grade = Grader(opener).grade_visible(task, submit(RIGHT))
    assert (grade.passed, grade.total, grade.blamed, len(opened)) == (0, 2, True, 3)
    with pytest.raises(SandboxError):
        Grader(breaking(lambda _: True)[0]).grade_visible(task, submit(RIGHT))


PROGRAM = TestProgram(
    program="assert square(2) == 4\nassert abs(square(0.5) - 0.25) < 1e-3\nassert square(square(2)) == 16\n",
    function="square",
    reference="def square(x):\n    return x * x\n",
)
SQUARE = RepairTask(
    instruction="x",
    files={"m.py": "def square(x):\n    return x + x\n"},
    setup="from m import square",
    program=PROGRAM,
)


@pytest.mark.parametrize(
    ("body", "solved"),
    [
        ("return x * x", True),
        ("return x ** 2", True),
        ("return x * x + 1e-5 * (x == 0.5)", True),  # another answer that the program does not mind
        ("return x + x", False),
        ("return x * x if x < 3 else 0", False),
        ("return type('Any', (int,), {'__eq__': lambda s, o: True, '__sub__': lambda s, o: 0})(1)", False),
        ("raise SystemExit(0)", False),
        ("return 10 ** 6000", False),
        ("import sys; sys.stdout.write('passed'); return None", False),
    ],
)
def test_a_hidden_program_decides_apart_from_the_submission(body, solved):
    assert Grader().grade(SQUARE, submit(f"def square(x):\n    {body}\n")).solved is solved


def test_a_program_that_rejects_its_reference_is_an_error():
    wrong = SQUARE.model_copy(
        update={"program": PROGRAM.model_copy(update={"reference": "def square(x):\n    return 1\n"})}
    )
    with pytest.raises(TaskError, match="does not accept its reference"):
        Grader().grade(wrong, Submission())


@pytest.mark.parametrize("name", ["entering", "guest", "suite_guest", "wire"])
def test_guests_need_only_the_standard_library(name):
    tree = ast.parse((Path(outcomes.__file__).parent / f"{name}.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} | {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert {name.partition(".")[0] for name in imported} - {"pytest"} <= sys.stdlib_module_names
    assert os.name == "posix"
