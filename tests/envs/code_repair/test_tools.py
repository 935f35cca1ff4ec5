"""The tools on files as people have them: line ends, separators, encodings, overlapping places; tests that are none."""

import time
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentenv.envs.code_repair import CodeRepair, RepairTask, read_case
from agentenv.envs.code_repair.searching import search_lines
from agentenv.envs.code_repair.texts import NotText, Text, find_all, split_lines
from agentenv.errors import ToolError
from agentenv.protocols import ExecResult

TASK = RepairTask(
    instruction="Repair f.",
    files={"m.py": "def f(x):\n    return x\n"},
    setup="from m import f",
    visible=(read_case("f(1) == 2"),),
    hidden=(read_case("f(2) == 3"),),
)


def call(name, **arguments):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


@pytest.fixture(scope="module")
def opened():
    with closing(CodeRepair(tasks=[TASK], max_steps=None)) as made:
        made.max_steps = None
        yield made


@pytest.fixture
def env(opened):
    opened.reset(seed=0)
    return opened


def ask(env, name, **arguments):
    observation, *_ = env.step(call(name, **arguments))
    return observation[0]["content"]


def put(env, path, data):
    env.sandbox.write(path, data)


def edited(env, data, old, new):
    put(env, "x.py", data)
    answer = ask(env, "edit_file", path="x.py", old=old, new=new)
    assert answer == "replaced 1 occurrence in x.py"
    return env.sandbox.read("x.py")


@pytest.mark.parametrize(
    ("data", "old", "new", "wanted"),
    [
        (b"a\r\nb\r\nc\r\n", "a\nb", "x\ny\nz", b"x\r\ny\r\nz\r\nc\r\n"),  # several lines
        (b"a\r\nb\r\n", "b", "x\ny", b"a\r\nx\r\ny\r\n"),  # one line becomes two
        (b"a\r\nb\r\n", "a\r\nb", "x\r\ny", b"x\r\ny\r\n"),  # named as they are
        (b"a\r\nb\r\n", "b\n", "", b"a\r\n"),
        (b"a\nb\r\nc\nd\n", "c\nd", "x\ny", b"a\nb\r\nx\ny\n"),  # mixed: those of the place
        (b"a\nb\nc\n", "b", "x\ny", b"a\nx\ny\nc\n"),
        (b"a\rb\r\nc\r\n", "a\rb", "x", b"x\r\nc\r\n"),  # a lone one is a character like any other
        ("é\r\nb\r\n".encode("latin-1"), "é\nb", "ü\nb", "ü\r\nb\r\n".encode("latin-1")),
    ],
)
def test_an_edit_keeps_the_line_ends_of_the_file(env, data, old, new, wanted):
    assert edited(env, data, old, new) == wanted


def test_line_ends_are_said_where_they_are_not_plain(env):
    put(env, "x.py", b"a\r\nb\r\n")
    assert ask(env, "read_file", path="x.py") == "    1  a\n    2  b\n[its lines end in CRLF]"
    put(env, "x.py", b"a\r\nb\n")
    assert ask(env, "read_file", path="x.py").endswith("[some of its lines end in CRLF]")


SEPARATORS = "one\x0ctwo\x0bthree\x1cfour\x85five\u2028six\u2029seven\rnot eight\nsecond\n"


def test_every_tool_counts_the_same_lines(env):
    put(env, "x.py", SEPARATORS)
    assert ask(env, "read_file", path="x.py", start=2) == "    2  second"
    assert "start must be in 1 to 2" in ask(env, "read_file", path="x.py", start=3)
    assert ask(env, "search", pattern="second", path="x.py") == "x.py:2:second"
    assert ask(env, "search", pattern="seven").startswith("x.py:1:one\x0ctwo")
    assert "at lines 1, 2)" in ask(env, "edit_file", path="x.py", old="o", new="x").replace("1, 1, 1, 1", "1")
    assert ask(env, "edit_file", path="x.py", old=" second", new="x").endswith(
        "its first line, but for white space, is line 2"
    )
    assert ask(env, "run", command="sed -n 2p x.py; grep -n second x.py") == "second\n2:second\n[exit code 0]"


