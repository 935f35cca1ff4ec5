"""`agentenv new`: the package that it writes passes its own tests, and its README's commands work, at once."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from cli_runs import one_line_error, run

from agentenv import Action


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    result = run("new", "drawer-desk", "--into", folder)
    assert result.exit_code == 0, result.stderr
    assert f"cd {folder / 'drawer-desk'}" in result.stdout
    listed = [Path(line) for line in result.stdout.splitlines() if line.startswith(str(folder))]
    assert sorted(listed) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder / "drawer-desk"


@pytest.mark.slow
def test_its_tests_pass_at_once(written):
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    done = subprocess.run(words, cwd=written, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b6\d passed", done.stdout)


@pytest.mark.slow
def test_the_commands_of_its_readme_work(written, monkeypatch):
    monkeypatch.chdir(written)
    monkeypatch.syspath_prepend(written)
    text = (written / "README.md").read_text()
    commands = [line.partition("  #")[0].split() for line in text.splitlines() if line.startswith("agentenv ")]
    names = "envs play check rollout trees view export train"
    assert [words[1] for words in commands] == names.split()
    said = {}
    for words in commands[:-1]:
        result = run(*words[1:], stdin="")
        assert result.exit_code == 0, (words, result.stdout, result.stderr)
        said[words[1]] = result.stdout
    assert "not reached" not in said["check"]  # its own demonstrations are played
    assert " A+" in said["trees"] and " A-" in said["trees"]
    assert (written / "page.html").stat().st_size > 10_000
    assert list((written / "trajectories").iterdir())
    result = run("envs", "drawer_desk:drawer_desk/DrawerDeskEnv-v0")  # by the id that importing registers
    assert result.exit_code == 0, result.stderr
    monkeypatch.setattr("agentenv.registry._registered", [])
    monkeypatch.delitem(gymnasium.registry, "drawer_desk/DrawerDeskEnv-v0")  # as in a process that has not imported it
    result = run("replay", "trees.jsonl", "--at", "0")
    assert result.exit_code == 0, result.stderr


@pytest.mark.slow
@pytest.mark.model
def test_a_tiny_model_can_be_trained_on_it(written, monkeypatch):
    monkeypatch.chdir(written)
    monkeypatch.syspath_prepend(written)
    (line,) = [line for line in (written / "README.md").read_text().splitlines() if line.startswith("agentenv train")]
    result = run(*line.split()[1:], "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "48 tasks to train on, 12 held out" in result.stdout


@pytest.mark.slow
def test_a_package_may_be_named_as_its_test_is(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV"))}
    make = [sys.executable, "-m", "agentenv", "new", "test-env"]  # here a module test_env can be imported: our own test
    subprocess.run(make, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=200)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "registered"]
    done = subprocess.run(
        words, cwd=tmp_path / "test-env", env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["action", "path", "any", "env", "tool-call"])
def test_names_of_what_the_templates_import_do_no_harm(name, tmp_path, monkeypatch):
    assert run("new", name, "--into", tmp_path).exit_code == 0
    monkeypatch.syspath_prepend(tmp_path / name)
    module = name.replace("-", "_")
    names = runpy.run_path(str(tmp_path / name / "tests" / "test_env.py"))
    assert names["Action"] is Action
    assert names["play"](names["TASKS"][0], names["careful_calls"](names["TASKS"][0])) == (1.0, True)
    for loaded in [key for key in sys.modules if key.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My-Env", "must be words of a-z and digits, joined by - or _.*got 'My-Env'; try 'my-env'"),
        ("../up", "must be words of a-z and digits.*try 'up'"),
        ("a--b", "must be words of a-z and digits.*try 'a-b'"),
        ("class", "no word of Python, got 'class'; try 'class-env'"),
        ("\u00dcber 3D", "try 'uber-3d'"),
        ("\u6f22\u5b57", "try 'my-env'"),
        ("3", "try 'my-env'"),
        ("a" * 300, "at most 60 long.*try 'a{60}'"),
        ("json", "must be new: a module 'json' can be imported"),
        ("numpy", "must be new: a module 'numpy' can be imported"),
        ("tests", "must be new"),
    ],
)
def test_a_name_that_cannot_be_a_package_of_ones_own_is_refused(name, words, tmp_path):
    assert re.search(words, one_line_error(run("new", name, "--into", tmp_path)))
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "mine").mkdir()
    assert "must be a new folder" in one_line_error(run("new", "mine", "--into", tmp_path))
    (tmp_path / "file").write_text("")
    assert "--into" in one_line_error(run("new", "mine", "--into", tmp_path / "file"))
