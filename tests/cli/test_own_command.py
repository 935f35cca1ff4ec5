"""Commands that we propose can be copied: where the environment is not active, from another folder, with odd names."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import run

from agentenv.cli.console import own_command

BESIDE = Path(sys.executable).with_name("agentenv")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with a space in its name, where the environment is not active."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(folder)
    return folder


def shell(command, folder):
    words = ["/bin/sh", "-c", command]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_by_its_path_where_the_environment_is_not_active(elsewhere, monkeypatch):
    assert own_command() == shlex.quote(str(BESIDE))
    monkeypatch.chdir(BESIDE.parent.parent)
    assert own_command("view", "x y.jsonl") == "bin/agentenv view 'x y.jsonl'"
    assert own_command(moved=True) == shlex.quote(str(BESIDE))


def test_by_its_name_where_a_shell_finds_it(elsewhere, monkeypatch):
    monkeypatch.setenv("PATH", str(BESIDE.parent))
    assert own_command("trees", Path("t.jsonl")) == "agentenv trees t.jsonl"
    assert own_command("-m", "pytest", program="python") == "python -m pytest"
    tools = elsewhere / "tools"  # as tools are installed that have an environment each: a link to the program
    tools.mkdir()
    (tools / "agentenv").symlink_to(BESIDE)
    monkeypatch.setenv("PATH", str(tools))
    assert own_command() == "agentenv"


def test_by_its_path_where_a_shell_finds_that_of_another_environment(elsewhere, monkeypatch):
    other = elsewhere / "other"
    other.mkdir()
    for name in ("agentenv", "python"):
        (other / name).symlink_to(Path(sys.executable).resolve())  # pythons of all environments are one file
    monkeypatch.setenv("PATH", str(other))
    assert own_command() == shlex.quote(str(BESIDE))
    assert own_command(program="python") == shlex.quote(str(BESIDE.with_name("python")))


def test_what_new_proposes_runs_in_a_plain_shell(elsewhere):
    result = run("new", "drawer-desk", "--into", "my code")
    assert result.exit_code == 0, result.stderr
    move, tests, play = (line.strip() for line in result.stdout.partition("Next:")[2].strip().splitlines())
    assert (move, shlex.split(play)[1:]) == ("cd 'my code/drawer-desk'", ["play", "drawer_desk:DrawerDeskEnv"])
    assert shlex.split(tests)[1:] == ["-m", "pytest"]
    done = shell(f"{move} && {tests} --version && {play} --help", elsewhere)
    assert done.returncode == 0, done.stderr
    assert "pytest" in done.stdout
    assert "play" in done.stdout
