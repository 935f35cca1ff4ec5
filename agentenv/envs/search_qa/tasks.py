"""Questions with their accepted answers, and reading them from the data sets of the field.

| Data set | answer | aliases | supporting documents |
|---|---|---|---|
| HotpotQA | `answer` | | `supporting_facts`, or `supporting_titles` |
| 2WikiMultihopQA | `answer` | | `supporting_facts` |
| MuSiQue | `answer` | `answer_aliases` | `paragraphs` with `is_supporting` |
| Natural Questions (open), WebQuestions | `answer`: a list | | |
| Natural Questions (original) | `annotations.short_answers` | | |
| TriviaQA | `answer`: `{"value", "aliases"}` | | |
| SQuAD | `answers`: `{"text"}` | | |
| FlashRAG, Search-R1 | `golden_answers`, or `reward_model.ground_truth.target` | | |
| PopQA | `possible_answers`: a list as JSON text | | |
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.rows import Row, Source, as_text, decoded, describe, is_list, is_mapping, parse_rows, plain, shorten
from agentenv.tasks import Task

from .corpus import Passage

__all__ = ["QaTask", "load_tasks", "parse_row", "row_passages"]

_IDS = ("id", "_id", "question_id", "QuestionId", "qid")
_QUESTIONS = ("question", "Question", "query")
_ANSWERS = ("answer", "answers", "golden_answers", "possible_answers", "Answer", "reward_model", "annotations")
_ALIASES = ("answer_aliases", "aliases", "answer_alias")


class QaTask(Task):
    """A question and its hidden reference. Rows of the data sets above validate into it too.

    Attributes:
        question: what the agent is asked.
        answers: every accepted answer, the preferred one first; at least one.
        supporting: titles of the documents that answer it; empty where unknown.
        kind: the type of question in its data set, e.g. `bridge` or `comparison`.
        hops: how many documents have to be combined; 0 where unknown.
        path: the reasoning, one `subject | relation | object` per hop; empty where unknown.
    """

    question: str = pydantic.Field(min_length=1)
    answers: tuple[str, ...] = pydantic.Field(min_length=1)
    supporting: tuple[str, ...] = ()
    kind: str = ""
    hops: int = pydantic.Field(default=0, ge=0)
    path: tuple[str, ...] = ()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_row(cls, value: Any) -> Any:
        own = not is_mapping(value) or ("answers" in value and set(value) <= set(cls.model_fields))
        return value if own else _fields(plain(value))

    @pydantic.field_validator("answers")
    @classmethod
    def _usable(cls, answers: tuple[str, ...]) -> tuple[str, ...]:
        if any(not answer.strip() for answer in answers):
            msg = f"answers must not be blank, got {answers!r}"
            raise ValueError(msg)
        return answers


def parse_row(row: Mapping[str, Any], *, where: str = "row") -> QaTask:
    """Reads a question from a row of any of the data sets in the table above, or of our own fields.

    Values may be those of any library (see `agentenv.rows`); columns that hold lists may hold them as JSON text.

    Args:
        row: the row; columns that no table entry names are ignored.
        where: names the place in the message of an error.

    Raises:
        TaskError: no question, no answer, an unanswerable one, or columns of the wrong type.
    """
    if not isinstance(row, Mapping):
        msg = f"{where}: a question must be a JSON object, got {shorten(row)}"
        raise TaskError(msg)
    fields: Row = plain(row)
    try:
        return QaTask(**_fields(fields))
    except pydantic.ValidationError as error:
        problems = describe(error)
    except ValueError as error:
        problems = str(error)
    msg = f"{where}: {problems}; found the columns {sorted(map(str, fields))}"
    raise TaskError(msg)


def _fields(row: Row) -> Row:
    if str(row.get("answerable")).lower() == "false":
        msg = "the question is unanswerable ('answerable' is false); filter such rows out"
        raise ValueError(msg)
    question = _first(row, _QUESTIONS)[1]
    if is_mapping(question):  # Natural Questions in its original form
        question = question.get("text")
    answers = (*_answers(row), *_aliases(row))
    supporting = tuple(dict.fromkeys(title.strip() for title in _supporting(row)))
    found = {
        "id": as_text(_first(row, _IDS)[1]),
        "question": question.strip() if isinstance(question, str) else question,
        "answers": tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip())),
        "supporting": supporting,
        "kind": as_text(_first(row, ("kind", "type"))[1]),
        "hops": _hops(row, supporting),
        "path": tuple(_list(row, "path")),
    }
    return {name: value for name, value in found.items() if value is not None}


def load_tasks(source: Source, *, on_bad_row: Literal["raise", "skip"] = "raise") -> list[QaTask]:
    """Reads every question of a file or of a data set.

    Args:
        source: path of a file, a table of any library, or anything that yields rows; see `agentenv.rows`.
        on_bad_row: `"raise"` reports all rows that cannot be used in one error; `"skip"` leaves them out and warns.

    Raises:
        TaskError: the file cannot be read, or rows are malformed; the message names each row, column and rule.
    """
    return parse_rows(source, lambda row, where: parse_row(row, where=where), on_bad_row=on_bad_row, what="a question")


def row_passages(rows: Source) -> list[Passage]:
    """Collects the documents that rows carry with them, each once, so that a corpus can be built from the questions.

    Reads `context` (HotpotQA and 2WikiMultihopQA, in both of their forms) and `paragraphs` (MuSiQue). Documents with
    equal title and text are one passage; ids number them in order of appearance.

    Args:
        rows: as in `load_tasks`.

    Raises:
        TaskError: the file cannot be read, or a row's documents have another form.
    """
    seen: dict[tuple[str, str], Passage] = {}
    for documents in parse_rows(rows, lambda row, _: list(_documents(row))):
        for title, text in documents:
            seen.setdefault((title, text), Passage(str(len(seen)), title, text))
    return list(seen.values())


def _documents(row: Row) -> Iterator[tuple[str, str]]:
    for title, sentences in _pairs(row, "context", "title", "sentences"):
        yield title.strip(), "".join(cast("list[str]", sentences or ())).strip()
    for paragraph in _paragraphs(row):
        yield paragraph["title"].strip(), str(paragraph.get("paragraph_text") or "").strip()


def _first(row: Row, names: Iterable[str]) -> tuple[str, Any]:
    """The first of the columns that has a value, and the value."""
    return next(((name, row[name]) for name in names if row.get(name) is not None), ("", None))


def _answers(row: Row) -> list[str]:
    name, value = _first(row, _ANSWERS)
    if name.lower() != "answer":
        value = _decoded(name, value)
    elif isinstance(value, str):
        with suppress(ValueError):  # an answer may begin with a bracket without being a list
            listed = decoded(value)
            texts = is_list(listed) and all(isinstance(part, str) for part in listed)
            value = listed if texts or is_mapping(listed) else value
    if not is_mapping(value):
        return _strings(name, value)
    nested = value
    if "ground_truth" in nested:  # Search-R1's parquet files
        truth = _decoded(name, nested["ground_truth"])
        return _strings(name, _decoded(name, truth.get("target")) if is_mapping(truth) else truth)
    found = [nested.get("value"), nested.get("aliases"), nested.get("text")]
    found += [short.get("text") for short in _mappings(name, nested.get("short_answers"))]
    return [text for part in found for text in _strings(name, part) if text]


def _aliases(row: Row) -> list[str]:
    name, value = _first(row, _ALIASES)
    return _strings(name, _decoded(name, value))


def _strings(name: str, value: Any) -> list[str]:
    """Returns answers as texts: one or several, numbers, dates and booleans included."""
    if value is None:
        return []
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if is_list(value):
        return [text for item in value for text in _strings(name, item)]
    if not isinstance(text := as_text(value), str):
        msg = f"column {name!r}: an answer must be text or a list of texts, got {shorten(value)}"
        raise ValueError(msg)
    return [text]


def _supporting(row: Row) -> Iterator[str]:
    for title, _ in _pairs(row, "supporting_facts", "title", "sent_id"):
        yield title
    yield from _list(row, "supporting_titles") or _list(row, "supporting")
    yield from (paragraph["title"] for paragraph in _paragraphs(row) if paragraph.get("is_supporting"))


def _hops(row: Row, supporting: tuple[str, ...]) -> Any:
    if row.get("hops"):
        return row["hops"]
    if steps := _decoded("question_decomposition", row.get("question_decomposition")):
        return len(steps)
    match = re.match(r"(\d)hop", str(row.get("id") or ""))
    return int(match[1]) if match else len(supporting)


# ---------------------------------------------------------------------- columns that hold lists


def _decoded(name: str, value: Any) -> Any:
    try:
        return decoded(value)
    except ValueError as error:
        msg = f"column {name!r}: {error}"
        raise ValueError(msg) from None


def _list(row: Row, name: str) -> list[str]:
    value = _decoded(name, row.get(name))
    if value is not None and not is_list(value):
        msg = f"column {name!r} must be a list of texts, got {shorten(value)}"
        raise ValueError(msg)
    return _strings(name, value)


def _pairs(row: Row, name: str, first: str, second: str) -> list[tuple[str, Any]]:
    """A column of pairs `[title, ...]`, or, as Hugging Face data sets have it, of two lists by name."""
    value: Any = _decoded(name, row.get(name)) or ()
    if is_mapping(value):
        firsts: Any = value.get(first)
        seconds: Any = value.get(second)
        both = is_list(firsts) and is_list(seconds) and len(firsts) == len(seconds)
        value = list(zip(firsts, seconds, strict=True)) if both else None
    pairs: list[Any] = [None] if value is None or isinstance(value, str) else list(value)
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(cast("Sequence[Any]", pair)) >= 2 and isinstance(pair[0], str)):
            msg = f"column {name!r} must hold pairs of {first!r} and {second!r}, got {shorten(row.get(name))}"
            raise ValueError(msg)
    return [(pair[0], pair[1]) for pair in pairs]


def _mappings(name: str, value: Any) -> list[Row]:
    items: Any = _decoded(name, value) or []
    if not is_list(items) or not all(is_mapping(item) for item in items):
        msg = f"column {name!r} must hold a list of mappings, got {shorten(value)}"
        raise ValueError(msg)
    return cast("list[Row]", items)


def _paragraphs(row: Row) -> list[Row]:
    paragraphs = _mappings("paragraphs", row.get("paragraphs"))
    if wrong := [part for part in paragraphs if not isinstance(part.get("title"), str)]:
        msg = f"column 'paragraphs': every paragraph needs a 'title' (text), got {shorten(wrong[0])}"
        raise ValueError(msg)
    return paragraphs
