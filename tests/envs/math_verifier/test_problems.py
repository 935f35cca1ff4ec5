"""Every generator against a computation of another kind: the text of the question alone, solved independently."""

import math
import re
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from agentenv.envs.math_verifier import GENERATORS
from agentenv.envs.math_verifier.problems import reaches, read_left_to_right

LEVELS = [(kind, level) for kind, generator in GENERATORS.items() for level in range(1, generator.highest + 1)]


def match(pattern, text):
    """The match of a pattern at the beginning of a text; there must be one."""
    found = re.match(pattern, text)
    assert found is not None, text
    return found


def draw(kind, level, count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [GENERATORS[kind](rng, level) for _ in range(count)]


def of_kind(kind):
    return pytest.mark.parametrize("level", range(1, GENERATORS[kind].highest + 1))


@pytest.mark.parametrize(("kind", "level"), LEVELS)
def test_seeds_decide_and_problems_differ(kind, level):
    tasks = draw(kind, level, count=30)
    assert tasks == draw(kind, level, count=30)
    assert len({task.question for task in tasks}) >= 15
    assert {(task.kind, task.difficulty) for task in tasks} == {(kind, level)}


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_dial_has_ends(kind):
    generator = GENERATORS[kind]
    for level in (0, generator.highest + 1):
        with pytest.raises(ValueError, match=rf"'{kind}' must be in \[1, {generator.highest}\], got {level}"):
            generator(np.random.default_rng(0), level)


@of_kind("arithmetic")
def test_arithmetic(level):
    for task in draw("arithmetic", level, count=200):
        expression = match(r"Compute ([\d+\-*() ]+)\.", task.question)[1]
        assert str(eval(expression)) == task.reference
        words = expression.replace("(", "").replace(")", "").split()
        flat = words[0]
        for operator, number in zip(words[1::2], words[2::2], strict=True):
            flat = f"({flat}{operator}{number})"
        assert eval(flat) == read_left_to_right(list(map(int, words[::2])), words[1::2]) != int(task.reference)
        assert len(words) == 2 * (level + 2) - 1
        if "(" in expression:
            assert eval(expression.replace("(", "").replace(")", "")) != int(task.reference)
        assert all(0 <= step <= 99 for step in steps(expression))


def steps(expression):
    """Values of all reductions, found by rewriting the text: parentheses, then products, then sums, from the left."""
    found = []
    while not expression.strip("( )").isdigit():
        inner = re.search(r"\(([^()]+)\)", expression)
        part = inner[1] if inner else expression
        step = re.search(r"(-?\d+) (\*) (\d+)", part) or match(r"(-?\d+) ([+-]) (\d+)", part)
        result = eval(step[0])
        found.append(result)
        reduced = part.replace(step[0], str(result), 1)
        if inner and re.fullmatch(r"-?\d+", reduced):
            expression = expression.replace(inner[0], reduced, 1)
        else:
            expression = expression.replace(part, reduced, 1)
        if result < 0:
            break
    return found


@of_kind("equation")
def test_equation(level):
    for task in draw("equation", level):
        left, right = match(r"Solve (.+) = (.+) for x\.", task.question).groups()
        x = Fraction(task.reference)
        assert eval(left, {"x": x}) == eval(right, {"x": x})
        assert eval(left, {"x": x + 1}) != eval(right, {"x": x + 1})  # linear: so there is no other solution
        assert level == 4 or x.denominator == 1


@of_kind("linear_system")
def test_linear_system(level):
    for task in draw("linear_system", level):
        system = match(r"Solve the system (.+)\. Answer with \((.+)\)\.", task.question)
        names, values = system[2].split(", "), [int(n) for n in task.reference.strip("()").split(", ")]
        rows = [row.split(" = ") for row in system[1].split("; ")]
        point = dict(zip(names, values, strict=True))
        assert all(eval(left, dict(point)) == int(right) for left, right in rows)
        zero = dict.fromkeys(names, 0)
        matrix = [[eval(left, {**zero, name: 1}) for name in names] for left, _ in rows]
        assert abs(np.linalg.det(matrix)) > 0.5  # so there is no other solution


@of_kind("modular")
def test_modular(level):
    for task in draw("modular", level):
        numbers = [int(n) for n in re.findall(r"\d+", task.question)]
        if level == 1:
            a, b, m = numbers
            expected = sum(a for _ in range(b)) % m
        elif level == 2:
            a, n, m = numbers
            expected = 1 % m
            for _ in range(n):
                expected = expected * a % m
        elif level == 3:
            _, m, a, *_ = numbers
            (expected,) = [x for x in range(m) if a * x % m == 1 % m]
        else:
            bound, pairs = numbers[1], list(zip(numbers[2::2], numbers[3::2], strict=True))
            (expected,) = [x for x in range(bound) if all(x % m == r for r, m in pairs)]
        assert int(task.reference) == expected


@of_kind("combinatorics")
def test_combinatorics(level):
    for task in draw("combinatorics", level, count=30):
        numbers = [int(n) for n in re.findall(r"\d+", task.question)]
        assert int(task.reference) == FORMULAS[level - 1](task.question, numbers)


def dice(_, numbers):
    """Coefficient of x^total in (x + ... + x^6)^count, by the recurrence over dice."""
    count, total = numbers
    ways = {0: 1}
    for _ in range(count):
        ways = {s: sum(ways.get(s - face, 0) for face in range(1, 7)) for s in range(max(ways) + 7)}
    return ways[total]


def committees(_, numbers):
    women, men, size, least = numbers
    return sum(math.comb(women, k) * math.comb(men, size - k) for k in range(least, size + 1))


def subsets(_, numbers):
    """Counts by size and remainder, one element at a time."""
    *_, largest, size, divisor = numbers
    ways = {(0, 0): 1}
    for element in range(1, largest + 1):
        grown = dict(ways)
        for (taken, rest), count in ways.items():
            key = (taken + 1, (rest + element) % divisor)
            grown[key] = grown.get(key, 0) + count
        ways = grown
    return ways.get((size, 0), 0)


def words(question, _):
    """Inclusion and exclusion over the pairs of equal letters that stand together."""
    letters = match(r".*letters ([A-Z]+)", question)[1]
    doubles = sum(letters.count(letter) == 2 for letter in set(letters))
    n = len(letters)
    return sum(
        (-1) ** k * math.comb(doubles, k) * math.factorial(n - k) // 2 ** (doubles - k) for k in range(doubles + 1)
    )


def paths(_, numbers):
    _, _, right, up, x, y = numbers
    through = math.comb(x + y, y) * math.comb(right - x + up - y, up - y)
    return math.comb(right + up, up) - through


FORMULAS = [dice, committees, subsets, words, paths]


@of_kind("countdown")
def test_countdown_can_be_reached(level):
    for task in draw("countdown", level, count=12 if level < 4 else 3):
        answer = search([(Fraction(n), str(n)) for n in task.numbers], Fraction(task.reference))
        assert answer is not None
        assert reaches(answer, task.numbers, Fraction(task.reference))
        assert task.question.endswith(f"to make {task.reference}.")


def search(items, target):
    """Tries all ways to combine the numbers."""
    if len(items) == 1:
        return items[0][1] if items[0][0] == target else None
    for (a, s), (b, t) in permutations(items, 2):
        rest = list(items)
        rest.remove((a, s))
        rest.remove((b, t))
        results = (
            [(a - b, "-")] + ([(a / b, "/")] if b else []) + ([(a + b, "+"), (a * b, "*")] if (a, s) <= (b, t) else [])
        )
        for value, operator in results:
            found = search([*rest, (value, f"({s} {operator} {t})")], target)
            if found:
                return found
    return None


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(10 - 4) * 2", True),
        (r"(10-4)\times 2", True),
        (r"\(2 \cdot \left(10-4\right)\)", True),
        (r"$2(10-4) = 12$", True),
        (r"\frac{10 - 4}{\frac{2}{4}}", False),
        (r"\frac{4}{2} + 10", True),
        ("（10－4）×2", True),
        ("[10 - 4] * 2 = 12.", True),
        (r"\binom{4}{2} \cdot 2", False),
        (r"10^{\frac{4}{2}}", False),
        ("2*(10-4)", True),
        ("$2*(10-4)$", True),
        ("(10 - 4) * 2 = 12", True),
        ("(10 - 4) * 2 = 13", False),
        ("12", False),
        ("10 + 2", False),
        ("10 + 4 - 2", True),
        ("10 + 4 - 2 + 2 - 2", False),
        ("10 + 2 * 4 / 4", False),
        ("14 - 2", False),
        ("max(10, 4) + 2", False),
        ("10 + 4 - x", False),
        ("10 + 4 - 2 +", False),
        ("9**9**9**9", False),
        ("", False),
    ],
)
def test_an_answer_must_use_each_number_once(answer, right):
    assert reaches(answer, (2, 4, 10), Fraction(12)) is right


@of_kind("polynomial")
def test_polynomial(level):
    for task in draw("polynomial", level):
        found = match(
            r"For which \((.+)\) (?:does|is) (.+) = (.+?)(?: hold for all x| wherever both are defined)\?",
            task.question,
        )
        names, values = found[1].split(", "), [Fraction(n) for n in task.reference.strip("()").split(", ")]
        constants = dict(zip(names, values, strict=True))
        left, right = (side.replace("^", "**") for side in found.groups()[1:])
        for x in range(20, 30):  # more points than the degree, and no pole
            point = {"x": Fraction(x), **constants}
            assert eval(left, dict(point)) == eval(right, dict(point))
