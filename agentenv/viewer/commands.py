"""The commands that restore a node of a tree: what a person copies, and what the terminal of the page runs."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from agentenv.registry import env_ids

from .sources import Run, TreeFile

__all__ = ["Commands", "likely_class"]


class Commands:
    """Writes the commands of a run.

    Args:
        run: the run; its configuration names the environment of its trees.
        env: the environment as `--env` takes it; by default what the id of a tree, or the run, tells.
        options: of the environment, `key=value`.
    """

    def __init__(self, run: Run, env: str | None = None, options: Sequence[str] = ()) -> None:
        self._run, self._env, self._options = run, env, tuple(options)

    def play(self, file: TreeFile, index: int, env_id: str) -> list[str]:
        """Returns the words of `agentenv play` up to the number of the node."""
        return ["agentenv", "play", str(file.path), "--tree", str(index), *self._environment(env_id), "--at"]

    def texts(self, file: TreeFile, index: int, env_id: str) -> dict[str, str]:
        """Returns the commands as they are typed, up to the number of the node, by name."""
        play = self.play(file, index, env_id)
        return {
            "play": shlex.join(play),
            "replay": shlex.join(["agentenv", "replay", *play[2:-1], "--agent", "human", "--at"]),
        }

    def _environment(self, env_id: str) -> list[str]:
        name = self._env or self._guess(env_id)
        options = [word for option in self._options for word in ("--option", option)]
        return [*(["--env", name] if name else []), *options]

    def _guess(self, env_id: str) -> str | None:
        """Where the class of an id that is not registered may be: nothing is imported to find out."""
        if env_id in env_ids():
            return None
        said = re.match(r"([\w.]+)\.(\w+)\(", str(self._run.config().get("env", "")))
        if said:
            return f"{said[1]}:{said[2]}"
        return likely_class(env_id)


def likely_class(env_id: str) -> str | None:
    """Returns `my_env:MyEnv` for the id `my_env/MyEnv-v0` (or `my_env.MyEnv`) where there is a module `my_env` here."""
    said = re.fullmatch(r"(\w+(?:\.\w+)*)[/.]([^\W\d]\w*?)(?:-v\d+)?", env_id)
    return f"{said[1]}:{said[2]}" if said and _is_module(said[1]) else None


def _is_module(name: str) -> bool:
    """Whether a module can be imported from the current folder or where packages are installed."""
    here = Path.cwd().joinpath(*name.split("."))
    if here.with_name(f"{here.name}.py").is_file() or (here / "__init__.py").is_file() or name in sys.modules:
        return True
    return "." not in name and name.isidentifier() and importlib.util.find_spec(name) is not None
