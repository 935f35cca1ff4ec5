"""`agentenv eval`: how well an agent does; `agentenv compare`: whether one does better than another."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .agent_option import ABOUT, KINDS
from .command_line import blame, refuse
from .output_files import output_file

if TYPE_CHECKING:
    from rich.console import Console

    from agentenv.evaluation import Difference, Evaluation

__all__ = ["compare", "evaluate"]


def evaluate(  # noqa: PLR0913, PLR0917  one per option
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    agent: Annotated[str, typer.Option(metavar=KINDS, help=ABOUT)] = "random",
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the agent; may be repeated.")
    ] = None,
    tasks: Annotated[
        int, typer.Option(metavar="N", min=1, help="Different tasks; fewer where there are no more.")
    ] = 32,
    rollouts: Annotated[int, typer.Option(metavar="G", min=1, help="Episodes per task.")] = 4,
    k: Annotated[
        list[int] | None, typer.Option("-k", metavar="K", min=1, help="pass@K to report; by default 1, 2, 4, ... G.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of tasks and episodes.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the result as JSON, for compare.")] = None,
    trees: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every episode as it ends.")] = None,
    max_envs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Environments that are open at once.")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of a model.")] = 1.0,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one action of a model.")] = 256,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure an agent: pass@k with intervals, task by task.

    Beside it come steps, tokens, and failures apart.

    pass@k is the chance that the best of K episodes of a task succeeds, estimated without bias from G. Intervals hold
    95 % and come from resampling the tasks. Episodes that infrastructure broke are shown, and count nowhere else. The
    same seed gives the same tasks, so that two results can be compared task by task.

    Examples:
        agentenv eval agentenv/MathVerifier-v0 --agent sloppy --tasks 50 --rollouts 8 --out a.json
        agentenv eval agentenv/MathVerifier-v0 --agent http://127.0.0.1:8000/v1 --temperature 0.6 --out b.json
        agentenv compare a.json b.json
    """
    from agentenv.errors import TaskError, TreeFileError
    from agentenv.evaluation import evaluate_trees
    from agentenv.rollout import Rollout
    from agentenv.whole_files import replace_file

    from .actors import AgentChoice
    from .console import open_console, print_json
    from .env_choice import choose_env, sample_tasks
    from .failures import check_played, most_frequent, reasons
    from .progress import show_progress

    if out is not None:
        output_file("--out", out, ours=_is_evaluation, what="an evaluation")
    choice = choose_env(env_id, option or ())
    ks = _ks(k, rollouts)
    if trees is not None and trees.exists():
        refuse("--trees", f"must name a new file, {str(trees)!r} exists")
    with blame("--tasks", TaskError):
        given = sample_tasks(choice, tasks, seed=seed, least=1)
    named = AgentChoice(agent, agent_option or (), {"temperature": temperature, "max_tokens": max_action_tokens})
    actor = named.make(choice, list(given.values()), seed=seed)
    with show_progress(len(given) * rollouts) as advance:
        with blame("--trees", OSError, TreeFileError):
            source = Rollout(
                choice.make, actor, seed=seed, keep_snapshots=False, max_envs=max_envs, record=trees, on_end=advance
            )
        with source:
            grown = source.grow(list(given.values()), rollouts)
    about = {"env": choice.name, "options": option or [], "agent": agent, "agent options": agent_option or []}
    about |= {"temperature": temperature, "seed": seed, "rollouts": rollouts}
    result = evaluate_trees(grown, list(given), about=about)
    failure = most_frequent(sum(map(reasons, grown), Counter[str]()))
    summary = _summary(result, ks) | failure
    record = result.to_dict() | {"summary": summary}
    if out is not None:
        with blame("--out", OSError):
            replace_file(out, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    if as_json:
        print_json(record)
    else:
        _print(open_console(), result, ks, out, failure)
    check_played(summary)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="Written by eval --out.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Likewise.", show_default=False)],
    k: Annotated[
        list[int] | None, typer.Option("-k", metavar="K", min=1, help="pass@K to compare; by default what both have.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two evaluations, task by task.

    Each line has the means of both on the tasks that both have, the difference B - A with its paired 95 % interval, and
    what that says: higher, lower, or undecided.

    Examples:
        agentenv compare a.json b.json
        agentenv compare a.json b.json -k 8 --json
    """
    from agentenv.evaluation import compare as compared

    from .console import open_console, print_json, print_table, say_line

    one, other = _read("A.json", first), _read("B.json", second)
    ks = k or _ks(None, min(one.most_episodes, other.most_episodes) or 1)
    with blame("B.json", ValueError):
        found = compared(one, other, ks=ks)
    if as_json:
        print_json([_difference(entry) for entry in found])
        return
    rows = [
        [entry.name, _number(entry.first), _number(entry.second), str(entry.change), entry.verdict] for entry in found
    ]
    console = open_console()
    print_table(console, ["", "A", "B", "B - A [95 %]", "B is"], rows)
    left_out = len({r.task for r in one.results} ^ {r.task for r in other.results})
    say_line(console, f"\n{found[0].change.tasks} tasks in both, {left_out} in one alone")


def _ks(given: Sequence[int] | None, episodes: int) -> list[int]:
    if given:
        if max(given) > episodes:
            refuse("-k", f"must be at most the episodes per task, {episodes}; got {max(given)}")
        return sorted(set(given))
    powers = [2**i for i in range(episodes.bit_length()) if 2**i <= episodes]
    return sorted({*powers, episodes})


def _summary(result: "Evaluation", ks: Sequence[int]) -> dict[str, Any]:
    found = {f"pass@{k}": result.pass_at(k) for k in ks}
    found |= {name.replace("_", " "): result.mean(name) for name in ("mean_return", "mean_steps", "mean_tokens")}
    summary: dict[str, Any] = {
        name: {"value": _finite(one.value), "low": _finite(one.low), "high": _finite(one.high), "tasks": one.tasks}
        for name, one in found.items()
    }
    return summary | {
        "tasks": len(result.results),
        "episodes": sum(entry.episodes for entry in result.results),
        "truncated": sum(entry.truncated for entry in result.results),
        "failed": result.failed,
        "retries": sum(entry.retries for entry in result.results),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value + 0.0:.4g}"


def _print(
    console: "Console", result: "Evaluation", ks: Sequence[int], out: Path | None, failure: dict[str, str]
) -> None:
    from .console import own_command, print_fields, print_table, say_line

    columns = ["task", "episodes", *(f"pass@{k}" for k in ks), "return", "steps", "tokens", "truncated", "failed"]
    rows = [
        [
            one.task,
            str(one.episodes),
            *(_number(_alone(one, k)) for k in ks),
            *(_number(value) for value in (one.mean_return, one.mean_steps, one.mean_tokens)),
            str(one.truncated),
            str(one.failed),
        ]
        for one in result.results
    ]
    print_table(console, columns, rows)
    console.print()
    fields = {f"pass@{k}": f"{result.pass_at(k)}  ({result.pass_at(k).tasks} tasks)" for k in ks}
    fields |= {name.replace("_", " "): str(result.mean(name)) for name in ("mean_return", "mean_steps", "mean_tokens")}
    retries = sum(one.retries for one in result.results)
    fields["failed"] = f"{result.failed} episodes, and {retries} attempts that were tried again"
    print_fields(console, fields | failure)
    if out is not None:
        say_line(console, f"\nCompare it: {own_command('compare', out, 'OTHER.json')}")


def _is_evaluation(head: bytes) -> bool:
    return head.lstrip().startswith(b"{") and b'"agentenv-eval-' in head


def _alone(result: Any, k: int) -> float:
    from agentenv.credit import pass_at_k

    return float(pass_at_k(result.episodes, result.successes, k)) if result.episodes >= k else math.nan


def _read(argument: str, path: Path) -> "Evaluation":
    from agentenv.evaluation import Evaluation

    with blame(argument, OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8")
    try:
        return Evaluation.from_dict(json.loads(text))
    except ValueError as error:
        refuse(argument, f"must be what eval --out wrote, {str(path)!r} is not: {error}")


def _difference(entry: "Difference") -> dict[str, Any]:
    change = entry.change
    return {
        "name": entry.name,
        "first": _finite(entry.first),
        "second": _finite(entry.second),
        "difference": _finite(change.value),
        "low": _finite(change.low),
        "high": _finite(change.high),
        "tasks": change.tasks,
        "verdict": entry.verdict,
    }
