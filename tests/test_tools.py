"""`@tool`: schemas from type hints and docstrings, wrong definitions, and wrong calls."""

import functools
import re
from typing import Annotated, Any, Literal

import annotated_types
import pydantic
import pytest
from envs_for_tests import call, texts
from hypothesis import given
from hypothesis import strategies as st

import agentenv as ae
from agentenv.errors import ToolError
from agentenv.tools import collect_tools, unknown_tool
from agentenv.types import ToolCall


class Point(pydantic.BaseModel):
    x: int
    label: Literal["a", "b"] = "a"


class Shop(ae.ToolEnv):
    """Tools of every kind."""

    max_steps = 100

    def start(self, task):
        return "open"

    @ae.tool
    def buy(
        self,
        item: str,
        count: Annotated[int, pydantic.Field(ge=1, le=9, description="how many")] = 1,
        price: float | None = None,
        size: Literal["small", "large"] = "small",
        tags: list[str] = [],  # noqa: B006  pydantic copies it
        where: Point | None = None,
    ) -> str:
        """Buy something.

        The shop has everything.

        Args:
            item (str): what to buy; see https://example.org: it
                has: many words.
            size:
                which one

        Returns:
            item: not a parameter.
        """
        tags.append(item)
        return f"{item!r} {count!r} {price!r} {size!r} {tags!r} {where!r}"

    @ae.tool
    def names(self, json: int, schema: str = "s", model_dump: bool = False, self_: int = 0, call: int = 0) -> str:
        """Parameters that are called like methods of pydantic's models."""
        return f"{json} {schema} {model_dump} {self_} {call}"

    @ae.tool
    def stop(self) -> str:
        """Close the shop."""
        return self.finish("closed")

    @ae.tool
    def refuse(self, why: str) -> str:
        """Always refuses."""
        raise ToolError(why)


def shop() -> Any:
    env = Shop()
    env.reset(seed=0)
    return env


def schema(name, cls=Shop):
    return next(tool["function"] for tool in cls().tools if tool["function"]["name"] == name)


def test_the_schema_of_a_tool_golden():
    point = schema("buy")["parameters"]["$defs"]["Point"]
    assert point["properties"]["label"] == {"default": "a", "enum": ["a", "b"], "type": "string"}
    assert point["required"] == ["x"]
    assert schema("buy")["description"] == "Buy something.\n\nThe shop has everything."
    parameters = schema("buy")["parameters"]
    assert parameters["type"] == "object"
    assert parameters["required"] == ["item"]
    assert parameters["properties"] == {
        "item": {"type": "string", "description": "what to buy; see https://example.org: it has: many words."},
        "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1, "description": "how many"},
        "price": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
        "size": {"enum": ["small", "large"], "type": "string", "default": "small", "description": "which one"},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "where": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}], "default": None},
    }
    assert schema("stop") == {
        "name": "stop",
        "description": "Close the shop.",
        "parameters": {"type": "object", "properties": {}},
    }


def test_tools_stand_in_the_order_of_definition_and_in_openai_format():
    assert [tool["function"]["name"] for tool in Shop().tools] == ["buy", "names", "stop", "refuse"]
    assert all(set(tool) == {"type", "function"} and tool["type"] == "function" for tool in Shop().tools)


