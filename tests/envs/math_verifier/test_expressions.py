"""Expressions: the grammar, exact arithmetic, and the limits."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.math_verifier.exact import MAX_BITS, evaluate, is_symbolic
from agentenv.envs.math_verifier.expressions import (
    Call,
    ExpressionError,
    count_operations,
    parse_expression,
    show,
    show_number,
    to_lists,
)


def value(text):
    return evaluate(parse_expression(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-3-2", 5),
        ("24/4/2", 3),
        ("2^3^2", 512),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^-1", Fraction(1, 2)),
        ("3!", 6),
        ("3!!", 720),
        ("1--2", 3),
        ("+5", 5),
        ("7 // 2", 3),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("1/3 + 1/6", Fraction(1, 2)),
        ("0.1 + 0.2", Fraction(3, 10)),
        ("2 ** 3", 8),
        ("6 × 7 − 2 ÷ 2", 41),
        ("abs(-3) + max(1, 2, 3) - min(4, 5)", 2),
        ("gcd(12, 18) + lcm(4, 6)", 18),
        ("binomial(5, 2)", 10),
        ("floor(7/2) + ceil(7/2)", 7),
        ("factorial(5)", 120),
        ("1^99999999", 1),
        ("(-1)^99999999", -1),
        ("0^0", 1),
    ],
)
def test_values_by_hand(text, expected):
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("1 +", "ends too early"),
        ("2 2", "unexpected '2'"),
        ("2)", "unexpected"),
        ("(2", "ends too early"),
        ("2 @ 3", "cannot read '@'"),
        ("1/0", "division by zero"),
        ("0^-1", "division by zero"),
        ("5 % 0", "division by zero"),
        ("foo(2)", "unknown function 'foo'"),
        ("x + 1", "no value"),
        ("max(1)", "takes 2 or more"),
        ("(1/2)!", "whole numbers"),
        ("(-3)!", "at least 0"),
        ("9**9**9**9", "too large"),
        ("10^(10^10)", "too large"),
        ("(1/3)^100000", "too large"),
        ("1000000!", "too large"),
        ("factorial(factorial(factorial(9)))", "too large"),
        ("binomial(10^300, 10)", "too large"),
        ("9" * 501, "too long"),
        ("(" * 200 + "1" + ")" * 200, "too deep"),
        ("-" * 90 + "1", "too deep"),
        ("1" + "+1" * 200, "too many operations"),
        ("__import__('os')", "cannot read"),
        ("os.system", "cannot read '.'"),
        ("lambda: 1", "cannot read ':'"),
    ],
)
def test_what_cannot_be_computed_is_refused_at_once(text, reason):
    start = time.process_time()
    with pytest.raises(ExpressionError, match=reason):
        value(text)
    assert time.process_time() - start < 0.2


trees = st.recursive(
    st.integers(-30, 30).map(Fraction),
    lambda children: (
        st.builds(lambda o, a, b: Call(o, (a, b)), st.sampled_from(["+", "-", "*", "/"]), children, children)
        | st.builds(lambda a: Call("neg", (a,)), children)
    ),
    max_leaves=12,
)


def to_python(tree):
    if isinstance(tree, Fraction):
        return f"Fraction({tree.numerator}, {tree.denominator})"
    arguments = [to_python(argument) for argument in tree.arguments]
    return f"(-{arguments[0]})" if tree.operator == "neg" else f"({tree.operator.join(arguments)})"


@given(trees)
def test_values_equal_pythons(tree):
    try:
        expected = eval(to_python(tree))  # our own text
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            evaluate(tree)
        return
    assert evaluate(tree) == expected
    assert value(show(tree)) == expected  # the spelling means the same


@given(trees)
def test_spelling_is_canonical(tree):
    spelled = show(parse_expression(show(tree)))
    assert show(parse_expression(spelled)) == spelled
    assert show(parse_expression(f"  ({spelled}) ")) == spelled


@given(st.text(max_size=80) | st.text(alphabet="0123456789+-*/^!().,xe ", max_size=80))
def test_any_text_is_read_or_refused(text):
    try:
        tree = parse_expression(text)
        if is_symbolic(tree):
            to_lists(tree)
            return
        result = evaluate(tree)
    except ExpressionError:
        return
    assert max(result.numerator.bit_length(), result.denominator.bit_length()) <= MAX_BITS
    assert Fraction(show_number(result)) == result


@pytest.mark.parametrize(
    ("text", "count"),
    [("5", 0), ("-5", 0), ("4 * 2", 1), ("-2 * 2", 1), ("3 + 4 * 2", 2), ("-(2)", 0), ("gcd(4, 6)", 1)],
)
def test_operations_are_counted(text, count):
    assert count_operations(parse_expression(text)) == count


@pytest.mark.parametrize(
    ("text", "symbolic"),
    [
        ("1/3", False),
        ("2^3", False),
        ("2^(1/2)", True),
        ("sqrt(4)", True),
        ("x", True),
        ("2^(4/2)", False),
        ("2^x", True),
    ],
)
def test_what_needs_sympy(text, symbolic):
    assert is_symbolic(parse_expression(text)) is symbolic
