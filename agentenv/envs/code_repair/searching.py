"""Searching a workspace with grep: lines as every other tool counts them, in whatever encoding a file is."""

from agentenv.errors import ToolError, WorkspaceError
from agentenv.protocols import ExecResult, Sandbox

from .texts import NotText, Text, split_lines

__all__ = ["search_lines"]

_MOST_FILES = 200
_OTHERS = r"""
LC_ALL=C grep -rlIZ -D skip -e '' -- "$1" | xargs -0 -r grep -laxvZ -e '.*' --
LC_ALL=C grep -rlaZE -D skip -e "^($(printf '\357\273\277|\377\376|\376\377'))" -- "$1"
"""
"""Lists text files that are not plain UTF-8: no NUL and a line that no pattern matches, or a byte order mark."""


def search_lines(sandbox: Sandbox, pattern: str, path: str, timeout_s: float) -> list[str]:
    """Returns `path:number:line` of every line that matches an extended regular expression, in order.

    Binary files and what is no file (pipes, devices) are left out; files that are not UTF-8 are searched as `Text`
    reads them. Where nothing matches, a line says so; so do lines for whatever below the path cannot be read.

    Raises:
        ToolError: the pattern is none, the path cannot be searched, or not in time.
        SandboxError: the sandbox broke.
    """
    result = _run(sandbox, ["grep", "-rnIZHE", "-D", "skip", "-e", pattern, "--", path], timeout_s)
    said = [line for line in result.stderr.splitlines() if not line.startswith("grep: warning: ")]
    below = f"grep: {path.rstrip('/')}/"
    unread = [line.replace("grep: ", "not searched: ", 1) for line in said if line.startswith(below)]
    if result.exit_code > 1 and (not unread or len(unread) < len(said)):
        raise ToolError(_problem(result))
    found = [(*_parts(line), line) for line in result.stdout.split("\n") if "\0" in line]
    others = _run(sandbox, ["sh", "-c", _OTHERS, "sh", path], timeout_s).stdout.split("\0")
    names = sorted({_plain(name) for name in others if name})[:_MOST_FILES]
    found = [entry for entry in found if entry[0] not in names]
    for name in names:
        found += _search_other(sandbox, pattern, name, timeout_s)
    lines = [f"{name}:{number}:{_line(line)}" for name, number, line in sorted(found, key=lambda entry: entry[:2])]
    return (lines or ["no match"]) + unread


def _search_other(sandbox: Sandbox, pattern: str, name: str, timeout_s: float) -> list[tuple[str, int, str]]:
    """Searches a file that is not UTF-8."""
    try:
        text = Text.read(sandbox.read(name)).content
    except (WorkspaceError, NotText):
        return []
    lines = split_lines(text)
    result = _run(sandbox, ["grep", "-nE", "-e", pattern], timeout_s, stdin="\n".join(lines))
    numbers = [int(line.partition(":")[0]) for line in result.stdout.split("\n") if line]
    return [(name, number, f"\0{number}:{lines[number - 1]}") for number in numbers]


def _run(sandbox: Sandbox, command: list[str], timeout_s: float, *, stdin: str = "") -> ExecResult:
    result = sandbox.exec(command, stdin=stdin, timeout_s=timeout_s)
    if result.timed_out:
        msg = f"the search timed out after {timeout_s:g} s; name a smaller folder as path, or a simpler pattern"
        raise ToolError(msg)
    return result


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
