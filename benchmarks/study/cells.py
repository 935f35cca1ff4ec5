"""Cells: one run each, as plain data; and the file of results, one JSON line per cell."""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

from agentenv.signatures import digest

__all__ = ["MIXED", "ROOT", "TUNING_SEED", "Cell", "Results", "Runs", "StudyError", "code_version"]

ROOT = Path(__file__).resolve().parents[2]
_CODE = ("agentenv", "agents", "credit", "sandboxes", "trainers", "benchmarks/study")
_FIRST = {"size": "tiny", "device": "cpu"}
MIXED = "mixed trees per 100 episodes"
"""A metric: the effective ratio over the episodes of a tree, as an allocator may choose few large trees or many small.
"""
TUNING_SEED = 9_000
"""Seeds from here on tune learning rates, and are used for nothing else."""


class StudyError(ValueError):
    """Something that a study is run with cannot be used: results, or a start. No cell is to blame."""


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        kind: `train` or `credit`.
        setting: where.
        method: name of what is trained, or of what is measured.
        config: everything else that the run depends on, as JSON.
        seed: of the run.
        tokens: budget of sampled tokens.
        rate: learning rate; 0 where nothing is learned.
        start: hash of what the starting model is made from.
        quick: little work, which means nothing.
        cost: expected seconds, for the time left.
        size: of the model, a name of `sizes.SIZES`.
        device: `cpu` or `cuda`; the name of the hardware is in the result.
    """

    kind: str
    setting: str
    method: str
    seed: int
    tokens: int
    rate: float = 0.0
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    start: str = ""
    quick: bool = False
    cost: float = 60.0
    size: str = "tiny"
    device: str = "cpu"

    @cached_property
    def key(self) -> str:
        """The hash of all that the run depends on; what it is expected to cost is not among it, nor is the code.

        The size of the model and the device are, where they are not the first that there were.
        """
        left = {"cost"} | {name for name, first in _FIRST.items() if getattr(self, name) == first}
        return digest({name: value for name, value in asdict(self).items() if name not in left})[:20]


Runs = Sequence[tuple[Cell, dict[str, Any]]]
"""Cells that were run, with their results."""


class Results:
    """The results so far: a file that is only ever appended to, a line per cell.

    A line that a crash cut off is passed over, and the next is written below it. Two studies may write to one file.

    Args:
        path: of the file; made with the first result.

    Attributes:
        cut: how many lines a crash cut off.

    Raises:
        StudyError: a line that is not the last cannot be read, or runs of a setting start from different models.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = 0
        self._lines: dict[str, dict[str, Any]] = {}
        self._starts: dict[tuple[Any, ...], str] = {}
        for number, line in enumerate(lines := path.read_bytes().split(b"\n") if path.exists() else [], start=1):
            try:
                if line.strip():
                    self._take(json.loads(line))
            except StudyError:
                raise
            except (ValueError, TypeError, KeyError) as error:
                if number < len(lines) and not _cut_off(line):
                    what = f"{type(error).__name__}: {error}"
                    msg = f"{path}, line {number}: no result of the study ({what}): remove the line"
                    raise StudyError(msg) from error
                self.cut += 1

    def _take(self, entry: dict[str, Any]) -> None:
        """Keeps an entry; of two of one cell the later, but no error after a success."""
        _ = [entry[name] for name in ("kind", "setting", "method", "seed", "code")]
        if "error" not in entry:
            metrics = entry["metrics"] if entry["kind"] == "train" else entry.get("metrics", {})
            _ = {name: float(value) for name, value in dict(metrics).items()}
            self._check_start(entry)
        if "error" not in entry or "error" in self._lines.get(entry["key"], {"error": ""}):
            self._lines[entry["key"]] = entry

    def _check_start(self, entry: dict[str, Any]) -> None:
        """Refuses runs of a setting that start from different models: what is compared would be the models."""
        if not (weights := entry.get("weights")):
            return
        where = (entry["setting"], entry.get("quick"), entry.get("size", _FIRST["size"]))
        known = self._starts.setdefault(where, weights)
        if known != weights:
            msg = (
                f"{self.path}: runs of {where[0]} must start from one model, got weights {known} and {weights}: "
                "imitation on another processor, or with other libraries, makes another; keep runs from each in a "
                "--folder of their own"
            )
            raise StudyError(msg)

    def check_writable(self) -> None:
        """Makes the file, so that nothing is computed that cannot be kept; raises `OSError` where it cannot be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._lines.values())

    def __contains__(self, cell: Cell) -> bool:
        return cell.key in self._lines

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """Returns the result of a cell; `None` where it was not run yet."""
        return self._lines.get(cell.key)

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Appends the result of a cell, in one piece, and waits until it is on the disk."""
        entry = {"key": cell.key, **asdict(cell), "panel": result.pop("panel", ""), "code": code_version(), **result}
        self._check_start(entry)
        data = json.dumps(_rounded(entry), sort_keys=True, allow_nan=True).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                data = data if file.read(1) == b"\n" else b"\n" + data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._take(json.loads(data))

    def of(self, cells: Iterable[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
        """Returns the cells that were run and went through, with their results."""
        found = [(cell, self._lines[cell.key]) for cell in cells if cell.key in self._lines]
        return [(cell, entry) for cell, entry in found if "error" not in entry]

    def elsewhere(self) -> list[tuple[str, str]]:
        """Returns which other sizes of the model were run, and on which devices."""
        found = {tuple(entry.get(name, first) for name, first in _FIRST.items()) for entry in self._lines.values()}
        return sorted(cast("set[tuple[str, str]]", found - {tuple(_FIRST.values())}))

    def about(self, size: str, device: str) -> tuple[list[str], int]:
        """Returns the names of the hardware that runs of a size were made on, and how many seeds there are."""
        asked = {"size": size, "device": device}.items()
        went = [entry for entry in self._lines.values() if "error" not in entry]
        here = [entry for entry in went if all(entry.get(name, _FIRST[name]) == one for name, one in asked)]
        seeds = [entry["seed"] + 1 for entry in here if entry["seed"] < TUNING_SEED]
        return sorted({entry["machine"] for entry in here if "machine" in entry}), max(seeds, default=0)

    @property
    def broken(self) -> dict[str, int]:
        """How many cells broke, by setting."""
        return dict(Counter(entry["setting"] for entry in self._lines.values() if "error" in entry))

    @property
    def codes(self) -> set[str]:
        """The versions of the code that made the results."""
        return {entry["code"] for entry in self._lines.values()}


def _rounded(value: Any) -> Any:
    """Leaves five digits of what was measured: the file is kept with the code."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {name: one if name in {"config", "rate"} else _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _cut_off(line: bytes) -> bool:
    """Whether a line begins like a result and has no end: a crash, after which another line was written."""
    return line.startswith(b"{") and not line.endswith(b"}")


@lru_cache(maxsize=1)
def code_version() -> str:
    """Computes the hash of all code that a result depends on."""
    total = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]
