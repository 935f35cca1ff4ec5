"""`pytest --agentenv-check ENV_ID`, run by pytest itself."""

import importlib
import json

import pytest

pytest_plugins = "pytester"
importlib.import_module("scipy.sparse")  # pytester forgets what a run of its own imported first; scipy loads once

GOOD = """
import agentenv as ae

class Counter(ae.ToolEnv):
    max_steps = 3
    class State(ae.State):
        total: int = 0
    def start(self, task):
        return "Count."
    @ae.tool
    def add(self, number: int) -> str:
        '''Add a number.'''
        self.state.total += number
        return str(self.state.total)

class Broken(Counter):
    def restore(self, snapshot, /):
        import dataclasses
        super().restore(dataclasses.replace(snapshot, env_id=self.env_id))

class Endless(Counter):
    max_steps = None

NUMBER = 5
"""


@pytest.fixture
def run(pytester):
    pytester.makepyfile(my_envs=GOOD)
    pytester.makepyfile(test_other="def test_other(): assert False")
    return lambda *args: pytester.runpytest_inprocess("-p", "no:cacheprovider", *args)


def test_every_law_is_a_test_of_its_own_and_nothing_else_runs(run):
    result = run("-v", "--agentenv-check", "my_envs:Counter")
    result.assert_outcomes(passed=15)
    result.stdout.fnmatch_lines(["*my_envs:Counter[[]gymnasium[]] PASSED*", "*my_envs:Counter[[]leaks[]] PASSED*"])


@pytest.mark.slow
def test_a_broken_law_is_quoted_without_a_traceback_and_a_skipped_one_says_why(run):
    result = run("-rsf", "--agentenv-check", "my_envs:Broken", "--agentenv-check=my_envs:Endless")
    result.assert_outcomes(passed=28, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "a snapshot of another env id or version raises SnapshotError naming both",
            "    a snapshot of 'other/Env-v0' was restored into 'Broken-v0'. Likely cause: `restore` is overridden *",
            "*these actions do not end an episode: give `actions` that do, or set max_steps",
            "FAILED ::my_envs:Broken[[]foreign[]]*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.ret == 1


def test_a_registered_id_is_checked(run):
    result = run("--agentenv-check", "agentenv/SearchQA-v0", "-k", "foreign or pure")
    result.assert_outcomes(passed=2, deselected=13)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "agentenv/MathVerifer-v0",
            "no environment *. Did you mean 'agentenv/MathVerifier-v0'*",
        ),
        ("no_such_module:Env", "No module named 'no_such_module'"),
        ("my_envs:Missing", "*there is no such name in my_envs*"),
        ("my_envs:NUMBER", "*NUMBER is no class derived from agentenv.Env in my_envs"),
    ],
)
def test_what_cannot_be_found_is_one_clear_line(run, name, words):
    result = run("--agentenv-check", name)
    result.stderr.fnmatch_lines([f"ERROR: --agentenv-check {name}: {words}"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_without_the_option_nothing_changes(run):
    run().assert_outcomes(failed=1)


def test_given_actions_are_played_and_what_they_do_not_reach_is_said(run, pytester):
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"number": 3}}}]}
    pytester.makefile(".jsonl", good=f"{json.dumps(call)}\n" * 3, text='"no call"\n')
    result = run("--agentenv-check", "my_envs:Counter", "--agentenv-actions", "good.jsonl", "-k", "equal")
    result.assert_outcomes(passed=1, deselected=14)
    result.stdout.fnmatch_lines(["*what the actions reached of my_envs:Counter*", "add: 3 calls, 0 mistakes"])
    result.stdout.no_fnmatch_line("*warning: *")
    result = run("--agentenv-check", "my_envs:Counter", "--agentenv-actions", "text.jsonl", "-k", "equal")
    result.stdout.fnmatch_lines(
        ["add: 0 calls, 0 mistakes: not reached", "warning: not reached, and so not checked: add; *"]
    )
