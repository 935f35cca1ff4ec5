"""Scripted play: what a careful reader calls, and what a hasty one does.

Made for imitation and for checks: a policy that copies a mixture of the two knows the tools, is right some of the time,
and has something left to learn. Every call is a step of its own.
"""

import numpy as np

from agentenv.types import ToolCall

from .tasks import QaTask

__all__ = ["careful_calls", "noisy_calls"]


def careful_calls(task: QaTask) -> list[ToolCall]:
    """Returns the calls that search and read each supporting document in turn, and give the reference answer.

    Raises:
        ValueError: the task names no supporting documents.
    """
    return [call for title in _supporting(task) for call in _visit(title)] + [_answer(task.answers[0])]


def noisy_calls(
    task: QaTask, rng: np.random.Generator, *, early: float = 0.25, blind: float = 0.3, guess: float = 0.1
) -> list[ToolCall]:
    """Returns the calls of a reader who stops early, or answers without having read.

    Args:
        task: with supporting documents.
        rng: draws the slips.
        early: probability, after each document but the last, of giving what was found there as the answer.
        blind: probability, per document, of not reading what the search found.
        guess: probability of ending on another document's title instead of the answer.

    Raises:
        ValueError: the task names no supporting documents.
    """
    titles, calls = _supporting(task), list[ToolCall]()
    for hop, title in enumerate(titles):
        visit = _visit(title)
        calls += visit[:1] if rng.random() < blind else visit
        if hop < len(titles) - 1 and rng.random() < early:
            return [*calls, _answer(task.path[hop].rsplit(" | ", 1)[1] if task.path else title)]
    return [*calls, _answer(titles[-1] if rng.random() < guess else task.answers[0])]


def _supporting(task: QaTask) -> tuple[str, ...]:
    if not task.supporting:
        msg = f"task {task.id!r} names no supporting documents, so there is nothing to demonstrate"
        raise ValueError(msg)
    return task.supporting


def _visit(title: str) -> list[ToolCall]:
    return [ToolCall("search", {"query": title}), ToolCall("read", {"document": title})]


def _answer(text: str) -> ToolCall:
    return ToolCall("answer", {"text": text})
