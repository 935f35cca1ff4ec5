"""Twins of tests: a right solution fails each, and what each finds."""

import asyncio
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.code_repair.twins import apply_edits, find_sites

MODULE = """import contextlib
import unittest

import pytest

from lib import f, g, words, missing


def test_value():
    assert f(2) == 4, "ümlaut: columns count bytes"


def test_both_sides():
    assert 4 == f(2) and f(3) == 6


def test_several():
    x = f(2)
    assert x == 4
    assert f(2) == 4


def test_local_name():
    expected = {"a": [1, 2.5], "b": ()}
    assert g() == expected


def test_name_that_is_also_an_input():
    value = [1, 2]
    assert list(value) == value


@pytest.mark.parametrize("x, expected", [(1, 2), (2, 4)])
def test_parameters(x, expected):
    assert f(x) == expected


@pytest.mark.parametrize(("x", "expected"), [pytest.param(1, -2, id="one"), [0, -0]])
def test_more_parameters(x, expected):
    assert -f(x) == expected


def test_pair():
    assert f(3) == f(2) + 2


def test_approximately():
    assert f(0.1) == pytest.approx(0.2)


def test_turned():
    assert "word" in words()
    assert "no" not in words()
    assert f(1) < 3
    assert words() is not None
    assert (f(1)
            != 3)
    assert words()
    assert not missing()
    assert isinstance(f(1), int)


def test_in_a_block():
    with contextlib.nullcontext():
        assert f(1) == 2
    for x in words():
        assert x != ""


def test_conditions():
    if f(1) == 2:
        assert f(2) == 4
    try:
        missing()
    except ValueError:
        assert f(2) == 4


def test_raises():
    with pytest.raises(KeyError):
        raise KeyError
    with contextlib.suppress(AssertionError):
        assert f(1) == 2


def test_none():
    f(1)


def test_returns():
    if words():
        return
    f(1)


async def test_coroutine():
    assert f(1) == 2


class UnitTest(unittest.TestCase):
    def test_equal(self):
        self.assertEqual(f(2), 4)

    def test_family(self):
        self.assertTrue(words())
        self.assertIn("word", words())
        self.assertAlmostEqual(f(0.1), 0.2)
        self.assertListEqual(words(), ["word", "other"])
        self.assertIsNone(missing())
        self.assertGreater(f(1), 1)
        self.assertEqual(f(3), f(2) + 2)
        self.assertNotEqual(f(1), 7)

    def test_error(self):
        with self.assertRaises(ValueError):
            raise ValueError

    def test_in_a_line(self): f(1)
"""
LIB = {
    "f": lambda x: x * 2,
    "g": lambda: {"a": [1, 2.5], "b": ()},
    "words": lambda: ["word", "other"],
    "missing": lambda: None,
}
SITES = find_sites(MODULE)


def run(source, names, row=None):
    """Whether a test of a module passes."""
    lines = source.replace("from lib import f, g, words, missing", "")
    space: dict[str, Any] = dict(LIB)
    exec(compile(lines, "module", "exec"), space)
    try:
        if len(names) == 2:
            getattr(space[names[0]](names[1]), names[1])()
            return True
        function = space[names[0]]
        cases = [mark.args[1] for mark in getattr(function, "pytestmark", ())]
        if cases:
            values = [getattr(case, "values", case) for case in cases[0]]
            function(*values[row or 0])
        elif inspect.iscoroutinefunction(function):
            asyncio.run(function())
        else:
            function()
    except (AssertionError, LookupError, ValueError, pytest.fail.Exception):
        return False
    return True


def rows(names):
    return (0, 1) if "parameters" in names[0] else (None,)


def kinds(name):
    return [(site.kind, site.sure) for site in SITES[tuple(name.split("."))]]


def twins(name, draws=6):
    names = tuple(name.split("."))
    generator = np.random.default_rng(0)
    return [apply_edits(MODULE, site.make(generator)) for site in SITES[names] for _ in range(draws)]


@pytest.mark.parametrize("names", SITES, ids=".".join)
def test_the_test_passes_and_no_certain_twin_does(names):
    generator = np.random.default_rng(1)
    for row in rows(names):
        assert run(MODULE, names, row)
        for site in SITES[names]:
            for _ in range(10 if site.sure else 0):
                twin = apply_edits(MODULE, site.make(generator))
                assert not run(twin, names, row), (site, twin)
                assert all(run(twin, other, rows(other)[0]) for other in SITES if other != names)


def test_kinds_of_places():
    assert kinds("test_value") == [("value", True)]
    assert kinds("test_both_sides") == [("value", True)] * 2
    assert kinds("test_name_that_is_also_an_input") == [("pair", True)]
    assert kinds("test_parameters") == kinds("test_more_parameters") == [("value", True)]
    assert kinds("test_pair") == [("pair", True)]
    assert kinds("test_in_a_block") == [("value", True), ("turned", False)]
    assert kinds("test_conditions") == [("added", True)]
    assert kinds("test_raises") == [("raises", True), ("value", False)]
    assert kinds("test_none") == [("added", True)]
    assert kinds("test_returns") == [("added", False)]
    assert [kind for kind, _ in kinds("test_turned")] == ["value", *["turned"] * 8]
    assert [kind for kind, _ in kinds("UnitTest.test_family")] == [
        *("turned", "turned", "value", "value", "turned", "turned", "pair", "turned"),
    ]


