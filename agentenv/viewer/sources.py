"""What a run folder, or a file of trees, holds now: trees files, metrics and configuration, read again as it grows."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentenv.errors import TreeFileError
from agentenv.serialize import FORMAT, read_trees
from agentenv.tree import EpisodeTree

__all__ = ["Run", "TreeFile"]

_KEPT = 4
"""How many files' trees stay in memory; the others are read again when somebody looks at them."""

_SETTINGS = ("model_name_or_path", "max_steps", "learning_rate", "num_rollouts", "num_continuations", "allocator",
             "temperature", "loss_type", "seed")  # fmt: skip


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of trees as it was at one moment.

    Attributes:
        name: its path within the folder.
        path: where it is.
        stamp: time of its last change in nanoseconds, and its size.
        step: the optimizer step of its trees; `None` where they are of no training.
    """

    name: str
    path: Path
    stamp: tuple[int, int]
    step: int | None = None


class Run:
    """A folder or a file that people look at, perhaps while it is being written.

    Args:
        path: a run folder (`trees/*.jsonl`, `metrics.jsonl`, `run.json`), any folder with trees files, or one file.

    Attributes:
        path: the same.
        files: the trees files, in the order of their steps, then of their names.
        problems: what could not be read, for people.

    Raises:
        FileNotFoundError: there is no such file or folder.
        TreeFileError: nothing in it is a file of trees, and it has no metrics either.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            msg = f"no such file or folder: {str(path)!r}"
            raise FileNotFoundError(msg)
        self.files: tuple[TreeFile, ...] = ()
        self.problems: dict[str, str] = {}
        self._trees: dict[TreeFile, list[EpisodeTree]] = {}
        self._stamps: tuple[Any, ...] = ()
        self.look()
        if not self.files and not self.metrics():
            below = [path for path in sorted(self.path.glob("*/")) if _is_run(path)]
            told = "`agentenv rollout`, `agentenv train` and `agentenv play --trees` write them"
            there = f"there are some in {', '.join(map(str, below[:5]))}" if below else told
            msg = f"{self.path} has no trees (trees/*.jsonl) and no metrics.jsonl; {there}"
            raise TreeFileError(msg)
        if not self.path.is_dir():
            for file in self.files:
                self.trees(file)
            for problem in self.problems.values():
                raise TreeFileError(problem if _has_header(self.path) else f"it is no file of trees: {problem}")

    def look(self) -> bool:
        """Looks at the folder again; returns whether anything changed."""
        self.files = tuple(sorted(self._find(), key=lambda file: (file.step is None, file.step or 0, file.name)))
        stamps = (self.files, *(_stamp(self.folder / name) for name in ("metrics.jsonl", "run.json")))
        changed, self._stamps = stamps != self._stamps, stamps
        return changed

    @property
    def folder(self) -> Path:
        """The folder itself, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    def _find(self) -> Iterator[TreeFile]:
        if not self.path.is_dir():
            yield TreeFile(self.path.name, self.path, _stamp(self.path))
            return
        below = sorted(self.path.glob("trees/*.jsonl")) or sorted(self.path.glob("*.jsonl"))
        for path in below:
            if path.is_file() and _has_header(path):
                numbered = re.fullmatch(r"step_(\d+)(?:_rank_\d+)?", path.stem)
                step = int(numbered[1]) if numbered else None
                yield TreeFile(str(path.relative_to(self.path)), path, _stamp(path), step)

    def trees(self, file: TreeFile) -> Sequence[EpisodeTree]:
        """Returns the trees of a file; those it had before where it is just being written, none where it is broken."""
        if file not in self._trees:
            try:
                found = read_trees(file.path, live=True)
                self.problems.pop(file.name, None)
            except (TreeFileError, OSError, UnicodeDecodeError) as error:
                self.problems[file.name] = str(error)
                found = next(
                    (trees for kept, trees in self._trees.items() if kept.name == file.name), list[EpisodeTree]()
                )
            while len(self._trees) >= _KEPT:
                del self._trees[next(iter(self._trees))]
            self._trees[file] = found
        return self._trees[file]

    def metrics(self) -> list[dict[str, Any]]:
        """Returns what a training run logged, without a last line that is cut; empty for a file of trees."""
        path = self.folder / "metrics.jsonl"
        if not self.path.is_dir() or not path.exists():
            return []
        rows: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row: object = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(cast("dict[str, Any]", row))
        return rows

    def config(self) -> dict[str, Any]:
        """Returns what a run's configuration says first; empty where there is none."""
        path = self.folder / "run.json"
        try:
            found: object = json.loads(path.read_text(encoding="utf-8")) if self.path.is_dir() else {}
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        config = cast("dict[str, Any]", found)
        settings = cast("Mapping[str, Any]", config.get("settings") or {})
        own = {name: value for name, value in config.items() if name not in {"settings", "versions"}}
        return own | {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def _is_run(folder: Path) -> bool:
    found = (*folder.glob("trees/*.jsonl"), *folder.glob("*.jsonl"))
    return (folder / "metrics.jsonl").is_file() or any(map(_has_header, found))


def _has_header(path: Path) -> bool:
    """Whether a file says of itself that it holds trees."""
    try:
        with path.open("rb") as file:
            return FORMAT.encode() in file.readline(200)
    except OSError:
        return False
