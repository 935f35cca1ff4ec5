"""What can be said about the things of a fictional world: relations, and the sentences that state them.

In every template `{s}` is the subject, `{o}` the object. A fact is stated by one sentence, in the document of its
subject and nowhere else, so the documents along a chain of facts are exactly those that answer its question.
"""

from dataclasses import dataclass

__all__ = ["ASIDES", "COMPARISONS", "KINDS", "RELATIONS", "Comparison", "Kind", "Relation"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing.

    Attributes:
        noun: how a question names it, before its proper name; empty for people and places.
        openings: first sentences of its document.
        pronouns: how the later sentences refer to it.
    """

    noun: str
    openings: tuple[str, ...]
    pronouns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Relation:
    """Something that a thing has exactly one of.

    Attributes:
        subject: kind of the subject.
        name: name of the relation, unique per subject kind.
        object: kind of the object, or `year`, `date`, `money`, `language`, `river` for a plain value.
        phrases: how a longer question refers to the object.
        questions: how to ask for the object.
        sentences: how a document states it.
    """

    subject: str
    name: str
    object: str
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A question about two things of one kind, decided by the values of one relation.

    Attributes:
        subject: kind of both.
        relation: what is compared.
        question: the question, with `{a}` and `{b}`.
        same: it asks whether the values are equal, to be answered by yes or no; otherwise which value is smaller.
    """

    subject: str
    relation: str
    question: str
    same: bool = False


KINDS: dict[str, Kind] = {
    "person": Kind(
        "",
        ("{s} was a figure of wide influence.", "Few names are as well remembered as {s}.",
         "The life of {s} is known from letters and a short memoir."),
        ("{f}",),
    ),
    "city": Kind(
        "",
        ("{s} is a city known for its markets.", "Travelers usually reach {s} by the old road.",
         "{s} is a city of modest size."),
        ("The city", "{s}", "The town"),
    ),
    "country": Kind(
        "",
        ("{s} is a country with a long coast.", "{s} has been a sovereign state for centuries.",
         "The country of {s} is divided into provinces."),
        ("The country", "{s}", "The state"),
    ),
    "organization": Kind(
        "",
        ("{s} is a company with a loyal following.", "{s} began as a family business.",
         "{s} is among the oldest firms of its trade."),
        ("The company", "{s}", "The firm"),
    ),
    "novel": Kind(
        "the novel",
        ("{s} is a novel in three parts.", "The novel {s} divided its first readers.", "{s} is a short novel."),
        ("The novel", "The book", "It"),
    ),
    "film": Kind(
        "the film",
        ("{s} is a film shot almost entirely at night.", "The film {s} was slow to find its audience.",
         "{s} is a film about a family that never speaks."),
        ("The film", "The picture", "It"),
    ),
    "opera": Kind(
        "the opera",
        ("{s} is an opera in four acts.", "The opera {s} is seldom staged in full.", "{s} is a chamber opera."),
        ("The opera", "The work", "It"),
    ),
}  # fmt: skip

RELATIONS: tuple[Relation, ...] = (
    Relation(
        "person", "birthplace", "city",
        ("the birthplace of {s}", "the city where {s} was born"),
        ("In which city was {s} born?", "What is the birthplace of {s}?", "Where was {s} born?"),
        ("{s} was born in {o}.", "{s} came into the world in {o}.", "A native of {o}, {s} left home early."),
    ),
    Relation(
        "person", "birth date", "date",
        ("the birth date of {s}",),
        ("When was {s} born?", "On what date was {s} born?"),
        ("{s} was born on {o}.", "The parish register gives {o} as the birth date.", "{s}, born {o}, was the eldest."),
    ),
    Relation(
        "person", "mentor", "person",
        ("the mentor of {s}", "the teacher of {s}"),
        ("Who was the mentor of {s}?", "Who taught {s}?", "Under whom did {s} study?"),
        ("{s} studied under {o}.", "{o} was the teacher who mattered most.", "{s} learned the craft from {o}."),
    ),
    Relation(
        "person", "employer", "organization",
        ("the company that employed {s}", "the employer of {s}"),
        ("For which company did {s} work?", "Which company employed {s}?"),
        ("{s} worked for {o} for many years.", "Most of the career was spent at {o}.", "{o} employed {s} to the end."),
    ),
    Relation(
        "city", "country", "country",
        ("the country where {s} is located", "the country to which {s} belongs"),
        ("In which country is {s} located?", "To which country does {s} belong?"),
        ("{s} lies in {o}.", "It belongs to {o}.", "{s} is governed from the capital of {o}."),
    ),
    Relation(
        "city", "river", "river",
        ("the river that flows through {s}",),
        ("Which river flows through {s}?", "On which river does {s} stand?"),
        ("{s} stands on the {o} River.", "The {o} River divides it in two.", "Barges come up the {o} River."),
    ),
    Relation(
        "city", "founding year", "year",
        ("the year in which {s} was founded",),
        ("In what year was {s} founded?", "When was {s} founded?"),
        ("{s} was founded in {o}.", "Its charter dates from {o}.", "Settlers laid the first stone in {o}."),
    ),
    Relation(
        "country", "capital", "city",
        ("the capital of {s}", "the capital city of {s}"),
        ("What is the capital of {s}?", "Which city is the capital of {s}?"),
        ("The capital is {o}.", "Parliament meets in {o}, the capital.", "Its seat of government is {o}."),
    ),
    Relation(
        "country", "currency", "money",
        ("the currency of {s}",),
        ("What is the currency of {s}?", "Which currency is used in {s}?"),
        ("The currency is the {o}.", "Prices are quoted in the {o}.", "{s} issues its own coin, the {o}."),
    ),
    Relation(
        "country", "language", "language",
        ("the official language of {s}",),
        ("What is the official language of {s}?", "Which language is official in {s}?"),
        ("The official language is {o}.", "{o} is spoken in courts and schools.", "Laws are written in {o}."),
    ),
    Relation(
        "organization", "headquarters", "city",
        ("the city where {s} has its headquarters", "the seat of {s}"),
        ("In which city does {s} have its headquarters?", "Where is {s} based?"),
        ("{s} has its headquarters in {o}.", "Its main office stands in {o}.", "{s} is run from {o}."),
    ),
    Relation(
        "organization", "founder", "person",
        ("the founder of {s}", "the person who founded {s}"),
        ("Who founded {s}?", "Who was the founder of {s}?"),
        ("{s} was founded by {o}.", "It owes its existence to {o}, its founder.", "{o} set it up with borrowed money."),
    ),
    Relation(
        "organization", "founding year", "year",
        ("the year in which {s} was founded",),
        ("In what year was {s} founded?", "When was {s} established?"),
        ("{s} was established in {o}.", "The first ledger is dated {o}.", "Business began in {o}."),
    ),
    Relation(
        "novel", "author", "person",
        ("the author of {s}", "the writer of {s}"),
        ("Who wrote {s}?", "Who is the author of {s}?"),
        ("{s} was written by {o}.", "Its author is {o}.", "{o} wrote it in a single winter."),
    ),
    Relation(
        "novel", "year", "year",
        ("the year in which {s} was published",),
        ("In what year was {s} published?", "When did {s} appear?"),
        ("{s} was published in {o}.", "The first edition appeared in {o}.", "Copies reached the shops in {o}."),
    ),
    Relation(
        "novel", "publisher", "organization",
        ("the publisher of {s}", "the company that published {s}"),
        ("Which company published {s}?", "Who is the publisher of {s}?"),
        ("{s} was brought out by {o}.", "{o} accepted the manuscript at once.", "The publisher was {o}."),
    ),
    Relation(
        "film", "director", "person",
        ("the director of {s}", "the person who directed {s}"),
        ("Who directed {s}?", "Who is the director of {s}?"),
        ("{s} was directed by {o}.", "Its director is {o}.", "{o} directed it in seven weeks."),
    ),
    Relation(
        "film", "year", "year",
        ("the year in which {s} was released",),
        ("In what year was {s} released?", "When was {s} released?"),
        ("{s} was released in {o}.", "It opened in cinemas in {o}.", "The first screening took place in {o}."),
    ),
    Relation(
        "film", "studio", "organization",
        ("the studio that produced {s}", "the company that produced {s}"),
        ("Which company produced {s}?", "Which studio made {s}?"),
        ("{s} was produced by {o}.", "{o} paid for the production.", "The production company was {o}."),
    ),
    Relation(
        "opera", "composer", "person",
        ("the composer of {s}", "the person who composed {s}"),
        ("Who composed {s}?", "Who is the composer of {s}?"),
        ("{s} was composed by {o}.", "The music is by {o}.", "{o} composed it on commission."),
    ),
    Relation(
        "opera", "premiere", "city",
        ("the city where {s} was first performed",),
        ("In which city was {s} first performed?", "Where did {s} have its premiere?"),
        ("{s} was first performed in {o}.", "The premiere took place in {o}.", "Audiences in {o} heard it first."),
    ),
)  # fmt: skip
"""Every relation; subject kind and name together are unique."""

COMPARISONS: tuple[Comparison, ...] = (
    Comparison("person", "birth date", "Who was born earlier, {a} or {b}?"),
    Comparison("novel", "year", "Which was published first, {a} or {b}?"),
    Comparison("film", "year", "Which was released first, {a} or {b}?"),
    Comparison("city", "founding year", "Which was founded first, {a} or {b}?"),
    Comparison("organization", "founding year", "Which is older, {a} or {b}?"),
    Comparison("person", "birthplace", "Were {a} and {b} born in the same city?", same=True),
    Comparison("city", "country", "Are {a} and {b} located in the same country?", same=True),
    Comparison("organization", "headquarters", "Do {a} and {b} have their headquarters in the same city?", same=True),
    Comparison("opera", "premiere", "Were {a} and {b} first performed in the same city?", same=True),
)

ASIDES: dict[str, tuple[str, ...]] = {
    "person": (
        "Several summers were spent in {city}.", "A portrait hangs in {city} to this day.",
        "Letters to {person} have survived.", "A planned visit to {city} never took place.",
        "Little is known about the later years.",
    ),
    "city": (
        "A ferry once ran from here to {city}.", "Winters are mild and wet.", "Its library keeps papers of {person}.",
        "The market square was rebuilt after a fire.",
    ),
    "country": (
        "Its northern provinces trade mostly with {country}.", "The mountains are thinly settled.",
        "Emigrants from {city} shaped its cuisine.", "Elections are held every five years.",
    ),
    "organization": (
        "A merger with {organization} was discussed and abandoned.", "It once kept a small branch in {city}.",
        "Its archive was opened to scholars.", "Workers still receive a clock on retirement.",
    ),
    "novel": (
        "Parts of it are set in {city}.", "Critics compared it with the essays of {person}.",
        "The last chapter was cut and later restored.", "It has never been out of print.",
    ),
    "film": (
        "Exteriors were shot in {city}.", "An early cut was shown to {person}.", "The negative was lost in a fire.",
        "Its score uses only two instruments.",
    ),
    "opera": (
        "A revival in {city} failed.", "The score was dedicated to {person}.", "The overture is played on its own.",
        "It calls for an unusually large chorus.",
    ),
}  # fmt: skip
"""Sentences that mention other things without stating any relation: noise for a search engine."""
