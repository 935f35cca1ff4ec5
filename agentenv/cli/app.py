"""The command `agentenv` and everything below it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import agentenv

from .check import check
from .command_line import Command, CommandGroup, lazy_group
from .demo import demo
from .doctor import doctor
from .envs import envs
from .evaluate import compare, evaluate
from .export import export
from .new import new
from .play import play
from .proxy import mcp, proxy
from .replay import replay
from .rollout import rollout
from .serve import serve
from .train import train
from .trees import trees
from .view import view

__all__ = ["app", "main"]

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_GROUPS = {
    "index": ("agentenv.envs.search_qa.index_cli", "Build, search and serve the index of a corpus."),
    "sandbox": ("agentenv.sandboxes.sandbox_cli", "Probe the sandboxes of this machine, and remove what was left."),
}
"""Groups of commands that live beside what they are about: name, module with an `app`, what they do. A group whose
module is not there is left out."""

app = typer.Typer(
    name="agentenv",
    cls=CommandGroup,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    context_settings=_SETTINGS,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"agentenv {agentenv.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Trains LLM agents with reinforcement learning in environments that branch in mid-episode.

    Examples:
        agentenv envs
        agentenv play agentenv/MathVerifier-v0
        agentenv rollout agentenv/MathVerifier-v0 --agent random --out trees.jsonl
        agentenv trees trees.jsonl --credit rtmc
        agentenv demo
    """


for function in (
    envs,
    play,
    rollout,
    trees,
    view,
    export,
    replay,
    evaluate,
    compare,
    train,
    proxy,
    mcp,
    serve,
    check,
    new,
    doctor,
    demo,
):
    app.command("eval" if function is evaluate else None, cls=Command)(function)
for name, (module, about) in _GROUPS.items():
    if Path(agentenv.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py").is_file():
        app.add_typer(typer.Typer(cls=lazy_group(module)), name=name, help=about)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
        arguments: the words after `agentenv`; `sys.argv` by default.
    """
    app(args=arguments, prog_name="agentenv")
