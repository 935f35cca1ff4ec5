"""What the page is given, whether it asks a server or carries everything with it."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentenv.tree import EpisodeTree

from .commands import Commands
from .data import Estimator, chunks_of, columns_of, credit_of, details_of, row_of
from .predictions import Predictions, calibration_bins
from .sources import Run, TreeFile
from .tokens import find_tokenizer, token_texts

__all__ = ["View"]

ChooseEstimator = Callable[[str, Sequence[str]], Estimator]
"""Returns the estimator of a name and `key=value` options; raises ValueError with what would be right."""


class View:
    """Answers what a page asks about a run.

    Args:
        path: a run folder, a folder with trees files, or one file.
        choose: returns estimators by name.
        estimators: the names that a person may choose from.
        credit: the estimators that are shown first, or travel with a page.
        tokenizer: gives tokens their texts; by default that of the run's newest checkpoint.
        env: the environment, for the commands that restore a node, where the id of a tree is not enough.
        options: of the environment, `key=value`, for the same.

    Raises:
        FileNotFoundError: there is no such file or folder.
        TreeFileError: there is nothing to look at.
        ValueError: the tokenizer cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        choose: ChooseEstimator,
        estimators: Sequence[str],
        credit: Sequence[str] = ("rtmc",),
        tokenizer: Path | None = None,
        env: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.run = Run(path)
        self._commands = Commands(self.run, env, options)
        self.credit = tuple(credit)
        self._choose = choose
        self._estimators = tuple(estimators)
        self._text_of = token_texts(tokenizer or find_tokenizer(self.run.folder))
        self._predictions = Predictions(self.run)
        self._rows: dict[TreeFile, list[dict[str, Any]]] = {}
        self._credits: dict[tuple[TreeFile, str, tuple[str, ...]], list[dict[str, Any]]] = {}

    def overview(self) -> dict[str, Any]:
        """Returns the list of trees, learning curves, calibration and what the run was."""
        files = self.run.files
        self._rows = {file: self._rows.get(file) or [row_of(t) for t in self.run.trees(file)] for file in files}
        self._credits = {key: value for key, value in self._credits.items() if key[0] in self._rows}
        rows = [
            {"id": f"{file.name}#{i}", "file": file.name, "step": file.step, "tree": i, **row}
            for file in files
            for i, row in enumerate(self._rows[file])
        ]
        _drop_common_beginning(rows)
        return {
            "title": self.run.path.resolve().name,
            "trees": rows,
            "metrics": self.run.metrics(),
            "config": self.run.config(),
            "calibration": calibration_bins(*self._predictions.pairs()),
            "estimators": list(self._estimators),
            "credit": list(self.credit),
            "problems": list(self.run.problems.values()),
        }

    def tree(self, name: str) -> dict[str, Any]:
        """Returns the columns of a tree, with the credit of the estimators that are shown first.

        Raises:
            KeyError: there is no such tree.
        """
        file, index, tree = self._find(name)
        known = self._predictions.of(file)
        columns = columns_of(tree, known[index] if index < len(known) else None)
        columns["commands"] = self._commands.texts(file, index, tree.env_id)
        columns["chunks"] = [chunk.start for chunk in chunks_of(tree)]
        columns["credit"] = {estimator: self._credit_or_reason(file, index, estimator) for estimator in self.credit}
        return columns

    def details(self, name: str, first: int) -> Mapping[str, Any]:
        """Returns what the nodes of a tree say, in one of the parts that `tree` lists as `chunks`, by its first node.

        Raises:
            KeyError: there is no such tree, or no such part.
        """
        _, _, tree = self._find(name)
        chunk = next((chunk for chunk in chunks_of(tree) if chunk.start == first), None)
        if chunk is None:
            raise KeyError(first)
        return details_of(tree, chunk, self._text_of)

    def credit_by(self, name: str, estimator: str, options: Sequence[str] = ()) -> Mapping[str, Any]:
        """Returns the credit of a tree by an estimator, computed from all trees of its file.

        Raises:
            KeyError: there is no such tree.
            ValueError: there is no such estimator or option, or it refuses these trees.
        """
        file, index, _ = self._find(name)
        key = (file, estimator, tuple(options))
        if key not in self._credits:
            self._credits[key] = credit_of(self.run.trees(file), self._choose(estimator, options))
        return self._credits[key][index]

    def play(self, name: str, node: int) -> list[str]:
        """Returns the words of the command that restores a node and goes on by hand.

        Raises:
            KeyError: there is no such tree.
            ValueError: there is no such node, or the episode has ended there.
        """
        file, index, tree = self._find(name)
        if not 0 <= node < len(tree) or tree.nodes[node].ended:
            msg = f"node must be one of the {len(tree)} of {name} at which the episode goes on, got {node}"
            raise ValueError(msg)
        return [*self._commands.play(file, index, tree.env_id), str(node)]

    def _credit_or_reason(self, file: TreeFile, index: int, estimator: str) -> Mapping[str, Any]:
        try:
            return self.credit_by(f"{file.name}#{index}", estimator)
        except (ValueError, TypeError) as error:
            return {"problem": str(error)}

    def _find(self, name: str) -> tuple[TreeFile, int, EpisodeTree]:
        wanted, _, index = name.rpartition("#")
        file = next((file for file in self.run.files if file.name == wanted), None)
        trees = () if file is None else self.run.trees(file)
        if file is None or not index.isdigit() or int(index) >= len(trees):
            raise KeyError(name)
        return file, int(index), trees[int(index)]


def _drop_common_beginning(rows: list[dict[str, Any]]) -> None:
    """Cuts the instructions that all questions of a list begin with, so that a row says what is its own."""
    common = os.path.commonprefix([row["begins"] for row in rows]) if len(rows) > 1 else ""  # noqa: RUF071  texts
    length = max(common.rfind(mark) + 2 for mark in (". ", ": ", "? "))
    for row in rows:
        if length > 30 and len(row["begins"]) > length:
            row["begins"] = row["begins"][length:]
