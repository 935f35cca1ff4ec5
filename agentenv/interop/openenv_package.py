"""An environment as the folder that OpenEnv's tools build, validate and push: `agentenv serve --openenv --out`."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentenv.distribution import DISTRIBUTION
from agentenv.types import Action

from .packages import check_new_folder, options_as_json, tools_of, write_files

__all__ = ["write_openenv_folder"]

_APP = '''"""Serves {env_id} to OpenEnv's clients."""

import json
import os

from agentenv.interop import OpenEnvServer

OPTIONS = json.loads({options!r})


def main() -> None:
    """Serves until it is stopped, at PORT, 8000 by default."""
    place = {{"host": os.environ.get("HOST", "0.0.0.0"), "port": int(os.environ.get("PORT", "8000"))}}
    with OpenEnvServer({env_id!r}, **place, **OPTIONS) as server:
        server.wait()


if __name__ == "__main__":
    main()
'''

_PROJECT = """[project]
name = "{name}"
version = "0.1.0"
description = "{env_id}, served to OpenEnv's clients"
requires-python = ">=3.11"
dependencies = ["{distribution}[openenv]", "openenv>=0.10"]

[project.scripts]
server = "server.app:main"

[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["server"]
"""

_DOCKERFILE = """# A wheel of {distribution} must lie in wheels/ first: `python -m build --wheel --outdir HERE/wheels`
FROM python:3.11-slim
WORKDIR /app
COPY . /app
RUN pip install --no-cache-dir --find-links wheels "{distribution}[openenv]"
EXPOSE 8000
CMD ["python", "server/app.py"]
"""

_README = """# {env_id}

The environment `{env_id}` of agentenv, for OpenEnv. `python server/app.py` serves it at port 8000;
`openenv validate .` checks this folder, `openenv validate --url http://127.0.0.1:8000` the running server.
"""


def write_openenv_folder(
    env_id: str, out: str | Path, *, options: Mapping[str, Any] | None = None, actions: Sequence[Any] = ()
) -> Path:
    """Writes the folder of an OpenEnv environment.

    In it are `openenv.yaml` with the declarations that the validator reads, `server/app.py`, `pyproject.toml`, a
    `Dockerfile` and `validation/runtime.json`, an episode that the validator plays.

    Args:
        env_id: a registered id, or `"module:Class"` of a module that the server can import.
        out: the folder; it must not exist, or be empty.
        options: arguments of the environment, as JSON.
        actions: what the validator's episode does, as `step` takes it; without any, one message `hello`.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something, or an option is no JSON.
        AgentEnvError: the environment cannot be made.
    """
    folder = Path(out)
    check_new_folder(folder)
    written = options_as_json(options, "the server reads them from a file")
    tools = tools_of(env_id, options)
    name = re.sub(r"[^a-z0-9]+", "_", env_id.lower()).strip("_")
    about = {"env_id": env_id, "name": name, "options": written, "distribution": DISTRIBUTION}
    plan = {
        "plan_schema_version": "1",
        "reset": {"episode_id": "validation", "seed": 0},
        "actions": [_plain(action) for action in actions or ("hello",)],
    }
    files = {
        "openenv.yaml": json.dumps(_manifest(name, tools), indent=2) + "\n",  # which is YAML, too
        "pyproject.toml": _PROJECT.format(**about),
        "Dockerfile": _DOCKERFILE.format(**about),
        "README.md": _README.format(**about),
        "server/__init__.py": "",
        "server/app.py": _APP.format(**about),
        "validation/runtime.json": json.dumps(plan, indent=2) + "\n",
    }
    write_files(folder, files)
    return folder


def _plain(action: Any) -> dict[str, Any]:
    return {name: value for name, value in Action.parse(action).to_message().items() if name != "role"}


def _manifest(name: str, tools: Sequence[str]) -> dict[str, Any]:
    validation = {
        "reward": {"range": [-1.0, 1.0], "floor_margin": 0.5},
        "resources": {"cpu": 1.0, "memory_mb": 2048, "disk_mb": 2048, "episode_timeout_s": 600.0},
        "capabilities": {"verifier": {"kind": "reward_channel"}, "declared_tools": list(tools)},
        "types": {"tags": ["tool-use"]},
        "network": {"mode": "public"},
        "execution": {"kind": "openenv_ws", "probe_path": "validation/runtime.json", "dockerfile": "Dockerfile"},
    }
    head = {"spec_version": 1, "name": name, "version": "0.1.0", "type": "space", "runtime": "custom"}
    return {**head, "app": "server.app:main", "port": 8000, "validation": validation}
