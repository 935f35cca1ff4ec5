"""A tree of a file, together with the environment that it was grown in."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import typer

from agentenv.errors import TreeFileError, UnknownEnvError
from agentenv.registry import env_class, likely_class
from agentenv.serialize import FORMAT, iter_trees, read_trees
from agentenv.tree import EpisodeTree

from .command_line import blame, refuse
from .env_choice import EnvChoice, choose_env
from .output_files import output_file

__all__ = ["check_addable", "is_trees", "open_tree", "read_file"]


def is_trees(head: bytes) -> bool:
    """Whether a file that begins so is a trees file."""
    return FORMAT.encode() in head.partition(b"\n")[0]


def check_addable(argument: str, path: Path) -> None:
    """Refuses a file that trees cannot be added to, before anything is played.

    Args:
        argument: that names it.
        path: the file; its folder is made.
    """
    real = output_file(argument, path, ours=is_trees, what="a trees file")
    with blame(argument, TreeFileError, OSError, UnicodeDecodeError):
        if real.exists() and real.stat().st_size:
            next(iter_trees(real, live=True), None)


def read_file(file: Path) -> list[EpisodeTree]:
    """Reads the trees of FILE; a last line that is cut is told on one line of stderr.

    Raises:
        typer.BadParameter: there is no such file, or no trees in it.
    """
    with warnings.catch_warnings(record=True) as told, blame("FILE", TreeFileError, OSError, UnicodeDecodeError):
        warnings.simplefilter("always")
        trees = read_trees(file)
    for warning in told:
        typer.echo(f"warning: {warning.message}", err=True)
    return trees


def open_tree(file: Path, index: int, env_id: str | None, options: Sequence[str]) -> tuple[EnvChoice, EpisodeTree]:
    """Reads one tree, and chooses its environment.

    Args:
        file: a trees file.
        index: of the tree in it.
        env_id: the environment; by default the one that the tree names, registered or in a module of the same name.
        options: of the environment: those that the tree was grown with.

    Raises:
        typer.BadParameter: there is no such file or tree, or its environment is not known here.
    """
    trees = read_file(file)
    if index >= len(trees):
        refuse("--tree", f"must be in [0, {len(trees)}), the trees of {file}; got {index}")
    tree = trees[index]
    if env_id is None:
        try:
            env_class(tree.env_id)
            env_id = tree.env_id
        except (UnknownEnvError, ImportError, ValueError):
            env_id = likely_class(tree.env_id)
    if env_id is None:
        told = f"is needed, module:Class: {file} names its environment {tree.env_id!r}, which is no registered id"
        refuse("--env", told)
    choice = choose_env(env_id, options, argument="--env")
    if (own := f"{choice.cls.name}-v{choice.cls.version}") != tree.env_id:
        refuse("--env", f"must be the environment of the tree, {tree.env_id!r}; got {own!r}")
    return choice, tree
