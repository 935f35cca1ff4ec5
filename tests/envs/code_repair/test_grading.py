"""Comparison by type and value, and what counts as an answer."""

import ast
import json
import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.code_repair import Case, Grader, RepairTask, Submission, TestProgram, matches, read_case
from agentenv.envs.code_repair.grading import read_answer
from agentenv.envs.code_repair.guest import decode, encode
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
    assert Case(call="f()", expected=expected).accepts({"value": encode(value)}) is right


def test_tolerance_is_for_floats_only():
    case = Case(call="f()", expected="[0.3, 2]", tolerance=1e-9)
    assert case.accepts({"value": encode([0.1 + 0.2, 2])})
    assert not case.accepts({"value": encode([0.3, 2.0])})
    assert not case.accepts({"value": encode([0.31, 2])})


def test_exceptions_match_by_name_and_by_base():
    case = Case(call="f()", raises="LookupError")
    assert case.accepts({"raised": ["KeyError", "LookupError", "Exception", "BaseException"]})
    assert not case.accepts({"raised": ["ValueError", "Exception"]})
    assert not case.accepts({"broken": ["LookupError"]})
    assert not case.accepts({"value": encode("LookupError")})


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
    answer = read_answer(result, "n")
    assert not Case(call="f()", expected="1").accepts(answer)
    assert "nothing" in answer


def test_one_authentic_answer_counts():
    assert read_answer(ExecResult(0, '{"nonce": "n", "value": 1}\n'), "n") == {"value": 1}


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


def test_a_sandbox_that_dies_gives_no_verdict():
    opened = []

    def opener(spec):
        opened.append(open_sandbox(spec))
        return opened[-1]

    def kill():
        while not opened or not opened[0]._held.pidfd:
            time.sleep(0.01)
        time.sleep(0.3)
        signal.pidfd_send_signal(opened[0]._held.pidfd, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SandboxError):
        Grader(opener).grade(TASK, submit("import time\ntime.sleep(60)\n"))
    thread.join()


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


def test_the_guest_needs_only_the_standard_library():
    from agentenv.envs.code_repair import guest

    tree = ast.parse(Path(guest.__file__).read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} | {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert imported <= {"ast", "json", "os", "random", "sys", "typing"}
    assert os.name == "posix"
