"""Settings of the bundled environments: search QA over a small fictional world.

They are the environments as they are shipped, with little to read: the documents of search QA list the facts of the
world instead of telling them in sentences, so that an episode of six calls is a few hundred tokens long.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from agentenv.envs.search_qa import Bm25Retriever, Fiction, Passage, QaTask, Retriever, SearchQA
from agentenv.envs.search_qa.demonstrations import careful_calls, noisy_calls
from agentenv.trainers import Play

__all__ = ["BUNDLED"]

_PEOPLE = 12
"""Of the fictional world, which has 33 documents then."""

_HELD_OUT = 256


@lru_cache
def _listed(people: int) -> Retriever:
    """Indexes the documents of a world, each a list of its facts."""
    things = Fiction(people=people, distractors=0).world.things
    return Bm25Retriever.build(
        Passage(f"d{n}", thing.name, "; ".join(f"{name}: {value.text}" for name, value in thing.facts.items()))
        for n, thing in enumerate(things)
    )


def _library(people: int, **options: Any) -> SearchQA:
    """Makes search QA whose prompt is the question alone, and whose search shows little more than titles."""
    return SearchQA(corpus=_listed(people), prompt="{question}", snippet_chars=1, **options)


@lru_cache
def _questions(people: int, hops: int, count: int) -> tuple[Sequence[QaTask], Sequence[QaTask]]:
    """Chains of so many hops. Questions differ; the world is the same, and can be learned by heart."""
    made = Fiction(people=people, distractors=0, hops=(hops,), questions=count).tasks()  # type: ignore[arg-type]
    chains = [task for task in made if task.kind == "chain"]
    return chains[_HELD_OUT:], chains[:_HELD_OUT]


def _search(task: Any, _: np.random.Generator) -> Any:
    return careful_calls(task)


def _search_plays(updates: int, early: float, guess: float) -> tuple[Play, ...]:
    hasty = partial(noisy_calls, early=early, blind=0.1, guess=guess)
    return Play("careful play", _search, updates), Play("hasty play", hasty, 3 * updates // 4)


BUNDLED: dict[str, dict[str, Any]] = {
    "search-qa": {
        "make_env": partial(_library, _PEOPLE, max_steps=6),
        "draw": partial(_questions, _PEOPLE, 2, 1200),
        "plays": _search_plays(160, 0.5, 0.2),
        "max_action_tokens": 32,
        "tokens": 30_000,
        "tasks_per_step": 8,
    },
    "search-qa-hard": {
        "make_env": partial(_library, _PEOPLE, max_steps=8),
        "draw": partial(_questions, _PEOPLE, 3, 1200),
        "plays": _search_plays(160, 0.5, 0.4),
        "max_action_tokens": 32,
        "tokens": 60_000,
        "share": (0.02, 0.08),
    },
}
"""What a `Setting` is made from, by its name."""
