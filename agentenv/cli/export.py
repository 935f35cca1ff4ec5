"""`agentenv export`: trees and environments in the forms that other tools read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .command_line import blame, refuse
from .output_files import make_folder

__all__ = ["export"]

_OF_TREES = {
    "csv": "write_table",
    "hf": "write_dataset",
    "atif": "write_atif",
}
"""Formats of trees: what writes them, in `agentenv.exports.writing`."""

_OF_ENVIRONMENTS = ("harbor", "nemo-gym")

FORMATS = (*_OF_TREES, "trackio", "verl", "skyrl", "prime-rl", *_OF_ENVIRONMENTS, "trees")


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A trees file; for --to trees an export; for harbor and nemo-gym the id of an environment.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT", help="The file or folder to write.", show_default=False)
    ],
    credit: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Add each step's credit by this estimator; repeatable.")
    ] = None,
    credit_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the one estimator, e.g. discount=1.0.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
    step_weights: Annotated[
        str, typer.Option(metavar="NAME", help="Of a batch: occupancy, graph, counts or unique.")
    ] = "occupancy",
    pad_token_id: Annotated[int, typer.Option(metavar="ID", min=0, help="Of a batch: fills the holes.")] = 0,
    ranks: Annotated[int, typer.Option(metavar="N", min=1, help="Of prime-rl: data-parallel ranks.")] = 1,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of prime-rl: sampled with it.")] = 1.0,
) -> None:
    """Write trees in the form that another tool reads.

    csv: a row per node (OUT.jsonl: as JSON lines). hf: rows of a Hugging Face data set (OUT.parquet, OUT.jsonl, or
    a folder). atif: ATIF 1.8, a document per leaf (OUT.jsonl, or a folder). trackio: a run of the project OUT, a
    trace per tree. verl, skyrl, prime-rl: a batch with the advantages of one estimator. harbor: a folder for each
    task of agentenv/CodeRepair-v0. nemo-gym: a resources server that plays an environment. trees: back from hf or
    atif. What each keeps and loses stands in docs/exports.md.

    Examples:
        agentenv export trees.jsonl --to csv -o nodes.csv --credit rtmc --credit grpo
        agentenv export trees.jsonl --to hf -o rows.parquet
        agentenv export rows.parquet --to trees -o again.jsonl
        agentenv export trees.jsonl --to atif -o trajectories
        agentenv export trees.jsonl --to verl -o batch.pt --credit rtmc
        agentenv export agentenv/CodeRepair-v0 --to harbor -o tasks
        agentenv export agentenv/MathVerifier-v0 --to nemo-gym -o resources_servers/math
    """
    from agentenv.errors import TreeError
    from agentenv.exports import log_to_trackio, writing

    from .estimators import weigh_alike

    if to not in FORMATS:
        refuse("--to", f"must be one of {', '.join(FORMATS)}; got {to!r}")
    if not source.exists() and to not in _OF_ENVIRONMENTS:
        refuse("FILE", f"there is no {str(source)!r}")
    if out.exists() and to != "trackio":
        refuse("--out", f"must not exist yet; got {str(out)!r}, which does: name another")
    make_folder("--out", out.parent)
    if to in writing.BATCHES and len(credit or ()) != 1:
        refuse("--credit", f"must be given once for a batch, got {len(credit or ())}")
    if to in _OF_ENVIRONMENTS:
        typer.echo(f"Wrote {_export_environment(str(source), option or (), to, out)} to {out}")
        return
    if to == "trees":
        with blame("FILE", TreeError, OSError):
            wrote = writing.write_trees_again(source, out)
    else:
        credits_by_name = _credits(credit or (), credit_option or ())
        if to in writing.BATCHES:
            (estimator,) = (weigh_alike(function, step_weights) for function in credits_by_name.values())
            options: dict[str, Any] = {"pad_token_id": pad_token_id, "ranks": ranks, "temperature": temperature}
            with blame("FILE", ValueError, OSError):
                wrote = writing.write_batch(source, out, estimator, to=to, weights=step_weights, **options)
            typer.echo(f"Wrote {wrote} to {out}")
            return
        if to == "trackio":
            with blame("FILE", TreeError, OSError):
                count = log_to_trackio(source, project=str(out), credits=credits_by_name)
            typer.echo(f"Logged {count} trees: trackio show --project {out}")
            return
        with blame("FILE", TreeError, OSError):
            wrote = getattr(writing, _OF_TREES[to])(source, out, credits_by_name)
    typer.echo(f"Wrote {wrote} to {out}")


def _credits(names: Sequence[str], options: Sequence[str]) -> Mapping[str, Callable[..., Any]]:
    """Returns the estimators by the names that their columns begin with."""
    from .estimators import choose_estimator

    if options and len(names) != 1:
        refuse("--credit-option", f"needs one --credit, got {len(names)}")
    return {
        name.removesuffix("_advantages").replace("-", "_").lower(): choose_estimator(name, options) for name in names
    }


def _export_environment(name: str, options: Sequence[str], to: str, out: Path) -> str:
    """Writes the tasks of an environment, and says what it wrote."""
    from agentenv.envs.code_repair import CodeRepair
    from agentenv.errors import AgentEnvError, TaskError
    from agentenv.exports import write_harbor, write_nemo_gym

    from .env_choice import choose_env

    choice = choose_env(name, options)
    if to == "nemo-gym":
        with blame("--out", ValueError, OSError, AgentEnvError):
            write_nemo_gym(name, out, **choice.options)
        return "a resources server with 5 tasks"
    if not issubclass(choice.cls, CodeRepair):
        refuse("FILE", f"must be agentenv/CodeRepair-v0 for --to {to}, whose tasks are repairs; got {name!r}")
    env = choice.make()
    try:
        with blame("--option", TaskError, OSError):
            written = write_harbor(env.tasks or (), out)
    finally:
        env.close()
    return f"{len(written)} tasks"
