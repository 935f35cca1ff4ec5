"""Fictional worlds: people, places and works with relations, and a document about each.

Nothing in a world exists outside it, so a model cannot answer from memory: it has to search. The same arguments give
the same world on every machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .corpus import Passage
from .names import NameMaker
from .prose import ASIDES, KINDS, RELATIONS, Relation

__all__ = ["Thing", "Value", "World", "make_world"]

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip
_WORKS = ("novel", "film", "opera")


@dataclass(frozen=True, slots=True)
class Value:
    """The object of a fact.

    Attributes:
        text: as documents write it.
        thing: the position in `World.things` where it is a thing; -1 for a plain value.
        aliases: other accepted spellings.
        rank: place in time, for comparisons; 0 where it has none.
    """

    text: str
    thing: int = -1
    aliases: tuple[str, ...] = ()
    rank: int = 0


@dataclass(slots=True)
class Thing:
    """Something that a world has a document about.

    Attributes:
        kind: a key of `prose.KINDS`.
        name: its proper name, unique in the world.
        facts: what is true of it, by the relation's name.
    """

    kind: str
    name: str
    facts: dict[str, Value] = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class World:
    """A closed world.

    Attributes:
        seed: what it was made from.
        things: everything that exists.
        passages: one document per thing, in the same order; the title is the thing's name.
    """

    seed: int
    things: tuple[Thing, ...]
    passages: tuple[Passage, ...]

    def of_kind(self, kind: str) -> list[int]:
        """Returns the positions of the things of a kind."""
        return [i for i, thing in enumerate(self.things) if thing.kind == kind]


@lru_cache(maxsize=8)
def make_world(seed: int = 0, *, people: int = 40, distractors: int = 1) -> World:
    """Makes a world.

    Args:
        seed: what everything is drawn from.
        people: how many persons, at least 4; the numbers of the other things follow from it. A world has about
            `2.6 * people * (1 + distractors)` documents.
        distractors: for each thing, how many others of its kind share a word of its name.

    Raises:
        ValueError: too few people, or a negative number of distractors.
    """
    if people < 4 or distractors < 0:
        msg = f"a world needs people >= 4 and distractors >= 0, got people={people}, distractors={distractors}"
        raise ValueError(msg)
    builder = _Builder(np.random.default_rng([seed, people, distractors]), distractors)
    builder.populate(people)
    things = tuple(builder.things)
    order = builder.rng.permutation(len(things))
    shuffled = _renumber(things, order)
    writer = _Writer(builder.rng, shuffled)
    return World(seed, shuffled, tuple(writer.write(i) for i in range(len(shuffled))))


def _renumber(things: tuple[Thing, ...], order: np.ndarray) -> tuple[Thing, ...]:
    """Shuffles the things, so that a document's place says nothing about its kind."""
    place = {int(old): new for new, old in enumerate(order)}
    for thing in things:
        for name, value in thing.facts.items():
            if value.thing >= 0:
                thing.facts[name] = Value(value.text, place[value.thing], value.aliases, value.rank)
    return tuple(things[int(old)] for old in order)


