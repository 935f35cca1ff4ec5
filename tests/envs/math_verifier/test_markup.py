"""Emphasis as Markdown has it, also inside of a sentence; and what it must not be taken for."""

import pytest

from agentenv.envs.math_verifier import shared_verifier


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("12", "The answer is **12**."),
        ("12", "The answer is ***12*** dollars"),
        ("12", "The answer is **$12$**."),
        ("12", "The answer is _12_."),
        ("72", "*72*"),
        ("72", "`72`"),
        ("72", "The answer is `72`."),
        ("72", "**Answer:** **72**"),
        ("A", "Final answer: **(A)**"),
        ("2, 3", "**2** and **3**"),
        ("1024", "2**10"),
        ("512", "2**3**2"),
        ("x^2+y^2", "x**2 + y**2"),
        ("24", "2 *3* 4"),
        ("abc", "a *b* c"),
    ],
)
def test_emphasis_is_no_operator_and_operators_are_no_emphasis(reference, answer):
    assert shared_verifier().check(reference, answer)


@pytest.mark.parametrize("answer", ["not **12**", "**12** million", "The answer is **13**.", "**12** or **13**"])
def test_emphasis_changes_nothing(answer):
    assert not shared_verifier().check("12", answer)
