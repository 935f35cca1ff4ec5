"""Wrong input: one line on stderr that names argument, rule, value and remedy; exit code 2; no traceback."""

import subprocess
import sys

import pytest
from cli_runs import one_line_error, run

MATH = "agentenv/MathVerifier-v0"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["evns"], ["'evns'", "Did you mean 'envs'"]),
        (["envs", "MathVerfier"], ["'ENV_ID'", "'MathVerfier'", f"Did you mean '{MATH}'"]),
        (["envs", "agentenv/MathVerifer-v0"], ["'ENV_ID'", f"'agentenv/MathVerifer-v0'. Did you mean '{MATH}'"]),
        (["envs", "agentenv/MathVerifer"], ["'ENV_ID'", f"'agentenv/MathVerifer'. Did you mean '{MATH}'"]),
        (["envs", "dice_env/Dcie-v0"], ["'ENV_ID'", "there is no such name in dice_env"]),
        (["envs", "CartPole-v1"], ["'ENV_ID'", "'CartPole-v1'", "cannot be branched"]),
        (["envs", "no_such_module:Env"], ["'ENV_ID'", "no_such_module", "in this folder, /"]),
        (["envs", "dice_env"], ["'ENV_ID'", "dice_env is a module", "'dice_env:CLASS'"]),
        (["envs", "dice-env"], ["'ENV_ID'", "dice_env is a module", "'dice_env:CLASS'"]),
        (["envs", "dice_env.Dice"], ["'ENV_ID'", "Did you mean 'dice_env:Dice'"]),
        (["envs", "dice_env/Dice-v0"], ["'ENV_ID'", "Did you mean 'dice_env:Dice'"]),
        (["envs", "nothing/Dice-v0"], ["'ENV_ID'", "A class of your own is module:Class"]),
        (["play", "nowhere.jsonl"], ["'ENV_ID|FILE'", "no such file: 'nowhere.jsonl'"]),
        (["envs", "dice_env:Dcie"], ["'ENV_ID'", "'dice_env:Dcie'", "no such name"]),
        (["envs", "./dice_env.py:Dice"], ["'ENV_ID'", "'./dice_env.py' is a path: write 'dice_env:Dice'"]),
        (["eval", "dice_env.py:Dice"], ["'ENV_ID'", "'dice_env.py' is a path: write 'dice_env:Dice'"]),
        (["eval", "inner/dice_env:Dice"], ["'ENV_ID'", "is a path: write 'inner.dice_env:Dice'"]),
        (["eval", MATH, "--agent", "../x.py:Agent"], ["'--agent'", "is a path: write 'x:Agent' in its folder, '..'"]),
        (["envs", "dice_env:NotAnEnv"], ["'ENV_ID'", "NotAnEnv is no class derived from agentenv.Env"]),
        (["envs", MATH, "--option", "dificulty=2"], ["'--option'", "'dificulty'", "did you mean 'difficulty'"]),
        (["envs", MATH, "--option", "difficulty"], ["'--option'", "key=value", "'difficulty'"]),
        (["envs", MATH, "--option", "kind=poetry"], ["'--option'", "kind", "'poetry'", "'arithmetic'"]),
        (["envs", "dice_env:Dice", "--option", "max_steps=0"], ["'--option'", "max_steps", "at least 1", "0"]),
        (
            ["envs", MATH, "--option", "max_steps=abc"],
            ["'--option'", "max_steps must be an integer or null, got 'abc'"],
        ),
        (
            ["envs", MATH, "--option", "max_steps=1.5"],
            ["'--option'", "max_steps must be an integer or null, got '1.5'"],
        ),
        (["envs", MATH, "--option", "attempts=true"], ["'--option'", "attempts must be an integer, got 'true'"]),
        (["envs", MATH, "--option", "feedback=no"], ["'--option'", "must be 'verdict' or 'direction', got 'no'"]),
        (["train", MATH, "--model", ".", "--credit-option", "discount=x"], ["'--credit-option'", "a number, got 'x'"]),
        (["check", "dice_env:Dice", "--actions", "empty.jsonl"], ["'--actions'", "no actions in 'empty.jsonl'"]),
        (["play", MATH, "--at", "0"], ["'--at'", "it is of a trees file", "got 0"]),
        (["play", MATH, "--tree", "2"], ["'--tree'", "it is of a trees file", "got 2"]),
        (["play", "dice_env:Dice", "--env", MATH], ["'--env'", "it is of a trees file", MATH]),
        (["play", MATH, "--task", "{"], ["'--task'", "JSON", "'{'"]),
        (["play", MATH, "--task", '{"question": 3}'], ["'--task'", "question"]),
        (["play", MATH, "--task", "7"], ["'--task'", "7"]),
        (["play", MATH, "--seed", "-1"], ["'--seed'", "'-1'"]),
        (["play", MATH, "--trees", "dice_env.py"], ["'--trees'", "'dice_env.py' is neither"]),
        (["rollout"], ["Missing argument 'ENV_ID'"]),
        (["rollout", MATH, "--tasks", "0"], ["'--tasks'", "1", "'0'"]),
        (["rollout", MATH, "--tasks", "many"], ["'--tasks'", "integer", "'many'"]),
        (["rollout", MATH, "--agent", "scriptd"], ["'--agent'", "'scriptd'", "did you mean 'scripted'"]),
        (["rollout", "dice_env:Dice", "--agent", "scripted"], ["'--agent'", "no demonstrations"]),
        (["rollout", MATH, "--agent", "scripted", "--option", "kind=countdown"], ["'--agent'", "'countdown'"]),
        (["rollout", MATH, "--out", "dice_env.py/trees.jsonl"], ["'--out'", "dice_env.py"]),
        (["trees", "nowhere.jsonl"], ["'FILE'", "nowhere.jsonl"]),
        (["trees", "dice_env.py"], ["'FILE'", "dice_env.py, line 1"]),
        (["check", MATH, "--clause", "sibling"], ["'--clause'", "'sibling'", "siblings"]),
        (["train", MATH], ["Missing option '--model'"]),
        (["train", MATH, "--model", "nowhere"], ["'--model'", "'nowhere'", "no such folder"]),
        (["train", MATH, "--model", ".", "--credit", "srppo"], ["'--credit'", "Did you mean 'sr_ppo'", "closed_loop,"]),
        (["view", "nowhere.jsonl", "--credit", "sr_ppo"], ["'--credit'", "train --credit sr_ppo"]),
        (["train", MATH, "--model", ".", "--credit", "rtcm"], ["'--credit'", "'rtcm'", "Did you mean 'rtmc'"]),
        (
            ["train", MATH, "--model", ".", "--credit-option", "discuont=1"],
            ["'--credit-option'", "'discuont'", "did you mean 'discount'"],
        ),
        (["train", MATH, "--model", ".", "--credit-option", "discount=7"], ["'--credit-option'", "discount", "7"]),
        (["train", MATH, "--model", ".", "--resume"], ["'--resume'", "--run-folder"]),
        (["train", MATH, "--model", ".", "--resume", "--run-folder", "."], ["'--run-folder'", "checkpoint"]),
        (["doctor", "--jsn"], ["--jsn", "--json"]),
    ],
)
def test_wrong_input(here, words, parts):
    (here / "empty.jsonl").touch()
    line = one_line_error(run(*words))
    for part in parts:
        assert part in line, line
    assert line.endswith("--help")


