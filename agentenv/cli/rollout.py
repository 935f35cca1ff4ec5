"""`agentenv rollout`: grows episode trees and writes them to a file."""

import itertools
import math
import os
import shlex
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentenv.errors import TreeFileError

from .agent_option import ABOUT, KINDS
from .command_line import blame, refuse
from .failures import check_played, most_frequent, reasons
from .output_files import output_file

if TYPE_CHECKING:
    from agentenv.credit import Allocator
    from agentenv.rollout import Rollout
    from agentenv.tree import EpisodeTree

__all__ = ["rollout", "summarize"]

_EPISODES_AT_ONCE = 256
_TASKS = 8


def rollout(  # noqa: PLR0913, PLR0917  one per option
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    agent: Annotated[str, typer.Option(metavar=KINDS, help=ABOUT)] = "random",
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the agent; may be repeated.")
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help=f"Trees to grow, one per task; by default {_TASKS}, or all that there are."
        ),
    ] = None,
    rollouts: Annotated[int, typer.Option(metavar="G", min=1, help="Full episodes per tree.")] = 4,
    continuations: Annotated[
        int, typer.Option(metavar="K", min=0, help="Further episodes per tree, from snapshots in mid-episode.")
    ] = 0,
    allocator: Annotated[
        str, typer.Option(metavar="NAME", help="Where continuations start: even, random, trace or trace_unseen.")
    ] = "even",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed grows the same trees.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write; by default trees.jsonl, or the next free name.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out FILE, where the same command was stopped.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace --out FILE where it is a trees file.")
    ] = False,
    max_envs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Environments that are open at once.")
    ] = None,
    step_seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Give up an environment that takes longer for one step.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of a model.")] = 1.0,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one action of a model.")] = 256,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Grow episode trees with an agent, and write them to a file.

    Each tree holds all episodes of one task. Continuations restore a snapshot in mid-episode and go on from there.
    Every episode is written as it ends: after Ctrl-C or a crash, --resume plays what is missing, and nothing twice.

    Examples:
        agentenv rollout agentenv/MathVerifier-v0 --tasks 20 --continuations 4
        agentenv rollout agentenv/MathVerifier-v0 --agent sloppy --option difficulty=4
        agentenv rollout my_module:MyEnv --agent runs/demo/checkpoint-30 --out mine.jsonl
        agentenv rollout agentenv/MathVerifier-v0 --agent http://127.0.0.1:8000/v1 --agent-option concurrency=64
        agentenv rollout agentenv/MathVerifier-v0 --agent my_module:MyAgent
    """
    from agentenv.rollout import Rollout

    from .actors import AgentChoice
    from .console import open_console, own_command, print_fields, print_json, say_line
    from .env_choice import choose_env
    from .estimators import choose_allocator
    from .progress import show_progress

    choice = choose_env(env_id, option or ())
    rule = choose_allocator(allocator)
    named = AgentChoice(agent, agent_option or (), {"temperature": temperature, "max_tokens": max_action_tokens})
    given = named.tasks(choice, tasks or _TASKS, seed=seed, least=tasks or 1)
    actor = named.make(choice, given, seed=seed)
    limits: dict[str, Any] = {"max_envs": max_envs, "step_seconds": step_seconds, "keep_snapshots": continuations > 0}
    with blame("--step-seconds", ValueError):
        Rollout(choice.make, actor, **limits).close()  # before a file is touched
    path = _path(out, resume=resume, overwrite=overwrite)
    with show_progress(len(given) * (rollouts + continuations)) as advance:
        with blame("--out", OSError, TreeFileError):
            source = Rollout(choice.make, actor, **limits, record=path, resume=resume, on_end=advance)
        with source, blame("--resume", TreeFileError), _how_to_go_on(path):
            summary = summarize(_grow(source, given, rollouts, continuations, rule, seed), rollouts)
    cost = source.ledger.cost
    summary |= {"tokens sampled": cost.tokens_sampled, "tokens read": cost.tokens_read}
    summary |= {"seconds": round(source.ledger.wall_seconds, 1), "file": str(path)}
    if as_json:
        print_json(summary)
    else:
        console = open_console()
        print_fields(console, {name: _cell(value) for name, value in summary.items()})
        say_line(console, f"\nRead it: {own_command('trees', path, '--credit', 'rtmc')}")
    check_played(summary)


def _path(out: Path | None, *, resume: bool, overwrite: bool) -> Path:
    """Returns the file to write, which has no trees unless the run goes on with it."""
    from agentenv.serialize import TreeWriter

    from .saved_trees import is_trees

    if resume:
        if out is None:
            refuse("--resume", "needs --out FILE, the file to go on with")
        if overwrite:
            refuse("--overwrite", "cannot be given with --resume, which goes on with the file: leave out one of them")
        if not out.exists():
            refuse("--out", f"must be the file to go on with, there is no {str(out)!r}: without --resume it is begun")
    path = out or _free_path()
    real = output_file("--out", path, ours=is_trees, what="a trees file")
    if not resume and real.exists() and real.stat().st_size:
        if not overwrite:
            refuse("--out", f"{str(path)!r} exists: --resume goes on with it, --overwrite replaces it")
        with blame("--out", OSError, TreeFileError):
            TreeWriter(real).close()  # which refuses while another writes it
            os.truncate(real, 0)
    return path


@contextmanager
def _how_to_go_on(path: Path) -> Generator[None]:
    """Says after Ctrl-C that nothing is lost."""
    from .console import open_console, say_line

    try:
        yield
    except (KeyboardInterrupt, EOFError):  # Ctrl-C; a person who leaves
        words = shlex.join(["--resume", "--out", str(path)])
        say_line(
            open_console(stderr=True), f"\nstopped; what has ended is in {path}: the same command goes on with {words}"
        )
        raise


def _free_path() -> Path:
    """Returns trees.jsonl, or the first of trees-2.jsonl, trees-3.jsonl, ... that does not exist."""
    names = itertools.chain(["trees.jsonl"], (f"trees-{i}.jsonl" for i in itertools.count(2)))
    return next(path for path in map(Path, names) if not path.exists())


def _grow(
    source: "Rollout",
    tasks: Sequence[Any],
    num_rollouts: int,
    num_continuations: int,
    allocator: "Allocator",
    seed: int,
) -> "Iterator[EpisodeTree]":
    """Yields trees, a part of the tasks at a time: not more episodes at once than memory holds."""
    import numpy as np

    from agentenv.credit import TraceAllocator
    from agentenv.rollout import derive_seed

    size = max(1, _EPISODES_AT_ONCE // num_rollouts)
    for start in range(0, len(tasks), size):
        source.seed = derive_seed(seed, start)
        trees = source.grow(tasks[start : start + size], num_rollouts)
        if num_continuations:
            rng = np.random.default_rng(source.seed)
            source.extend(trees, allocator(trees, num_continuations * len(trees), rng))
        if isinstance(allocator, TraceAllocator):
            allocator.learn(trees)
        yield from trees


def summarize(trees: "Iterable[EpisodeTree]", num_rollouts: int) -> dict[str, Any]:
    """Counts what happened: `success` is the share of full episodes that succeeded, `solved` that of tasks.

    Continuations, which land where an allocator sends them, are reported apart. Attempts that infrastructure broke are
    `failed`, and count nowhere else, `failure` is why most of them did; what agents broke is `breakages`.
    """
    from agentenv.stats import EpisodeStats, episode_stats

    stats, nodes, count, solved = EpisodeStats(), 0, 0, 0
    failures = Counter[str]()
    for tree in trees:
        failures += reasons(tree)
        one = episode_stats([tree], num_rollouts=num_rollouts)
        stats += one
        count += 1
        nodes += len(tree)
        solved += one.everything.successes > 0
    every = stats.everything
    summary: dict[str, Any] = {
        "trees": count,
        "episodes": every.episodes,
        "success": _share(stats.roots.success),
        "solved": _share(solved / count) if every.episodes else None,
        "mean return": _share(stats.roots.mean_return),
        "mean steps": _share(every.mean_steps),
        "truncated": _share(every.truncated_share),
        "failed": every.failed + every.retries,
        **most_frequent(failures),
        "nodes": nodes,
    }
    if stats.breakages:
        summary["breakages"] = stats.breakages
    if stats.rewritten_prompts:
        summary["rewritten prompts"] = _share(stats.rewritten_share)
    if stats.continuations.episodes:
        summary["continuations"] = stats.continuations.episodes
        summary["success of continuations"] = _share(stats.continuations.success)
    return summary


def _share(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
