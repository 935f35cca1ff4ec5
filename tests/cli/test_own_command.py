"""Commands that we propose can be copied: where the environment is not active, from another folder, with odd names."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import run

from agentenv import Action, EpisodeTree
from agentenv.cli.console import own_command
from agentenv.serialize import write_trees

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
    result = run("new", "lamp-shelf", "--into", "my code")
    assert result.exit_code == 0, result.stderr
    move, tests, play = (line.strip() for line in result.stdout.partition("Next:")[2].strip().splitlines())
    assert (move, shlex.split(play)[1:]) == ("cd 'my code/lamp-shelf'", ["play", "lamp_shelf:LampShelfEnv"])
    assert shlex.split(tests)[1:] == ["-m", "pytest"]
    done = shell(f"{move} && {tests} --version && {play} --help", elsewhere)
    assert done.returncode == 0, done.stderr
    assert "pytest" in done.stdout
    assert "play" in done.stdout


def test_the_other_trees_are_shown_by_what_trees_proposes(elsewhere):
    trees = [EpisodeTree(({"role": "user", "content": word},), task_id=word) for word in ("one", "other")]
    for tree in trees:
        tree.add(0, Action("go"), reward=1.0, terminated=True)
    write_trees("my trees.jsonl", trees)
    proposed = run("trees", "my trees.jsonl").stdout.splitlines()[-1].removeprefix("The others: ")
    done = shell(proposed, elsewhere)
    assert done.returncode == 0, done.stderr
    assert "tree 1:" in done.stdout and "task other" in done.stdout


TELLS = """#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$PYTHONPATH" "$@"
"""


@pytest.mark.parametrize(
    ("words", "program", "said"),
    [
        (["--openenv", "--out", "its env"], "openenv", ["validate", "its env", "--level", "static"]),
        (["--verifiers", "0", "--out", "its code/math_one"], "vf-eval", ["math_one", "-n", "2", "-r", "1"]),
        (["--verifiers", "1", "--out", "math_two"], "vf-validate", ["math_two", "--taskset.num-tasks", "8"]),
    ],
)
def test_what_serve_proposes_is_a_command_and_what_it_needs_is_said(elsewhere, monkeypatch, words, program, said):
    """Their programs are of other environments: here one stands for them that says how it was called."""
    result = run("serve", "agentenv/MathVerifier-v0", *words)
    assert result.exit_code == 0, result.stderr
    wrote, needs = result.stdout.splitlines()
    assert "pip install" in needs
    tools = elsewhere / "their tools"
    tools.mkdir()
    (tools / program).write_text(TELLS)
    (tools / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = shell(wrote.partition("; check it: ")[2], elsewhere)
    name, found, *got = done.stdout.splitlines()
    assert (name, got[: len(said)]) == (program, said), done.stderr
    if program != "openenv":
        assert (Path(found) / f"{said[0]}.py").is_file()


def test_a_served_environment_says_how_it_is_checked(elsewhere, monkeypatch):
    monkeypatch.setattr("agentenv.interop.OpenEnvServer.wait", lambda _: None)
    first, needs = run("serve", "agentenv/MathVerifier-v0", "--openenv", "--port", 0).stdout.splitlines()
    words = shlex.split(first.partition("; check it: ")[2])
    assert words[:3] == ["openenv", "validate", "--url"] and words[3] in first.partition(";")[0]
    assert "pip install openenv" in needs


def test_the_readme_of_a_new_package_says_what_its_commands_need(elsewhere):
    run("new", "lamp-shelf")
    head, commands, _ = (elsewhere / "lamp-shelf" / "README.md").read_text().partition("```bash")
    assert commands and "source .venv/bin/activate" in head and "agentenv-rl" in head
