"""Exports to files: which file a format is, by the name that it shall have."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from agentenv.errors import TreeError
from agentenv.rows import is_mapping, read_jsonl
from agentenv.serialize import FORMAT, write_trees

from .atif import from_atif, to_atif
from .credited import Credit, Trees
from .dataset_rows import from_dataset_rows, to_dataset
from .table import node_rows, write_csv

__all__ = ["BATCHES", "write_atif", "write_batch", "write_dataset", "write_table", "write_trees_again"]


def write_table(trees: Trees, out: Path, credits: Mapping[str, Credit]) -> str:  # noqa: A002  the public word
    """Writes the table of nodes, as JSON lines where the file ends so, otherwise as CSV; says what it wrote."""
    rows = node_rows(trees, **credits)
    with out.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        if out.suffix == ".jsonl":
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
        else:
            write_csv(rows, file)
    return f"{len(rows)} nodes"


def write_dataset(trees: Trees, out: Path, credits: Mapping[str, Credit]) -> str:  # noqa: A002  the public word
    """Writes rows as parquet or JSON lines where the file ends so, otherwise the folder of a data set."""
    data: Any = to_dataset(trees, **credits)
    if out.suffix == ".parquet":
        data.to_parquet(str(out))
    elif out.suffix == ".jsonl":
        with out.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in data)
    else:
        data.save_to_disk(str(out))
    return f"{data.num_rows} nodes"


def write_atif(trees: Trees, out: Path, credits: Mapping[str, Credit]) -> str:  # noqa: A002  the public word
    """Writes documents one per line where the file ends in `.jsonl`, otherwise each to a file of a folder."""
    documents = to_atif(trees, **credits)
    if out.suffix == ".jsonl":
        out.write_text("".join(f"{json.dumps(document)}\n" for document in documents), encoding="utf-8")
    else:
        out.mkdir()
        for document in documents:
            name = document["trajectory_id"].replace("/", "-")
            (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return f"{len(documents)} trajectories"


BATCHES = ("verl", "skyrl", "prime-rl")
"""Trainers that `write_batch` writes for."""


def write_batch(
    trees: Trees,
    out: Path,
    credit: Credit,
    *,
    to: str,
    weights: str = "occupancy",
    pad_token_id: int = 0,
    ranks: int = 1,
    temperature: float = 1.0,
) -> str:
    """Writes a batch: a file for `torch.load` for verl and SkyRL; for prime-rl the output folder, as step 0.

    Raises:
        ValueError: see `token_rows`, `prime_rl_batches`.
    """
    from .batches import prime_rl_batches, skyrl_batch, token_rows, verl_batch

    rows = token_rows(trees, credit, weights=weights)
    if to == "prime-rl":
        batches = prime_rl_batches(rows, ranks=ranks, temperature=temperature)
        folder = out / "rollouts" / "step_0"
        folder.mkdir(parents=True)
        for rank, data in enumerate(batches):
            (folder / f"rank_{rank}.bin").write_bytes(data)
    else:
        import torch

        make = {"verl": verl_batch, "skyrl": skyrl_batch}[to]
        torch.save(make(rows, pad_token_id=pad_token_id), out)
    return f"{len(rows)} rows with {sum(int(row.trained.sum()) for row in rows)} trained tokens"


def write_trees_again(source: Path, out: Path) -> str:
    """Writes a trees file from what `write_dataset` or `write_atif` wrote.

    Raises:
        TreeError: the source is none of these, or is broken.
    """
    trees = _read_back(source)
    write_trees(out, trees)
    return f"{len(trees)} trees"


def _read_back(source: Path) -> list[Any]:
    if source.is_dir() and any(source.glob("*.arrow")):
        import datasets

        return from_dataset_rows(cast("Any", datasets).load_from_disk(str(source)))
    if source.is_dir():
        files = sorted(source.glob("*.json"), key=lambda path: [int(n) for n in path.stem.split("-") if n.isdecimal()])
        if not files:
            msg = f"{source}: there are neither documents of ATIF (*.json) nor a data set (*.arrow)"
            raise TreeError(msg)
        return from_atif(json.loads(path.read_text(encoding="utf-8")) for path in files)
    if source.suffix == ".jsonl":
        lines = [line for _, line in read_jsonl(source, error=TreeError)]
        if lines and is_mapping(lines[0]) and lines[0].get("format") == FORMAT:
            msg = f"{source} is a trees file already, use it as it is; trees are written from rows (hf) or ATIF"
            raise TreeError(msg)
        if lines and "schema_version" in lines[0]:
            return from_atif(lines)
    return from_dataset_rows(source)
