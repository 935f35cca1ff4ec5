"""Spaces of chat: real text is in them, samples are in them, and seeds repeat."""

import pickle

import gymnasium
import pytest
from envs_for_tests import Dice
from hypothesis import given
from hypothesis import strategies as st

from agentenv.spaces import Actions, Messages, Unicode
from agentenv.types import Action

TOOLS = Dice().tools
SPACES = [Unicode(), Unicode(5), Unicode(0), Messages(), Actions(), Actions(TOOLS)]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_samples_are_inside_and_seeds_repeat(space):
    def draws():
        space.seed(3)
        return [space.sample() for _ in range(50)]

    first = draws()
    assert all(space.contains(sample) for sample in first)
    assert draws() == first
    space.seed(4)
    assert len(set(map(repr, first))) == 1 or [space.sample() for _ in range(50)] != first
    assert not space.is_np_flattenable
    assert pickle.loads(pickle.dumps(space)) == space


@given(st.text())
def test_all_text_is_in_the_space_that_gymnasium_refuses(text):
    assert Unicode().contains(text)
    assert Unicode(3).contains(text) == (len(text) <= 3)
    assert not gymnasium.spaces.Text(100).contains("ä \N{SNOWMAN}")


def test_equality_is_by_kind_and_parameters():
    assert Unicode(3) == Unicode(3) != Unicode(4)
    assert Messages() == Messages() != Unicode()
    assert Actions(TOOLS) == Actions(TOOLS) != Actions()
    assert [repr(space) for space in SPACES[-3:]] == ["Messages()", "Actions(text)", "Actions(roll, hold)"]


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ((), True),
        (({"role": "user", "content": "\N{SNOWMAN}"},), True),
        ([{"role": "user", "content": "x"}], False),
        (({"role": "user"},), False),
        (({"role": 1, "content": "x"},), False),
        ("text", False),
        (None, False),
    ],
)
def test_what_is_an_observation(value, inside):
    assert Messages().contains(value) is inside


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("text", True),
        ({"role": "assistant", "content": "x"}, True),
        (Action("x"), True),
        ({"role": "user", "content": "x"}, False),
        ({"role": "assistant", "tool_calls": 5}, False),
        ({"role": "assistant", "tool_calls": [{}]}, False),
        (5, False),
        (None, False),
    ],
)
def test_what_is_an_action(value, inside):
    assert Actions().contains(value) is inside


def test_the_share_of_text_is_a_probability():
    assert all(isinstance(Actions().sample(), str) for _ in range(20))
    space = Actions(TOOLS, text_share=0.0, seed=0)
    assert {space.sample()["tool_calls"][0]["function"]["name"] for _ in range(50)} == {"roll", "hold"}
    mixed = Actions(TOOLS, seed=0)
    assert 10 < sum(isinstance(mixed.sample(), str) for _ in range(300)) < 60
