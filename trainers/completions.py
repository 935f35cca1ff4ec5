"""Tables of completions, as TRL's `log_completions` prints, saves and sends them: one row per episode of a generation.

TRL has one completion per prompt; here an episode is a path of its tree, and what follows the prompt is what the agent
said and the environment answered, as the model read it. Continuations begin with the steps that they share.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentenv.credit import StepAdvantages, TokenAdvantages
from agentenv.stats import episodes
from agentenv.tree import EpisodeTree
from agentenv.types import message_text
from agentenv.whole_files import say_remedy

from .config import TreeConfig
from .layout import Rows

__all__ = ["CompletionTable", "whole_table"]

Decode = Callable[..., Any]


class CompletionTable:
    """Fills the deques that TRL's `log` reads with the episodes of the newest generation.

    Args:
        logs: the trainer's `_logs`; the deques are replaced by such as hold a generation of trees.
        args: the trainer's settings.
        gather: joins lists over all processes.
        decode: turns tokens into text.
    """

    def __init__(
        self, logs: dict[str, Any], args: TreeConfig, gather: Callable[[list[Any]], list[Any]], decode: Decode
    ) -> None:
        self._logs, self._args, self._gather, self._decode = logs, args, gather, decode
        self._most = (args.generation_batch_size or 0) * (args.num_rollouts + args.num_continuations)

    def fill(self, trees: Sequence[EpisodeTree], rows: Rows, credit: StepAdvantages | TokenAdvantages) -> None:
        """Takes the episodes of a generation in place of those before.

        Args:
            trees: the trees.
            rows: the same trees as token rows.
            credit: of their steps or tokens.
        """
        if not self._args.log_completions:
            return
        given, start, own = _step_credit(rows, credit), 0, list[Mapping[str, Any]]()
        for tree in trees:
            own += [self._row(tree, episode, given[start : start + len(tree)]) for episode in episodes(tree)]
            start += len(tree)
        table = self._gather(own)
        for name in ("prompt", "completion", "advantages"):
            self._logs[name] = deque((row[name] for row in table), maxlen=self._most)
        for name, columns in (("rewards", ("return",)), ("extra", ("task", "success", "steps", "shared_steps"))):
            self._logs[name] = defaultdict(self._empty)
            for column in columns:
                self._logs[name][column].extend(row[column] for row in table)

    def _empty(self) -> deque[Any]:
        return deque(maxlen=self._most)

    def _row(self, tree: EpisodeTree, episode: Any, given: NDArray[np.float64]) -> dict[str, Any]:
        path = tree.path(episode.leaf)[1:]
        prompt, whole = tree.prompt_token_ids(0), tree.token_ids(episode.leaf)
        if prompt and whole[: len(prompt)] == tuple(prompt):
            texts = self._decode(prompt), self._decode(whole[len(prompt) :])
        else:  # an agent whose tokens nobody knows, or one that rewrote the prompt
            begun = len(tree.messages(0))
            said = [message_text(message) for message in tree.messages(episode.leaf)]
            texts = "\n".join(said[:begun]), "\n".join(said[begun:])
        return {
            "prompt": texts[0],
            "completion": texts[1],
            "advantages": float(given[path].mean()) if path else 0.0,
            "return": float("nan") if episode.value is None else episode.value,
            "task": str(tree.task_id),
            "success": episode.succeeded,
            "steps": episode.steps,
            "shared_steps": len(tree.path(episode.anchor)) - 1,
        }


def _step_credit(rows: Rows, credit: StepAdvantages | TokenAdvantages) -> NDArray[np.float64]:
    """`[N]` the advantage of every step: the mean over its trained tokens where they have their own."""
    if isinstance(credit, StepAdvantages):
        return credit.advantages
    nodes = rows.nodes[rows.trained]
    sums = np.bincount(nodes, weights=credit.advantages[rows.trained], minlength=len(rows.arrays))
    return sums / np.maximum(np.bincount(nodes, minlength=len(rows.arrays)), 1)


@contextmanager
def whole_table(args: TreeConfig, step: int) -> Generator[None]:
    """Has the table that TRL writes be there whole, or not at all.

    Raises:
        OSError: it could not be written; the message says what to do.
    """
    path = Path(str(args.output_dir)) / "completions" / f"completions_{step:05d}.parquet"
    try:
        yield
    except OSError as error:
        if not args.log_completions or not path.exists():
            raise  # it was something else that could not be written
        path.unlink()
        with say_remedy(path):
            raise error from None