class _Builder:
    def __init__(self, rng: np.random.Generator, distractors: int) -> None:
        self.rng = rng
        self.things: list[Thing] = []
        self._names = NameMaker(rng)
        self._distractors = distractors

    def populate(self, people: int) -> None:
        names = self._names
        countries = self._add("country", max(2, people * (1 + self._distractors) // 12), names.country)
        cities = self._add_confusable("city", max(4, people // 2), names.city)
        persons = self._add_confusable("person", people, names.person)
        firms = self._add_confusable("organization", max(2, people // 4), names.firm)
        self._describe_places(countries, cities)
        self._describe_persons(persons, cities)
        self._describe_firms(firms, persons, cities)
        for person in persons:
            self._employ(person, firms)
        for kind, share in zip(_WORKS, (0.4, 0.25, 0.15), strict=True):
            for work in self._add_confusable(kind, max(2, round(people * share)), names.title):
                self._describe_work(kind, work, self._pick(persons), self._pick(firms), self._pick(cities))

    def _describe_places(self, countries: list[int], cities: list[int]) -> None:
        own: dict[int, list[int]] = {country: [] for country in countries}
        for number, city in enumerate(cities):
            # The first cities go round the countries, so that each has one to be its capital.
            country = countries[number] if number < len(countries) else self._pick(countries)
            own[country].append(city)
            self._link(city, "country", country)
            self._state(city, "river", Value(river := self._names.river(), aliases=(f"{river} River",)))
            self._state(city, "founding year", self._year(900, 1700))
        for country in countries:
            self._link(country, "capital", self._pick(own[country]))
            self._state(country, "currency", Value(self._names.money()))
            self._state(country, "language", Value(self._names.language()))

    def _describe_persons(self, persons: list[int], cities: list[int]) -> None:
        births = np.sort(self.rng.integers(1870, 1946, len(persons)))
        for person, year in zip(persons, births, strict=True):
            self._link(person, "birthplace", self._pick(cities))
            self._state(person, "birth date", self._date(int(year)))
            first, last = (int(place) for place in np.searchsorted(births, [int(year) - 60, int(year) - 14]))
            if first < last:  # somebody is 15 to 60 years older
                self._link(person, "mentor", persons[int(self.rng.integers(first, last))])

    def _describe_firms(self, firms: list[int], persons: list[int], cities: list[int]) -> None:
        for firm in firms:
            founder = self._pick(persons)
            self._link(firm, "headquarters", self._pick(cities))
            self._link(firm, "founder", founder)
            self._state(firm, "founding year", self._year(self._born(founder) + 22, self._born(founder) + 55))

    def _employ(self, person: int, firms: list[int]) -> None:
        for firm in (self._pick(firms) for _ in range(6)):
            if -100 <= self.things[firm].facts["founding year"].rank - self._born(person) <= 45:
                self._link(person, "employer", firm)
                return

    def _describe_work(self, kind: str, work: int, maker: int, firm: int, city: int) -> None:
        role = {"novel": "author", "film": "director", "opera": "composer"}[kind]
        self._link(work, role, maker)
        if kind == "opera":
            self._link(work, "premiere", city)
        else:
            self._link(work, "publisher" if kind == "novel" else "studio", firm)
            self._state(work, "year", self._year(self._born(maker) + 22, self._born(maker) + 60))

    def _born(self, person: int) -> int:
        return self.things[person].facts["birth date"].rank // 10_000

    def _add(self, kind: str, count: int, name: Callable[[], str]) -> list[int]:
        start = len(self.things)
        self.things += [Thing(kind, name()) for _ in range(count)]
        return list(range(start, start + count))

    def _add_confusable(self, kind: str, count: int, name: Callable[..., str]) -> list[int]:
        start = len(self.things)
        for _ in range(count):
            original = name()
            names = [original, *(name(like=original) for _ in range(self._distractors))]
            self.things += [Thing(kind, each) for each in names]
        added = list(range(start, len(self.things)))
        return [added[int(i)] for i in self.rng.permutation(len(added))]

    def _link(self, subject: int, relation: str, target: int) -> None:
        self._state(subject, relation, Value(self.things[target].name, target))

    def _state(self, subject: int, relation: str, value: Value) -> None:
        self.things[subject].facts[relation] = value

    def _year(self, first: int, last: int) -> Value:
        year = int(self.rng.integers(first, last + 1))
        return Value(str(year), rank=year)

    def _date(self, year: int) -> Value:
        month, day = int(self.rng.integers(1, 13)), int(self.rng.integers(1, 29))
        name = _MONTHS[month - 1]
        forms = [f"{day} {name} {year}", f"{name} {day}, {year}"]
        text = forms.pop(int(self.rng.integers(2)))
        return Value(text, aliases=(*forms, f"{year}-{month:02}-{day:02}"), rank=year * 10_000 + month * 100 + day)

    def _pick(self, choices: list[int]) -> int:
        return choices[int(self.rng.integers(len(choices)))]


class _Writer:
    def __init__(self, rng: np.random.Generator, things: tuple[Thing, ...]) -> None:
        self._rng = rng
        self._things = things
        self._relations: Mapping[tuple[str, str], Relation] = {(r.subject, r.name): r for r in RELATIONS}
        self._names: dict[str, list[str]] = {}
        for thing in things:
            self._names.setdefault(thing.kind, []).append(thing.name)

    def write(self, number: int) -> Passage:
        thing = self._things[number]
        kind = KINDS[thing.kind]
        opening = self._pick(kind.openings).format(s=thing.name)
        body = [self._fact(thing, name, value) for name, value in thing.facts.items()]
        asides = ASIDES[thing.kind]
        chosen = self._rng.permutation(len(asides))[: int(self._rng.integers(1, 4))]
        body += [self._aside(thing, asides[int(i)]) for i in chosen]
        sentences = [opening, *(body[int(i)] for i in self._rng.permutation(len(body)))]
        return Passage(f"d{number}", thing.name, " ".join(sentences))

    def _fact(self, thing: Thing, name: str, value: Value) -> str:
        subject = self._pick(KINDS[thing.kind].pronouns).format(s=thing.name, f=thing.name.split()[-1])
        sentence = self._pick(self._relations[thing.kind, name].sentences).format(s=subject, o=value.text)
        return sentence[0].upper() + sentence[1:]

    def _aside(self, thing: Thing, template: str) -> str:
        mentioned = {kind: self._other(kind, thing) for kind in ("city", "country", "organization", "person")}
        return template.format(**mentioned)

    def _other(self, kind: str, thing: Thing) -> str:
        """Returns a name that is no object of the thing's facts, so that an aside never looks like one."""
        taken = {value.text for value in thing.facts.values()} | {thing.name}
        free = [name for name in (self._pick(self._names[kind]) for _ in range(8)) if name not in taken]
        return free[0] if free else "an unnamed place"

    def _pick(self, choices: tuple[str, ...] | list[str]) -> str:
        return choices[int(self._rng.integers(len(choices)))]
