"""Values drawn from JSON schemas: valid by the schema, whatever it says, and the same for the same seed."""

import re
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from agentenv.agents import RandomAgent
from agentenv.json_schema import sample_value
from agentenv.protocols import Context


class Color(Enum):
    RED = "red"
    BLUE = 3


class Leaf(BaseModel):
    name: Annotated[str, Field(pattern=r"^[a-z]{2,4}-\d+$")]
    color: Color
    score: Annotated[float, Field(gt=0, le=1)] = 0.5


class Branch(BaseModel):
    """Holds itself."""

    leaves: Annotated[list[Leaf], Field(min_length=1, max_length=3)]
    below: "list[Branch]" = Field(default_factory=list)
    other: "Branch | None" = None
    by_name: dict[str, int] = Field(default_factory=dict)
    pair: tuple[int, Literal["a", "b"]] = (1, "a")


SCHEMAS: dict[str, dict[str, Any]] = {
    "a model that holds itself": Branch.model_json_schema(),
    "bounds": {"type": "integer", "minimum": 3, "exclusiveMaximum": 5},
    "one bound": {"type": "number", "exclusiveMinimum": 1000},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 30},
    "half steps": {"type": "number", "multipleOf": 0.5, "minimum": -2},
    "lengths": {"type": "string", "minLength": 5, "maxLength": 6},
    "types": {"type": ["integer", "null"]},
    "either": {"oneOf": [{"type": "integer", "maximum": 0}, {"type": "array", "items": {"type": "boolean"}}]},
    "all of": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                         {"properties": {"b": {"enum": [None, "x"]}}, "required": ["b"]}]},
    "unique": {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3, "maxItems": 3},
    "nothing said": {},
    "no type": {"properties": {"x": {"const": [1]}}, "required": ["x"]},
    "fewest properties": {"type": "object", "minProperties": 2, "additionalProperties": {"type": "boolean"}},
    "a pointer": {"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"type": "integer"}}},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_drawn_is_valid(name):
    schema = SCHEMAS[name]
    validator = Draft202012Validator(schema)
    for seed in range(60):
        drawn = sample_value(schema, np.random.default_rng(seed), text=lambda: "text")
        validator.validate(drawn)


PATTERNS = [
    r"^\d{3}-[A-F0-9]{2}$",
    r"(?:cat|dog)s?",
    r"^[^\d\s]+$",
    r"^\w+@\w+\.(com|org)$",
    r"a.c",
    r"^(?!x)[a-z]{3}$",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(pattern):
    for seed in range(40):
        drawn = sample_value({"type": "string", "pattern": pattern}, np.random.default_rng(seed), text=lambda: "!!")
        assert re.search(pattern, drawn), (pattern, drawn)


@pytest.mark.parametrize("kind", ["date", "date-time", "email", "ipv4", "ipv6", "uuid", "time"])
def test_formats(kind):
    drawn = sample_value({"type": "string", "format": kind}, np.random.default_rng(0), text=lambda: "!!")
    Draft202012Validator({"format": kind}, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(drawn)
    assert drawn != "!!"


@pytest.mark.parametrize("pattern", ["(", r"(\w)\1\1\1\1\1\1\1!"])
def test_a_pattern_that_cannot_be_followed_is_ignored(pattern):
    drawn = sample_value({"type": "string", "pattern": pattern}, np.random.default_rng(0), text=lambda: "text")
    assert isinstance(drawn, str)


TOOL = {"type": "function", "function": {"name": "grow", "parameters": Branch.model_json_schema()}}


def test_a_random_agent_depends_on_the_seed_of_the_context_alone():
    agent = RandomAgent(text_share=0)
    contexts = [Context((), (TOOL,), seed=seed) for seed in range(8)]
    together = agent.act(contexts)
    assert together == [RandomAgent(text_share=0).act([context])[0] for context in reversed(contexts)][::-1]
    assert len({repr(action) for action in together}) == 8
    assert all(isinstance(Branch.model_validate(action.tool_calls[0].arguments), Branch) for action in together)


def test_without_tools_it_says_something_and_a_wrong_share_is_named():
    assert not RandomAgent().act([Context(())])[0].tool_calls
    with pytest.raises(ValueError, match=r"text_share must be in \[0, 1\], got 2"):
        RandomAgent(text_share=2)
