"""`agentenv check`: does an environment keep the contract?"""

from typing import Annotated, Any

import typer

from .command_line import refuse

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Check that an environment keeps the contract.

    The contract is a list of laws: on seeding, snapshots, restores, forks and leaks. Each is a clause, tried on
    episodes of random actions. Exit code 1 where one is broken. `pytest --agentenv-check ENV_ID` runs the same clauses
    as tests.

    Examples:
        agentenv check agentenv/MathVerifier-v0
        agentenv check my_module:MyEnv --clause siblings --clause undo
    """
    from agentenv.testing import CLAUSES, run_clauses

    from .console import open_console, print_json, print_table, say
    from .environments import choose_env

    names = [entry.name for entry in CLAUSES]
    if unknown := [name for name in clause or () if name not in names]:
        refuse("--clause", f"must be one of {', '.join(names)}; got {unknown[0]!r}")
    choice = choose_env(env_id, option or ())
    chosen = [entry for entry in CLAUSES if not clause or entry.name in clause]
    results: list[Any] = []
    env = choice.make()
    progress = open_console(stderr=True)
    with progress.status("checking") as status:
        for entry in chosen:
            status.update(f"checking: {entry.law}")
            results += run_clauses(env, seed=seed, num_steps=steps, clauses=[entry])
    env.close()
    failed = [result for result in results if result.outcome == "failed"]
    if as_json:
        keys = ("name", "law", "outcome", "detail")
        print_json([{key: getattr(result, key) for key in keys} for result in results])
    else:
        from rich.text import Text

        console = open_console()
        rows = [[r.name, Text(r.outcome, _STYLES[r.outcome]), r.law] for r in results]
        print_table(console, ["clause", "verdict", "law"], rows)
        for result in [result for result in results if result.detail]:
            console.print()
            say(console, Text.assemble((f"{result.name} {result.outcome}: ", _STYLES[result.outcome]), result.detail))
        broken = f"{len(failed)} broken" if failed else "none broken"
        say(console, f"\n{env_id}: {len(results)} laws tried, {broken}")
    if failed:
        raise typer.Exit(1)
