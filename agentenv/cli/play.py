"""`agentenv play`: step an environment by hand."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .agent_option import ABOUT, KINDS
from .command_line import blame, refuse

if TYPE_CHECKING:
    from .actors import AgentChoice
    from .env_choice import EnvChoice
    from .player import Player

__all__ = ["play"]


def play(  # noqa: PLR0913, PLR0917  one per option
    env_id: Annotated[
        str,
        typer.Argument(
            metavar="ENV_ID|FILE", help="A registered id, module:Class, or a trees file.", show_default=False
        ),
    ],
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Of the episode; chosen and shown where not given.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="JSON|INDEX|ID", help="The task, or index or id of one of the environment's.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
    trees: Annotated[Path | None, typer.Option(metavar="FILE", help="Add the trees of this session to a file.")] = None,
    agent: Annotated[str | None, typer.Option(metavar=KINDS, help=f"For :act. {ABOUT}")] = None,
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the agent; may be repeated.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of a model.")] = 1.0,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one action of a model.")] = 256,
    tree: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="Of a trees file: which tree, counted from 0; 0 by default.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="NODE", min=0, help="Of that tree: where to begin; 0 by default.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="ENV_ID", help="Of a trees file: its environment, where its id is not enough.")
    ] = None,
) -> None:
    r"""Step an environment by hand, go back, and choose differently.

    Type a tool and its arguments, or text. `:tree` draws what was tried, `:undo` and `:goto NODE` go back, and the next
    step branches off there; `:act` lets an agent act; `:help` tells the rest.

    Examples:
        agentenv play agentenv/MathVerifier-v0
        agentenv play agentenv/MathVerifier-v0 --seed 3 --option difficulty=4 --trees mine.jsonl
        printf 'calculate 8 * 5\n:undo\n:tree\n' | agentenv play agentenv/MathVerifier-v0 --seed 0
        agentenv play trees.jsonl --tree 3 --at 5
        agentenv play agentenv/MathVerifier-v0 --agent http://127.0.0.1:8000/v1
    """
    import random

    from agentenv.errors import TaskError

    from .actors import AgentChoice
    from .console import open_console
    from .env_choice import choose_env, parse_task
    from .player import Player

    sampling = {"temperature": temperature, "max_tokens": max_action_tokens}
    if agent is None and agent_option:
        refuse("--agent-option", f"needs --agent, got {agent_option[0]!r}")
    named = None if agent is None else AgentChoice(agent, agent_option or (), sampling)
    if Path(env_id).is_file():
        _refuse_given("a saved tree has its own", {"--seed": seed, "--task": task})
        _play_tree(Path(env_id), tree or 0, at or 0, env, option or (), trees, named)
        return
    if Path(env_id).suffix in {".jsonl", ".json"}:
        refuse("ENV_ID|FILE", f"no such file: {env_id!r}")
    _refuse_given("it is of a trees file, which is none here", {"--tree": tree, "--at": at, "--env": env})
    choice = choose_env(env_id, option or ())
    given = parse_task(task)
    _check_trees(trees)
    seed = random.randrange(10_000) if seed is None else seed  # noqa: S311  any will do
    actor = None if named is None else named.make(choice, _begun(choice, given, seed))
    player = Player(choice.make(), open_console(), task=given, seed=seed, agent=actor)
    with _kept(player, trees):
        with blame("ENV_ID" if task is None else "--task", TaskError):
            player.start()
        player.run()


def _begun(choice: "EnvChoice", task: Any, seed: int) -> list[Any]:
    """The task that the episode is going to have, for agents that must know it."""
    env = choice.make()
    try:
        env.reset(seed=seed, options=None if task is None else {"task": task})
        return [env.task]
    finally:
        env.close()


def _refuse_given(why: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            refuse(name, f"{why}, got {value!r}")


def _play_tree(
    file: Path,
    tree: int,
    at: int,
    env: str | None,
    option: Sequence[str],
    trees: Path | None,
    named: "AgentChoice | None",
) -> None:
    from agentenv.errors import SnapshotError, TreeError

    from .console import open_console
    from .player import Player
    from .saved_trees import open_tree

    if trees is not None and trees.exists() and trees.samefile(file):
        refuse("--trees", f"must be another file than the one that is played, got {str(trees)!r} for both")
    choice, found = open_tree(file, tree, env, option)
    _check_trees(trees)
    actor = None if named is None else named.make(choice, _begun(choice, found.task, 0))
    player = Player(choice.make(), open_console(), task=found.task, agent=actor)
    with _kept(player, trees):
        with blame("--at", SnapshotError, TreeError):
            player.start_at(found, at)
        player.run()


@contextmanager
def _kept(player: "Player", trees: Path | None) -> Generator[None]:
    """Closes the player at the end, and writes what was played."""
    from agentenv.serialize import write_trees

    from .console import open_console, own_command, say_line

    try:
        yield
    finally:
        player.close()
        if trees is not None and (played := [tree for tree in player.trees if len(tree) > 1]):
            write_trees(trees, played, append=True)
            say_line(open_console(), f"{len(played)} written: {own_command('trees', trees)}")


def _check_trees(trees: Path | None) -> None:
    from .saved_trees import check_addable

    if trees is not None:
        check_addable("--trees", trees)
