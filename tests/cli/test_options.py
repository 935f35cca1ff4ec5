"""Values of `--option` and `--credit-option`: read as the parameter says, or refused in its words."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from cli_runs import one_line_error, run, run_json

from agentenv.arrays import TreeArrays
from agentenv.cli.annotations import annotations_of, in_words, read_value
from agentenv.cli.sandbox_options import opens_sandboxes, read_sandbox
from agentenv.credit import passk_advantages
from agentenv.protocols import Sandbox
from agentenv.serialize import read_trees


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("7", int, 7),
        ("1e3", int, 1000),
        ("7", float, 7.0),
        ("inf", float, math.inf),
        ("-inf", float | None, -math.inf),
        ("Infinity", float, math.inf),
        ("True", bool, True),
        ("false", bool, False),
        ("None", int | None, None),
        ("null", str | None, None),
        ("None", str, "None"),
        ("inf", str, "inf"),
        ("7", str, "7"),
        ("7", str | int, 7),
        ("red", Color, Color.RED),
        ("red", Literal["red", "blue"], "red"),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ('["a"]', Sequence[str], ["a"]),
        ("rows.jsonl", Sequence[Any] | str | Path | None, "rows.jsonl"),
        ("a/b", Path, Path("a/b")),
        ('{"a": 1}', Mapping[str, int], {"a": 1}),
        ("3", Annotated[int, "of something"], 3),
        ("anything", Any, "anything"),
    ],
)
def test_a_value_is_read_as_its_parameter_says(text, annotation, value):
    found = read_value(text, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "words"),
    [
        ("abc", int | None, "must be an integer or null, got 'abc'"),
        ("1.5", int, "must be an integer, got '1.5'"),
        ("inf", int, "must be an integer, got 'inf'"),
        ("1", bool, "must be true or false, got '1'"),
        ("green", Color, "must be 'red' or 'blue', got 'green'"),
        ("x", Annotated[float | None, "seconds"], "must be a number or null, got 'x'"),
        ("x", Callable[[int], int], "must be a Python Callable, which a command line cannot give, got 'x'"),
        ("x", np.random.Generator | None, "must be null, got 'x'"),
        ("[1, 2]", list[str], "must be a JSON list, got '[1, 2]'"),
        ('{"a": "b"}', dict[str, int], "must be a JSON object, got "),
    ],
)
def test_a_value_of_another_type_is_refused_in_the_parameters_words(text, annotation, words):
    with pytest.raises(ValueError, match="must be ") as caught:
        read_value(text, annotation)
    assert words in str(caught.value)


def test_an_annotation_that_cannot_be_resolved_spoils_no_other():
    def function(a: "int", b: "NotImportedHere", c: "float | None" = None, d=0):  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
        raise AssertionError

    found = {name: parameter.annotation for name, parameter in annotations_of(function).items()}
    assert found == {"a": int, "b": Any, "c": float | None, "d": Any}
    assert in_words(found["c"]) == "a number or null"


def test_infinity_reaches_an_estimator(here):
    assert run("rollout", "dice_env:Dice", "--tasks", 2, "--out", "t.jsonl").exit_code == 0
    unbounded = run_json("trees", "t.jsonl", "--credit", "passk", "--credit-option", "k=inf")
    expected = passk_advantages(TreeArrays.from_trees(read_trees("t.jsonl")), k=math.inf).advantages
    assert [value for row in unbounded for value in row["credit"]["advantages"]] == expected.tolist()
    assert np.ptp(expected) > 0
    line = one_line_error(run("trees", "t.jsonl", "--credit", "passk", "--credit-option", "k=many"))
    assert "'--credit-option'" in line and "k must be a number, got 'many'" in line


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("docker", {"backend": "docker"}),
        ('{"backend": "process", "require": "process"}', {"backend": "process", "require": "process"}),
        ('{"image": "python:3.12", "runtime": "runsc"}', {"image": "python:3.12", "runtime": "runsc"}),
    ],
)
def test_a_sandbox_is_chosen_by_its_back_end_or_by_more(text, arguments):
    made = read_sandbox(text)
    assert isinstance(made, functools.partial)
    assert made.keywords == arguments


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dokcer", "must name a back end, one of auto, namespace, docker, gvisor, process, remote, subprocess, or be"),
        ('{"require": "strong"}', "must name a level, one of none, process, namespace, container, kernel"),
        ('{"memory": 1}', "must name arguments of open_sandbox"),
        ('{"limits": {"memory": -1}}', "Limits.memory must be positive, got -1"),
        ('{"limits": {"ram": 1}}', "ram"),
        ('{"network": "host"}', "no back end offers a network"),
        ("{", "line 1 column 2"),
    ],
)
def test_a_sandbox_that_there_is_not_is_refused(here, text, words):
    line = one_line_error(run("play", "agentenv/CodeRepair-v0", "--option", f"sandbox={text}"))
    assert "'--option': sandbox" in line and words in line


def test_parameters_that_open_sandboxes_are_known_by_their_type():
    assert opens_sandboxes(Callable[..., Sandbox])
    assert opens_sandboxes(Callable[[int], Sandbox] | None)
    assert not opens_sandboxes(Callable[[Sandbox], int])
    assert not opens_sandboxes(Sandbox)
    assert not opens_sandboxes(int | str)


def test_commands_run_where_the_option_says(here):
    option = 'sandbox={"backend": "process", "require": "process", "limits": {"time_s": 9}}'
    words = ["agentenv/CodeRepair-v0", "--option", option, "--seed", 0, "--trees", "played.jsonl"]
    result = run("play", *words, stdin='run "touch /workspace/made && ls && id -u"\n:quit\n')
    assert result.exit_code == 0, result.stderr
    assert "made" in result.stdout
    summary = run_json("rollout", *words[:3], "--tasks", 1, "--rollouts", 1)
    assert summary["failed"] == 0 and summary["episodes"] == 1
    weak = run("play", "agentenv/CodeRepair-v0", "--option", "sandbox=process", stdin=":quit\n")
    assert weak.exit_code != 0 and "require" in weak.stderr
