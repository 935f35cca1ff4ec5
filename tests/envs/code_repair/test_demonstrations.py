"""Scripted play of code repair."""

from contextlib import closing

import numpy as np
import pytest

from agentenv.envs.code_repair import CodeRepair, RepairTask, bundled_tasks, read_case
from agentenv.envs.code_repair.demonstrations import careful_calls, noisy_calls
from agentenv.envs.code_repair.texts import Text, find_all
from agentenv.types import Action

ADD = RepairTask(
    id="add",
    instruction="add() subtracts.",
    files={"m.py": "def add(a, b):\n    return a - b\n"},
    setup="from m import add",
    visible=(read_case("add(1, 2) == 3"),),
    hidden=(read_case("add(2, 5) == 7"),),
    solution={"m.py": "def add(a, b):\n    return a + b\n"},
)


def task_of(files, solution, removed=()):
    return RepairTask(id="t", instruction="x", files=files, hidden=(read_case("1 == 1"),), solution=solution,
                      removed=removed)  # fmt: skip


def files_after(task, calls):
    """Returns what the calls make of the files, as the tools would: each edit's text must occur once."""
    files = {path: Text.read(task.read(path)) for path in task.workspace()}
    for call in calls:
        match call.name, call.arguments:
            case "edit_file", {"path": path, "old": old, "new": new}:
                (place,) = find_all(files[path].content, old)
                assert old
                files[path] = files[path].replace(place, new)
            case "write_file", {"path": path, "content": content}:
                files[path] = Text(content)
            case "run", {"command": command}:
                del files[command.removeprefix("rm ").strip("'")]
            case _:
                pass
    return {path: text.write() for path, text in files.items()}


def test_careful_edits_make_of_every_bundled_task_its_solution():
    for task in bundled_tasks():
        calls = careful_calls(task)
        assert [call.name for call in calls[-2:]] == ["run_tests", "submit"]
        assert {call.name for call in calls[:-2]} == {"read_file", "edit_file"}
        after = files_after(task, calls)
        assert {path: after[path] for path in task.solution} == {p: str(c).encode() for p, c in task.solution.items()}


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ("a\nb\na\nb\n", "a\nb\na\nc\n"),  # the line that differs occurs twice
        ("a\n" * 6, "a\n" * 3 + "b\n" + "a\n" * 3),
        ("x = 1\ny = 10\nx = 10\n", "x = 2\ny = 10\nx = 11\n"),
        ("a\r\nb\r\n", "a\r\nc\r\nd\r\n"),
        ("no end", "no end\n"),
        ("a\n\n\nb\n", "a\nb\n"),
        ("", "new\n"),
        ("all\n", ""),
        ("a\nb\nc\nd\ne\n", "e\nd\nc\nb\na\n"),
        ("\ufeffa\n", "b\n"),
    ],
)
def test_edits_lead_to_the_solution_whatever_differs(before, wanted):
    task = task_of({"m.py": before}, {"m.py": wanted})
    assert files_after(task, careful_calls(task))["m.py"] == wanted.encode()


def test_new_files_are_written_and_others_removed():
    task = task_of({"old one.py": "a = 1\n", "latin.py": "# coding: latin-1\nx = 'é'\n".encode("latin-1")},
                   {"new.py": "a = 1\n", "latin.py": "x = 'é'\n"}, removed=("old one.py",))  # fmt: skip
    calls = careful_calls(task)
    assert [call.name for call in calls] == ["write_file", "write_file", "run", "submit"]
    assert files_after(task, calls) == {"new.py": b"a = 1\n", "latin.py": "x = 'é'\n".encode()}


def test_sloppy_play_slips_as_it_is_told():
    tasks, rng = bundled_tasks()[::10], np.random.default_rng(0)
    for task in tasks:
        assert noisy_calls(task, rng, wrong=0, unread=0, early=0, untested=0) == careful_calls(task)
        assert noisy_calls(task, rng, wrong=0, unread=0, early=0, untested=1) == careful_calls(task, tests=False)
        wrong = noisy_calls(task, rng, wrong=1, unread=0, early=0)
        assert files_after(task, wrong) != files_after(task, careful_calls(task))
        assert "read_file" not in {call.name for call in noisy_calls(task, rng, unread=1)}
    one = next(task for task in tasks if len(task.solution) == 1)
    assert [call.name for call in noisy_calls(one, rng, early=1, untested=1)] == ["submit"]
    assert noisy_calls(one, np.random.default_rng(7)) == noisy_calls(one, np.random.default_rng(7))


def test_play_is_valid_and_graded():
    task, rng = ADD, np.random.default_rng(0)
    with closing(CodeRepair(tasks=[task], check="never")) as env:
        for calls, outcome in (
            (careful_calls(task), 1),
            (noisy_calls(task, rng, wrong=1, early=0, untested=1), 0),
            (noisy_calls(task, rng, early=1, untested=1), 0),
        ):
            env.reset(options={"task": task})
            reward = None
            for call in calls:
                _, reward, ended, _, info = env.step(Action(tool_calls=(call,)))
                assert not info["mistakes"]
                assert ended == (call.name == "submit")
            assert reward == outcome


def test_what_cannot_be_demonstrated_is_refused():
    nothing = task_of({"m.py": "a\n"}, {})
    binary = task_of({"m.py": "a\n"}, {"m.py": b"\xff\xfe\x00"})
    for make in (careful_calls, lambda task: noisy_calls(task, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="'t' names no solution"):
            make(nothing)
        with pytest.raises(ValueError, match=r"'m\.py', which is not UTF-8"):
            make(binary)
