"""`agentenv play`: step an environment by hand."""

from pathlib import Path
from typing import Annotated

import typer

from .command_line import blame

__all__ = ["play"]


def play(
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Of the episode; chosen and shown where not given.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="JSON|INDEX", help="The task, or its index in the environment's tasks.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
    trees: Annotated[Path | None, typer.Option(metavar="FILE", help="Add the trees of this session to a file.")] = None,
) -> None:
    r"""Step an environment by hand, go back, and choose differently.

    Type a tool and its arguments, or text. `:tree` draws what was tried, `:undo` and `:goto NODE` go back, and the next
    step branches off there; `:help` tells the rest.

    Examples:
        agentenv play agentenv/MathVerifier-v0
        agentenv play agentenv/MathVerifier-v0 --seed 3 --option difficulty=4 --trees mine.jsonl
        printf 'calculate 8 * 5\n:undo\n:tree\n' | agentenv play agentenv/MathVerifier-v0 --seed 0
    """
    import random

    from agentenv.errors import TaskError
    from agentenv.serialize import write_trees

    from .console import open_console, say_line
    from .env_choice import choose_env, parse_task
    from .player import Player

    choice = choose_env(env_id, option or ())
    given = parse_task(task)
    _check_file(trees)
    seed = random.randrange(10_000) if seed is None else seed  # noqa: S311  any will do
    console = open_console()
    player = Player(choice.make(), console, task=given, seed=seed)
    try:
        with blame("ENV_ID" if task is None else "--task", TaskError):
            player.start()
        player.run()
    finally:
        player.close()
        if trees is not None and (played := [tree for tree in player.trees if len(tree) > 1]):
            write_trees(trees, played, append=True)
            say_line(console, f"{len(played)} written: agentenv trees {trees}")


def _check_file(path: Path | None) -> None:
    """Refuses a file that trees cannot be added to, before anything is played."""
    if path is None or not path.exists():
        return
    from agentenv.errors import TreeFileError
    from agentenv.serialize import iter_trees

    with blame("--trees", TreeFileError, OSError, UnicodeDecodeError):
        if path.stat().st_size:
            next(iter_trees(path), None)
