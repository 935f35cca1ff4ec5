"""`agentenv replay`: goes to a node of a saved tree, and on from there with any agent."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from .agent_option import ABOUT, KINDS
from .command_line import blame, refuse

__all__ = ["replay"]


def replay(  # noqa: PLR0913, PLR0917  one per option
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that rollout, train or play wrote.", show_default=False)
    ],
    at: Annotated[int, typer.Option(metavar="NODE", min=0, help="Where to go on; `agentenv trees` shows the numbers.")],
    tree: Annotated[int, typer.Option(metavar="I", min=0, help="Which tree of the file, counted from 0.")] = 0,
    agent: Annotated[str, typer.Option(metavar=KINDS, help=ABOUT)] = "random",
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the agent; may be repeated.")
    ] = None,
    rollouts: Annotated[int, typer.Option(metavar="N", min=1, help="Continuations from the node.")] = 1,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Add the tree, with what is new, to a file.")] = None,
    env: Annotated[
        str | None, typer.Option(metavar="ENV_ID", help="The environment, where the id in the file is not enough.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of a model.")] = 1.0,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one action of a model.")] = 256,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Argument of the environment, as when the tree was grown."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Go to a node of a saved tree, and on from there.

    Files hold no snapshots: the environment is reset with the tree's seed and takes the recorded actions again, every
    answer compared with the recorded one. Continuations from there become branches of the tree.

    Examples:
        agentenv replay trees.jsonl --at 5 --agent human
        agentenv replay trees.jsonl --tree 3 --at 2 --agent http://127.0.0.1:8000/v1 --rollouts 8 --out more.jsonl
    """
    from agentenv.errors import SnapshotError, TreeError, TreeFileError
    from agentenv.rollout import Rollout, go_back
    from agentenv.serialize import write_trees
    from agentenv.tree import Anchor, Fork

    from .actors import AgentChoice
    from .console import open_console, own_command, print_json, say_line
    from .drawing import print_tree
    from .failures import check_played, most_frequent, reasons
    from .saved_trees import open_tree

    choice, found = open_tree(file, tree, env, option or ())
    _check_out(out, file)
    with closing(choice.make()) as instance, blame("--at", SnapshotError, TreeError):
        go_back(instance, found, at)
        task = instance.task
        if found.nodes[at].ended:
            refuse("--at", f"node {at} has ended; its parent is {found.nodes[at].parent}")
    sampling = {"temperature": temperature, "max_tokens": max_action_tokens}
    actor, before = AgentChoice(agent, agent_option or (), sampling).make(choice, [task]), len(found)
    with Rollout(choice.make, actor, keep_snapshots=False) as rollout:
        rollout.extend([found], [Anchor(0, at, rollouts, Fork("hand", f"agentenv replay --at {at}"))])
    if out is not None:
        with blame("--out", OSError, TreeFileError):
            write_trees(out, [found], append=True)
    ends = [_end(found, leaf) for leaf in found.leaves() if leaf >= before]
    went = [end for end in ends if end["return"] is not None]
    if as_json:
        print_json({"env": found.env_id, "task": found.task_id, "node": at, "continuations": ends})
    else:
        console = open_console()
        print_tree(console, found, here=at)
        lost = f", {len(ends) - len(went)} failed" if len(ends) > len(went) else ""
        say_line(console, f"\n{sum(end['succeeded'] for end in went)} of {len(went)} continuations succeeded{lost}")
        if out is not None:
            say_line(console, f"Read it: {own_command('trees', out)}")
    check_played({"episodes": len(went)} | most_frequent(reasons(found, before)))


def _check_out(out: Path | None, file: Path) -> None:
    from .saved_trees import check_addable

    if out is None:
        return
    if out.exists() and out.samefile(file):
        refuse("--out", f"must be another file than the one that is read, got {str(out)!r} for both")
    check_addable("--out", out)


def _end(tree: Any, leaf: int) -> dict[str, Any]:
    return {
        "leaf": leaf,
        "return": tree.episode_return(leaf),
        "succeeded": tree.succeeded(leaf),
        "steps": len(tree.path(leaf)) - 1,
    }
