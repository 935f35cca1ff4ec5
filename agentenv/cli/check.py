"""`agentenv check`: does an environment keep the contract?"""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command_line import blame, refuse

if TYPE_CHECKING:
    from agentenv.testing import CheckReport

__all__ = ["check"]

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


def check(
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    clause: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this clause; may be repeated.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Argument of the environment as key=value; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the episodes and of the random actions.")] = 0,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Random actions per episode.")] = 6,
    actions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Play these instead of random ones: JSONL, an action or an episode a line."),
    ] = None,
    trees: Annotated[Path | None, typer.Option(metavar="FILE", help="Play the actions of these trees.")] = None,
    leak_wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="What an episode left may take to go away by itself.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Check that an environment keeps the contract.

    The contract is a list of laws: on seeding, snapshots, restores, forks and leaks. Each is a clause, tried on an
    episode of random actions and, where the environment has demonstrations, one of these; or on the actions given. What
    no action reaches is not checked, and said. Exit code 1 where a law is broken. Tasks that have solutions of their
    own have them graded first, where the environment can do that.
    `pytest --agentenv-check ENV_ID` runs the same clauses as tests.

    Examples:
        agentenv check agentenv/MathVerifier-v0
        agentenv check my_module:MyEnv --clause siblings --clause undo
        agentenv check my_module:MyEnv --actions good.jsonl
    """
    from agentenv.errors import AgentEnvError
    from agentenv.testing import CLAUSES, inspect_env, prepare_scripts

    from .console import open_console, print_json
    from .demonstrators import careful_episode
    from .env_choice import choose_env

    names = [entry.name for entry in CLAUSES]
    if unknown := [name for name in clause or () if name not in names]:
        refuse("--clause", f"must be one of {', '.join(names)}; got {unknown[0]!r}")
    choice = choose_env(env_id, option or ())
    progress = open_console(stderr=True)
    with closing(choice.make()) as env, progress.status("checking") as status:
        if (check_tasks := getattr(env, "check_tasks", None)) is not None:
            with blame("--option" if option else "ENV_ID", AgentEnvError):
                check_tasks()
        with blame("--trees" if actions is None else "--actions", ValueError, OSError):
            scripts = prepare_scripts(env, seed=seed, num_steps=steps, actions=actions, trees=trees)
        if actions is None and trees is None and (own := careful_episode(choice, seed=seed)) is not None:
            scripts.append(own)
        report = inspect_env(
            env,
            actions=scripts,
            leak_wait_s=leak_wait,
            clauses=[entry for entry in CLAUSES if not clause or entry.name in clause],
            on_clause=lambda entry: status.update(f"checking: {entry.law}"),
        )
    failed = [result for result in report.results if result.outcome == "failed"]
    if as_json:
        keys = ("name", "law", "outcome", "detail")
        print_json([{key: getattr(result, key) for key in keys} for result in report.results])
        for warning in report.warnings():
            typer.echo(f"warning: {warning}", err=True)
    else:
        _print(env_id, report, len(failed))
    if failed:
        raise typer.Exit(1)


def _print(env_id: str, report: "CheckReport", broken: int) -> None:
    from rich.text import Text

    from .console import open_console, print_table, say

    console = open_console()
    rows = [[r.name, Text(r.outcome, _STYLES[r.outcome]), r.law] for r in report.results]
    print_table(console, ["clause", "verdict", "law"], rows)
    told: dict[tuple[str, str], list[str]] = {}
    for result in report.results:
        told.setdefault((result.outcome, result.detail), []).append(result.name)
    for (outcome, detail), names in told.items():
        if detail:
            console.print()
            say(console, Text.assemble((f"{', '.join(names)} {outcome}: ", _STYLES[outcome]), detail))
    console.print()
    for line in report.coverage:
        say(console, line)
    if report.fork_cost is not None:
        say(console, str(report.fork_cost))
    for warning in report.warnings():
        say(console, Text.assemble(("warning: ", "yellow"), warning))
    say(console, f"\n{env_id}: {len(report.results)} laws tried, {f'{broken} broken' if broken else 'none broken'}")
