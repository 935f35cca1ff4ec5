"""Rows of any library, or of a file, as plain dictionaries: the one way in for tasks and passages.

| source | what it may be |
|---|---|
| a path | `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`; the text formats also with `.gz` |
| a table | of pandas, polars, pyarrow or datasets, a numpy array with named fields |
| a mapping | columns by name, all of one length, such as `dataset[:10]` |
| an iterable | of mappings, models, dataclasses, named tuples, database rows, or JSON texts |

Nothing of these libraries is imported unless a path asks for it. A value that is missing (`None`, NaN, `pandas.NA`,
`NaT`, an empty CSV field) is `None` in all of them, and numpy's scalars and arrays are Python's numbers and lists.
"""

import ast
import csv
import dataclasses
import datetime as dt
import enum
import gzip
import io
import itertools
import json
import math
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Literal, TypeGuard, TypeVar, cast

import pydantic

from agentenv.distribution import install_module
from agentenv.errors import AgentEnvError, MissingDependencyError, TaskError

__all__ = [
    "Row",
    "Source",
    "as_mapping",
    "as_text",
    "decoded",
    "describe",
    "is_list",
    "is_mapping",
    "parse_rows",
    "plain",
    "read_jsonl",
    "read_rows",
    "shorten",
]

Row = dict[str, Any]
"""Plain values by column."""

Source = Any
"""Whatever the table above names."""

Parsed = TypeVar("Parsed")

_JSON = json.JSONDecoder(parse_constant=lambda name: None if name == "NaN" else float(name))
_SHOWN_BAD_ROWS = 5
_EXACT_INTEGERS = 2**53  # beyond it a float does not tell which integer was meant


def read_rows(
    source: Source, *, what: str = "a row", error: type[AgentEnvError] = TaskError
) -> Iterator[tuple[str, Row]]:
    """Yields the rows of a file, a table or an iterable, each with its place, for messages.

    Args:
        source: see the table at the top of this module.
        what: names a row in messages, e.g. `"a question"`.
        error: what to raise.

    Raises:
        AgentEnvError: of type `error`: the source is none of these or cannot be read, or a row is not a mapping or
            holds text that is not valid Unicode; the message names row, column, rule, value and remedy.
        MissingDependencyError: a parquet file without pyarrow.
    """
    for where, row in _try_rows(source, what, error):
        if isinstance(row, AgentEnvError):
            raise row
        yield where, row


def read_jsonl(path: str | os.PathLike[str], *, error: type[AgentEnvError] = TaskError) -> Iterator[tuple[str, Any]]:
    r"""Yields the JSON value of every line, with its place: `"FILE, line 3"`. Lines of white space are skipped.

    A line ends at `\n` and nowhere else, so `\r\n` and the Unicode separators inside texts change nothing; a byte order
    mark at the beginning is skipped.

    Raises:
        AgentEnvError: of type `error`: the file cannot be opened, a line is not UTF-8, or is not JSON.
    """
    for where, value in _try_lines(Path(path), error):
        if isinstance(value, AgentEnvError):
            raise value
        yield where, value


def parse_rows(
    source: Source,
    parse: Callable[[Row, str], Parsed],
    *,
    on_bad_row: Literal["raise", "skip"] = "raise",
    what: str = "a row",
    error: type[AgentEnvError] = TaskError,
) -> list[Parsed]:
    """Returns what `parse(row, where)` makes of every row.

    Args:
        source: see the table at the top of this module.
        parse: reads one row; raises `ValueError` or `TypeError` where it cannot be used. `where` names the row.
        on_bad_row: `"raise"` reports the rows that cannot be used in one error, after trying all; `"skip"` leaves
            them out, and a warning has the report.
        what: names a row in messages.
        error: what to raise.

    Raises:
        AgentEnvError: of type `error`; see `read_rows`.
        ValueError: `on_bad_row` is neither.
    """
    if on_bad_row not in {"raise", "skip"}:
        msg = f"on_bad_row must be 'raise' or 'skip', got {on_bad_row!r}"
        raise ValueError(msg)
    parsed, bad = list[Parsed](), list[str]()
    for where, row in _try_rows(source, what, error):
        if isinstance(row, AgentEnvError):
            bad.append(str(row))
            continue
        try:
            parsed.append(parse(row, where))
        except pydantic.ValidationError as problem:
            bad.append(f"{where}: {describe(problem)}")
        except (ValueError, TypeError) as problem:
            bad.append(str(problem) if where in str(problem) else f"{where}: {problem}")
    if not bad:
        return parsed
    report = "\n    ".join(bad[:_SHOWN_BAD_ROWS])
    if len(bad) > 1 or on_bad_row == "skip":
        more = f"\n    and {len(bad) - _SHOWN_BAD_ROWS} more" if len(bad) > _SHOWN_BAD_ROWS else ""
        report = f"{len(bad)} of {len(bad) + len(parsed)} rows cannot be used:\n    {report}{more}"
    if on_bad_row == "raise":
        raise error(report)
    warnings.warn(f"left out: {report}", stacklevel=2)
    return parsed