def test_places_are_written_as_a_person_would():
    turned = twins("test_turned", 1)
    for line in (
        'assert "no" in words()',
        "assert f(1) >= 3",
        "assert words() is None",
        "assert (f(1)\n            == 3)",
        "assert not (words())",
        "assert (missing())",
    ):
        assert any(line in twin for twin in turned), line
    assert all("pytest.raises(KeyError)" not in twin for twin in twins("test_raises")[:6])
    assert any("    def test_in_a_line(self): f(1); assert" in twin for twin in twins("UnitTest.test_in_a_line"))


def test_equal_expectations_of_a_test_become_wrong_in_the_same_way():
    """So a submission that answers with any one of its caller's constants meets the same one everywhere."""
    for twin in twins("test_several"):
        assert twin.count("== 4") == MODULE.count("== 4") - 2


def test_what_cheats_pass():
    """Values that equal everything, and values taken from the caller, pass the twins of literals."""
    always = type("Always", (), {"__eq__": lambda self, other: True, "__hash__": None})()
    for name in ("test_value", "test_several", "test_local_name", "test_pair"):
        for twin in twins(name):
            cheating = twin.replace("x = f(2)", "x = A").replace("f(2) ==", "A ==").replace("f(3) ==", "A ==")
            space: dict[str, Any] = {**LIB, "A": always}
            exec(cheating.replace("from lib import f, g, words, missing", "").replace("g() ==", "A =="), space)
            space[name]()


def wrong_values(literal, draws=200):
    """Returns the texts that take the place of an expected literal."""
    (site,) = find_sites(f"def test():\n    assert f() == {literal}\n")[("test",)]
    generator = np.random.default_rng(2)
    return [site.make(generator)[0].text for _ in range(draws)]


@pytest.mark.parametrize("literal", ["36.0", "0.19", "119.00", "1.2", "59.5", "1_234.56", "2.5e-3", "6.02e+23"])
def test_a_wrong_float_is_near_on_either_side_and_written_alike(literal):
    right, found = float(literal), wrong_values(literal)
    decimals = len(literal.lower().partition("e")[0].partition(".")[2])
    assert all(len(text.lower().partition("e")[0].partition(".")[2]) == decimals for text in found)
    unit = float(f"1e{-decimals}") * float(f"1e{literal.lower().partition('e')[2] or 0}")
    for value in map(float, found):
        assert max(0.02 * right, 2.9 * unit) <= abs(value - right) <= max(0.4 * right, 8.1 * unit) * 1.001
        assert value != pytest.approx(right, rel=1e-2)
    assert min(map(float, found)) < right < max(map(float, found))


def test_a_wrong_zero_is_small():
    assert {0 < float(text) <= 0.8 for text in wrong_values("0.0")} == {True}


@pytest.mark.parametrize(("literal", "reach"), [(3, 8), (30, 8), (1000, 200), (10**40, 2 * 10**39)])
def test_a_wrong_integer_scales(literal, reach):
    found = [int(text) for text in wrong_values(literal)]
    assert all(0 < abs(value - literal) <= reach and value >= 0 for value in found)
    assert min(found) < literal < max(found)
    assert max(found) - literal > reach // 2


def test_a_value_with_a_tolerance_of_its_own_is_not_certain():
    for text, sure in {
        "assert f() == pytest.approx(36.0)": True,
        "assert f() == pytest.approx(36.0, abs=5)": False,
        "assert f() == pytest.approx(36.0, 0.2)": False,
        "self.assertAlmostEqual(f(), 36.0)": True,
        "self.assertAlmostEqual(f(), 36.0, delta=9)": False,
        "self.assertAlmostEqual(f(), 36.0, 0)": False,
        "assert_close_enough(f(), 36.0)": False,
    }.items():
        (site,) = find_sites(f"def test(self):\n    {text}\n")[("test",)]
        assert (site.kind, site.sure) == ("value", sure), text


@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
        st.binary(),
        st.booleans(),
        st.none(),
        st.just(1e308),
    )
)
def test_any_literal_becomes_another_of_its_kind(value):
    source = f"def test():\n    assert f() == {value!r}\n"
    (site,) = find_sites(source)[("test",)]
    twin = apply_edits(source, site.make(np.random.default_rng(0)))
    if site.kind == "value":
        space: dict[str, Any] = {"f": lambda: value}
        exec(twin, space)
        with pytest.raises(AssertionError):
            space["test"]()


@pytest.mark.parametrize(
    "source", ["", "x = 1\n", "def helper():\n    pass\n", "class A:\n    class B:\n        def t(self): pass\n"]
)
def test_modules_without_much(source):
    assert all(sites for sites in find_sites(source).values())


def test_nested_classes_have_names():
    assert ("A", "B", "t") in find_sites("class A:\n    class B:\n        def t(self): pass\n")
