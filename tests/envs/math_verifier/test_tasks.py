"""Rows of data sets, files of them, and GSM8K's references in five spellings."""

import json
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pydantic
import pytest

from agentenv.envs.math_verifier import MathTask, MathVerifier, read_tasks
from agentenv.errors import TaskError

GSM8K = {"question": "How many?", "answer": "First 3*4 = <<3*4=12>>12.\nSo 1,012.\n#### 1,012"}
MATH = {
    "problem": "Compute $x$.",
    "level": "Level 4",
    "type": "Algebra",
    "solution": r"We see \boxed{7} first, and then $x = \boxed{\frac{1}{2}}$.",
}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (GSM8K, ("How many?", "1,012", "gsm8k", 0, "")),
        (MATH, ("Compute $x$.", r"\frac{1}{2}", "math", 4, "")),
        (
            {**MATH, "answer": "0.5", "unique_id": "test/algebra/1.json"},
            ("Compute $x$.", "0.5", "math", 4, "test/algebra/1.json"),
        ),
        ({"ID": "2024-I-1", "Problem": "Find it.", "Answer": 204}, ("Find it.", "204", "", 0, "2024-I-1")),
        ({"id": 60, "problem": "Find it.", "answer": "025", "url": "x"}, ("Find it.", "025", "", 0, "60")),
        ({"question": "Q", "reference": "3", "kind": "k", "difficulty": 2, "id": "a"}, ("Q", "3", "k", 2, "a")),
    ],
)
def test_rows(row, expected):
    task = MathTask.model_validate(row)
    assert (task.question, task.reference, task.kind, task.difficulty, task.id) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "needs 'question' or 'problem'"),
        ({"text": "Q"}, r"got the fields \['text'\]"),
        ({"question": "Q"}, "needs 'answer'"),
        ({"question": "Q", "answer": "  "}, "needs 'answer'"),
        ({"problem": "Q", "solution": "no box"}, "needs 'answer'"),
        ({"question": ["Q"], "answer": "3"}, "question: Input should be a valid string"),
        ({"question": "", "reference": "3"}, "question: String should have at least 1 character"),
        ({"question": "Q", "reference": "3", "colour": "red"}, "colour: Extra inputs are not permitted"),
        ("Q", "valid dictionary or instance of MathTask"),
        (None, "valid dictionary or instance of MathTask"),
    ],
)
def test_rows_of_the_wrong_shape(row, reason):
    with pytest.raises(pydantic.ValidationError):
        MathTask.model_validate(row)
    if row is not None:
        with pytest.raises(TaskError, match=reason):
            MathVerifier().reset(options={"task": row})


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    path = write(tmp_path / "t.jsonl", json.dumps(GSM8K).encode(), b"", json.dumps(MATH).encode())
    tasks = read_tasks(path)
    assert [task.kind for task in tasks] == ["gsm8k", "math"]
    assert read_tasks(str(path)) is tasks
    write(path, json.dumps(MATH).encode())
    assert [task.kind for task in read_tasks(path)] == ["math"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: not JSON"),
        (b"[1]", "line 2: a problem must be a mapping"),
        (b"3", "line 2: a problem must be a mapping"),
        (b'{"question": "Q"}', "line 2: .*needs 'answer'"),
        (b"\xff\xfe", "line 2: not UTF-8"),
        (b'{"question": "\xe9", "answer": "1"}', "line 2: not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, reason):
    path = write(tmp_path / "t.jsonl", json.dumps(GSM8K).encode(), line)
    with pytest.raises(TaskError, match=re.escape(str(path)) + ".*" + reason):
        read_tasks(path)


def test_an_empty_or_missing_file(tmp_path):
    with pytest.raises(TaskError, match="has no rows"):
        MathVerifier(tasks=write(tmp_path / "t.jsonl", b"", b" "))
    with pytest.raises(TaskError, match=r"missing\.jsonl"):
        MathVerifier(tasks=tmp_path / "missing.jsonl")


def test_an_environment_takes_files_rows_and_tasks(tmp_path):
    path = write(tmp_path / "t.jsonl", json.dumps(GSM8K).encode())
    for tasks in (path, str(path), [GSM8K], read_tasks(path)):
        env = MathVerifier(tasks=tasks)
        observation, _ = env.reset(seed=0)
        assert observation[-1]["content"] == "How many?"
        assert env.step(r"It is \boxed{1012}.")[1] == 1.0


SPELLINGS = {
    "number": "{plain}",
    "boxed": r"So we get \boxed{{{plain}}}.",
    "sentence": "The answer is {plain}.",
    "units": "{plain} dollars",
    "separators": "{grouped}",
}


@pytest.mark.data
def test_every_gsm8k_reference_is_right_in_five_spellings_and_wrong_by_one():
    tasks = read_tasks(Path(os.environ["AGENTENV_DATA"]) / "gsm8k_train_800.jsonl")
    assert len(tasks) == 800
    env = MathVerifier()
    failures = []
    for task in tasks:
        number = int(task.reference.replace(",", ""))
        for value, expected in ((number, 1.0), (number + 1, 0.0)):
            for name, form in SPELLINGS.items():
                text = form.format(plain=value, grouped=f"{value:,}")
                call = {"function": {"name": "submit", "arguments": {"answer": text}}}
                env.reset(options={"task": task})
                _, reward, terminated, *_ = env.step(text if name == "boxed" else {"tool_calls": [call]})
                if not terminated or reward != expected:
                    failures.append((task.reference, text, reward))
    assert failures == []


def test_rows_whose_reference_cannot_be_read_are_reported_together():
    rows = [
        {"question": "Q", "answer": "20°"},
        {"question": "Q", "answer": r"\frac{1}{"},
        {"question": "Q", "answer": r"\textbf{(B)}\ 7"},
        {"question": "Q", "answer": "3 dogs and 2 cats"},
        {"question": "Q", "answer": "1/2x"},
    ]
    with pytest.raises(TaskError) as caught:
        MathVerifier(tasks=rows)
    report = str(caught.value)
    assert "3 of 5 rows cannot be used" in report
    for part in (
        "row 1: ",
        "row 3: ",
        "row 4: ",
        r"'\\frac{1}{'",
        "it is not clear what is divided",
        "'3 dogs and 2 cats'",
    ):
        assert part in report
    with pytest.warns(UserWarning, match="3 of 5 rows cannot be used"):
        env = MathVerifier(tasks=rows, on_bad_row="skip")
    assert [task.reference for task in env.tasks] == ["20°", r"\textbf{(B)}\ 7"]
    with pytest.raises(ValueError, match="on_bad_row must be 'raise' or 'skip', got 'drop'"):
        MathVerifier(tasks=rows, on_bad_row=cast("Any", "drop"))


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({"question": "Q", "answer": np.float64(7.0)}, "7"),
        ({"question": "Q", "answer": np.array(["7"])}, "7"),
        ({"question": "Q", "answer": ["\\frac{1}{2}"]}, r"\frac{1}{2}"),
        ({"question": "Q", "answer": '["34"]'}, "34"),
        ({"question": "Q", "answer": "[0,1]"}, "[0,1]"),
        ({"question": "Q", "answer": True}, "True"),
        ({"question": "Q", "reference": np.int64(5)}, "5"),
        ({"problem": "Q", "answer": float("nan"), "solution": r"\boxed{3}"}, "3"),
    ],
)
def test_answers_of_any_library(row, reference):
    assert MathVerifier(tasks=[row]).tasks[0].reference == reference
    assert MathTask.model_validate(row).reference == reference


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, "", [], ["1", "2"]])
def test_an_answer_that_is_missing_or_not_one_is_an_error(missing):
    with pytest.raises(TaskError, match=r"row 0: .*(needs 'answer'|must be one answer, got)"):
        MathVerifier(tasks=[{"question": "Q", "answer": missing}])


def test_numbers_of_any_library():
    for numbers in ([1, 2, 3], np.array([1, 2, 3]), "[1, 2, 3]"):
        task = MathVerifier(tasks=[{"question": "Q", "reference": 9, "numbers": numbers}]).tasks[0]
        assert (task.numbers, task.reference) == ((1, 2, 3), "9")
    with pytest.raises(TaskError, match="row 0: the reference of a task with numbers must be a plain number, got 'x'"):
        MathVerifier(tasks=[{"question": "Q", "reference": "x", "numbers": [1]}])


def test_rows_of_memory_and_streams_are_read_once():
    env = MathVerifier(tasks=({"question": "Q", "answer": str(i)} for i in range(3)))
    assert len(env.tasks) == 3
    assert env.spawn().tasks is env.tasks