# ---------------------------------------------------------------------- values


def plain(value: Any) -> Any:
    """Returns a value as plain Python: scalars and arrays of any library as numbers and lists, nothing as `None`."""
    if value is None or type(value) in {str, bool, int, bytes}:
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    if is_mapping(value):
        return {_plain_key(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in cast("Sequence[Any]", value)]
    if isinstance(value, set | frozenset):
        return sorted((plain(part) for part in cast("set[Any]", value)), key=repr)
    return _plain_scalar(value)


def _plain_key(key: Any) -> Any:
    return cast("object", key) if isinstance(key, tuple) else plain(key)


def _plain_scalar(value: Any) -> Any:
    """Plain Python of a number, or of an object of another library."""
    kind = type(value).__name__
    if kind in {"NAType", "NaTType", "MaskedConstant"}:  # pandas' and numpy's words for nothing
        return None
    if isinstance(value, float) or kind in {"float16", "float32", "longdouble", "float128"}:
        number = float(value) if isinstance(value, float) else float(str(value))  # float32(0.1) means 0.1
        return None if math.isnan(number) else number
    if isinstance(value, Decimal):
        return None if value.is_nan() else value
    if kind == "datetime64":  # numpy's; those of nanoseconds would become integers
        return value.astype("datetime64[us]").tolist()
    for method in ("as_py", "tolist", "to_list"):  # pyarrow; numpy, torch, pandas; polars
        if callable(convert := getattr(value, method, None)):
            shape = getattr(value, "shape", ())
            return [plain(part) for part in value] if shape and method == "tolist" else _settled(value, convert())
    return value


def _settled(before: Any, after: Any) -> Any:
    return after if type(after) is type(before) else plain(after)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is a list, of anything."""
    return isinstance(value, list)


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether a value is a mapping, of anything to anything."""
    return isinstance(value, Mapping)


def as_text(value: Any) -> Any:
    """Returns a number or a date as text, and anything else as it is.

    `42.0` is `"42"`: one missing value turns a whole column of integers into floats. `bool` is left alone: what it is
    called is the data set's business.
    """
    match value:
        case bool():
            return value
        case float() if value.is_integer() and abs(value) < _EXACT_INTEGERS:
            return str(int(value))
        case int() | float() | Decimal() | Fraction():
            with suppress(ValueError):  # an integer of thousands of digits
                return str(value)
            return value
        case dt.datetime():
            midnight = value.time() == dt.time() and value.tzinfo is None
            return value.date().isoformat() if midnight else value.isoformat()
        case dt.date() | dt.time():
            return value.isoformat()
        case _:
            return value


def decoded(value: Any) -> Any:
    """Returns the list or mapping that a text stands for, and anything else as it is.

    JSON is read, and so is what `str` makes of a list or a dict, which is how pandas writes those into CSV files.

    Raises:
        ValueError: the text begins like a list or a mapping and is neither.
    """
    if not isinstance(value, str) or (text := value.strip())[:1] not in {"[", "{"}:
        return value
    with suppress(ValueError, RecursionError):
        return plain(json.loads(text))
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        literal: Any = ast.literal_eval(text)
        if repr(literal) == text:  # not so for what numpy prints, where blanks stand for commas: ['a' 'b']
            return plain(literal)
    msg = f"a list or a mapping written as text must be JSON, got {shorten(value)}; write it with json.dumps"
    raise ValueError(msg)


def describe(error: pydantic.ValidationError) -> str:
    """Returns what is wrong with a row: for each column the rule and the value."""
    problems: list[str] = []
    for item in error.errors(include_url=False):
        column = ".".join(map(str, item["loc"]))
        if item["type"] == "missing":
            problems.append(f"{column} is missing or empty")
        elif not column:
            problems.append(item["msg"])
        else:
            rule = item["msg"][0].lower() + item["msg"][1:]
            problems.append(f"{column}: {rule}, got {shorten(item['input'])}")
    return "; ".join(problems)


def shorten(value: object, limit: int = 100) -> str:
    """Returns `repr(value)`, of a path that of its text, cut to about `limit` characters."""
    try:
        text = repr(str(value) if isinstance(value, Path) else value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} too long to print"
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# ---------------------------------------------------------------------- rows


def _try_rows(source: Source, what: str, error: type[AgentEnvError]) -> Iterator[tuple[str, Row | AgentEnvError]]:
    """The rows with their places; in place of one that cannot be read, what is wrong with it."""
    if isinstance(source, str | os.PathLike):
        for where, value in _read_file(Path(cast("str | os.PathLike[str]", source)), error):
            yield where, _checked(value, where, what, error)
        return
    for number, row in enumerate(_iterate(source, error)):
        if not (isinstance(row, str | bytes) and not row.strip()):
            where = f"row {number}"
            value = _try_json(row, where, error) if isinstance(row, str | bytes) else as_mapping(row)
            yield where, _checked(plain(value), where, what, error)


def _checked(row: Any, where: str, what: str, error: type[AgentEnvError]) -> Row | AgentEnvError:
    if isinstance(row, AgentEnvError):
        return row
    if not is_mapping(row):
        return error(f"{where}: {what} must be a mapping of column names to values, got {shorten(row)}")
    named = {str(column): value for column, value in row.items()}
    for column, value in named.items():
        if type(value) is str and value.isascii() and column.isascii():  # most are, and corpora are large
            continue
        if problem := _unencodable(column) or _unencodable(value):
            where = f"{where}, column {column!r}"
            return error(f"{where}: text must be valid Unicode, got the lone surrogate {problem!r}")
    return named


def as_mapping(row: Any) -> Any:
    """Returns the columns of an object that is a row: a model, a dataclass, a named tuple, a database's row, a Series.

    Anything else comes back as it is.
    """
    if isinstance(row, pydantic.BaseModel):
        return row.model_dump()
    if dataclasses.is_dataclass(cast("object", row)) and not isinstance(row, type):
        return dataclasses.asdict(row)
    if callable(as_dict := getattr(row, "_asdict", None)):
        return as_dict()
    if not isinstance(row, Mapping | type) and callable(keys := getattr(row, "keys", None)):
        return {key: row[key] for key in cast("Iterable[Any]", keys())}
    return cast("object", row)


def _unencodable(value: Any) -> str:
    """The first lone surrogate in a text or in the texts of a list or mapping; empty where there is none."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as problem:
                return value[problem.start]
        return ""
    parts: Iterable[Any] = itertools.chain(*value.items()) if is_mapping(value) else value if is_list(value) else ()
    return next((found for part in parts if (found := _unencodable(part))), "")


# ---------------------------------------------------------------------- tables


def _iterate(source: Any, error: type[AgentEnvError]) -> Iterable[Any]:
    """The rows of anything but a path."""
    if isinstance(source, Mapping):
        return _from_columns(cast("Mapping[Any, Any]", source), error)
    if callable(getattr(source, "iter_rows", None)):  # polars
        return source.iter_rows(named=True)
    if callable(getattr(source, "to_pylist", None)):  # pyarrow
        return source.to_pylist()
    if callable(getattr(source, "itertuples", None)):  # pandas
        if not source.columns.is_unique:
            msg = f"column names must be unique, got {list(source.columns)}; rename or drop the copies"
            raise error(msg)
        return source.to_dict("records")
    if names := getattr(getattr(source, "dtype", None), "names", None):  # numpy, with named fields
        return (dict(zip(names, record, strict=True)) for record in source)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return cast("Iterable[Any]", source)
    msg = (
        f"rows must come from a path, a table (pandas, polars, pyarrow, datasets) or an iterable of mappings, "
        f"got {shorten(source)}"
    )
    raise error(msg)


def _from_columns(columns: Mapping[Any, Any], error: type[AgentEnvError]) -> Iterable[Any]:
    if any(hasattr(part, "features") or hasattr(part, "column_names") for part in columns.values()):
        msg = f"this is a mapping of splits: choose one of {sorted(map(str, columns))}, e.g. data['train']"
        raise error(msg)
    listed = {name: plain(part) for name, part in columns.items()}
    lengths = {len(part) for part in listed.values() if is_list(part)}
    if len(lengths) != 1 or not all(is_list(part) for part in listed.values()):
        msg = f"a mapping must hold columns, lists of one length, got {shorten(dict(columns))}; give one row as [row]"
        raise error(msg)
    return (dict(zip(listed, values, strict=True)) for values in zip(*listed.values(), strict=True))


# ---------------------------------------------------------------------- files


def _read_file(path: Path, error: type[AgentEnvError]) -> Iterator[tuple[str, Any]]:
    try:
        yield from _read_format(path, error)
    except (OSError, EOFError, zlib.error) as problem:  # a broken disk, or an archive that was cut
        msg = f"cannot read rows from {str(path)!r}: {problem}"
        raise error(msg) from problem


def _read_format(path: Path, error: type[AgentEnvError]) -> Iterator[tuple[str, Any]]:
    kind = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    with _open(path, error) as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        yield from _read_parquet(path, error)
    elif kind.lower() in {".csv", ".tsv"}:
        yield from _read_csv(path, "\t" if kind.lower() == ".tsv" else ",", error)
    elif kind.lower() == ".json" and (rows := _read_json(path, error)) is not None:
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows))
    else:
        yield from _try_lines(path, error)


def _try_lines(path: Path, error: type[AgentEnvError]) -> Iterator[tuple[str, Any]]:
    """The JSON values of lines with their places; in place of a line that cannot be read, what is wrong with it."""
    with _open(path, error) as lines:
        for number, line in enumerate(lines, 1):
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content.strip():
                where = f"{path}, line {number}"
                yield where, _try_json(content, where, error)


def _read_parquet(path: Path, error: type[AgentEnvError]) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        msg = f"{path} is a parquet file, which needs pyarrow: {install_module('pyarrow')}"
        raise MissingDependencyError(msg) from None
    number = 0
    try:
        for batch in cast("Any", parquet).ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                yield f"{path}, row {number}", plain(row)
                number += 1
    except (OSError, ValueError) as problem:  # pyarrow's errors are both
        msg = f"{path}: not a readable parquet file ({problem})"
        raise error(msg) from problem


def _read_csv(path: Path, delimiter: str, error: type[AgentEnvError]) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))  # documents are longer than its 128 KiB
    with _open(path, error) as file:
        text = io.StringIO(_decode(file.read(), str(path), error).removeprefix("\ufeff"), newline="")
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                yield where, error(f"{where}: a row must have the {len(reader.fieldnames or ())} fields of the header")
                continue
            yield where, {name: value or None for name, value in row.items() if name}  # pandas' index has none
    except csv.Error as problem:
        msg = f"{path}, line {reader.line_num}: not CSV ({problem})"
        raise error(msg) from None


def _read_json(path: Path, error: type[AgentEnvError]) -> Iterable[Any] | None:
    """The rows of one JSON value; `None` where the file holds several, one a line, under this name."""
    with _open(path, error) as file:
        text = _decode(file.read(), str(path), error).removeprefix("\ufeff")
    try:
        value: Any = _JSON.decode(text)
    except (ValueError, RecursionError):
        return None
    if is_list(value):
        return value
    if not is_mapping(value):
        return None
    table = value
    nested = table.get("data", table.get("Data"))
    if is_list(nested):
        names = table.get("columns")  # pandas' orient="split"
        return [dict(zip(names, row, strict=True)) for row in nested] if names else nested
    if all(key.isdecimal() for key in table):  # orient="index"
        return list(table.values())
    labels = [list(part) if is_mapping(part) else None for part in table.values()]
    if labels and labels[0] and all(label == labels[0] for label in labels):  # pandas' orient="columns"
        return [{name: column[label] for name, column in table.items()} for label in labels[0]]
    return [table]


def _open(path: Path, error: type[AgentEnvError]) -> IO[bytes]:
    if path.is_dir():
        msg = f"{str(path)!r} is a folder: give a file of it, or what datasets.load_from_disk returns"
        raise error(msg)
    try:
        return cast("IO[bytes]", gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as problem:
        msg = f"cannot read rows from {str(path)!r}: {problem}"
        raise error(msg) from None


def _decode(data: bytes, where: str, error: type[AgentEnvError]) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        msg = f"{where}: not UTF-8, cannot read it ({problem}); convert the file, e.g. with iconv -t utf-8"
        raise error(msg) from None


def _try_json(content: str | bytes, where: str, error: type[AgentEnvError]) -> Any:
    """The value of a JSON text, or what is wrong with it."""
    try:
        text = content if isinstance(content, str) else _decode(content, where, error)
    except AgentEnvError as problem:
        return problem
    try:
        return _JSON.decode(text)
    except (ValueError, RecursionError) as problem:
        return error(f"{where}: not JSON ({problem}), got {shorten(text)}")
