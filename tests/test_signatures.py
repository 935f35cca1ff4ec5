"""Canonical forms: equal exactly where the values are."""

import enum
import json
from dataclasses import dataclass

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.signatures import canonical, digest

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=2), max_size=3)
    ),
)


class Plain:
    def __init__(self, value):
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Model(pydantic.BaseModel):
    value: int


class Other(pydantic.BaseModel):
    value: int


@dataclass
class Data:
    value: int


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@given(VALUES)
def test_a_form_is_json_and_stable(value):
    text = json.dumps(canonical(value))
    assert json.dumps(canonical(value)) == text
    assert len(digest(value)) == 16


@given(st.dictionaries(st.text(), st.integers()), st.randoms())
def test_the_order_of_a_mapping_or_set_does_not_count(mapping, rng):
    items = list(mapping.items())
    rng.shuffle(items)
    assert canonical(dict(items)) == canonical(mapping)
    assert canonical(set(dict(items))) == canonical(set(mapping))


DIFFERENT = [
    None,
    0,
    0.0,
    -0.0,
    False,
    "",
    "0",
    b"0",
    "b'0'",
    [],
    [0],
    [[0]],
    set(),
    {0},
    {},
    {"0": 0},
    {0: 0},
    {"0": "0"},
    np.array([0]),
    np.array([0.0]),
    np.array([[0]]),
    np.int64(0),
    np.bool_(False),
    Model(value=0),
    Model(value=1),
    Other(value=0),
    Plain(0),
    Plain(1),
    Slotted(0),
    Slotted(1),
    Data(0),
    Data(1),
    Color.RED,
    Color.BLUE,
    float("nan"),
    float("inf"),
    "\ud800",
]


def test_different_values_have_different_forms():
    digests = [digest(value) for value in DIFFERENT]
    assert len(set(digests)) == len(DIFFERENT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain([1, {"a": Plain(2)}]),
        lambda: Slotted({1, 2}),
        lambda: Data(3),
        lambda: Model(value=4),
        lambda: np.arange(6).reshape(2, 3),
        lambda: {"nested": [Plain(1), (1, 2)]},
    ],
)
def test_equal_objects_have_equal_forms_whatever_their_address(make):
    first, second = make(), make()
    assert canonical(first) == canonical(second)
    assert "0x" not in json.dumps(canonical(first))
