"""No part of an answer is dropped: times of day, dates, bases, units, groups of thousands, other choices."""

import pytest

from agentenv.envs.math_verifier import shared_verifier


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("3:30 PM", "3:30 AM"),
        ("3:30 PM", "3:45 PM"),
        ("6 AM", "6 PM"),
        ("6 AM", "The train leaves at 6 PM."),
        ("2023-05-01", "2023-01-05"),
        ("2023-05-01", "2017"),
        ("5/1/2023", "10/2/4046"),
        ("555-1234", "-679"),
        ("-679", "555-1234"),
        ("007-12", "-5"),
        ("1011_2", "1011_8"),
        ("1011_2", "11"),
        ("1011_2", "13_8"),
        ("72", "72_8"),
        ("72", "72_8 + 0"),
        ("72", "1 \\cdot 72_8"),
        ("2A_{16}", "2a_{16}"),
        ("2A_{16}", "2A_{12}"),
        ("5 kg", "5 pounds"),
        ("£5", "5 lbs"),
        ("5 in", "5 ft"),
        ("5 quarts", "5 gallons"),
        ("5 tons", "5 kg"),
        ("20 miles per gallon", "20 miles per hour"),
        ("20 miles per hour", "20 km/h"),
        ("5 apples per hour", "5 apples per minute"),
        ("5 feet tall", "5 meters"),
        ("20^\\circ\\text{C}", "20 °F"),
        ("(1,000,2)", "(1,0,2)"),
        ("(1,000,000)", "(1,0,0)"),
        ("A", "(A) (B)"),
        ("A", "A) foo B) bar"),
        ("A", "(A) and (B)"),
        ("x = 5 m", "5 cm"),
        ("5 kg", "It weighs 5 pounds."),
        ("3 hours", "it takes 3 minutes to walk"),
    ],
)
def test_what_differs_in_a_part_differs(reference, answer):
    assert not shared_verifier().check(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("3:30 PM", "3:30 p.m."),
        ("3:30 PM", "3:30pm"),
        ("3:30 PM", "3:30"),
        ("6 AM", "6 a.m."),
        ("6 AM", "The train leaves at 6 AM."),
        ("2023-05-01", "2023-5-1"),
        ("2023-05-01", "The date is 2023-05-01."),
        ("5/1/2023", "05/01/2023"),
        ("555-1234", "555-1234"),
        ("5", "8-3"),
        ("1011_2", "1011"),
        ("1011_2", "1011_{2}"),
        ("1011_2", "(1011)_{\\text{2}}"),
        ("1011_2", "N = 1011₂"),
        ("72", "72_{10}"),
        ("2A_{16}", "2A_{16}"),
        ("5 lbs", "5 pounds"),
        ("£5", "5 pounds"),
        ("5 in", "5 inches"),
        ("20 miles per hour", "20 mph"),
        ("20 miles per hour", "20 miles an hour"),
        ("5 apples per hour", "5 pages/hour"),
        ("5 feet tall", "5 ft"),
        ("72 dollars", "72 in total"),
        ("8\\text{ km}^2", "8 square kilometers"),
        ("9.8\\ \\text{m/s}^2", "9.8 m/s^2"),
        ("12 ft^2", "12 \\text{ square feet}"),
        ("20 °C", "20^\\circ\\text{C}"),
        ("7\\text{ apples}", "7 oranges"),
        ("(1,000,2)", "(1000,2)"),
        ("1,000,2", "1000, 2"),
        ("A", "A) foo"),
        ("A", "(A) P(B) = 3"),
        ("A and B", "(A) and (B)"),
        ("A", "(A) (A)"),
        ("5", "5 cm"),
        ("5 kg", "It weighs 5 kilograms in all."),
        ("3", "it takes 3 hours"),
        ("3 hours", "it takes 3 hours to walk"),
    ],
)
def test_what_is_spelled_otherwise_is_the_same(reference, answer):
    assert shared_verifier().check(reference, answer)
