"""Hidden suites: what a task says, what counts as a report, and what is drawn and planned for a grading."""

import ast
import functools
import hashlib
import json
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentenv.envs.code_repair import CodeRepair, Grader, RepairTask, Submission, TestSuite, suite_guest
from agentenv.envs.code_repair.submissions import is_allowed, solution_of
from agentenv.envs.code_repair.suite_grading import SuiteGrader
from agentenv.envs.code_repair.suite_planning import Plan, draw_runs, make_plan
from agentenv.envs.code_repair.suite_running import Run, read_lines
from agentenv.envs.code_repair.suites import read_id
from agentenv.envs.code_repair.twins import Site
from agentenv.errors import TaskError
from agentenv.protocols import ExecResult
from agentenv.sandboxes import open_sandbox
from agentenv.testing import check_env

CODE = "def half(x):\n    return x // 2 + 1\n\n\ndef name():\n    return 'half'\n"
RIGHT = CODE.replace(" + 1", "")
GRADER = Grader(rounds=4)
"""Fewer runs than by default, which `test_suite_cheats.py` tries: none of these tests guesses."""
TESTS = """import pytest

from halves import half, name


@pytest.fixture(params=[2, 4])
def even(request):
    return request.param


def test_six():
    assert half(6) == 3


@pytest.mark.parametrize("x, y", [(2, 1), (8, 4), (1, 1)])
def test_many(x, y):
    assert half(x) == y


def test_even(even):
    assert half(even) == even / 2


def test_name():
    assert name() == "half"
"""
FAIL = ("tests/test_h.py::test_six", "tests/test_h.py::test_many[2-1]", "tests/test_h.py::test_many[8-4]")
KEEP = ("tests/test_h.py::test_name",)
SUITE = TestSuite(fail_to_pass=FAIL, pass_to_pass=KEEP, files={"tests/test_h.py": TESTS.encode()})
TASK = RepairTask(
    id="halves", instruction="half() is wrong.", files={"halves.py": CODE}, suite=SUITE, solution={"halves.py": RIGHT}
)


def change(**fields):
    """Returns the task with another suite."""
    return TASK.model_copy(update={"suite": SUITE.model_copy(update=fields)})


def submit(text):
    return Submission({"halves.py": text.encode()})


# ------------------------------------------------------------------ what a task says


