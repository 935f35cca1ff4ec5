"""Rows: the same plain values whatever library or file they come from, and errors that name the place."""

import array
import collections
import csv
import dataclasses
import datetime as dt
import enum
import gzip
import io
import json
import math
import sqlite3
import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentenv.errors import CorpusError, TaskError
from agentenv.rows import as_text, decoded, parse_rows, plain, read_jsonl, read_rows, shorten

pandas = pytest.importorskip("pandas")
pyarrow = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")

# A column with a hole in it: integers become floats in some libraries, and the hole NaN, NA or NaT.
ROWS = [
    {"question": "a\u2028b", "answer": 42, "aliases": ["x", "y"], "meta": {"level": 1}},
    {"question": "c", "answer": None, "aliases": ["z"], "meta": {"level": 2}},
]


def rows(source, **options):
    return [row for _, row in read_rows(source, **options)]


def frame():
    return pandas.DataFrame(ROWS)


def structured():
    names = list(ROWS[0])
    table = np.empty(2, dtype=[(name, object) for name in names])
    for i, row in enumerate(ROWS):
        table[i] = tuple(row[name] for name in names)
    return table


TABLES = {
    "list": lambda: ROWS,
    "tuple": lambda: tuple(ROWS),
    "generator": lambda: (row for row in ROWS),
    "object array": lambda: np.array(ROWS, dtype=object),
    "texts": lambda: [json.dumps(row) for row in ROWS],
    "columns": lambda: {name: [row[name] for row in ROWS] for name in ROWS[0]},
    "named array": structured,
    "pandas": frame,
    "pandas, new types": lambda: frame().convert_dtypes(),
    "pandas, records": lambda: frame().to_dict("records"),
    "pandas, tuples": lambda: frame().itertuples(index=False),
    "pandas, series": lambda: (row for _, row in frame().iterrows()),
    "pyarrow": lambda: pyarrow.Table.from_pylist(ROWS),
    "pyarrow batch": lambda: pyarrow.RecordBatch.from_pylist(ROWS),
    "datasets": lambda: datasets.Dataset.from_list(ROWS),
    "datasets, numpy": lambda: datasets.Dataset.from_list(ROWS).with_format("numpy"),
    "datasets, slice": lambda: datasets.Dataset.from_list(ROWS)[:2],
    "datasets, stream": lambda: datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
    "mapping proxies": lambda: [collections.UserDict(row) for row in ROWS],
}


@pytest.mark.parametrize("name", TABLES)
def test_every_library_gives_the_same_rows(name):
    assert rows(TABLES[name]()) == ROWS
    assert [where for where, _ in read_rows(TABLES[name]())] == ["row 0", "row 1"]
    values = [value for row in rows(TABLES[name]()) for value in row.values()]
    assert {type(value) for value in values} <= {str, int, float, list, dict, type(None)}


def test_objects_that_are_rows():
    @dataclasses.dataclass
    class Data:
        question: str
        answer: float

    class Model(pydantic.BaseModel):
        question: str
        answer: float

    class Named(NamedTuple):
        question: str
        answer: float

    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    found = database.execute("select 'q' as question, 1.5 as answer").fetchall()
    for row in (Data("q", 1.5), Model(question="q", answer=1.5), Named("q", 1.5), *found):
        assert rows([row]) == [{"question": "q", "answer": 1.5}]
    database.close()