def test_a_call_gets_validated_converted_and_default_values():
    env = shop()
    answer = texts(env.step(call("buy", item="tea", count="3", price=2, where={"x": "4"}))[0])
    assert answer == "'tea' 3 2.0 'small' ['tea'] Point(x=4, label='a')"
    assert texts(env.step(call("buy", item="tea"))[0]) == "'tea' 1 None 'small' ['tea'] None", "the default is copied"
    assert texts(env.step(call("names", json=1, model_dump=True))[0]) == "1 s True 0 0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "item is missing"),
        ({"item": True}, "item: input should be a valid string, got True"),
        ({"item": "x", "tags": "[a]"}, r"tags: a list .* must be JSON, got '\[a\]'"),
        ({"item": "x", "count": None, "size": []}, r"size: input should be 'small' or 'large', got \[\]"),
        ({"item": None}, "item is missing"),
        ({"item": "x", "count": 0}, "count: input should be greater than or equal to 1, got 0"),
        ({"item": "x", "count": "many"}, "count: input should be a valid integer.*got 'many'"),
        ({"item": "x", "size": "huge"}, "size: input should be 'small' or 'large', got 'huge'"),
        ({"item": "x", "tags": "a"}, "tags: input should be a valid list, got 'a'"),
        ({"item": "x", "tags": ["a", {}]}, r"tags\.1: input should be a valid string, got {}"),
        ({"item": "x", "where": {"label": "a"}}, r"where\.x is missing"),
        ({"item": "x", "amount": 2}, "amount is not a parameter"),
        ({"count": 0}, "item is missing; count: "),
        ({"item": ["y" * 1000]}, r"got \['yyy.*\.\.\. \(1004 characters\)"),
        ("[1, 2]", r"must be a JSON object, got '\[1, 2\]'"),
        ('{"item": ', "must be a JSON object, got "),
        ('{"item": NaN}', "must be a JSON object, got "),
    ],
)
def test_a_wrong_call_is_an_observation_that_names_argument_rule_value_and_signature(arguments, words):
    env = shop()
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "buy", "arguments": arguments}}]}
    observation, reward, terminated, truncated, info = env.step(message)
    text = texts(observation)
    assert re.search(words, text), text
    assert "buy(item: string, count: integer = 1, price: number | null = null, " in text
    assert 'size: "small" | "large" = "small", tags: array = [], where: object | null = null)' in text
    assert (reward, terminated, truncated, info["mistakes"]) == (0.0, False, False, [text])


def test_an_unknown_tool_gets_the_nearest_name_and_all_signatures():
    text = texts(shop().step(call("bye"))[0])
    assert text.startswith("there is no tool 'bye'. Did you mean 'buy'? Tools: buy(item: string, ")
    assert "stop()" in text
    assert "Did you mean" not in unknown_tool("zzzzzz", collect_tools(Shop))


def test_a_tool_error_is_an_observation_and_a_bug_is_not():
    env = shop()
    observation, *_, info = env.step(call("refuse", why="sold out"))
    assert texts(observation) == "sold out"
    assert info["mistakes"] == ["sold out"]


@given(
    arguments=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    ),
    name=st.sampled_from(["buy", "names", "stop", "refuse", "", "buy "]) | st.text(),
)
def test_no_call_whatever_raises(arguments, name):
    env = shop()
    observation, *_ = env.step(ae.Action("", (ToolCall(name, arguments if isinstance(arguments, dict) else "x"),)))
    assert isinstance(texts(observation), str)
    env.snapshot()
    env.action_signature(ae.Action("", (ToolCall(name, arguments if isinstance(arguments, dict) else "x"),)))


# ---------------------------------------------------------------------- inheritance


def test_tools_are_inherited_overridden_and_taken_away():
    class Child(Shop):
        refuse = None  # pyright: ignore[reportAssignmentType]

        @ae.tool
        def stop(self) -> str:
            """Stop at once."""
            return self.finish("stopped")

        @ae.tool
        def extra(self, n: int) -> str:
            """More."""
            return str(n)

    assert [tool["function"]["name"] for tool in Child().tools] == ["buy", "names", "stop", "extra"]
    assert schema("stop", Child)["description"] == "Stop at once."
    assert [tool["function"]["name"] for tool in Shop().tools] == ["buy", "names", "stop", "refuse"]
    env: Any = Child()
    env.reset(seed=0)
    assert "there is no tool 'refuse'" in texts(env.step(call("refuse"))[0])
    assert texts(env.step(call("stop"))[0]) == "stopped"


def test_tools_come_from_mixins_and_through_decorators():
    def doubled(function):
        @functools.wraps(function)
        def wrapper(self, *args, **kwargs):
            return function(self, *args, **kwargs) * 2

        return wrapper

    class Mixin:
        @ae.tool
        @doubled
        def say(self, word: str) -> str:
            """Say it twice."""
            return word

    class Mixed(Mixin, Shop):
        pass

    assert schema("say", Mixed)["parameters"]["required"] == ["word"]
    env: Any = Mixed()
    env.reset(seed=0)
    assert texts(env.step(call("say", word="ab"))[0]) == "abab"


