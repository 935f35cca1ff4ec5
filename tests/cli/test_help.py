"""Help: every command has one with an example, in plain text, at once."""

import json
import subprocess
import sys

import pytest
from cli_runs import one_line_error, run

from agentenv import __version__

COMMANDS = [
    "envs",
    "play",
    "rollout",
    "trees",
    "view",
    "export",
    "replay",
    "eval",
    "compare",
    "train",
    "proxy",
    "mcp",
    "serve",
    "check",
    "new",
    "doctor",
    "demo",
]
HEAVY = {"torch", "transformers", "trl", "datasets", "scipy", "matplotlib", "docker", "sympy", "bm25s", "math_verify"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_names_the_command(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:\n")[1].split("\n\n")[0]
    assert f"    agentenv {command}" in examples
    assert "\x1b" not in result.stdout
    assert run(command, "-h").stdout == result.stdout


def test_every_option_is_explained():
    for command in COMMANDS:
        lines = run(command, "--help").stdout.split("Options:\n")[1].splitlines()
        bare = [line for i, line in enumerate(lines) if line.lstrip().startswith("--") and "  " not in line.strip()
                and not lines[i + 1].startswith("      ")]  # fmt: skip
        assert not bare


def test_the_list_of_commands_is_complete_and_no_line_is_cut():
    text = run("--help").stdout
    listed = [line.split()[0] for line in text.split("Commands:\n")[1].splitlines()]
    assert listed[: len(COMMANDS)] == COMMANDS
    assert "index" in listed
    assert "..." not in text.split("Commands:")[1]


def test_nothing_but_a_name_shows_the_help():
    result = run()
    assert result.exit_code == 2
    assert "Usage: agentenv" in result.stderr


def test_version():
    assert run("--version").stdout == f"agentenv {__version__}\n"


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["demo", "--help"], ["envs", "no-such-env"]])
def test_help_and_early_errors_import_nothing_heavy(words):
    code = (
        "import sys\nfrom agentenv.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "import json\nprint('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & HEAVY
    assert "agentenv" in loaded


def test_commands_of_other_packages_are_mounted():
    result = run("index", "build", "--help")
    assert result.exit_code == 0
    assert "Usage: agentenv index build" in result.stdout
    assert "JSONL" in result.stdout
    assert "'--hlp'" in one_line_error(run("index", "build", "--hlp")).replace("--hlp", "'--hlp'", 1)
