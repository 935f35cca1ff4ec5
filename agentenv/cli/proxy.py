"""`agentenv proxy`: an agent for programs that people already have. `agentenv mcp`: an environment's tools over MCP."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .agent_option import ABOUT, KINDS
from .command_line import blame, blame_address, refuse

if TYPE_CHECKING:
    from agentenv.protocols import Agent

    from .env_choice import EnvChoice

__all__ = ["mcp", "proxy"]


def proxy(  # noqa: PLR0913, PLR0917  one per option
    env_id: Annotated[
        str | None,
        typer.Argument(metavar="ENV_ID", help="Whose tools serve the sessions; without it a call gives the reward."),
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND", help="A program to run, once per episode, instead of serving."),
    ] = None,
    agent: Annotated[str, typer.Option(metavar=KINDS, help=ABOUT)] = "random",
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the agent; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Where to listen; 0 takes a free one.")
    ] = 8123,
    key: Annotated[
        str | None,
        typer.Option(metavar="TEXT", envvar="AGENTENV_PROXY_KEY", help="Opens sessions; drawn and printed by default."),
    ] = None,
    tasks: Annotated[int, typer.Option(metavar="N", min=1, help="With COMMAND: trees to grow, one per task.")] = 1,
    rollouts: Annotated[int, typer.Option(metavar="G", min=1, help="With COMMAND: episodes per tree.")] = 1,
    continuations: Annotated[
        int, typer.Option(metavar="K", min=0, help="With COMMAND: further episodes per tree, by replaying the program.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="With COMMAND: of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file for the episodes.")] = None,
    max_calls: Annotated[int, typer.Option(metavar="N", min=1, help="Answers of the model per episode.")] = 256,
    max_seconds: Annotated[
        float | None, typer.Option(metavar="S", min=0.001, help="An episode that takes longer is truncated.")
    ] = None,
    idle_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.001, help="A session without a request for so long is truncated.")
    ] = 600.0,
    max_programs: Annotated[int, typer.Option(metavar="N", min=1, help="With COMMAND: processes at once.")] = 8,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, help="Of a model.")] = 1.0,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one answer of a model.")] = 1024,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
) -> None:
    """Let agent programs that you already have act, and record it.

    What they do becomes episode trees. It speaks OpenAI's chat completions and responses and Anthropic's messages,
    streamed or not, with one base URL per episode. POST /sessions gives a base URL, a key, the task's first messages
    and its tools; the program takes them for its model, and has the environment execute tools by POST to
    tools_url/NAME, or by MCP at mcp_url.

    With a command after --, it runs that program instead, once per episode: OPENAI_BASE_URL, ANTHROPIC_BASE_URL and the
    keys are in its environment, the task is on its standard input, and it ends with its episode. Each runs in an empty
    folder of its own: a word that names a file of this folder is given as its absolute path.

    Examples:
        agentenv proxy agentenv/MathVerifier-v0 --agent runs/demo/checkpoint-30 --out trees.jsonl
        agentenv proxy agentenv/MathVerifier-v0 --agent vllm:FOLDER --tasks 8 --rollouts 4 -- python my_agent.py
        agentenv proxy --agent http://127.0.0.1:8000/v1 --port 0
    """
    from agentenv.agents import ProgramRollout, Proxy
    from agentenv.agents.proxy import SessionLimits

    from .actors import AgentChoice
    from .env_choice import choose_env

    choice = None if env_id is None else choose_env(env_id, option or ())
    if choice is None and option:
        refuse("--option", f"needs an ENV_ID, got {option[0]!r}")
    named = AgentChoice(agent, agent_option or (), {"temperature": temperature, "max_tokens": max_action_tokens})
    make_env = None if choice is None else choice.make
    _check_new(out)
    if command:
        if choice is None:
            refuse("COMMAND", "needs an ENV_ID, whose tasks it is given; in Python, ProgramRollout takes reward=")
        given = named.tasks(choice, tasks, seed=seed)
        actor = named.make(choice, given, seed=seed)
        with blame("COMMAND", ValueError):
            most: dict[str, Any] = {"max_calls": max_calls, "max_seconds": max_seconds, "max_programs": max_programs}
            source = ProgramRollout(make_env, actor, command=_from_here(command), seed=seed, record=out, **most)
        with source:
            _run(source, given, rollouts, continuations, out)
        return
    with blame("--key", ValueError):
        limits = SessionLimits(max_calls, None, max_seconds, idle_seconds)
        options: dict[str, Any] = {"host": host, "port": port, "key": key, "limits": limits, "out": out}
        server = Proxy(_agent(named, choice), make_env, **options)
    with blame_address(host):
        server.start()
    _serve(server, choice)


def _check_new(out: Path | None) -> None:
    if out is not None and out.exists() and out.stat().st_size:
        refuse("--out", f"must name a new file, {str(out)!r} exists")


def _from_here(command: Sequence[str]) -> list[str]:
    """Returns a command that runs in any folder: words that name files of this one, as their absolute paths.

    A program without a slash is sought as a shell does, not here.
    """
    program, *words = command
    return [_absolute(program) if os.sep in program else program, *map(_absolute, words)]


def _absolute(word: str) -> str:
    return str(Path(word).absolute()) if os.path.isfile(word) else word  # noqa: PTH113  any text, however long


def _agent(named: Any, choice: "EnvChoice | None") -> "Agent":
    if named.is_demonstrator:
        refuse("--agent", f"{named.spec} must know the tasks before: give a COMMAND after --, or another agent")
    return named.make(cast("Any", choice), [])


def _serve(server: Any, choice: "EnvChoice | None") -> None:
    from .console import open_console, say_line

    console = open_console()
    body = "{}" if choice is None else '{"seed": 1}'
    say_line(console, f"listening at {server.url}, key {server.key}")
    say_line(
        console, f"a session: curl -X POST {server.url}/sessions -H 'Authorization: Bearer {server.key}' -d '{body}'"
    )
    try:
        server.wait()
    finally:
        server.close()


def _run(source: Any, tasks: Sequence[Any], rollouts: int, continuations: int, out: Path | None) -> None:
    """Runs the programs, and says what came of it."""
    import numpy as np

    from agentenv.credit import make_allocator

    from .console import open_console, own_command, print_fields, say_line
    from .failures import check_played
    from .rollout import summarize

    trees = source.grow(tasks, rollouts)
    if continuations:
        chosen = make_allocator("even")(trees, continuations * len(trees), np.random.default_rng(source.seed))
        source.extend(trees, chosen)
    summary = summarize(trees, rollouts)
    replays = [node.info["replay"] for tree in trees for node in tree.nodes if "replay" in node.info]
    if replays:
        summary["left the record early"] = sum(bool(replay["left_early"]) for replay in replays)
    console = open_console()
    print_fields(console, {name: "-" if value is None else str(value) for name, value in summary.items()})
    if out is not None:
        say_line(console, f"\nRead it: {own_command('trees', out, '--credit', 'rtmc')}")
    check_played(summary)


def mcp(
    env_id: Annotated[
        str, typer.Argument(metavar="ENV_ID", help="A registered id, or module:Class.", show_default=False)
    ],
    http: Annotated[
        bool, typer.Option("--http", help="Serve at an address, every /NAME/mcp an episode, instead of stdio.")
    ] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="With --http: where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="With --http: where to listen; 0 takes a free one.")
    ] = 8124,
    task: Annotated[
        str | None, typer.Option(metavar="JSON|INDEX|ID", help="The task; by default the environment draws one.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the episode.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="A new file for what was done.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
) -> None:
    """Serve an environment's tools over MCP.

    To a coding agent, a desktop host, any client. Over standard input and output the process is one episode. Every
    call of a tool is a step; the task is the server's instructions, and its prompt `task`. What was done, with its
    rewards, is in --out at the end.

    Examples:
        agentenv mcp agentenv/MathVerifier-v0 --out trees.jsonl
        agentenv mcp agentenv/CodeRepair-v0 --http --port 8124
    """
    from agentenv.errors import AgentEnvError
    from agentenv.mcp.serving import Episodes, serve_stdio, start_http
    from agentenv.serialize import TreeWriter

    from .env_choice import choose_env, parse_task

    choice = choose_env(env_id, option or ())
    _check_new(out)
    with blame("--out", OSError):
        writer = None if out is None else TreeWriter(out, append=True)
    episodes = Episodes(choice.make, task=parse_task(task), seed=seed, writer=writer)
    if http:
        with closing(episodes):
            with blame_address(host):
                server = start_http(episodes, host=host, port=port, name=env_id)
            with closing(server):
                typer.echo(f"listening at http://{host}:{server.port}/NAME/mcp", err=True)
                server.wait()
        return
    with blame("--task", AgentEnvError):
        episodes.find()
    serve_stdio(episodes, name=env_id)
