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

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pydantic

from agentenv.errors import TaskError
from agentenv.tasks import Task

from .corpus import Passage

__all__ = ["QaTask", "load_tasks", "parse_row", "read_rows", "row_passages"]

Row = Mapping[str, Any]

_IDS = ("id", "_id", "question_id", "QuestionId", "qid")
_QUESTIONS = ("question", "Question", "query")
_ANSWERS = ("answer", "answers", "golden_answers", "possible_answers", "Answer", "reward_model", "annotations")
_ALIASES = ("answer_aliases", "aliases", "answer_alias")


class QaTask(Task):
    """A question and its hidden reference.

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

    @pydantic.field_validator("answers")
    @classmethod
    def _usable(cls, answers: tuple[str, ...]) -> tuple[str, ...]:
        if any(not answer.strip() for answer in answers):
            msg = f"answers must not be blank, got {answers!r}"
            raise ValueError(msg)
        return answers


def parse_row(row: Row, *, where: str = "row") -> QaTask:
    """Reads a question from a row of any of the data sets in the table above, or of our own fields.

    Args:
        row: the row; fields that no table entry names are ignored.
        where: names the place in the message of an error.

    Raises:
        TaskError: no question, no answer, an unanswerable one, or fields of the wrong type.
    """
    if not isinstance(row, Mapping):
        msg = f"{where}: a question must be a JSON object, got {str(row)[:80]!r}"
        raise TaskError(msg)
    if row.get("answerable") is False:
        msg = f"{where}: the question is unanswerable ('answerable' is false); filter such rows out"
        raise TaskError(msg)
    try:
        return QaTask(**_fields(row))
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        problems = f"a field has an unknown form ({type(error).__name__}: {error})"
    msg = f"{where}: {problems}; found the fields {sorted(map(str, row))}"
    raise TaskError(msg)


def _fields(row: Row) -> dict[str, Any]:
    question = _first(row, _QUESTIONS)
    if isinstance(question, Mapping):  # Natural Questions in its original form
        question = cast("Row", question)["text"]
    answers = (*_strings(_answers(row)), *_strings(_first(row, _ALIASES)))
    supporting = tuple(dict.fromkeys(_supporting(row)))
    return {
        "id": str(_first(row, _IDS) or ""),
        "question": question.strip() if isinstance(question, str) else question,
        "answers": tuple(dict.fromkeys(answer.strip() for answer in answers if answer.strip())),
        "supporting": supporting,
        "kind": str(row.get("kind") or row.get("type") or ""),
        "hops": _hops(row, supporting),
        "path": tuple(row.get("path") or ()),
    }


def load_tasks(source: str | Path | Iterable[Row]) -> list[QaTask]:
    """Reads every question of a file or of a data set.

    Args:
        source: path of a JSONL or JSON file, or anything that yields rows, such as a `datasets.Dataset`.

    Raises:
        TaskError: the file cannot be read, or a row is malformed; the message names the row.
    """
    if isinstance(source, str | Path):
        return [parse_row(row, where=where) for where, row in read_rows(source)]
    return [parse_row(row, where=f"row {number}") for number, row in enumerate(source)]


def read_rows(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a file, each with its place for messages.

    Args:
        path: a `.json` file holding a list (or an object with the list under `data` or `Data`), or a JSONL file.

    Raises:
        TaskError: the file is missing, is not UTF-8, or is not JSON.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read questions from {str(path)!r}: {error}"
        raise TaskError(msg) from None
    if path.suffix == ".json" and text.lstrip()[:1] in {"[", "{"}:
        try:
            loaded: Any = json.loads(text)
        except ValueError:
            loaded = None  # JSONL under the name .json: read below, where errors name the line
        if isinstance(loaded, dict):
            nested = cast("Row", loaded)
            loaded = nested.get("data", nested.get("Data", [nested]))
        if isinstance(loaded, list):
            yield from ((f"{path}, row {n}", row) for n, row in enumerate(cast("list[Row]", loaded)))
            return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}, line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                msg = f"{path}, line {number}: not JSON ({error})"
                raise TaskError(msg) from None


def row_passages(rows: Iterable[Row]) -> list[Passage]:
    """Collects the documents that rows carry with them, each once, so that a corpus can be built from the questions.

    Reads `context` (HotpotQA and 2WikiMultihopQA, in both of their forms) and `paragraphs` (MuSiQue). Documents with
    equal title and text are one passage; ids number them in order of appearance.
    """
    seen: dict[tuple[str, str], Passage] = {}
    for row in rows:
        for title, text in _documents(row):
            seen.setdefault((title, text), Passage(str(len(seen)), title, text))
    return list(seen.values())


def _documents(row: Row) -> Iterator[tuple[str, str]]:
    context: Any = row.get("context") or ()
    if isinstance(context, Mapping):  # the columns of a Hugging Face data set
        columns = cast("Row", context)
        context = zip(columns["title"], columns["sentences"], strict=True)
    for title, sentences in context:
        yield title.strip(), "".join(sentences).strip()
    for paragraph in row.get("paragraphs") or ():
        yield paragraph["title"].strip(), paragraph["paragraph_text"].strip()


def _first(row: Row, names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _answers(row: Row) -> Any:
    value = _first(row, _ANSWERS)
    if isinstance(value, Mapping):
        nested = cast("Row", value)
        if "ground_truth" in nested:  # Search-R1's parquet files
            return nested["ground_truth"]["target"]
        found = [nested.get("value"), *(nested.get("aliases") or ()), *(nested.get("text") or ())]
        found += [text for short in nested.get("short_answers") or () for text in short["text"]]
        return [item for item in found if item]
    if isinstance(value, str) and "possible_answers" in row and value.startswith("["):
        return json.loads(value)
    return value


def _strings(value: Any) -> list[str]:
    """Returns answers as texts: one or several, numbers and booleans included."""
    if value is None:
        return []
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, str | int | float):
        return [str(value)]
    if isinstance(value, Iterable) and not isinstance(value, Mapping):  # lists, tuples, numpy arrays
        return [text for item in cast("Iterable[Any]", value) for text in _strings(item)]
    msg = f"an answer must be text or a list of texts, got {value!r}"
    raise TypeError(msg)


def _supporting(row: Row) -> Iterator[str]:
    facts: Any = row.get("supporting_facts") or ()
    if isinstance(facts, Mapping):  # the columns of a Hugging Face data set
        yield from cast("Row", facts)["title"]
    else:
        yield from (fact[0] for fact in facts)
    yield from row.get("supporting_titles") or row.get("supporting") or ()
    yield from (p["title"] for p in row.get("paragraphs") or () if p.get("is_supporting"))


def _hops(row: Row, supporting: tuple[str, ...]) -> int:
    if row.get("hops"):
        return int(row["hops"])
    if row.get("question_decomposition"):
        return len(row["question_decomposition"])
    match = re.match(r"(\d)hop", str(row.get("id") or ""))
    return int(match[1]) if match else len(supporting)