def test_ids():
    assert read_id("tests/a b/test_x.py::TestA::test_b[a::b-[c]\n]") == (
        *("tests/a b/test_x.py", ("TestA", "test_b")),
        "[a::b-[c]\n]",
    )
    assert read_id("test_x.py::test_ü").function == "test_x.py::test_ü"
    for wrong in (
        "",
        "test_x.py",
        "test_x.py::",
        "x::test",
        "test_x.py::a b",
        "test_x.py::t[",
        "/t.py::t",
        "../t.py::t",
    ):
        with pytest.raises(ValueError, match=r"node id|relative and plain"):
            read_id(wrong)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fail_to_pass": ()}, "fail_to_pass"),
        ({"fail_to_pass": ("x",)}, "node id"),
        ({"files": {"../x": ""}}, "relative and plain"),
        ({"files": {"x": 1}}, "bytes"),
        ({"files": {"x": {"base64": 1}}}, "base64"),
        ({"files": {"x": {"base64": "?"}}}, "files"),
        ({"executable": ("x",)}, "executable must be among files"),
        ({"source": ("/usr",)}, "relative and plain"),
        ({"pass_to_pass": FAIL[:1]}, "cannot be in fail_to_pass and in pass_to_pass"),
        ({"options": {"addopts": "-p evil"}}, "options cannot set 'addopts'"),
        ({"options": {"a b": ""}}, "options cannot set"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_suite_that_cannot_be_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        TestSuite.model_validate({"fail_to_pass": FAIL, **fields})


def test_a_suite_travels_as_json_binary_files_too():
    task = change(files={"tests/test_h.py": TESTS.encode(), "tests/x.bin": bytes(range(256))})
    text = task.model_dump_json()
    assert json.loads(text)["suite"]["files"]["tests/test_h.py"] == TESTS
    assert RepairTask.model_validate_json(text) == task
    assert RepairTask.model_validate(task.model_dump()) == task


def test_a_submission_may_not_hold_what_the_suite_has():
    task = change(files={**SUITE.files, "helper.py": b"", "gone/x.py": b""}, deleted=("old.py",))
    allowed = {
        path: is_allowed(path, task) for path in ("halves.py", "new.py", "helper.py", "old.py", "helper.py/x.py")
    }
    assert allowed == {"halves.py": True, "new.py": True, "helper.py": False, "old.py": False, "helper.py/x.py": False}
    assert not GRADER.grade(task, Submission({"helper.py": b""})).solved


# ------------------------------------------------------------------ grading


def test_solution_untouched_and_empty():
    grades = [GRADER.grade(TASK, one) for one in (solution_of(TASK), Submission(), submit(""))]
    assert [grade.solved for grade in grades] == [True, False, False]
    assert (grades[0].passed, grades[0].total) == (4, 4)


def test_the_fraction_counts_ids():
    partly = "def half(x):\n    return 3 if x == 6 else 4 if x == 8 else 7\n\n\ndef name():\n    return 'half'\n"
    grade = GRADER.grade(TASK, submit(partly), stop_early=False)
    assert (grade.passed, grade.total, grade.tampered) == (3, 4, False)
    assert grade.reasons == ("test 2: failed",)
    assert GRADER.grade(TASK, submit(partly)).passed < 4


def test_an_id_without_parameters_stands_for_all_of_them():
    task = change(fail_to_pass=("tests/test_h.py::test_even",), pass_to_pass=())
    assert GRADER.grade(task, solution_of(task)).solved
    assert not GRADER.grade(task, submit(RIGHT.replace("x // 2", "1"))).solved


def test_cases_and_a_suite_both_decide():
    case = {"call": "half(10)", "expected": "5"}
    task = RepairTask.model_validate({**TASK.model_dump(), "setup": "from halves import half", "hidden": [case]})
    assert GRADER.grade(task, solution_of(task)).total == 5
    assert GRADER.grade(task, solution_of(task)).solved
    worse = submit(RIGHT.replace("x // 2", "x // 2 if x < 10 else 0"))
    assert not GRADER.grade(task, worse).solved
    assert GRADER.grade(task, worse, stop_early=False).passed == 4


def test_wrong_code_that_passes_a_twin_is_wrong_and_not_tampering():
    task = change(
        files={"tests/test_h.py": b"from halves import half\n\n\ndef test_small():\n    assert half(6) < 4\n"},
        fail_to_pass=("tests/test_h.py::test_small",),
        pass_to_pass=(),
    )
    for secret in "abc":
        grade = Grader(rounds=4, secret=secret).grade(task, Submission(), stop_early=False)
        assert (grade.solved, grade.tampered) == (False, False)
        assert Grader(rounds=4, secret=secret).grade(task, solution_of(task)).solved


CHEAT = """
import pytest

run = pytest.Function.runtest

def lenient(self):
    if not self.nodeid.startswith("tests/"):
        run(self)

pytest.Function.runtest = lenient
"""


def test_tampering_is_said():
    tests = TESTS.encode() + b"\n\ndef test_more():\n    assert half(8) == 4\n"
    grade = GRADER.grade(change(files={"tests/test_h.py": tests}), submit(CODE + CHEAT), stop_early=False)
    assert (grade.solved, grade.passed, grade.tampered) == (False, 0, True)


def test_a_suite_without_a_solution_uses_what_is_certain():
    task = TASK.model_copy(update={"solution": {}})
    assert GRADER.grade(task, submit(RIGHT)).solved
    assert not GRADER.grade(task, Submission()).solved
    assert not GRADER.grade(task, submit(CODE + CHEAT)).solved


def test_a_suite_that_the_solution_fails_is_an_error():
    for fields, message in (
        ({"fail_to_pass": (*FAIL, "tests/test_h.py::test_gone")}, "test_gone: missing"),
        ({"fail_to_pass": (*FAIL, "tests/test_h.py::test_many[1-1]")}, r"test_many\[1-1\]: failed"),
        ({"files": {"tests/test_h.py": b"import nowhere\n"}}, "could not be collected.*nowhere"),
        ({"files": {}}, "neither in its files nor in the workspace"),
        ({"plugins": ("nowhere",)}, "ended early"),
    ):
        with pytest.raises(TaskError, match=f"(?s){message}"):
            GRADER.grade(change(**fields), Submission())


def test_options_and_source_and_support_files():
    task = RepairTask(
        instruction="x",
        files={"src/halves.py": CODE, "pytest.ini": "[pytest]\naddopts = --nonsense\n", "checks/__init__.py": ""},
        suite=TestSuite(
            fail_to_pass=("checks/check_h.py::CheckHalf::check_it",),
            files={
                "checks/check_h.py": b"from halves import half\nfrom . import data\n\n\nclass CheckHalf:\n"
                b"    def check_it(self):\n        assert half(data.X) == 3\n",
                "checks/data.py": b"X = 6\n",
            },
            options={"python_files": "check_*.py", "python_classes": "Check*", "python_functions": "check_*"},
            source=(".", "src"),
        ),
        solution={"src/halves.py": RIGHT},
    )
    assert GRADER.grade(task, solution_of(task)).solved
    assert not GRADER.grade(task, Submission()).solved


def test_tests_that_fail_beside_a_twin_are_replaced_together():
    """The second test fails where the first has not come to its end; so twins never stand beside real ones."""
    leaky = (
        b"import halves\n\n"
        b"def test_a():\n    halves.state = 1\n    assert halves.half(6) == 3\n    halves.state = 0\n"
        b"\n\ndef test_b():\n    assert getattr(halves, 'state', 0) == 0\n    assert halves.half(4) == 2\n"
    )
    task = change(
        files={"tests/test_h.py": leaky},
        fail_to_pass=("tests/test_h.py::test_a", "tests/test_h.py::test_b"),
        pass_to_pass=(),
    )
    assert task.suite is not None
    assert make_plan(open_sandbox, task, task.suite).together
    assert not make_plan(open_sandbox, TASK, SUITE).together
    for secret in "abcd":
        assert Grader(rounds=4, secret=secret).grade(task, solution_of(task)).solved


def test_a_twin_that_the_solution_passes_is_dropped_and_said():
    lenient = (
        b"import functools\n\nfrom halves import half\n\n\ndef lenient(test):\n    @functools.wraps(test)\n"
        b"    def run():\n        try:\n            test()\n        except AssertionError:\n"
        b"            assert half(6) == 3\n    return run\n\n\n@lenient\ndef test_a():\n    assert half(8) == 4\n"
    )
    task = change(files={"tests/test_h.py": lenient}, fail_to_pass=("tests/test_h.py::test_a",), pass_to_pass=())
    assert task.suite is not None
    plan = make_plan(open_sandbox, task, task.suite)
    assert not plan.sites
    assert plan.dropped == ("tests/test_h.py::test_a: twin 1, value: it passes on the solution",)
    assert GRADER.grade(task, solution_of(task)).solved


# ------------------------------------------------------------------ episodes


def call(name, **arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


@pytest.mark.slow
def test_a_repair_keeps_the_contract():
    with closing(CodeRepair(tasks=[TASK])) as env:
        check_env(env, actions=[call("run", command="echo x > x"), call("run_tests"), call("read_file", path="x")])


def test_an_agent_has_pytest_and_the_sources_but_no_hidden_test():
    first = RepairTask(
        instruction="x",
        files={"src/halves.py": CODE, "tests/test_a.py": "from halves import half\n\n\ndef test_a():\n    half(1)\n"},
        suite=SUITE.model_copy(update={"source": ("src",)}),
        solution={"src/halves.py": RIGHT},
        test_command="python3 -m pytest -q",
    )
    with closing(CodeRepair(tasks=[first, TASK])) as env:
        env.reset(seed=0, options={"task": 0})
        assert "1 passed" in env.step(call("run_tests"))[0][0]["content"]
        assert "test_six" not in env.step(call("run", command="grep -rs test_six . /tmp; ls tests"))[0][0]["content"]
        kept = env.snapshot()
        env.reset(seed=0, options={"task": 1})
        assert (
            "No module" in env.step(call("run", command="cd tests 2>&1; python3 -c 'import nowhere'"))[0][0]["content"]
        )
        env.restore(kept)  # into the sandbox of a task with other sources
        assert "1 passed" in env.step(call("run_tests"))[0][0]["content"]
        env.step(call("write_file", path="src/halves.py", content=RIGHT))
        assert env.step(call("submit"))[1] == 1.0


# ------------------------------------------------------------------ what is drawn


def plan(together=False):
    site = Site("value", True, lambda generator: ())
    names = tuple(f"t.py::test_{letter}" for letter in "abcdefgh")
    return Plan(names[:3], names[3:], dict.fromkeys(names[:5], (site,)), (), together)


def test_a_twin_that_looks_like_a_test_is_taken_where_there_is_one():
    sites = {kind: Site(kind, True, lambda generator: ()) for kind in ("turned", "pair", "value", "raises", "added")}
    mixed, told = plan(), (sites["turned"], sites["pair"])
    first, second, third = mixed.deciding
    mixed = replace(
        mixed, sites={first: (*told, sites["value"]), second: told, third: (sites["added"], sites["raises"])}
    )
    assert mixed.told_by_form == (second,)
    drawn = [run.twins for seed in range(40) for run in draw_runs(mixed, 4, np.random.default_rng(seed))]
    kinds = {name: {twins[name].kind for twins in drawn if name in twins} for name in mixed.deciding}
    assert kinds == {first: {"value"}, second: {"turned", "pair"}, third: {"raises"}}


@pytest.mark.parametrize("together", [False, True])
def test_every_test_with_a_twin_is_real_in_some_runs_and_replaced_in_others(together):
    patterns = Counter()
    for seed in range(300):
        given = plan(together)
        runs = draw_runs(given, 3, np.random.default_rng(seed))
        assert len(runs) == 3
        assert set(runs[0].functions) == set(given.functions)
        for name in (*given.deciding, *given.sampled):
            taking_part = [name in run.twins for run in runs if name in run.functions]
            assert {True, False} == set(taking_part), name
        assert all(set(run.twins) <= set(run.functions) for run in runs)
        rows = [tuple(name in run.twins for run in runs) for name in given.deciding]
        patterns.update(rows[:1])
        if together:
            assert len(set(rows)) == 1
            assert not given.sampled
    assert len(patterns) == 6
    assert max(patterns.values()) < 2 * min(patterns.values())


def test_equal_secrets_draw_equally_and_others_do_not():
    def drawn(secret):
        generator = SuiteGrader(open_sandbox, secret=secret)._generator(TASK, Submission())
        return [sorted(run.twins) for run in draw_runs(plan(), 3, generator)]

    assert drawn("a") == drawn("a")
    assert len({str(drawn(secret)) for secret in "abcdefgh"}) > 4
    assert "secret" not in repr(Grader())
    with pytest.raises(ValueError, match="at least 2"):
        SuiteGrader(open_sandbox, rounds=1)


# ------------------------------------------------------------------ what counts as a report

KEY = b"k" * 32
LINES = (
    ("begun", ""),
    ("collected", "2"),
    ("passed", "a.py::t"),
    ("failed", "a.py::u"),
    ("finished", "1"),
    ("ended", "1"),
)


def seal(text, key=KEY):
    return f"{hashlib.blake2b(text.encode(), key=key, digest_size=16).hexdigest()} {text}\n"


def said(lines, *, key=KEY, start=0):
    return "".join(
        seal(f"{number} {word} {name.encode().hex()}", key) for number, (word, name) in enumerate(lines, start)
    )


def test_a_whole_report_counts():
    report = read_lines(ExecResult(1, said(LINES)), KEY)
    assert (report.problem, report.outcomes) == ("", {"a.py::t": "passed", "a.py::u": "failed"})
    assert report.outcome("a.py::t") == "passed"
    assert report.outcome("a.py::v") == "missing"


@pytest.mark.parametrize(
    "result",
    [
        ExecResult(1, ""),
        ExecResult(0, said(LINES)),
        ExecResult(1, said(LINES), timed_out=True),
        ExecResult(1, said(LINES), oom=True),
        ExecResult(1, said(LINES), truncated=True),
        ExecResult(1, said(LINES, key=b"x" * 32)),
        ExecResult(1, said(LINES) + "noise\n"),
        ExecResult(1, said(LINES) + said(LINES[2:3], start=6)),
        ExecResult(1, said(LINES, start=1)),
        ExecResult(1, said(LINES[:2]) + said(LINES[2:3], start=2) * 2),
        ExecResult(1, said((*LINES[:3], *LINES[4:]))),
        ExecResult(1, said((*LINES[:3], LINES[2], *LINES[4:]))),
        ExecResult(1, said(LINES[:-1])),
        ExecResult(1, said(LINES[1:])),
        ExecResult(1, said((*LINES[:4], ("finished", "0"), LINES[5]))),
        ExecResult(1, said((*LINES[:2], ("lucky", "a.py::t"), *LINES[3:]))),
        ExecResult(1, said((*LINES[:2], ("uncollected", "b.py"), *LINES[2:]))),
    ],
)
def test_missing_late_doubled_or_unauthenticated_reports_are_none(result):
    report = read_lines(result, KEY)
    assert report.problem
    assert not report.outcomes


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0 begun", "0 a b c", "0 x begun ", "x begun ", "0x begun ", "-0 begun ", "0 begun f", "0 begun zz"),
        *("0 begun ff", "0 begun  ", "0 Begun ", "\u0660 begun ", "0 b\u00e9gun ", f"{'9' * 5000} begun 00 "),
    ],
)
def test_a_sealed_line_of_another_form_is_not_authentic(text):
    """Code that finds the sealed writer can have it seal any text; that is no error of the grader's."""
    assert read_lines(ExecResult(1, seal(text)), KEY).problem == "the tests' report was not authentic"
    assert read_lines(ExecResult(1, said(LINES) + seal(text)), KEY).problem == "the tests' report was not authentic"


