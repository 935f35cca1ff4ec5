"""A reference that is solved wants an answer that is solved: the question itself is none."""

import pytest

from agentenv.envs.math_verifier import shared_verifier


@pytest.mark.parametrize(
    ("reference", "question"),
    [
        ("x=3", "2x+4=10"),
        ("x=3", "2x=6"),
        ("x=3", "y = x - 3 + y"),
        ("x=\\sqrt{2}", "\\sqrt{2}x=2"),
        ("\\theta = \\frac{\\pi}{4}", "4\\theta = \\pi"),
        ("x=\\pm3", "x^2=9"),
        ("x=3, y=-2", "2x=6, 3y=-6"),
        ("x=2, x=3", "(x-2)(x-3)=0"),
        ("f(x)=3", "2f(x)=6"),
        ("3", "(x-3)^2 \\le 0"),
        ("x<3", "2x<6"),
        ("x<3", "3x-2x<3"),
        ("-2 \\le x \\le 2", "x^2 \\le 4"),
        ("[-2,2]", "|x| \\le 2"),
        ("(0,1)", "x(x-1)<0"),
        ("(-\\infty,2)\\cup(3,\\infty)", "x^2-5x+6>0"),
        ("(-\\infty,2)\\cup(3,\\infty)", "2x<4 or x>3"),
        ("\\emptyset", "x^2<0"),
        ("\\mathbb{R}", "x^2 \\ge 0"),
        ("\\mathbb{R} \\setminus \\{0\\}", "x^2 > 0"),
    ],
)
def test_a_question_is_not_its_solution(reference, question):
    assert not shared_verifier().check(reference, question)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("x=3", "3=x"),
        ("x=\\sqrt{2}", "x=2^{1/2}"),
        ("x=\\pm3", "x=3 or x=-3"),
        ("\\theta > \\frac{\\pi}{4}", "\\frac{\\pi}{4} < \\theta"),
        ("(-\\infty,2)\\cup(3,\\infty)", "x<2 or x>3"),
        ("\\mathbb{R} \\setminus \\{0\\}", "x \\ne 0"),
        ("y=2x+3", "2y=4x+6"),
        ("x^2+y^2=1", "2x^2+2y^2=2"),
        ("2x<6", "x<3"),
    ],
)
def test_a_solution_may_be_turned_around_and_what_is_not_solved_may_be_rearranged(reference, answer):
    assert shared_verifier().check(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("(0,1)", "0<x<1", True),
        ("(-2,3)", "3 > x > -2", True),
        ("(0,1)", "x>0 and x<1", True),
        ("(0,1)", "0 \\le x<1", False),
        ("(0,1)", "0<x<2", False),
        ("(1,2,3)", "1<x<3", False),
        ("(3,-2)", "3<x<-2", False),  # a point: no x is meant
        ("(3,-2)", "x<-2 and x>3", False),
        ("(1,1)", "x<1 and x>1", False),
    ],
)
def test_an_open_interval_is_said_by_its_inequality(reference, answer, right):
    assert shared_verifier().check(reference, answer) is right
