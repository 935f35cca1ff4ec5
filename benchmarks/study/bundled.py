"""Settings of the bundled environments: search QA over a small fictional world, code repair of one-line functions.

They are the environments as they are shipped, with little to read. The documents of search QA list the facts of the
world instead of telling them in sentences, so that an episode of six calls is a few hundred tokens long. A task of code
repair is a file with one function, which its report spells out in words; a mutation made one operator another. Its
sandboxes are the default ones (namespaces), and it is graded as ever: a hidden case in a fresh sandbox.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from agentenv.envs.code_repair import CodeRepair, RepairTask, find_mutations, read_case
from agentenv.envs.code_repair import demonstrations as repair
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


_WORDS = {"+": "plus", "-": "minus", "*": "times"}
_LETTERS = "abcdxy"
_NUMBERS = ((7, 4, 9, 3), (5, 8, 3, 10), (2, 6, 11, 8))
"""What functions are called with in a hidden case."""


def _repair_task(rng: np.random.Generator, operators: int) -> RepairTask | None:
    """Draws a function of so many operators, and puts a mutation of one of them in; `None` where nothing notices."""
    names = rng.choice(list(_LETTERS), operators + 1, replace=False).tolist()
    signs = rng.choice(list(_WORDS), operators).tolist()
    right = f"def f({', '.join(names)}):\n    return {names[0]}" + "".join(
        f" {sign} {name}" for sign, name in zip(signs, names[1:], strict=True)
    )
    mutations = [mutation for mutation in find_mutations(right) if mutation.kind == "operator"]
    broken = mutations[int(rng.integers(len(mutations)))].apply(right)
    values = [_values(source, operators + 1) for source in (right, broken)]
    if values[0] == values[1]:
        return None
    said = names[0] + "".join(f" {_WORDS[sign]} {name}" for sign, name in zip(signs, names[1:], strict=True))
    calls = ", ".join(f"f{given[: operators + 1]}" for given in _NUMBERS)
    return RepairTask(
        id=f"{said} / {broken.splitlines()[1].strip()}",
        instruction=f"f is {said}",
        files={"f.py": f"{broken}\n"},
        setup="from f import f",
        hidden=(read_case(f"[{calls}] == {values[0]}"),),
        solution={"f.py": f"{right}\n"},
        kind="operator",
        difficulty=1,
    )


def _values(source: str, arguments: int) -> list[int]:
    """Computes what a function that was made here returns."""
    scope: dict[str, Any] = {}
    exec(source, scope)
    return [scope["f"](*given[:arguments]) for given in _NUMBERS]


@lru_cache
def _repairs(operators: int, count: int, held_out: int) -> tuple[Sequence[RepairTask], Sequence[RepairTask]]:
    rng, made = np.random.default_rng(operators), dict[str, RepairTask]()
    while len(made) < count:
        if (task := _repair_task(rng, operators)) is not None:
            made[task.id] = task
    tasks = list(made.values())
    return tasks[held_out:], tasks[:held_out]


def _repair(task: Any, _: np.random.Generator) -> Any:
    return repair.careful_calls(task, tests=False)


def _repair_plays(careful: int, hasty: int, wrong: float, early: float) -> tuple[Play, ...]:
    play = partial(repair.noisy_calls, wrong=wrong, unread=0.05, early=early, untested=1)
    return Play("careful play", _repair, careful), Play("hasty play", play, hasty)


def _workshop(**options: Any) -> CodeRepair:
    """Makes code repair whose tasks are given at `reset`; they were made of their solutions, and need no check."""
    return CodeRepair(check="never", **options)


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
    "code-repair": {
        "make_env": partial(_workshop, max_steps=4),
        "draw": partial(_repairs, 2, 576, 64),
        "plays": _repair_plays(160, 120, 0.75, 0.1),
        "max_action_tokens": 40,
        "tokens": 24_000,
        "tasks_per_step": 8,
    },
    "code-repair-hard": {
        "make_env": partial(_workshop, max_steps=4),
        "draw": partial(_repairs, 3, 576, 64),
        "plays": _repair_plays(160, 120, 0.96, 0.3),
        "max_action_tokens": 40,
        "tokens": 24_000,
        "share": (0.02, 0.08),
    },
}
"""What a `Setting` is made from, by its name."""
