"""Cases that compare: no object that a submission returns has a say in it."""

import ast
import contextlib
import json
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.code_repair import Case, Grader, RepairTask, Submission
from agentenv.envs.code_repair.comparing import compare, sides_of
from agentenv.envs.code_repair.outcomes import Outcome
from agentenv.envs.code_repair.wire import encode

CASES = ("f(2) == 4", "4 <= f(2) < 5 and f(0) not in (1, 2)", "not (f(1) != 2 or f(3) is None)", "P(1) == P(f(1) - 1)")
TASK = RepairTask(
    instruction="f() doubles.",
    files={
        "m.py": "class P:\n    def __init__(self, x):\n        self.x = x\n"
        "    def __eq__(self, other):\n        return self.x == other.x\ndef f(x):\n    return x\n"
    },
    setup="from m import P, f",
    hidden=tuple(Case(call=call, expected="True") for call in CASES),
)
RIGHT = str(TASK.files["m.py"]).replace("return x\n", "return x + x\n")
ANYTHING = (
    "class A(*BASES):\n    def yes(self, *_):\n        return True\n    def no(self, *_):\n        return False\n"
    "    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = __sub__ = yes\n    __ne__ = __hash__ = no\n"
    "def f(x):\n    return A()\nclass P(A):\n    def __init__(self, x):\n        pass\n"
)


def test_what_equals_everything_is_right_in_no_comparison():
    solved = TASK.model_copy(update={"solution": {"m.py": RIGHT}})
    for task in (TASK, solved):
        grade = Grader().grade(task, Submission({"m.py": RIGHT.encode()}), stop_early=False)
        assert grade.solved, grade.details
    for bases in ("", "int", "tuple"):
        cheat = ANYTHING.replace("*BASES", bases).encode()
        grade = Grader().grade(solved, Submission({"m.py": cheat}), stop_early=False)
        assert grade.passed <= 1, grade.details  # the class that compares itself is what is under test


ATOMS = st.sampled_from(["0", "1", "2", "1.0", "'a'", "''", "None", "(1, 2)", "[1]", "{1: 2}"])
COMPARISONS = st.builds(
    lambda left, rest: " ".join([left, *(word for pair in rest for word in pair)]),
    ATOMS,
    st.lists(st.tuples(st.sampled_from(["==", "!=", "<", ">=", "in", "not in"]), ATOMS), min_size=1, max_size=2),
)
EXPRESSIONS = st.recursive(
    COMPARISONS,
    lambda inner: (
        inner.map(lambda text: f"not ({text})")
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + ") and (".join(parts) + ")")
        | st.lists(inner, min_size=2, max_size=3).map(lambda parts: "(" + ") or (".join(parts) + ")")
    ),
    max_leaves=5,
)


@given(EXPRESSIONS)
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_a_comparison_outside_gives_what_it_gives_inside(text):
    node = ast.parse(text, mode="eval").body
    try:
        expected = eval(text)
        failed = False
    except TypeError:
        expected, failed = None, True
    try:
        sides = eval(compile(ast.Expression(cast("ast.expr", sides_of(node))), "x", "eval"), {})
        found = compare(node, json.loads(json.dumps(encode(sides))))
    except TypeError:
        assert failed
    else:
        assert found is expected


@pytest.mark.parametrize("text", ["f(1)", "f(1) is g", "f(1) and g == 1", "isinstance(f(1), int)", "1 if f(1) else 2"])
def test_what_is_no_comparison_is_asked_as_it_is(text):
    assert sides_of(ast.parse(text, mode="eval").body) is None
    assert Case(call=text, expected="True").asked == text
    assert Case(call="f(1) == 2", expected="1").asked == "f(1) == 2"


@pytest.mark.parametrize("text", ["'o'", '"o"', '{"o": 1}', "it's {'o':"])
def test_a_text_that_looks_like_an_encoded_object_is_compared_outside(text):
    case = Case(call=f"f() == {text!r}", expected="True")
    for said, right in ((text, True), (f"{text}!", False)):
        outcome = Outcome("returned", value=encode((said, text)))
        assert case.accepts(outcome) is right and not case.compares_objects(outcome)


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda x: st.dictionaries(st.sampled_from("tlo"), x))
)
def test_sides_that_nobody_asked_for_compare_to_nothing(data):
    node = ast.parse("f(1) == 1 and f(2) == 2", mode="eval").body
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, IndexError):
        assert compare(node, data) is not True