@given(st.text(alphabet="ab\r\n\x0c\x85\u2028é"), st.integers(0, 5))
@example("a\r\n\r\nb", 0)
def test_lines_are_those_of_line_feeds(text, number):
    lines = split_lines(text)
    assert len(lines) == text.count("\n") + (bool(text) and not text.endswith("\n"))
    if number < len(lines):
        assert lines[number] == text.split("\n")[number].removesuffix("\r")


@given(st.text(alphabet="ab\n", max_size=12), st.text(alphabet="ab\n", min_size=1, max_size=3))
def test_every_place_is_found_overlapping_ones_too(text, part):
    places = [n for n in range(len(text)) if text.startswith(part, n)]
    assert [start for start, _ in find_all(text, part)] == places
    windows = text.replace("\n", "\r\n")
    assert len(find_all(windows, part)) == len(places)


@given(st.text(alphabet="a\r\n", max_size=12), st.text(alphabet="a\r\n", min_size=1, max_size=3))
def test_places_are_where_the_text_stands_whatever_its_line_ends(text, part):
    for start, end in find_all(text, part):
        assert text[start:end].replace("\r\n", "\n") == part.replace("\r\n", "\n")
        assert part.endswith("\r") or text[start - 1 : start + 1] != "\r\n" != text[end - 1 : end + 1]


@pytest.mark.parametrize("piece", ["a", "\n", "\r\n", "ab", " \n"])
def test_places_are_found_in_time_however_long_the_text(piece):
    for text in (piece * 200_000, piece * 100_000 + "c" + piece * 100_000):
        for part in (piece * 50_000, piece * 50_000 + "b", "b" + piece * 50_000, piece):
            start = time.process_time()
            find_all(text, part)
            assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("text", "old", "count"),
    [
        ("a" * 101, "aa", "100 or more"),
        ("aaa", "aa", 2),
        ("x = 1\nx = 1\nx = 1\n", "x = 1\nx = 1", 2),
        ("()()()", "()()", 2),
    ],
)
def test_places_that_overlap_are_not_once(env, text, old, count):
    put(env, "x.py", text)
    assert f"old occurs {count} times in x.py" in ask(env, "edit_file", path="x.py", old=old, new="y")
    assert env.sandbox.read("x.py") == text.encode()


ENCODED = {
    "latin-1": ("# café\nx = 'café'\n", "latin-1", "latin-1"),
    "declared": ("# -*- coding: cp1251 -*-\nx = 'привет'\n", "cp1251", "cp1251"),
    "with a mark": ("x = 'café'\n", "utf-8-sig", ""),
    "utf-16": ("x = 'café'\n", "utf-16", "utf-16"),
    "shift jis": ("# coding: shift_jis\nx = 'こんにちは'\n", "shift_jis", "shift_jis"),
}


@pytest.mark.parametrize("name", ENCODED)
def test_sources_that_are_not_utf_8_are_read_searched_and_edited(env, name):
    text, encoding, said = ENCODED[name]
    put(env, "x.py", text.encode(encoding))
    line = text.split("\n")[-2]
    shown = ask(env, "read_file", path="x.py")
    assert line in shown
    assert said in shown
    word = line.split("'")[1]
    assert f"x.py:{text.count(chr(10))}:" in ask(env, "search", pattern=word)
    assert ask(env, "search", pattern="^x = ").removeprefix("x.py:").partition(":")[2].endswith(line)
    assert edited(env, text.encode(encoding), "x = ", "value = ") == text.replace("x = ", "value = ").encode(encoding)
    assert ask(env, "run", command="true") == "[exit code 0]"


def test_what_an_encoding_cannot_write_is_said_and_nothing_is_lost(env):
    data = "x = 'café'\n".encode("latin-1")
    put(env, "x.py", data)
    answer = ask(env, "edit_file", path="x.py", old="café", new="☕")
    assert answer == "x.py is latin-1, which cannot write '☕' (U+2615); use other characters"
    assert env.sandbox.read("x.py") == data