# ---------------------------------------------------------------------- wrong definitions


def define(function, name="wrong"):
    return type("Wrong", (ae.ToolEnv,), {name: ae.tool(function)})


def no_hint(self, number):
    """Doc."""


def no_doc(self, number: int):
    pass


def variadic(self, *numbers: int):
    """Doc."""


def keywords(self, **numbers: int):
    """Doc."""


def positional(self, number: int, /):
    """Doc."""


def private(self, _number: int):
    """Doc."""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_hint, "tool no_hint: parameter 'number' needs a type hint, e.g. `number: int`"),
        (no_doc, "tool no_doc needs a docstring: it is what the agent reads"),
        (variadic, "parameter 'numbers' must be an ordinary named parameter"),
        (keywords, "parameter 'numbers' must be an ordinary named parameter"),
        (positional, "parameter 'number' must be an ordinary named parameter"),
        (private, "parameter '_number' must be an ordinary named parameter"),
    ],
)
def test_a_wrong_definition_raises_when_the_class_is_made(function, words):
    with pytest.raises(TypeError, match=words):
        define(function)


@pytest.mark.parametrize("name", ["step", "close", "finish", "state", "task", "sandbox", "render", "name", "max_steps"])
def test_a_tool_cannot_hide_what_every_environment_has(name):
    def function(self) -> str:
        """Doc."""
        return ""

    with pytest.raises(TypeError, match=rf"tool Wrong\.{name} hides what every environment has: choose another name"):
        define(function, name)


def test_an_override_without_the_mark_is_refused_instead_of_lost():
    with pytest.raises(TypeError, match=r"Child\.stop is overridden without @tool: mark it too, or set stop = None"):
        type("Child", (Shop,), {"stop": lambda self: "x"})


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_only_ordinary_methods_are_tools(kind):
    def function(number: int) -> str:
        """Doc."""
        return ""

    with pytest.raises(TypeError, match="must be an ordinary method"):
        type("Wrong", (ae.ToolEnv,), {"wrong": kind(ae.tool(function))})
    with pytest.raises(TypeError, match="@tool marks ordinary methods, got"):
        ae.tool(kind(function))


# ---------------------------------------------------------------------- random calls fit the schema


class Bounds(ae.ToolEnv):
    """Every bound that type hints can set."""

    def start(self, task):
        return "go"

    @ae.tool
    def draw(
        self,
        a: Annotated[int, annotated_types.Gt(3), annotated_types.Lt(5)],
        b: Annotated[int, pydantic.Field(le=-200)],
        c: Annotated[float, pydantic.Field(gt=0.5, lt=0.75)],
        d: Annotated[list[Point], pydantic.Field(min_length=2, max_length=2)],
        e: Literal["only"],
        f: int | None,
        g: dict[str, int],
        h: bool,
    ) -> str:
        """Takes well-formed calls only."""
        return "fits"


@pytest.mark.parametrize("cls", [Bounds, Shop])
def test_samples_of_the_action_space_are_calls_that_fit(cls):
    env: Any = cls(max_steps=10**6)
    env.reset(seed=0)
    env.action_space.seed(0)
    calls = 0
    for _ in range(200):
        action = env.action_space.sample()
        assert env.action_space.contains(action)
        if isinstance(action, dict) and action["tool_calls"][0]["function"]["name"] not in {"refuse", "stop"}:
            calls += 1
            assert env.step(action)[4]["mistakes"] == [], action
    assert calls > 60


def test_async_tools_are_refused_where_they_are_defined():
    with pytest.raises(TypeError, match=r"tool .*slow must be an ordinary function, got `async def`"):

        class Slow(ae.ToolEnv):
            @ae.tool
            async def slow(self) -> str:
                """Wait."""
                return ""

        Slow()
