"""`agentenv view`: trees, credit and curves as a page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_line import blame, refuse
from .output_files import output_file

if TYPE_CHECKING:
    from agentenv.arrays import TreeArrays
    from agentenv.credit import StepAdvantages

__all__ = ["choose", "view"]


def view(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER_OR_FILE", help="A run folder, or a file that rollout, train or play wrote.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="PAGE.html", help="Write one file that works offline, instead of serving.")
    ] = None,
    credit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Estimator of the advantages, rtmc by default; may be repeated.",
                     show_default=False),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Gives tokens their texts; by default that of the newest checkpoint."),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(metavar="ENV_ID", help="For `play from here`: the environment, where the id is not enough."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="For the same: argument of the environment; may be repeated."),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="On 127.0.0.1; 0 for any free one.")] = 8600,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser at the page.")] = True,
) -> None:  # fmt: skip
    """Look at trees, credit and learning curves in a browser.

    Serves a page on this machine that follows a run while it trains; or, with --out, writes one file that carries
    everything, works offline and can be mailed. A step of a tree gives the command that goes on from there, and on the
    served page a terminal that has done so.

    Examples:
        agentenv view runs/first
        agentenv view trees.jsonl --env my_env:MyEnv
        agentenv view trees.jsonl --out page.html --credit rtmc --credit grpo
    """
    from agentenv.credit import ESTIMATORS
    from agentenv.errors import TreeFileError
    from agentenv.viewer import View, is_page, write_page

    from .console import open_console, say_line
    from .env_choice import choose_env
    from .estimators import choose_estimator

    names = credit or ["rtmc"]
    for name in names:
        choose_estimator(name)
    if tokenizer is not None and not tokenizer.exists():
        refuse("--tokenizer", f"must be a folder with tokenizer.json, or that file; got {str(tokenizer)!r}")
    if env is not None:
        choose_env(env, option or (), argument="--env")
    if out is not None:
        output_file("--out", out, ours=is_page, what="a page of ours")
    with blame("--tokenizer", ValueError), blame("FOLDER_OR_FILE", TreeFileError, OSError):
        found = View(
            path, choose=choose, estimators=sorted(ESTIMATORS), credit=names, tokenizer=tokenizer, env=env,
            options=option or (),
        )  # fmt: skip
    console = open_console()
    if out is None:
        _serve(found, port, browser=browser)
        return
    with blame("--out", OSError):
        size = write_page(found, out)
    for problem in found.run.problems.values():
        say_line(console, f"Left out: {problem}")
    say_line(console, f"{out}: {size / 1e6:.1f} MB")


def choose(name: str, options: Sequence[str]) -> "Callable[[TreeArrays], StepAdvantages]":
    """As the viewer wants it: what the user got wrong is a ValueError there."""
    from .estimators import choose_estimator

    try:
        return choose_estimator(name, options)
    except typer.BadParameter as error:
        raise ValueError(error.message) from error


def _serve(found: object, port: int, *, browser: bool) -> None:
    import webbrowser
    from contextlib import suppress

    from agentenv.viewer import View, ViewServer

    from .console import open_console, say_line

    assert isinstance(found, View)
    try:
        server = ViewServer(found, port)
    except OSError as error:
        refuse("--port", str(error.strerror))
    with server:
        say_line(open_console(), f"{server.url}  (Ctrl-C ends it)")
        if browser:
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()
