"""Questions about a fictional world: chains of one to four facts, and comparisons, with their reasoning paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pydantic

from .prose import COMPARISONS, KINDS, RELATIONS, Comparison, Relation
from .scoring import normalize_answer
from .tasks import QaTask
from .world import Value, World, make_world

__all__ = ["Fiction", "make_questions"]

_ATTEMPTS = 2_000
"""Draws per question before a world counts as exhausted."""

_Side = tuple[str, int, tuple[str, ...], tuple[int, ...]]
"""How a question refers to a thing, the thing, and the facts and subjects that lead to it."""

_BY_SUBJECT: dict[str, list[Relation]] = {}
for _relation in RELATIONS:
    _BY_SUBJECT.setdefault(_relation.subject, []).append(_relation)


class Fiction(pydantic.BaseModel, frozen=True, extra="forbid"):
    """A fictional world and the questions about it: the dials of difficulty.

    Attributes:
        seed: of the world and of its questions.
        people: size of the world, see `make_world`.
        distractors: how many things share a word of each thing's name.
        hops: the numbers of hops to draw from.
        questions: how many questions.
    """

    seed: int = pydantic.Field(default=0, ge=0)
    people: int = pydantic.Field(default=40, ge=4)
    distractors: int = pydantic.Field(default=1, ge=0)
    hops: tuple[Literal[1, 2, 3, 4], ...] = pydantic.Field(default=(1, 2, 3, 4), min_length=1)
    questions: int = pydantic.Field(default=200, ge=1)

    @property
    def world(self) -> World:
        """The world, made once per process."""
        return make_world(self.seed, people=self.people, distractors=self.distractors)

    def tasks(self) -> list[QaTask]:
        """Returns the questions."""
        return make_questions(self.world, self.questions, hops=self.hops, seed=self.seed)


@dataclass(frozen=True, slots=True)
class _Draft:
    question: str
    answer: Value
    subjects: tuple[int, ...]
    path: tuple[str, ...]
    kind: str


def make_questions(world: World, count: int, *, hops: Sequence[int] = (1, 2, 3, 4), seed: int = 0) -> list[QaTask]:
    """Draws different questions about a world.

    A question of `h` hops needs `h` documents: a chain follows one fact from each, where the object of one is the
    subject of the next; a comparison of two things needs 2 documents, one of two things reached by a fact each needs 4.

    Args:
        world: the world.
        count: how many questions.
        hops: the numbers of hops to draw from, each in [1, 4].
        seed: what they are drawn from.

    Raises:
        ValueError: a number of hops out of range, or the world has too few such questions.
    """
    if not hops or not set(hops) <= {1, 2, 3, 4}:
        msg = f"hops must be numbers from 1 to 4, at least one, got {hops!r}"
        raise ValueError(msg)
    drawer = _Drawer(world, np.random.default_rng([seed, world.seed]))
    tasks: dict[str, QaTask] = {}
    for number in range(count):
        wanted = hops[int(drawer.rng.integers(len(hops)))]
        draft = next((d for d in map(drawer.draw, [wanted] * _ATTEMPTS) if d and d.question not in tasks), None)
        if draft is None:
            msg = f"the world has too few questions of {wanted} hops: found {number} of {count}; make it larger"
            raise ValueError(msg)
        tasks[draft.question] = _finish(world, draft, f"world-{world.seed}-{seed}-{number}")
    return list(tasks.values())


def _finish(world: World, draft: _Draft, key: str) -> QaTask:
    return QaTask(
        id=key,
        question=draft.question,
        answers=(draft.answer.text, *draft.answer.aliases),
        supporting=tuple(world.things[subject].name for subject in draft.subjects),
        kind=draft.kind,
        hops=len(draft.subjects),
        path=draft.path,
    )


class _Drawer:
    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.rng = rng
        self._world = world
        self._yes = bool(rng.integers(2))
        self._kinds = {kind: world.of_kind(kind) for kind in KINDS}
        self._into: dict[str, list[tuple[int, Relation]]] = {kind: [] for kind in KINDS}
        for number, thing in enumerate(world.things):
            for relation in _BY_SUBJECT[thing.kind]:
                if relation.object in KINDS and relation.name in thing.facts:
                    self._into[relation.object].append((number, relation))

    def draw(self, hops: int) -> _Draft | None:
        """Returns a question that needs `hops` documents, or None where the attempt led nowhere."""
        if hops in {2, 4} and self.rng.random() < 0.3:
            return self._comparison(bridged=hops == 4)
        return self._chain(hops)

    def _chain(self, hops: int) -> _Draft | None:
        world, start = self._world, int(self.rng.integers(len(self._world.things)))
        phrase, current = self._mention(start), start
        subjects, path = list[int](), list[str]()
        for hop in range(1, hops + 1):
            thing = world.things[current]
            choices = [r for r in _BY_SUBJECT[thing.kind] if r.name in thing.facts]
            if hop < hops:  # the object of every fact but the last is the subject of the next
                choices = [r for r in choices if r.object in KINDS]
            if not choices:
                return None
            relation = choices[int(self.rng.integers(len(choices)))]
            value = thing.facts[relation.name]
            subjects.append(current)
            path.append(_edge(thing.name, relation, value))
            if value.thing in subjects:  # a circle would name its own answer
                return None
            if hop < hops:
                phrase, current = self._pick(relation.phrases).format(s=phrase), value.thing
                continue
            question = self._pick(relation.questions).format(s=phrase)
            if normalize_answer(value.text) in normalize_answer(question):
                return None
            return _Draft(question, value, tuple(subjects), tuple(path), "chain")
        return None

    def _comparison(self, *, bridged: bool) -> _Draft | None:
        rule = COMPARISONS[int(self.rng.integers(len(COMPARISONS)))]
        first, one, edges_a, subjects_a = side = self._side(rule.subject, bridged=bridged)
        other = self._side(rule.subject, bridged=bridged)
        if rule.same and self._yes:  # yes and no take turns; at random nearly every answer would be no
            other = self._twin(rule, side, bridged=bridged)
        if other is None:
            return None
        second, two, edges_b, subjects_b = other
        a, b = self._world.things[one], self._world.things[two]
        subjects = (*subjects_a, one, *subjects_b, two)
        if len(set(subjects)) < len(subjects) or rule.relation not in a.facts or rule.relation not in b.facts:
            return None
        left, right = a.facts[rule.relation], b.facts[rule.relation]
        relation = next(r for r in _BY_SUBJECT[rule.subject] if r.name == rule.relation)
        path = (*edges_a, _edge(a.name, relation, left), *edges_b, _edge(b.name, relation, right))
        question = rule.question.format(a=first, b=second)
        if rule.same:
            if (left == right) != self._yes:
                return None
            answer, self._yes = Value("yes" if self._yes else "no"), not self._yes
        elif left.rank == right.rank:
            return None
        else:
            answer = Value(a.name if left.rank < right.rank else b.name)
        return _Draft(question, answer, subjects, path, "same" if rule.same else "comparison")

    def _side(self, kind: str, *, bridged: bool) -> _Side:
        """Returns how to refer to a thing of a kind, the thing, and the fact that leads to it (nothing if named)."""
        if bridged and self._into[kind]:
            return self._bridge(*self._into[kind][int(self.rng.integers(len(self._into[kind])))])
        number = self._kinds[kind][int(self.rng.integers(len(self._kinds[kind])))]
        return self._mention(number), number, (), ()

    def _bridge(self, number: int, relation: Relation) -> _Side:
        thing = self._world.things[number]
        value = thing.facts[relation.name]
        phrase = self._pick(relation.phrases).format(s=self._mention(number))
        return phrase, value.thing, (_edge(thing.name, relation, value),), (number,)

    def _twin(self, rule: Comparison, side: _Side, *, bridged: bool) -> _Side | None:
        """Returns another thing with the same value as `side`, where there is one."""
        things, other = self._world.things, self._world.things[side[1]]
        wanted = other.facts.get(rule.relation)
        twins = [
            n
            for n in self._kinds[rule.subject]
            if n != side[1] and wanted is not None and things[n].facts.get(rule.relation) == wanted
        ]
        if not twins:
            return None
        twin = twins[int(self.rng.integers(len(twins)))]
        if not bridged:
            return self._mention(twin), twin, (), ()
        edges = [(n, r) for n, r in self._into[rule.subject] if things[n].facts[r.name].thing == twin]
        return self._bridge(*edges[int(self.rng.integers(len(edges)))]) if edges else None

    def _mention(self, number: int) -> str:
        thing = self._world.things[number]
        return f"{KINDS[thing.kind].noun} {thing.name}".strip()

    def _pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]


def _edge(subject: str, relation: Relation, value: Value) -> str:
    return f"{subject} | {relation.name} | {value.text}"