FILES = {
    "a.jsonl": lambda path: path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in ROWS), "utf-8"),
    "mark.jsonl": lambda path: path.write_text("".join(json.dumps(r) + "\r\n\r\n" for r in ROWS), "utf-8-sig"),
    "noend.jsonl": lambda path: path.write_text("\n \n".join(map(json.dumps, ROWS))),
    "noname": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "lines.json": lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
    "list.json": lambda path: path.write_text(json.dumps(ROWS), "utf-8-sig"),
    "data.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "records.json": lambda path: frame().to_json(path, orient="records"),
    "columns.json": lambda path: frame().to_json(path),
    "split.json": lambda path: frame().to_json(path, orient="split"),
    "index.json": lambda path: frame().to_json(path, orient="index"),
    "nan.jsonl": lambda path: path.write_text("\n".join(json.dumps(r) for r in ROWS).replace("null", "NaN")),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode())),
    "list.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "a.parquet": lambda path: frame().to_parquet(path),
    "no_suffix": lambda path: frame().to_parquet(path),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name, tmp_path):
    FILES[name](tmp_path / name)
    assert rows(tmp_path / name) == ROWS
    assert rows(str(tmp_path / name)) == ROWS
    assert all(str(tmp_path / name) in where for where, _ in read_rows(tmp_path / name))


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_csv_keeps_lines_in_fields_and_takes_an_empty_field_for_nothing(name, separator, tmp_path):
    written = io.StringIO()
    writer = csv.writer(written, delimiter=separator)
    writer.writerows([["question", "answer"], ["a\nb\u2028", "42"], ["x" * 200_000, ""]])
    data = written.getvalue().encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert rows(tmp_path / name) == [
        {"question": "a\nb\u2028", "answer": "42"},
        {"question": "x" * 200_000, "answer": None},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\u0085", "\x0c", "\x1e", "\r"])
def test_a_line_ends_at_the_line_feed_and_nowhere_else(inside, end, tmp_path):
    kept = json.dumps({"text": f"a{inside}b"}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(f"{kept}{end}{end}{kept}{end}".encode())
    found = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [value for _, value in found] == [{"text": f"a{inside}b"}] * 2
    assert [where.rsplit(", ", 1)[1] for where, _ in found] == ["line 1", "line 3"]


class Level(enum.Enum):
    HARD = "hard"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64("nan"), None),
        (np.float32("nan"), None),
        (math.nan, None),
        (Decimal("NaN"), None),
        (pandas.NA, None),
        (pandas.NaT, None),
        (np.datetime64("NaT"), None),
        (np.ma.masked, None),
        (np.float32(0.1), 0.1),
        (np.float16(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (Text("x"), "x"),
        (Level.HARD, "hard"),
        (np.datetime64("2020-01-02T03:04:05", "ns"), dt.datetime.fromisoformat("2020-01-02T03:04:05")),
        (np.array([1.0, np.nan]), [1.0, None]),
        (np.array([["a"], ["b"]]), [["a"], ["b"]]),
        (np.array(5), 5),
        (array.array("i", [1, 2]), [1, 2]),
        (pandas.Series(["a", None]), ["a", None]),
        (pandas.array([1, None]), [1, None]),
        (pyarrow.array([[1], None]), [[1], None]),
        (pyarrow.scalar("x"), "x"),
        (({"b", "a"}, frozenset()), [["a", "b"], []]),
        ({"a": np.array([np.float32(0.2)])}, {"a": [0.2]}),
        (b"x", b"x"),
    ],
)
def test_plain_values(value, expected):
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.model
def test_tensors_are_lists():
    import torch

    assert plain({"a": torch.tensor([[1, 2]]), "b": torch.tensor(0.5)}) == {"a": [[1, 2]], "b": 0.5}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"),
        (42.0, "42"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
        (2.0**60, "1.152921504606847e+18"),
        (Decimal("42.00"), "42.00"),
        (Fraction(1, 3), "1/3"),
        (dt.datetime.fromisoformat("1972-05-14"), "1972-05-14"),
        (dt.datetime.fromisoformat("1972-05-14T01:00"), "1972-05-14T01:00:00"),
        (pandas.Timestamp("1972-05-14"), "1972-05-14"),
        (dt.date(1972, 5, 14), "1972-05-14"),
        ("x", "x"),
        (True, True),
        (None, None),
        ([1], [1]),
    ],
)
def test_numbers_and_dates_as_text(value, text):
    assert as_text(value) == text
    assert type(as_text(value)) is type(text)


@given(st.lists(st.text() | st.integers() | st.none()) | st.dictionaries(st.text(), st.text()))
def test_what_was_written_as_text_comes_back(value):
    assert decoded(json.dumps(value)) == value
    assert decoded(f" {json.dumps(value, ensure_ascii=False)} ") == value
    assert decoded(repr(value)) == value  # what pandas writes into CSV files
    assert decoded(value) is value


@pytest.mark.parametrize("value", ["x", "", "3", 5, None, "(1, 2)"])
def test_text_that_is_no_list_stays(value):
    assert decoded(value) == value


@pytest.mark.parametrize("value", ["['a' 'b']", "[1 2]", "[oops", "{'a'", "[a]", "[array([1])]", "[" * 9000])
def test_text_that_begins_like_a_list_and_is_none(value):
    with pytest.raises(ValueError, match=r"written as text must be JSON, got .*; write it with json\.dumps"):
        decoded(value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([{"a": 1}, 5], "row 1: a row must be a mapping of column names to values, got 5"),
        ([["a", 1]], r"row 0: a row must be a mapping .*got \['a', 1\]"),
        (["{oops"], r"row 0: not JSON \(.*\), got '{oops'"),
        ([b"\xff"], "row 0: not UTF-8.*iconv"),
        ([{"a": 1}, {"q": {"x": ["\ud800"]}}], r"row 1, column 'q': text must be valid Unicode, got .*'\\ud800'"),
        (5, "rows must come from a path, a table .* or an iterable of mappings, got 5"),
        (b"bytes", "rows must come from a path"),
        ({"question": "Q?", "answer": "x"}, r"must hold columns, lists of one length, .*give one row as \[row\]"),
        ({"a": [1], "b": [1, 2]}, "lists of one length"),
        ("absent.jsonl", "cannot read rows from 'absent.jsonl': .*No such file"),
    ],
)
def test_errors_name_the_place_the_rule_and_the_value(source, words):
    with pytest.raises(TaskError, match=words):
        rows(source)
    with pytest.raises(CorpusError):
        rows(source, error=CorpusError)


