"""Cells: one run each, as plain data; and the file of results, one JSON line per cell."""

import fcntl
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

from agentenv.signatures import digest

from .sizes import DEVICES, SIZES

__all__ = [
    "MAKES_ANOTHER",
    "MIXED",
    "ROOT",
    "TUNING_SEED",
    "Cell",
    "OtherStartError",
    "Results",
    "Runs",
    "StudyError",
    "code_version",
    "not_finite",
]

ROOT = Path(__file__).resolve().parents[2]
_CODE = ("agentenv", "agents", "credit", "sandboxes", "trainers", "benchmarks/study")
_FIRST = {"size": "tiny", "device": "cpu"}
MIXED = "mixed trees per 100 episodes"
"""A metric: the effective ratio over the episodes of a tree, as an allocator may choose few large trees or many small.
"""
MAKES_ANOTHER = "imitation on another processor, or with other libraries, makes another"
"""What is said of a start that is not as it was."""
TUNING_SEED = 9_000
"""Seeds from here on tune learning rates, and are used for nothing else."""


class StudyError(ValueError):
    """Something that a study is run with cannot be used: results, or a start. No cell is to blame."""


class OtherStartError(StudyError):
    """A run would start from another model than the kept ones of its setting: what is compared would be the models."""


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
        StudyError: the file is none; a line that is not the last cannot be read, or is no result; or runs of a setting
            start from different models.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = 0
        self._lines: dict[str, dict[str, Any]] = {}
        self._starts: dict[tuple[Any, ...], str] = {}
        if path.exists() and not path.is_file():
            msg = f"{path} must be a file of results, got something else of that name: choose another --folder"
            raise StudyError(msg)
        for number, line in enumerate(lines := path.read_bytes().split(b"\n") if path.exists() else [], start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                if number < len(lines) and not _cut_off(line):
                    raise self._no_result(number, f"it is no JSON: {error!s:.120}") from error
                self.cut += 1
                continue
            if wrong := _wrong_with(entry):
                raise self._no_result(number, wrong)
            self._check_start(entry)
            self._keep(entry)

    def _no_result(self, number: int, why: str) -> StudyError:
        remedy = "repair the line, or remove it and do its run again"
        return StudyError(f"{self.path}, line {number}: no result of the study ({why}): {remedy}")

    def _keep(self, entry: dict[str, Any]) -> None:
        """Keeps an entry; of two of one cell the later, but no error after a success."""
        if "error" not in entry or "error" in self._lines.get(entry["key"], {"error": ""}):
            self._lines[entry["key"]] = entry

    def _check_start(self, entry: dict[str, Any]) -> None:
        """Refuses runs of a setting that start from different models: what is compared would be the models."""
        if "error" in entry or not (weights := entry.get("weights")):
            return
        where = (entry["setting"], entry.get("quick"), entry.get("size", _FIRST["size"]))
        known = self._starts.setdefault(where, weights)
        if known != weights:
            msg = (
                f"{self.path}: runs of {where[0]} must start from one model, got weights {known} and {weights}: "
                f"{MAKES_ANOTHER}; keep runs from each in a --folder of their own"
            )
            raise OtherStartError(msg)

    def start_of(self, cell: Cell) -> str:
        """Returns the hash of the weights that runs of a cell's setting start from; empty where that is not known."""
        return self._starts.get((cell.setting, cell.quick, cell.size), "")

    def check_writable(self) -> None:
        """Makes the file, so that nothing is computed that cannot be kept; raises `OSError` where it cannot be."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.open("ab").close()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Goes over the results; those of settings, sizes and devices that are no more are passed over."""
        return (entry for entry in self._lines.values() if not _gone(entry))

    @property
    def gone(self) -> dict[str, int]:
        """How many results are of a setting, a size or a device that is no more, by what that is."""
        return dict(Counter(name for entry in self._lines.values() if (name := _gone(entry))))

    def __contains__(self, cell: Cell) -> bool:
        return cell.key in self._lines

    def get(self, cell: Cell) -> dict[str, Any] | None:
        """Returns the result of a cell; `None` where it was not run yet."""
        return self._lines.get(cell.key)

    def add(self, cell: Cell, result: dict[str, Any]) -> None:
        """Appends the result of a cell, in one piece, and waits until it is on the disk.

        Raises:
            ValueError: it is no result that could be read again.
            OtherStartError: it does not start from the model that others of its setting start from.
        """
        entry = {"key": cell.key, **asdict(cell), "panel": result.pop("panel", ""), "code": code_version(), **result}
        self._check_start(entry)
        data = json.dumps(_rounded(entry), sort_keys=True, allow_nan=True).encode() + b"\n"
        kept = json.loads(data)
        if wrong := _wrong_with(kept):
            msg = f"a result of {cell.setting}, {cell.method} cannot be kept: {wrong}"
            raise ValueError(msg)
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
        self._keep(kept)

    def of(self, cells: Iterable[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
        """Returns the cells that were run and went through, with their results."""
        found = [(cell, self._lines[cell.key]) for cell in cells if cell.key in self._lines]
        return [(cell, entry) for cell, entry in found if "error" not in entry]

    def elsewhere(self) -> list[tuple[str, str]]:
        """Returns which other sizes of the model were run, and on which devices."""
        found = {tuple(entry.get(name, first) for name, first in _FIRST.items()) for entry in self}
        return sorted(cast("set[tuple[str, str]]", found - {tuple(_FIRST.values())}))

    def about(self, size: str, device: str) -> tuple[list[str], int]:
        """Returns the names of the hardware that runs of a size were made on, and how many seeds there are."""
        asked = {"size": size, "device": device}.items()
        went = [entry for entry in self if "error" not in entry]
        here = [entry for entry in went if all(entry.get(name, _FIRST[name]) == one for name, one in asked)]
        seeds = [entry["seed"] + 1 for entry in here if entry["seed"] < TUNING_SEED]
        return sorted({entry["machine"] for entry in here if "machine" in entry}), max(seeds, default=0)

    @property
    def broken(self) -> dict[str, int]:
        """How many cells broke, by setting."""
        return dict(Counter(entry["setting"] for entry in self if "error" in entry))

    @property
    def codes(self) -> set[str]:
        """The versions of the code that made the results."""
        return {entry["code"] for entry in self}


def not_finite(seed: int, result: Mapping[str, Any]) -> str:
    """Says what of a result is no finite number and must be; empty where nothing is.

    A run that tunes may come to none: its rate is then not taken. In any other, one would spoil every median.

    Args:
        seed: of the run.
        result: what it came to, with metrics and a curve where it has them.
    """
    if seed >= TUNING_SEED:
        return ""
    named = {f"metrics.{name}": value for name, value in result.get("metrics", {}).items()}
    named |= {f"curve[{i}].success": point["success"] for i, point in enumerate(result.get("curve", []))}
    return next((f"{name} must be finite, got {value!r}" for name, value in named.items() if not _finite(value)), "")


def _number(value: Any) -> bool:
    return type(value) in {int, float}


def _finite(value: Any) -> bool:
    return _number(value) and abs(value) < math.inf


def _numbers(value: Any, *names: str) -> bool:
    """Whether a value is an object of numbers, with those names among them."""
    return isinstance(value, dict) and all(map(_number, cast("Any", value).values())) and {*names} <= value.keys()


def _curve(value: Any) -> bool:
    """Whether a value is a learning curve: points, and how many tokens were spent until each."""
    points = cast("list[Any]", value) if isinstance(value, list) else []
    return bool(points) and all(_numbers(point, "tokens", "success") and _finite(point["tokens"]) for point in points)


def _quarters(value: Any) -> bool:
    lists: list[Any] = list(cast("Any", value).values()) if isinstance(value, dict) else [()]
    return all(isinstance(one, list) and one and all(map(_number, cast("list[Any]", one))) for one in lists)


def _rows(value: Any) -> bool:
    """Whether a value is what credit was measured to be: a row for each estimator, way to tell states, and size."""
    return isinstance(value, list) and all(
        isinstance(row, dict)
        and isinstance(row.get("estimator"), str)
        and isinstance(row.get("signature"), str)
        and _finite(row.get("size"))
        and all(name in row and (row[name] is None or _number(row[name])) for name in ("r", "mse", "sign", "cosine"))
        for row in cast("list[Any]", value)
    )


_Rule = tuple[str, Callable[[Any], bool]]
"""What a field must be, in words, and whether a value is that."""

_TEXT: _Rule = ("a text", lambda value: isinstance(value, str))
_OF_ALL: dict[str, _Rule] = {
    **dict.fromkeys(("key", "kind", "setting", "method", "code"), _TEXT),
    "seed": ("a whole number of at least 0", lambda value: type(value) is int and value >= 0),
}
"""Fields of every line, also of a run that broke."""
_MAY_BE: dict[str, _Rule] = {
    **dict.fromkeys(("size", "device", "weights", "machine", "error", "start"), _TEXT),
    "quick": ("true or false", lambda value: isinstance(value, bool)),
}
_TRAIN: dict[str, _Rule] = {
    "rate": ("a finite number of at least 0", lambda value: _finite(value) and value >= 0),
    "tokens": ("a whole number of at least 1", lambda value: type(value) is int and value >= 1),
    "config": ("an object", lambda value: isinstance(value, dict)),
    "cpu_seconds": ("a finite number", _finite),
    "curve": ("a list of points, with numbers for tokens and success", _curve),
    "metrics": (
        "an object of numbers, with final, mean and start",
        lambda value: _numbers(value, "final", "mean", "start"),
    ),
    "quarters": ("an object of lists of numbers", _quarters),
    "ledger": (
        "an object of numbers, with tokens_sampled, steps and episodes",
        lambda value: _numbers(value, "tokens_sampled", "steps", "episodes"),
    ),
}
_CREDIT: dict[str, _Rule] = {
    "rate": ("0, as nothing is learned", lambda value: _number(value) and value == 0),
    "rows": ("a list of objects, with estimator, signature, size and numbers for r, mse, sign and cosine", _rows),
}
_MEASURED: _Rule = ("an object of numbers, with noise", lambda value: _numbers(value, "noise"))
_WENT = {"train": _TRAIN, "credit": _CREDIT}


def _wrong_with(entry: Any) -> str:
    """Says which field of a line that is read is missing, or not what it must be; empty where all are."""
    if not isinstance(entry, dict):
        return f"it must be an object, got {entry!r:.80}"
    line = cast("dict[str, Any]", entry)
    if wrong := _first_wrong(line, _OF_ALL) or _first_wrong(line, {n: r for n, r in _MAY_BE.items() if n in line}):
        return wrong
    if "error" in line:
        return ""
    if (rules := _WENT.get(line["kind"])) is None:
        return f"kind must be one of {', '.join(_WENT)}, got {line['kind']!r:.80}"
    if line["kind"] == "credit" and "metrics" in line:
        rules = rules | {"metrics": _MEASURED}
    return _first_wrong(line, rules) or not_finite(line["seed"], line)


def _first_wrong(line: Mapping[str, Any], rules: Mapping[str, _Rule]) -> str:
    for name, (rule, holds) in rules.items():
        if name not in line:
            return f"{name} is missing, and must be {rule}"
        if not holds(line[name]):
            return f"{name} must be {rule}, got {line[name]!r:.80}"
    return ""


def _gone(entry: Mapping[str, Any]) -> str:
    """Names the setting, the size or the device of a result that is no more; empty where all are there."""
    from .settings import SETTINGS  # which brings torch, and workers begin without

    if entry["setting"] not in SETTINGS:
        return f"setting {entry['setting']}"
    found = {name: (entry.get(name, _FIRST[name]), known) for name, known in (("size", SIZES), ("device", DEVICES))}
    return next((f"{name} {value}" for name, (value, known) in found.items() if value not in known), "")


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
