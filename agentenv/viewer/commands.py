"""The commands that restore a node of a tree: what a person copies, and what the terminal of the page runs."""

import re
import shlex
from collections.abc import Sequence

from agentenv.registry import env_ids, likely_class

from .sources import Run, TreeFile

__all__ = ["Commands"]


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
