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


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("18.90", "$\\$18.90$"),
        ("18.90", "The answer is $\\$18.90$."),
        ("\\$36", "$$\\$36$$"),
        ("36", "She pays \\$36."),
        ("10", "She earns 12/60 = $0.2 per minute.\nIn 50 minutes, she earned 0.2 * 50 = $10.\nThe answer is 10."),
        ("7", "It costs $3 or $.5 more on Sunday.\n\n**Answer:** $7$"),
        ("7", "She has $3 more.\n\n**Answer:** $x = 7$"),
        ("12", "The answer is $12 $."),
        ("2, 3", "$2$ and\n$3$"),
    ],
)
def test_money_is_no_mark_of_mathematics(reference, answer):
    assert shared_verifier().check(reference, answer)


@pytest.mark.parametrize("answer", ["\\$5 or \\$6", "$\\$5$ or $\\$6$", "not $\\$5$", "$\\$5$ million", "$5 and $6"])
def test_money_is_read_whole(answer):
    assert not shared_verifier().check("5", answer)
