"""What environments and tools return, as JSON: values of numpy, pydantic and the standard library."""

import dataclasses
import datetime as dt
import enum
import json
import math
import pathlib
from typing import Any

import numpy as np
import pydantic
import pytest
from envs_for_tests import call, texts

import agentenv as ae
from agentenv.jsonable import json_value


class Level(enum.Enum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: Any
    y: float = math.nan


class Found(pydantic.BaseModel):
    when: dt.date = dt.date(2020, 1, 2)
    levels: set[Level] = {Level.LOW}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (np.arange(3), "[0, 1, 2]"),
        ({"k": [np.float32(0.1), np.int64(3)], 2: None}, '{"k": [0.1, 3], "2": null}'),
        (Level.LOW, "1"),
        (Point(np.uint8(2)), '{"x": 2, "y": null}'),
        ([Found()], '[{"when": "2020-01-02", "levels": [1]}]'),
        ({10, 9}, "[9, 10]"),
        ({"b", 1}, '["b", 1]'),
        ((math.inf, -np.inf, np.array([math.nan, math.inf])), '["Infinity", "-Infinity", [null, "Infinity"]]'),
        (dt.date(2020, 1, 2), '"2020-01-02"'),
        (pathlib.Path("a/b"), '"a/b"'),
        (10**700, "1" + "0" * 700),
        ([10**700], f'["1{"0" * 700}"]'),
        ({"ü": True}, '{"ü": true}'),
    ],
    ids=lambda part: part[:40] if isinstance(part, str) else type(part).__name__,
)
def test_what_a_tool_returns_becomes_json(value, text):
    class Answers(ae.ToolEnv):
        def start(self, task):
            return ""

        @ae.tool
        def answer(self):
            """Answer."""
            return value

    env = Answers()
    env.reset()
    assert texts(env.step(call("answer"))[0]) == text
    assert text == "1" + "0" * 700 or json.loads(text) == json_value(value)