@pytest.mark.model
def test_a_folder_without_a_model_or_without_a_tokenizer(here):
    line = one_line_error(run("rollout", "dice_env:Dice", "--agent", "."))
    assert "'--agent'" in line and "config.json" in line and "dice_env.py" in line
    (here / "config.json").write_text("{}")
    line = one_line_error(run("train", "dice_env:Dice", "--model", "."))
    assert "'--model'" in line and "must hold a tokenizer" in line


def test_a_run_folder_is_never_overwritten(here):
    (here / "old").mkdir()
    (here / "old" / "metrics.jsonl").write_text("")
    line = one_line_error(run("train", "dice_env:Dice", "--model", ".", "--run-folder", "old"))
    assert "'--run-folder'" in line and "'old'" in line and "--resume" in line
    line = one_line_error(run("demo", "--run-folder", "old"))
    assert "'--run-folder'" in line and "--resume" not in line  # which the demo has not
    (here / "notes").mkdir()
    (here / "notes" / "notes.txt").write_text("kept")
    line = one_line_error(run("demo", "--run-folder", "notes"))
    assert "'--run-folder': must be new or empty; got 'notes', which holds 'notes.txt': name another" in line


def test_a_bug_is_one_line_too_and_debug_shows_its_traceback(here):
    (here / "buggy_env.py").write_text(
        "import agentenv as ae\nclass Buggy(ae.ToolEnv):\n    def start(self, task):\n        raise KeyError('oops')\n"
    )
    line = one_line_error(run("envs", "buggy_env:Buggy"), code=1)
    assert "unexpected KeyError: 'oops'" in line and "--debug" in line
    result = run("--debug", "envs", "buggy_env:Buggy")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "buggy_env.py" in result.stderr


def test_the_installed_command_fails_in_the_same_way():
    command = [sys.executable, "-c", "from agentenv.cli import main; main()", "envs", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
