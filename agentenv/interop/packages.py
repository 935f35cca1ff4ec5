"""What the packages of an environment have in common, whoever they are for: a new folder, JSON options, its tools."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentenv.env import Env
from agentenv.registry import env_class

__all__ = ["check_new_folder", "options_as_json", "tools_of", "write_files"]


def check_new_folder(folder: Path) -> None:
    """Raises `ValueError` where a folder holds something."""
    if folder.exists() and any(folder.iterdir()):
        msg = f"out must be a new folder, {str(folder)!r} holds something"
        raise ValueError(msg)


def options_as_json(options: Mapping[str, Any] | None, reader: str) -> str:
    """Returns the options of an environment as JSON; raises `ValueError` where they are none.

    Args:
        options: by name.
        reader: who reads them and where, for the message.
    """
    try:
        return json.dumps(dict(options or {}))
    except TypeError as error:
        msg = f"options must be JSON, since {reader}: {error}"
        raise ValueError(msg) from None


def tools_of(env_id: str, options: Mapping[str, Any] | None) -> list[str]:
    """Returns the names of an environment's tools, of one that is made with the options and closed."""
    cls: type[Env] = env_class(env_id)
    env = cls(**(options or {}))
    try:
        return [tool["function"]["name"] for tool in env.tools]
    finally:
        env.close()


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Writes texts by path below a folder, which is made if need be."""
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