def test_splits_and_doubled_columns_are_told_apart():
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(TaskError, match=r"mapping of splits: choose one of \['train'\]"):
        rows(splits)
    with pytest.raises(TaskError, match=r"names must be unique, got \['a', 'a'\]"):
        rows(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a"', "a.jsonl, line 3: not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}', "line 2: not UTF-8.*iconv"),
        ("a.jsonl", "{}".encode("utf-16"), "line 1: not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b"1" * 6000, "line 1: not JSON.*4300 digits"),
        ("a.jsonl", b'{"q": "\\ud800"}', "line 1, column 'q': text must be valid Unicode"),
        ("a.json", b'[{"a": 1}, 2]', "a.json, row 1: a row must be a mapping"),
        ("a.json", b'{"a": 1,', "line 1: not JSON"),
        ("a.csv", b"a,b\n1,2\n1\n", "line 3: a row must have the 2 fields of the header"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: a row must have the 2 fields"),
        ("a.csv", b'a\n"x', "not CSV"),
        ("a.parquet", b"PAR1 and nothing more", "not a readable parquet file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:40], "cannot read rows from .*a.jsonl.gz"),
        ("b.jsonl.gz", b"no archive", "cannot read rows from .*[Nn]ot a gzipped file"),
    ],
)
def test_broken_files(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=words):
        rows(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(TaskError, match=r"is a folder: give a file of it, or what datasets\.load_from_disk returns"):
        rows(tmp_path)


def test_rows_that_cannot_be_used_are_reported_together():
    def parse(row, where):
        if not row["n"]:
            msg = f"{where}: n must not be 0"
            raise TaskError(msg)
        return 12 // int(row["n"])

    with pytest.raises(TaskError, match=r"^row 1: n must not be 0$"):
        parse_rows([{"n": 1}, {"n": 0}], parse)
    bad = [{"n": "x"}, *[{"n": 0}] * 6, {"n": 3}, {"n": [1]}]
    with pytest.raises(TaskError) as caught:
        parse_rows(bad, parse)
    assert str(caught.value).startswith("8 of 9 rows cannot be used:\n    row 0: invalid literal for int()")
    assert str(caught.value).endswith("row 4: n must not be 0\n    and 3 more")
    with pytest.warns(UserWarning, match="left out: 8 of 9 rows cannot be used"):
        assert parse_rows(bad, parse, on_bad_row="skip") == [4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_rows([{"n": 4}], parse, on_bad_row="skip") == [3]
    drop: Any = "drop"
    with pytest.raises(ValueError, match="on_bad_row must be 'raise' or 'skip', got 'drop'"):
        parse_rows([], parse, on_bad_row=drop)


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", b'{"n": 1}\n{oops\n{"n": 2}\n\xff\n[3]\n{"n": 3}\n', ("line 2", "line 4", "line 5")),
        ("a.csv", b"n,m\n1,1\n1\n2,2\n1,2,3\n3,3\n", ("line 3", "line 5")),
        ("a.json", b'[{"n": 1}, 7, {"n": 2}, null, {"n": 3}]', ("row 1", "row 3")),
    ],
)
def test_what_cannot_even_be_read_ends_nothing(name, content, places, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=f"(?s){len(places)} of {len(places) + 3} rows.*{'.*'.join(places)}") as caught:
        parse_rows(path, lambda row, _: int(row["n"]))
    assert str(caught.value).count(f"{name}, ") == len(places)
    with pytest.warns(UserWarning, match=places[-1]):
        assert parse_rows(path, lambda row, _: int(row["n"]), on_bad_row="skip") == [1, 2, 3]
    with pytest.raises(TaskError, match=places[0]):
        rows(path)


def test_long_values_are_shortened():
    assert shorten("x" * 500, 10) == "'xxxxxxxxx... (502 characters)"
    assert shorten(10**6000) == "a int too long to print"
