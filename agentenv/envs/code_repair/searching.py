"""Searching a workspace with grep: lines as every other tool counts them, in whatever encoding a file is."""

from agentenv.errors import ToolError, WorkspaceError
from agentenv.protocols import ExecResult, Sandbox

from .texts import NotText, Text, split_lines

__all__ = ["search_lines"]

_MOST_FILES = 200
_OTHERS = r"""
LC_ALL=C grep -rlIZ -e '' -- "$1" | xargs -0 -r grep -laxvZ -e '.*' --
LC_ALL=C grep -rlaZE -e "^($(printf '\357\273\277|\377\376|\376\377'))" -- "$1"
"""
"""Lists text files that are not plain UTF-8: no NUL and a line that no pattern matches, or a byte order mark."""


def search_lines(sandbox: Sandbox, pattern: str, path: str, timeout_s: float) -> list[str]:
    """Returns `path:number:line` of every line that matches an extended regular expression, in order.

    Binary files are left out; files that are not UTF-8 are searched as `Text` reads them.

    Raises:
        ToolError: the pattern is none, or the path cannot be searched.
        SandboxError: the sandbox broke.
    """
    result = sandbox.exec(["grep", "-rnIZHE", "-e", pattern, "--", path], timeout_s=timeout_s)
    if result.exit_code > 1:
        raise ToolError(_problem(result))
    found = [(*_parts(line), line) for line in result.stdout.split("\n") if "\0" in line]
    others = sandbox.exec(["sh", "-c", _OTHERS, "sh", path], timeout_s=timeout_s).stdout.split("\0")
    names = sorted({_plain(name) for name in others if name})[:_MOST_FILES]
    found = [entry for entry in found if entry[0] not in names]
    for name in names:
        found += _search_other(sandbox, pattern, name, timeout_s)
    return [f"{name}:{number}:{_line(line)}" for name, number, line in sorted(found, key=lambda entry: entry[:2])]


def _search_other(sandbox: Sandbox, pattern: str, name: str, timeout_s: float) -> list[tuple[str, int, str]]:
    """Searches a file that is not UTF-8."""
    try:
        text = Text.read(sandbox.read(name)).content
    except (WorkspaceError, NotText):
        return []
    lines = split_lines(text)
    result = sandbox.exec(["grep", "-nE", "-e", pattern], stdin="\n".join(lines), timeout_s=timeout_s)
    numbers = [int(line.partition(":")[0]) for line in result.stdout.split("\n") if line]
    return [(name, number, f"\0{number}:{lines[number - 1]}") for number in numbers]


def _parts(line: str) -> tuple[str, int]:
    """The file and the line number of a line of grep's output."""
    name, _, rest = line.partition("\0")
    number = rest.partition(":")[0]
    return _plain(name), int(number) if number.isdecimal() and len(number) < 12 else 0


def _line(line: str) -> str:
    return line.partition("\0")[2].partition(":")[2].removesuffix("\r")


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _problem(result: ExecResult) -> str:
    return result.stderr.strip()[:2000] or f"grep ended with exit code {result.exit_code}"
