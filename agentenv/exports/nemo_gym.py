"""Environments in NeMo Gym: a resources server that plays an episode a session, and rows of tasks for it.

NeMo Gym's `simple_agent` starts a session with a row, posts each call of a tool to the server, and in the end asks it
to verify. Here a session is an episode of one of our environments: a call is a step, what it answers is the tool's
output, the last message without calls is a step, too, where the episode is not over, and the reward is the sum of all
rewards. Where infrastructure breaks an episode there is no reward: status 503, never 0.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from agentenv.distribution import install_module
from agentenv.env import Env
from agentenv.errors import MissingDependencyError
from agentenv.registry import env_class
from agentenv.types import message_text

from .nemo_gym_app import server_class

__all__ = ["nemo_gym_rows", "nemo_gym_server", "write_nemo_gym"]

_RESERVED = frozenset({"verify", "seed_session", "aggregate_metrics", "mcp"})


def nemo_gym_rows(
    env: str | type[Env], which: int | Sequence[int], /, *, seed: int = 0, agent: str = "", **options: Any
) -> list[dict[str, Any]]:
    """Returns rows of a data set of NeMo Gym: what the agent reads, its tools, and how a session begins it again.

    Args:
        env: a registered id, `"module:Class"`, or a class.
        which: how many tasks to draw, or the places of tasks among the environment's own.
        seed: of the first row; row `i` has `seed + i`.
        agent: name of the agent server that plays them; without, a row names none.
        options: arguments of the environment.

    Raises:
        ValueError: there would be no row, or the environment has no tools.
        TaskError: it has no such task.
    """
    places: Sequence[int | None] = [None] * which if isinstance(which, int) else which
    if not places:
        msg = f"which must be a number of tasks of at least 1, or places of tasks, got {which!r}"
        raise ValueError(msg)
    made = _maker(env, options)()
    try:
        tools = _tools(made)
        rows: list[dict[str, Any]] = []
        for number, place in enumerate(places):
            start = {"seed": seed + number} | ({} if place is None else {"task": place})
            observation, _ = made.reset(seed=seed + number, options=None if place is None else {"task": place})
            said = [{"role": message["role"], "content": message_text(message)} for message in observation]
            row: dict[str, Any] = {"responses_create_params": {"input": said, "tools": tools}, "episode": start}
            if agent:
                row["agent_ref"] = {"type": "responses_api_agents", "name": agent}
            rows.append(row)
        return rows
    finally:
        made.close()


def nemo_gym_server(env: str | type[Env], **options: Any) -> type[Any]:
    """Returns a resources server of NeMo Gym that plays an environment: `nemo_gym_server(...).run_webserver()`.

    Args:
        env: a registered id, `"module:Class"`, or a class.
        options: arguments of the environment.

    Raises:
        MissingDependencyError: there is no nemo_gym here.
        ValueError: the environment has no tools, or one whose name the server needs itself.
    """
    try:
        gym: Any = import_module("nemo_gym.base_resources_server")
    except ImportError as error:
        msg = f"nemo_gym_server needs nemo_gym: {install_module('nemo-gym')}"
        raise MissingDependencyError(msg) from error
    make = _maker(env, options)
    probe = make()
    try:
        names = [tool["name"] for tool in _tools(probe)]
    finally:
        probe.close()
    return server_class(gym, gym.SESSION_ID_KEY, make, names)


def write_nemo_gym(
    env: str, folder: str | Path, which: int | Sequence[int] = 5, /, *, seed: int = 0, **options: Any
) -> Path:
    """Writes a resources server with its configuration and `data/example.jsonl`, and returns its folder.

    It belongs into `resources_servers/` of a checkout of NeMo Gym, in whose environment this package is installed.

    Args:
        env: a registered id, or `"module:Class"`.
        folder: the server's folder; its name is the server's.
        which: as for `nemo_gym_rows`.
        seed: of the first row.
        options: arguments of the environment, JSON values.

    Raises:
        ValueError: the folder's name is no Python name, or as for `nemo_gym_rows`.
        FileExistsError: the folder is there.
    """
    folder = Path(folder)
    name = folder.resolve().name
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        msg = f"the folder's name is the server's: lower case letters, digits and underscores, got {name!r}"
        raise ValueError(msg)
    arguments = "".join(f", {key}={value!r}" for key, value in options.items())
    rows = nemo_gym_rows(env, which, seed=seed, agent=f"{name}_simple_agent", **options)
    files = {
        "app.py": _APP.format(env=env, arguments=arguments),
        f"configs/{name}.yaml": _CONFIG.format(name=name),
        "requirements.txt": "agentenv-rl\n",
        "data/example.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows),
    }
    folder.mkdir(parents=True)
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


_APP = '''"""Plays {env}, an episode a session."""

from agentenv.exports import nemo_gym_server

Server = nemo_gym_server({env!r}{arguments})

if __name__ == "__main__":
    Server.run_webserver()
'''

_CONFIG = """{name}_resources_server:
  resources_servers:
    {name}:
      entrypoint: app.py
      domain: agent
      verified: false
      description: Episodes of an environment of agentenv
{name}_simple_agent:
  responses_api_agents:
    simple_agent:
      entrypoint: app.py
      resources_server:
        type: resources_servers
        name: {name}_resources_server
      model_server:
        type: responses_api_models
        name: policy_model
      datasets:
      - name: example
        type: example
        jsonl_fpath: resources_servers/{name}/data/example.jsonl
"""


def _maker(env: str | type[Env], options: dict[str, Any]) -> Callable[[], Env]:
    cls = env_class(env) if isinstance(env, str) else env
    return partial(cast("Any", cls), **options)


def _tools(env: Env) -> list[dict[str, Any]]:
    """The tools of an environment as the Responses API writes them."""
    tools = [{"type": "function", "strict": False, **tool["function"]} for tool in env.tools]
    if not tools:
        msg = f"{type(env).__name__} has no tools, and NeMo Gym's agents act by tools"
        raise ValueError(msg)
    if taken := sorted({tool["name"] for tool in tools} & _RESERVED):
        msg = f"{type(env).__name__} has a tool named {taken[0]!r}, which the server needs itself: rename it"
        raise ValueError(msg)
    return tools
