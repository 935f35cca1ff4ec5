"""Forms that differ and mean the same: arguments as models write them, and what tools of users return."""

import datetime as dt
import enum
import json
import os
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pydantic
import pytest
from envs_for_tests import call, texts

import agentenv as ae
from agentenv.agents import ScriptedAgent
from agentenv.rollout import Rollout
from agentenv.serialize import read_trees, write_trees


class Point(pydantic.BaseModel):
    x: int
    label: Literal["a", "b"] = "a"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Speed(enum.IntEnum):
    SLOW = 1
    FAST = 2


class Forms(ae.ToolEnv):
    """Says what arrived."""

    def start(self, task):
        return "go"

    @ae.tool
    def say(
        self,
        text: str = "d",
        words: list[str] = [],  # noqa: B006
        table: dict[str, int] | None = None,
        point: Point | None = None,
    ) -> str:
        """Says what arrived."""
        return repr((text, words, table, point))

    @ae.tool
    def paint(self, color: Color, speed: Speed = Speed.SLOW, more: Color | None = None) -> str:
        """Paint."""
        return f"{color} {speed!r} {more}"

    @ae.tool
    def make(self, what: str) -> Any:
        """Return something that is no text."""
        return MADE[what]()


def circle():
    ring: list[Any] = []
    ring.append(ring)
    return ring


MADE = {
    "integer": lambda: 10**6000 + 7,
    "nested": lambda: {"n": [10**6000]},
    "keys": lambda: {(1, 2): "a", 3: "b"},
    "circle": circle,
    "set": lambda: {1},
    "bytes": lambda: {b"\xff": b"\xff"},
    "rows": lambda: [{"id": 1}, {"id": 10**5000}, {(): True}],
    "model": lambda: {"at": Point(x=1), 10**6000: [np.int64(3), 1, 2.5, None, True, dt.date(2020, 1, 2)]},
    "fraction": lambda: Fraction(10**6000, 7),
    "name of a file": lambda: os.fsdecode(b"caf\xe9"),
    "half a pair": lambda: ["\ud800"],
}


def forms() -> Any:
    env = Forms()
    env.reset(seed=0)
    return env


@pytest.mark.parametrize(
    ("arguments", "arrived"),
    [
        ({"text": 42}, ("42", [], None, None)),
        ({"text": 42.0}, ("42", [], None, None)),
        ({"text": -0.5}, ("-0.5", [], None, None)),
        ({"words": ["a", 1, 2.5]}, ("d", ["a", "1", "2.5"], None, None)),
        ({"words": '["a", 1]'}, ("d", ["a", "1"], None, None)),
        ({"table": '{"a": 1}'}, ("d", [], {"a": 1}, None)),
        ({"point": '{"x": 3}'}, ("d", [], None, Point(x=3))),
        ({"text": "[1, 2]"}, ("[1, 2]", [], None, None)),
        ({"text": None, "words": None, "table": None}, ("d", [], None, None)),
        ("null", ("d", [], None, None)),
        (" null\n", ("d", [], None, None)),
        (None, ("d", [], None, None)),
        ("", ("d", [], None, None)),
    ],
)
def test_arguments_that_differ_in_form_only_are_taken(arguments, arrived):
    env = forms()
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "say", "arguments": arguments}}]}
    observation, *_, info = env.step(message)
    assert (texts(observation), info["mistakes"]) == (repr(arrived), [])


def test_the_choices_of_an_enum_are_shown_and_taken():
    env = forms()
    signature = 'paint(color: "red" | "blue", speed: 1 | 2 = 1, more: "red" | "blue" | null = null)'
    assert signature in texts(env.step("no call")[0])
    assert "wrong arguments for " + signature in texts(env.step(call("paint", color="green"))[0])
    assert (
        texts(env.step(call("paint", color="blue", speed="2", more="red"))[0]) == "Color.BLUE <Speed.FAST: 2> Color.RED"
    )
    env.action_space.seed(0)
    samples = [a for a in (env.action_space.sample() for _ in range(60)) if "paint" in str(a)]
    assert samples
    assert all(env.step(action)[4]["mistakes"] == [] for action in samples)


@pytest.mark.parametrize("what", MADE)
def test_nothing_that_a_tool_returns_breaks_the_episode(what):
    env = forms()
    taken = env.advance(call("make", what=what), snapshot=True)
    text = texts(taken.observation)
    text.encode()
    json.dumps(taken.observation)
    assert text
    if what == "model":
        assert json.loads(text) == {
            "at": {"x": 1, "label": "a"},
            "1" + "0" * 6000: [3, 1, 2.5, None, True, "2020-01-02"],
        }
    expected = {"integer": "1" + "0" * 5999 + "7", "keys": '{"(1, 2)": "a", "3": "b"}', "name of a file": "caf\\udce9"}
    assert text == expected.get(what, text)


class Holds(ae.ToolEnv):
    """Keeps integers that Python refuses to write, in its state and in an object of it."""

    class State(ae.State):
        number: int = 0
        share: Fraction = Fraction(0)

    def start(self, task):
        return "go"

    @ae.tool
    def grow(self, power: int) -> int:
        """Multiply."""
        self.state.number = 10**power
        self.state.share = Fraction(self.state.number, 7)
        return self.state.number


def test_states_of_long_integers_have_signatures_and_snapshots():
    env = Holds()
    env.reset(seed=0)
    signatures = [
        env.advance(call("grow", power=power), snapshot=True).state_signature for power in (10, 6000, 6001, 6000)
    ]
    assert signatures[1] == signatures[3]
    assert len(set(signatures)) == 3


def test_what_is_no_finite_reward_is_named():
    numbers: list[Any] = [10**400, -(10**6000), float("nan"), float("inf"), Fraction(10**999)]
    for value in [*numbers, "x", "1", b"1", np.str_("1"), None, [1.0], {}]:
        with pytest.raises(ValueError, match=r"reward must be a finite number, got .* for 'r'; where it is unknown"):
            forms().add_reward(value, name="r")
    env = forms()
    for fine in (True, np.float32(1), np.int64(1), np.array(1.0), Fraction(1), np.bool_(True)):
        env.add_reward(fine, name="fine")
    assert env._rewards["fine"] == 6.0


def test_long_integers_and_odd_infos_survive_rollouts_and_files(tmp_path):
    class Odd(Holds):
        class Task(ae.Task):
            number: int = 10**5000

        def step(self, action):
            result = super().step(action)
            odd: Any = {"np": np.float32(0.5), (1, 2): {3}, "where": tmp_path, "f": Fraction(1, 3)}
            result[-1]["odd"] = {"long": self.state.number, **odd}
            return result

    with Rollout(lambda: Odd(max_steps=2), ScriptedAgent(lambda _: call("grow", power=6000)), seed=0) as rollout:
        trees = rollout.grow([None], 2)
    write_trees(tmp_path / "trees.jsonl", trees)
    (tree,) = read_trees(tmp_path / "trees.jsonl")
    assert tree.task["number"] == "1" + "0" * 5000
    info = tree.nodes[1].info["odd"]
    assert info["long"] == "1" + "0" * 6000
    assert (info["np"], info["(1, 2)"], info["where"]) == (0.5, [3], str(tmp_path))
    assert info["f"] in {"1/3", "Fraction(1, 3)"}  # as pydantic's version has it
