"""`agentenv serve`: an environment for other people's frameworks."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command_line import blame, blame_address, refuse

if TYPE_CHECKING:
    from .env_choice import EnvChoice

__all__ = ["serve"]

_OPENENV = (
    "(the program comes with `pip install openenv`, in an environment of its own: it wants an older mcp than ours)"
)
_APART = "in an environment with this package without its extra mcp"
_VERIFIERS = {
    0: (
        "vf-eval",
        ("-n", "2", "-r", "1"),
        f"(the program comes with `pip install verifiers==0.2.0`, {_APART}; its options -m and -b name a model and the "
        "URL of its server)",
    ),
    1: (
        "vf-validate",
        ("--taskset.num-tasks", "8", "--runtime.type", "subprocess"),
        f"(the program comes with `pip install verifiers==0.4.0`, {_APART})",
    ),
}
"""By version: the program that checks a package, its options, and what must be installed."""


def serve(
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    openenv: Annotated[bool, typer.Option("--openenv", help="Serve it to OpenEnv's clients, until Ctrl-C.")] = False,
    verifiers: Annotated[
        int | None,
        typer.Option(metavar="VERSION", min=0, max=1, help="Write a package of verifiers, version 0 or 1, to --out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the folder of an OpenEnv environment instead.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Where to listen; 0 takes a free one.")
    ] = 8000,
    branching: Annotated[
        bool, typer.Option("--branching/--no-branching", help="Whether clients may take snapshots, go back and fork.")
    ] = True,
    max_sessions: Annotated[int, typer.Option(metavar="N", min=1, help="Most episodes at once.")] = 64,
    max_snapshots: Annotated[int, typer.Option(metavar="N", min=1, help="Most snapshots kept.")] = 4096,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
) -> None:
    """Serve an environment to other people's frameworks.

    With --openenv it speaks OpenEnv's protocol: their clients, trainers and `openenv validate` take it for one of
    theirs. Every connection is an episode of its own. Ours can also branch: docs/interop.md has the messages.
    Environments of verifiers run in the process that uses them, so with --verifiers there is nothing to serve: it
    writes the package that `vf-eval` takes by name.

    Examples:
        agentenv serve agentenv/MathVerifier-v0 --openenv
        agentenv serve agentenv/CodeRepair-v0 --openenv --port 8001 --max-sessions 16
        agentenv serve agentenv/SearchQA-v0 --openenv --out search_env
        agentenv serve agentenv/MathVerifier-v0 --verifiers 0 --out math_episodes
    """
    from .env_choice import choose_env

    choice = choose_env(env_id, option or ())
    if openenv == (verifiers is not None):
        said = "and --verifiers exclude one another" if openenv else "says how to serve it, and is missing"
        refuse("--openenv", f"{said}; agentenv mcp and agentenv proxy serve it otherwise")
    if verifiers is not None and out is None:
        refuse("--out", "says where to write the package of verifiers, and is missing")
    if out is not None:
        _write(choice, out, verifiers)
        return
    from agentenv.interop import OpenEnvServer

    from .console import open_console, say_line

    limits: dict[str, Any] = {"branching": branching, "max_sessions": max_sessions, "max_snapshots": max_snapshots}
    server = OpenEnvServer(choice.make, host=host, port=port, **limits)
    with blame_address(host):
        server.start()
    console = open_console()
    say_line(console, f"listening at {server.url}; check it: {_theirs('openenv', 'validate', '--url', server.url)}")
    say_line(console, _OPENENV)
    try:
        server.wait()
    finally:
        server.close()


def _write(choice: "EnvChoice", out: Path, verifiers: int | None) -> None:
    from agentenv.interop import write_openenv_folder, write_verifiers_folder

    from .console import open_console, say_line

    with blame("--out", ValueError, OSError):
        if verifiers is None:
            folder = write_openenv_folder(choice.name, out, options=choice.options)
            check, needs = _theirs("openenv", "validate", folder, "--level", "static"), _OPENENV
        else:
            folder = write_verifiers_folder(choice.name, out, version=verifiers, options=choice.options)
            program, options, needs = _VERIFIERS[verifiers]
            where = shlex.quote(str(folder.resolve()))  # their programs look for a module by its name
            check = f"PYTHONPATH={where} {_theirs(program, folder.resolve().name, *options)}"
    console = open_console()
    say_line(console, f"wrote {folder}; check it: {check}")
    say_line(console, needs)


def _theirs(program: str, *words: object) -> str:
    """Returns a call of somebody else's program, as it can be copied: of this environment, where it has it."""
    from .console import own_command

    if shutil.which(program) or Path(sys.executable).with_name(program).exists():
        return own_command(*words, program=program)
    return shlex.join([program, *map(str, words)])
