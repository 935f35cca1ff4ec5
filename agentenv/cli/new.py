"""`agentenv new`: writes an environment package of one's own, with tasks, tests and a README."""

import importlib.util
import keyword
import re
import shlex
import sys
import unicodedata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from .command_line import blame, refuse

__all__ = ["new"]

_TEMPLATES = "templates"
_PACKAGE = "package"  # the folder that gets the package's name
_LONGEST = 60
_TAKEN = {"tests", "docs", "dist", "build"}


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the package, e.g. my-env; - becomes _.", show_default=False)
    ],
    into: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the folder NAME is made.")] = Path(),
) -> None:
    """Write an environment package with tasks, tests and a README.

    It holds a small environment that works, to be changed into yours: its state, tools and tasks, play to imitate, and
    tests of the contract. Nothing that exists is written over.

    Examples:
        agentenv new my-env
        agentenv new my-env --into ~/code
    """
    from .console import own_command

    module = _check_name(name)
    folder = into / name
    if folder.exists():
        refuse("NAME", f"must be a new folder, {folder} exists: choose another name, or another --into")
    cls = "".join(word.capitalize() for word in module.split("_"))
    cls += "" if cls.endswith("Env") else "Env"  # so that it is no name that the templates import
    words = {"distribution": name, "module": module, "cls": cls, "env_id": f"{module}/{cls}-v0"}
    with blame("--into", OSError):
        written = _fill(files("agentenv.cli") / _TEMPLATES, folder, words)
    for path in written:
        typer.echo(str(path))
    tests = own_command("-m", "pytest", program="python", moved=True)
    typer.echo(f"\nNext:\n  {shlex.join(['cd', str(folder)])}\n  {tests}")
    typer.echo(f"  {own_command('play', f'{module}:{cls}', moved=True)}")


def _check_name(name: str) -> str:
    """Returns the module's name, where it can be one that nobody else has."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(module) or len(name) > _LONGEST:
        rule = f"must be words of a-z and digits, joined by - or _, at most {_LONGEST} long, and no word of Python"
        refuse(
            "NAME", f"{rule}, got {name if len(name) <= _LONGEST else name[:_LONGEST] + '...'!r}; try {_near(name)!r}"
        )
    if module in _TAKEN or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        refuse("NAME", f"must be new: a module {module!r} can be imported here already; choose another name")
    return module


def _near(name: str) -> str:
    """Returns a name that is allowed, and as near as can be to one that is not."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", ascii_only).lower())
    near = "-".join(words).lstrip("-0123456789")[:_LONGEST].rstrip("-") or "my-env"
    return f"{near}-env" if keyword.iskeyword(near.replace("-", "_")) else near


def _fill(template: Traversable, target: Path, words: dict[str, str]) -> list[Path]:
    """Writes a file, or a folder and what is in it; returns the files."""
    if template.is_dir():
        target.mkdir(parents=True)
        inner = sorted(template.iterdir(), key=lambda entry: entry.name)
        named = [(entry, words["module"] if entry.name == _PACKAGE else entry.name) for entry in inner]
        return [path for entry, own in named for path in _fill(entry, target / own, words)]
    target = target.with_suffix("")  # without .in
    target.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    return [target]
