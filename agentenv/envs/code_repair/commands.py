"""What a step did, for RTMC's signatures: tool calls and shell commands as `FileStep`s.

Source: RTMC (arXiv 2604.11037) and the bash adaptation of a public port of it; deviations are in
`agentenv.credit.file_signatures`. A command is named after its first part that is not setup (`cd`, `export`, an
assignment, `env`, `time`). Decided here, as the ports leave it open: `head` and `tail` view the whole file; a command
whose output is redirected into a file modifies it, whatever the command; a heredoc is part of the text that is hashed.
"""

import posixpath
import re
import shlex
from typing import Any

from agentenv.credit.file_signatures import FileStep
from agentenv.types import ToolCall

__all__ = ["describe_call", "describe_command"]

_SKIPPED = frozenset({"cd", "export", "set", "source", ".", "sudo", "env", "time", "true", ":"})
_VIEWERS = frozenset({"cat", "head", "tail", "nl", "less", "more", "bat"})
_SEARCHERS = frozenset({"grep", "rg", "egrep", "fgrep", "find", "ls", "wc", "which", "tree"})
_TESTERS = frozenset({"pytest", "tox", "nose2", "unittest"})
_CHANGERS = frozenset({"cp", "mv", "rm", "patch", "tee"})
_MAKERS = frozenset({"touch", "mkdir"})
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")
_REDIRECTION = re.compile(r"(?:^|[^0-9&>])>>?\s*([^\s&|;>]+)")
_RANGE = re.compile(r"^(\d+)(?:,(\d+))?p$")


def describe_call(call: ToolCall, outcome: str = "") -> FileStep:
    """Returns what a call of one of CodeRepair's tools did.

    Args:
        call: the call.
        outcome: `"ok"` or `"error"`; kept for tests and commands.
    """
    arguments: dict[str, Any] = call.arguments if isinstance(call.arguments, dict) else {}
    path = _plain(str(arguments.get("path") or ""))
    match call.name:
        case "read_file":
            first, last = arguments.get("start"), arguments.get("end")
            whole = not isinstance(last, int) and not (isinstance(first, int) and first > 1)
            lines = None if whole else (_line(first, 1), _line(last, _line(first, 1)))
            return FileStep("view", path, lines)
        case "search":
            return FileStep("search", path or ".")
        case "edit_file":
            return FileStep("modify", path, old=str(arguments.get("old", "")), new=str(arguments.get("new", "")))
        case "write_file":
            return FileStep("create", path)
        case "run_tests":
            return FileStep("test", "all", outcome=outcome)
        case "submit":
            return FileStep("finish")
        case "run":
            return describe_command(str(arguments.get("command", "")), outcome)
        case _:
            return FileStep("execute", call.name, outcome="error")


def describe_command(text: str, outcome: str = "") -> FileStep:
    """Returns what a shell command did, as far as its text tells."""
    words = _first_command(text)
    if not words:
        return FileStep("think")
    name, rest = posixpath.basename(words[0]), words[1:]
    targets = [_plain(word) for word in rest if not word.startswith("-")]
    if name in _TESTERS or (re.fullmatch(r"python[\d.]*", name) and set(rest[:4]) & _TESTERS and "-m" in rest):
        paths = [target for target in targets if target.endswith(".py") or "/" in target]
        return FileStep("test", paths[0] if paths else "all", outcome=outcome)
    redirected = _REDIRECTION.search(_without_quotes(text))
    if redirected and redirected[1] != "/dev/null":
        return FileStep("modify", _plain(redirected[1]), old=text)
    in_place = name == "sed" and any(word.startswith(("-i", "--in-place")) for word in rest)
    if name in _CHANGERS or in_place or (name == "git" and rest[:1] and rest[0] in {"apply", "checkout", "revert"}):
        return FileStep("modify", targets[-1] if targets else "inline", old=text)
    if name == "sed" and (span := next((m for word in rest if (m := _RANGE.match(word))), None)):
        first = int(span[1])
        return FileStep("view", targets[-1] if len(targets) > 1 else "", (first, int(span[2] or first)))
    if name in _VIEWERS:
        return FileStep("view", targets[-1] if targets else "")
    if name in _SEARCHERS:
        return FileStep("search", targets[0 if name == "find" else -1] if targets else ".")
    if name in _MAKERS:
        return FileStep("create", targets[-1] if targets else "")
    return FileStep("execute", f"git:{rest[0]}" if name == "git" and rest else name, outcome=outcome)


def _first_command(text: str) -> list[str]:
    """Returns the words of the first part of a command line that does something."""
    lexer = shlex.shlex(text.partition("<<")[0], posix=True, punctuation_chars=";&|\n")
    lexer.whitespace_split = True
    lexer.whitespace = " \t\r"
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:  # an open quotation
        tokens = text.split()
    for token in [*tokens, ";"]:
        if token and not token.strip(";&|\n"):
            while words and (words[0] in _SKIPPED or _ASSIGNMENT.match(words[0])):
                words = [] if words[0] in {"cd", "export", "set", "source", ".", "true", ":"} else words[1:]
            if words:
                return words
        else:
            words.append(token)
    return words


def _without_quotes(text: str) -> str:
    return re.sub(r"'[^']*'|\"[^\"]*\"", "''", text.partition("\n")[0])


def _plain(path: str) -> str:
    return posixpath.normpath(path).removeprefix("/workspace/") if path else ""


def _line(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