@given(st.binary(max_size=60))
@example(b"\xff\xfe\x00")
@example(b"# coding: utf-7\n+AGE-\n")
@example(b"# coding: idna\n")
def test_whatever_is_read_is_written_back_byte_for_byte(data):
    try:
        text = Text.read(data)
    except NotText:
        assert b"\0" in data
        return
    assert text.write() == data


def test_binary_files_are_not_searched(env):
    put(env, "b.bin", b"needle\0needle\n")
    put(env, "c.txt", "needle\n")
    assert ask(env, "search", pattern="needle") == "c.txt:1:needle"
    assert "is a binary file of 14 bytes" in ask(env, "read_file", path="b.bin")


def test_what_cannot_be_read_hides_no_match(env):
    ask(env, "run", command="mkdir d e; echo needle > d/x; echo needle > e/x; echo needle > y; chmod 000 d e/x")
    unread = "not searched: ./d: Permission denied", "not searched: ./e/x: Permission denied"
    first, *rest = ask(env, "search", pattern="needle").split("\n")
    assert (first, sorted(rest)) == ("y:1:needle", sorted(unread))
    first, *rest = ask(env, "search", pattern="haystack").split("\n")
    assert (first, sorted(rest)) == ("no match", sorted(unread))
    assert ask(env, "search", pattern="needle", path="e/") == "no match\nnot searched: e/x: Permission denied"
    assert ask(env, "search", pattern="needle", path="d") == "grep: d: Permission denied"
    assert ask(env, "search", pattern="needle", path="f") == "grep: f: No such file or directory"
    assert "Unmatched ( or \\(" in ask(env, "search", pattern="(")


@pytest.mark.parametrize("path", [".", "p", "d"])
def test_pipes_are_not_searched(env, path):
    ask(env, "run", command="mkdir d; mkfifo p d/p")
    assert ask(env, "search", pattern="needle", path=path) == "no match"


@pytest.mark.parametrize("late", [1, 2, 3])
def test_a_search_that_takes_too_long_says_so(env, monkeypatch, late):
    put(env, "x.py", "é\n".encode("latin-1"))
    exec_, count = env.sandbox.exec, 0

    def exec_late(argv, **options):
        nonlocal count
        count += 1
        return ExecResult(137, timed_out=True) if count == late else exec_(argv, **options)

    monkeypatch.setattr(env.sandbox, "exec", exec_late)
    with pytest.raises(ToolError, match=r"the search timed out after 7 s; name a smaller folder"):
        search_lines(env.sandbox, "é", ".", 7.0)


@pytest.mark.parametrize(
    ("files", "answer", "outcome"),
    [
        ({"tests/test_a.py": "import unittest\n"}, "No test was run.", "error"),
        ({"tests/test_a.py": "def test_a():\n    assert True\n"}, "1 passed", "ok"),  # pytest's, and run by pytest
        (
            {"tests/test_a.py": "import pytest\n\n\n@pytest.mark.skip\ndef test_a():\n    pass\n"},
            "No test was run.",
            "error",
        ),
        ({"tests/test_a.py": "import pytest\nx = 1\n"}, "No test was run.", "error"),
        (
            {
                "tests/test_a.py": "import unittest\n\n\n@unittest.skip('')\nclass A(unittest.TestCase):\n"
                "    def test_a(self):\n        pass\n"
            },
            "No test was run.",
            "error",
        ),
        ({}, "this task has no visible tests", "error"),
        ({"tests/data.txt": "1"}, "this task has no visible tests", "error"),
    ],
)
def test_no_test_is_not_ok(files, answer, outcome):
    task = RepairTask(instruction="x", files={"m.py": "x = 1\n", **files}, hidden=(read_case("1 == 1"),))
    with closing(CodeRepair(tasks=[task])) as env:
        env.reset(seed=0)
        assert answer in ask(env, "run_tests")
        assert env.state.outcomes == (outcome,)


def test_a_command_of_the_task_runs_its_tests():
    task = TASK.model_copy(update={"test_command": "echo mine; python3 -c 'from m import f; print(f(1))'"})
    with closing(CodeRepair(tasks=[task])) as env:
        env.reset(seed=0)
        assert ask(env, "run_tests") == "mine\n1\n[exit code 0]"
