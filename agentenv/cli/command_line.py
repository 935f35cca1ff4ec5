"""How commands explain themselves and fail: help with examples, errors on one line, exit codes.

Exit codes: 0 done, 1 the work failed, 2 the command was used wrongly, 130 interrupted. `agentenv --debug COMMAND` adds
the traceback.
"""

import errno
import importlib
import inspect
import io
import itertools
import os
import re
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

from agentenv.errors import AgentEnvError

__all__ = ["Command", "CommandGroup", "blame", "blame_address", "lazy_group", "mistake_in", "refuse"]

_INTERRUPTED = 130


def refuse(argument: str, message: str) -> NoReturn:
    """Ends the command because the user gave a wrong value: exit code 2, and one line that names the argument.

    Raises:
        typer.BadParameter: always.
    """
    raise typer.BadParameter(message, param_hint=f"'{argument}'")


def mistake_in(name: str, error: Exception) -> str:
    """Says why a module cannot be imported: what its own line raised, and which line that is."""
    frames = traceback.extract_tb(error.__traceback__)
    modules = [frame.filename for frame in frames if frame.name == "<module>"]
    if isinstance(error, AgentEnvError) or (isinstance(error, ImportError) and not modules):
        return str(error)
    at = [f" ({Path(one.filename).name}, line {one.lineno})" for one in frames if one.filename in modules[-1:]]
    where = "" if isinstance(error, SyntaxError) else "".join(at[-1:])  # which says so itself
    return f"{name} cannot be imported: {type(error).__name__}: {error}{where}"


@contextmanager
def blame(argument: str, *kinds: type[Exception]) -> Generator[None]:
    """Turns exceptions of these kinds into a refusal of one argument."""
    try:
        yield
    except kinds as error:
        refuse(argument, str(error) or type(error).__name__)


@contextmanager
def blame_address(host: str) -> Generator[None]:
    """Turns an error of beginning to listen into a refusal of `--host`, where that is no address here, or `--port`."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.EADDRINUSE, errno.EACCES}:  # it is taken, or not for us
            refuse("--port", str(error))
        refuse("--host", f"must be an address of this machine, got {host!r}: {error}")


class Command(TyperCommand):
    """A command whose help keeps the indented lines of its docstring as they stand: examples."""

    @override
    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        _write_help_text(self.help or "", formatter)

    @override
    def get_help(self, ctx: Any) -> str:
        return _paint(super().get_help(ctx))


class CommandGroup(TyperGroup):
    """A group of commands; the outermost one also turns exceptions into one line and an exit code."""

    @override
    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        _write_help_text(self.help or "", formatter)

    @override
    def get_help(self, ctx: Any) -> str:
        return _paint(super().get_help(ctx))

    @override
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command and exits; returns instead where `standalone_mode` is false."""
        arguments = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            name = prog_name or "agentenv"
            return super(CommandGroup, self).main(
                arguments, name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args, **extra
            )

        if not standalone_mode:
            return run()
        _escape_what_cannot_be_printed()
        debug = "--debug" in itertools.takewhile(lambda word: word.startswith("-"), arguments)
        try:
            code = run()
        except (typer.Abort, KeyboardInterrupt):
            code = _INTERRUPTED
        except Exception as error:  # noqa: BLE001  whatever it is, the user gets one line
            if debug:
                traceback.print_exc()
            sys.exit(_report(error, arguments))
        if code == _INTERRUPTED:
            typer.echo("\nInterrupted.", err=True)
        sys.exit(code or 0)


def _escape_what_cannot_be_printed() -> None:
    """Makes escapes of what the streams cannot hold: half a surrogate pair, say, which models do write."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in {"strict", "surrogateescape"}:
            stream.reconfigure(errors="backslashreplace")


def lazy_group(module: str) -> type[TyperGroup]:
    """Returns a class that stands for the typer app `app` of a module, imported only when one of its commands runs."""

    class LazyGroup(CommandGroup):
        """Stands for a group of commands."""

        @override
        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
            group: Any = typer.main.get_command(importlib.import_module(module).app)
            group.params = [p for p in group.params if "completion" not in str(p.name)]
            for command in (group, *group.commands.values()):
                command.rich_markup_mode = None  # plain help, like everywhere here
            return group.make_context(info_name, args, parent, **extra)

    return LazyGroup


def _report(error: Exception, arguments: Sequence[str]) -> int:
    """Writes one line to stderr and returns the exit code."""
    code = int(getattr(error, "exit_code", 1))
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(str(error), err=True)
        return code
    describe = getattr(error, "format_message", None)
    if describe is not None:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "agentenv"
        said = f"{describe().rstrip('. ')}{_given(error, arguments)}"
        text = f"{said}{'' if said.endswith('?') else '.'} Help: {path} --help"
    elif isinstance(error, AgentEnvError | OSError):
        text = str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error} (`agentenv --debug COMMAND ...` shows where)"
    label = typer.style("Error:", fg="red", bold=True) if _colors(sys.stderr) else "Error:"
    typer.echo(f"{label} {' '.join(text.split())}", err=True)
    return code


def _given(error: Exception, arguments: Sequence[str]) -> str:
    """Returns the value that was given to the option, where the message does not show it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    words = [word for argument in arguments for word in argument.split("=", 1)] if names else []
    values = [value for name, value in itertools.pairwise(words) if name in names]
    return f"; got {values[-1]!r}" if values and "got" not in str(error) else ""


def _colors(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _write_help_text(text: str, formatter: Any) -> None:
    """Writes paragraphs wrapped, and indented lines (examples) as they stand."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        prose = " ".join(itertools.takewhile(lambda line: not line.startswith(" "), lines))
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(prose)
        formatter.write("".join(f"{line}\n" for line in lines if line.startswith(" ")))


def _paint(text: str) -> str:
    """Adds colors to a help text on a terminal."""
    if not _colors(sys.stdout):
        return text
    lines: list[str] = []
    for line in text.splitlines():
        painted = re.sub(r"^(\w+:)", lambda match: typer.style(match[1], bold=True), line)
        if line.startswith("    agentenv "):
            painted = typer.style(line, fg="green")
        elif match := re.match(r"^(  )((?:-\w, )?--[\w-]+|[a-z]+(?=  ))", line):
            painted = f"  {typer.style(match[2], fg='cyan')}{line[match.end(2) :]}"
        lines.append(painted)
    return "\n".join(lines)
