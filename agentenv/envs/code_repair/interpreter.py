"""The one interpreter that code meets: what the agent runs and what grades it start Python in the same way.

| | in both |
|---|---|
| started as | plain `python3`: `site` is imported, no option changes how it works |
| variables | `ENV`; where tests are pytest's, those of `testing_env` |
| `sys.path` | `tests`, the workspace, then what the interpreter has by itself; pytest's beside |
| `sys.argv`, modules | those of `TEST_COMMAND`, which has loaded `unittest` |
| warnings | Python's own filters while modules are imported, `unittest`'s while tests run |
| folder, standard input | the workspace; empty |

`entering.py` brings a grading process there: it has to take its request and load what it needs first, so that no module
of the workspace gets into its way.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "ENV",
    "FOLDER",
    "PYTEST_COMMAND",
    "TEST_COMMAND",
    "contract",
    "guest_argv",
    "guest_env",
    "guest_source",
    "testing_env",
]

ENV: Mapping[str, str] = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
    "TZ": "UTC",
}
"""Variables of every command, the agent's and the grader's, besides those that a sandbox sets itself."""

TEST_COMMAND = "python3 -m unittest discover -s tests"
"""What runs the visible tests, unless a task names something else."""

PYTEST_COMMAND = "python3 -m pytest -q"
"""What runs them where they are pytest's."""

FOLDER = ".pytest"
"""Where pytest is put, in the sandbox's folder for temporary files."""

_LATER = "AGENTENV_PYTHONPATH"

_HERE = Path(__file__).parent


def testing_env(source: Sequence[str]) -> dict[str, str]:
    """Returns the variables of sandboxes whose tests are pytest's; subprocesses of tests get them, too.

    Args:
        source: folders of the workspace to import from.
    """
    places = ["/workspace" if folder == "." else f"/workspace/{folder}" for folder in source]
    return {
        **ENV,
        "PYTHONPATH": ":".join((f"/tmp/{FOLDER}", *places)),  # noqa: S108  the sandbox's own
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "--import-mode=append -p no:cacheprovider",
    }


def guest_env(env: Mapping[str, str]) -> dict[str, str]:
    """Returns with what a guest is started: no folder of the workspace is searched before it runs.

    Args:
        env: variables of the sandbox in which the visible tests run; `entering.take_path` finds theirs.
    """
    later = {_LATER: env["PYTHONPATH"]} if "PYTHONPATH" in env else {}
    return {"PYTHONPATH": "", **later}


def contract(env: Mapping[str, str]) -> dict[str, Any]:
    """Returns what `entering.enter` makes of a process that was started with `guest_env`.

    Args:
        env: variables of the sandbox in which the visible tests run.
    """
    if "PYTHONPATH" not in env:
        return {"argv": ["python3 -m unittest", "discover", "-s", "tests"], "path": ["tests", "."]}
    return {"argv": [f"/tmp/{FOLDER}/pytest/__main__.py", "-q"], "path": ["."]}  # noqa: S108


def guest_source(*names: str) -> str:
    """Returns the text of modules of this package as one program, which needs nothing but the standard library."""
    lines: list[str] = []
    for name in names:
        text = (_HERE / f"{name}.py").read_text(encoding="utf-8")
        lines += [line for line in text.split("\n") if not line.startswith("from .")]
    return "\n".join(lines) + "\n"


def guest_argv(source: str, *words: str, python: str = "python3") -> list[str]:
    """Returns the command that runs a guest program.

    With `-c`, Python puts the workspace at the head of `sys.path`. The first statement takes it away again, so that the
    guest's own imports are the standard library's; `entering.enter` puts it back. A shell starts it, as it does every
    command of the agent, for shells set variables.
    """
    return ["sh", "-c", 'exec "$@"', "sh", python, "-c", f"import sys\ndel sys.path[0]\n{source}", *words]
