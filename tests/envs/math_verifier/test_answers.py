"""What an agent's text says."""

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.math_verifier import UnreadableError, canonical_answer, last_boxed, plain_value, read


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("no box", None),
        (r"\boxed{3}", "3"),
        (r"first \boxed{3}, then \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\fbox{5}", "5"),
        (r"\boxed {6}", "6"),
        (r"\boxed{3", None),
        (r"\boxed{1} and \boxed{3", "1"),
        (r"} \boxed{2}", "2"),
        (r"{\boxed{2}", "2"),
        (r"\boxed{}", ""),
    ],
)
def test_last_boxed_by_hand(text, content):
    assert last_boxed(text) == content


@given(st.lists(st.sampled_from([*"ab1{}\\ ", "\\boxed{", "\\{", "\\}"]), max_size=60).map("".join))
def test_what_last_boxed_returns_stands_in_a_box_with_balanced_braces(text):
    content = last_boxed(text)
    if content is None:
        return
    assert "{" + content + "}" in text
    plain = content.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
    assert plain.count("{") == plain.count("}")


def test_last_boxed_takes_linear_time():
    start = time.process_time()
    assert last_boxed(r"\boxed{" * 150_000) is None  # a megabyte
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("72", 72),
        (" -5 ", -5),
        ("1,234,567", 1234567),
        ("007", 7),
        ("3/4", Fraction(3, 4)),
        ("-6/8", Fraction(-3, 4)),
        ("$72$", 72),
        (r"\boxed{72}", 72),
        (r"\boxed{ 1,234 }", 1234),
    ],
)
def test_plain_numbers(text, value):
    assert plain_value(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "72.0",
        "x",
        "1/0",
        "1,23",
        "1234,567",
        "0,123",
        "--5",
        "+5",
        "1 234",
        "7%",
        "$5",
        "½",
        "٣",
        "1/2/3",
        "1,234/5",
        "−5",
    ],
)
def test_anything_else_is_no_plain_number(text):
    assert plain_value(text) is None


@given(st.fractions(-(10**20), 10**20, max_denominator=10**20))
def test_canonical_answers_of_one_number_are_equal(value):
    plain = f"{value.numerator}/{value.denominator}"
    scaled = f"{value.numerator * 3}/{value.denominator * 3}"
    assert canonical_answer(plain) == canonical_answer(f" ${scaled}$ ") == canonical_answer(f"\\boxed{{{plain}}}")


ATOMS = [
    "$",
    "\\text{",
    "}",
    "{",
    " ",
    "1",
    "1 ",
    "ab ",
    "and",
    "1,",
    "\\",
    "<a>",
    "</a>",
    "*",
    "`",
    "sqrt(",
    ".",
    "'",
    "e5",
    "\n",
    "\\pm ",
    "\\frac{",
    "(",
    "…",
    "½",
    "²",
    "٣",
    "::",
    "= ",
    "5 m",
    "∪",
    "\\boxed{",
]


@pytest.mark.parametrize("atom", ATOMS)
def test_reading_takes_little_time_whatever_the_text(atom):
    for other in ATOMS:
        pattern = atom + other
        for text in (pattern * (2000 // len(pattern)), atom * (1000 // len(atom)) + other * (1000 // len(other))):
            start = time.process_time()
            with contextlib.suppress(UnreadableError):
                read(text)
            plain_value(text)
            assert time.process_time() - start < 0.3