def test_a_line_that_is_no_text_is_not_authentic():
    assert read_lines(ExecResult(1, "\udcff 0 begun \udcff\n"), KEY).problem == "the tests' report was not authentic"


def test_the_guest_needs_only_the_standard_library_and_pytest():
    tree = ast.parse(Path(suite_guest.__file__).read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names} | {
        str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert imported <= {"collections.abc", "hashlib", "json", "os", "pytest", "sys", "typing"}


def test_nothing_secret_is_sent_but_the_key():
    """Which tests are replaced, and by what, stays outside: the request names functions, and no more."""
    requests = []

    def opener(spec):
        return watched(open_sandbox(spec))

    def watched(sandbox):
        run, fork = sandbox.exec, sandbox.fork

        @functools.wraps(run)
        def noted(argv, **options):
            if '"functions"' in str(options.get("stdin"))[:100_000]:
                requests.append(json.loads(options["stdin"]))
            return run(argv, **options)

        sandbox.exec = noted
        sandbox.fork = lambda n: [watched(child) for child in fork(n)]
        return sandbox

    Grader(opener, rounds=4).grade(TASK, solution_of(TASK))
    assert {name for request in requests for name in request} == {
        "key",
        "extra",
        "folder",
        "ini",
        "functions",
        "source",
        "plugins",
    }
    assert len({request["key"] for request in requests}) == len(requests)
    assert all(len(Run(tuple(request["functions"])).functions) >= 3 for request in requests)
