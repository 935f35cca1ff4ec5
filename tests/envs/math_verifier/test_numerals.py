"""Words beside a number that make another value of it."""

import pytest

from agentenv.envs.math_verifier import shared_verifier


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("-5", "negative 5"),
        ("-5", "The answer is minus 5."),
        ("-5", "Negative $5$"),
        ("-1/2", "negative \\frac{1}{2}"),
        ("5", "positive 5"),
        ("1000000", "1 million"),
        ("1500000", "The company earned 1.5 million dollars."),
        ("500000", "½ million"),
        ("2 million", "2000000"),
        ("36", "3 dozen eggs"),
        ("200000", "2 hundred thousand"),
        ("72000000", "$72$ million"),
        ("72000000", "72 \\text{ million}"),
        ("12345.6789", "12.3456789 thousand"),
        ("10", "He needs 10 more dollars."),
        ("12", "Tom has 5 more than Jerry. Answer: 12"),
        ("5", "Since the number cannot be negative, the answer is 5."),
        ("5", "Since $x$ cannot be negative, we get $x=5$."),
        ("12", "for a total of 12"),
        ("3", "it takes 3 seconds"),
        ("25", "Tom has 25 more apples than Ann."),
        ("25", "He is 25 years older than his sister."),
        ("25", "The offer is $25 cheaper than the normal price."),
        ("25", "It weighs $25$ pounds more than a book"),
    ],
)
def test_scale_and_sign_are_computed_and_other_words_are_decoration(reference, answer):
    assert shared_verifier().check(reference, answer, value_only=True)


NUMBERS = ["72 million", "72 bn", "72 \\text{ thousand dollars}", "$72$ dozen", "negative 72", "minus $72$"]
FUNCTIONS = ["72 squared", "72 \\text{ cubed}", "72 tenths", "half of 72", "the square root of 72", "twice $72$"]
DENIED = ["not 72", "It isn't 72.", "The answer is not $72$.", "I don't think that the answer is 72", "72 is wrong"]
BOUNDS = [
    "at least 72",
    "72 dollars or more",
    "less than 72",
    "over $72",
    "no more than $72$",
    "72 at most",
    "up to 72",
    "72 less than the total",
    "72 dollars less than a hundred",
    "72 apples fewer than $x$",
    "72 is less than that",
    "72 points less than the answer",
]
NUMBERS_OF_IT = ["Twice the answer is 72.", "a multiple of 72", "nearly 72", "\\text{half of } 72", "anything but 72"]
SPELLED = ["72 and a half", "$72$ and one third", "one hundred and 72", "72 point five", "72 times three", "ten 72s"]
EQUAL = ["greater than or equal to 72", "The result is at most equal to 72."]


@pytest.mark.parametrize("answer", [*NUMBERS, *FUNCTIONS, *DENIED, *BOUNDS, *NUMBERS_OF_IT, *SPELLED, *EQUAL])
def test_a_number_is_not_the_answer_where_words_make_another_of_it(answer):
    assert not shared_verifier().check("72", answer)


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("12", "12 (twelve)", True),
        ("12", "There are 25 (twenty-five).", False),
        ("105", "105 (one hundred and five)", True),
        ("12", "12 (thirteen)", False),
        ("13", "12 (thirteen)", False),
        ("1500", "1.5 x 10^3", True),
        ("1500", "The mass is 1.5 X 10^{3} kg", True),
        ("1500", "1.5 x 10^2", False),
        ("12", "12\\\\", True),
        ("A", "Answer: (A) 5", True),
        ("\\textbf{(B)}\\ 7", "The answer is (B) 7.", True),
        ("\\textbf{(B)}\\ 7", "The answer is (B) 8.", False),
        ("A", "Answer: (A) 5 or (B) 6", False),
    ],
)
def test_a_number_said_twice_and_a_choice_with_its_value_are_read_whole(reference, answer, right):
    assert shared_verifier().check(reference, answer) is right
