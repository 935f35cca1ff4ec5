"""An environment as a package of verifiers, version 0 or 1: `agentenv serve --verifiers --out`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentenv.distribution import DISTRIBUTION

from .packages import check_new_folder, options_as_json, tools_of, write_files

__all__ = ["write_verifiers_folder"]

_V0 = '''"""{env_id} for verifiers, version 0."""

import json
from typing import Any

from agentenv.interop.verifiers_v0 import as_v0_environment

OPTIONS = json.loads({options!r})


def load_environment(num_episodes: int = 8, seed: int = 0, **options: Any):
    """Returns the environment, with so many episodes as its data set."""
    return as_v0_environment({env_id!r}, num_episodes=num_episodes, seed=seed, **(OPTIONS | options))
'''

_V1 = '''"""{env_id} for verifiers, version 1."""

import json

from agentenv.interop.verifiers_tasks import as_taskset

Episodes = as_taskset({env_id!r}, **json.loads({options!r}))

__all__ = ["Episodes"]
'''

_PROJECT = """[project]
name = "{project}"
version = "0.1.0"
description = "{env_id} for verifiers"
requires-python = ">=3.11"
dependencies = ["{distribution}", "verifiers{versions}"]
tags = ["agentenv"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build]
include = ["{name}.py", "pyproject.toml"]
"""

_README = """# {env_id}

The environment `{env_id}` of agentenv as a package of verifiers. `pip install .` here, then `{check}`.
"""

_CHECKS = {
    0: "vf-eval {project}",
    1: "vf-validate {name} --runtime.type subprocess",
}
_VERSIONS = {0: ">=0.1.9,<0.3", 1: ">=0.4"}


def write_verifiers_folder(
    env_id: str, out: str | Path, *, version: int = 1, options: Mapping[str, Any] | None = None
) -> Path:
    """Writes a package that `vf-eval` takes by name: a module, `pyproject.toml` and a README.

    Args:
        env_id: a registered id, or `"module:Class"` of a module that is installed where the package is.
        out: the folder; it must not exist, or be empty. Its name is the module's.
        version: 0 for `load_environment`, 1 for a taskset.
        options: arguments of the environment, as JSON.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds something, or its name is no Python name; an option is no JSON; there is no such
            version; or an environment without tools is to be a taskset.
        AgentEnvError: the environment cannot be made.
    """
    folder = Path(out)
    name = folder.resolve().name
    if version not in _VERSIONS:
        msg = f"version must be 0 or 1, got {version!r}"
        raise ValueError(msg)
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        msg = f"the folder's name is the module's: lower case letters, digits and underscores, got {name!r}"
        raise ValueError(msg)
    check_new_folder(folder)
    written = options_as_json(options, "the module reads them from its text")
    tools = tools_of(env_id, options)
    if version == 1 and not tools:
        msg = f"{env_id} has no tools, and agents of version 1 act by tools alone; version 0 takes text, too"
        raise ValueError(msg)
    about = {
        "env_id": env_id, "name": name, "project": name.replace("_", "-"), "options": written,
        "distribution": DISTRIBUTION, "versions": _VERSIONS[version],
    }  # fmt: skip
    files = {
        f"{name}.py": (_V0 if version == 0 else _V1).format(**about),
        "pyproject.toml": _PROJECT.format(**about),
        "README.md": _README.format(**about, check=_CHECKS[version].format(**about)),
    }
    write_files(folder, files)
    return folder
