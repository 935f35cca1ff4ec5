"""Rows in the shape of SWE-bench: a repository at a commit, a patch that repairs it, a patch with its tests.

| column | becomes |
|---|---|
| `instance_id`, `problem_statement` | id and instruction |
| `repo`, `base_commit` | the workspace: the commit's files, out of a clone or mirror, without `.git` |
| `patch` | the solution, and which kinds of files a submission may hold besides `*.py` |
| `test_patch` | the hidden test files |
| `FAIL_TO_PASS`, `PASS_TO_PASS` | the hidden suite's tests, as lists or as JSON |
| `test_cmd` | `run_tests`; it must be pytest's. Its `-p` options name plugins |
| `image_name`, `docker_image`, `image` | the container image |
| `environment` | a mapping with `image` and `python`, the interpreter |

What of the repository's configuration of pytest shapes the tests (`python_files` and the like, `markers`,
`filterwarnings`) holds for the hidden suite, too; `addopts` does not.
"""

import configparser
import itertools
import json
import os
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, cast

from agentenv.errors import TaskError

from .repositories import GitTree, PatchedFiles, apply_patch, list_files, read_file, resolve_commit
from .suites import TestSuite, read_id
from .tasks import RepairTask

__all__ = ["Repositories", "is_swebench", "read_swebench"]

Repositories = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]
"""A folder of clones or mirrors, or where each is, by the name in the column `repo`."""

_COLUMNS = ("instance_id", "repo", "base_commit", "test_patch", "FAIL_TO_PASS")
_OPTIONS = ("python_files", "python_classes", "python_functions", "markers", "filterwarnings", "usefixtures")
_IMAGES = ("image_name", "docker_image", "image")
_TEST_COMMAND = "python3 -m pytest -q"


def is_swebench(row: Mapping[str, Any]) -> bool:
    """Whether a row has most of the columns that SWE-bench's rows must have."""
    return sum(column in row for column in _COLUMNS) > len(_COLUMNS) // 2


def read_swebench(row: Mapping[str, Any], *, repositories: Repositories | None = None) -> RepairTask:
    """Returns the task of one row.

    Args:
        row: the columns.
        repositories: where the repositories are: a mapping from `repo`, or a folder that has `owner/name`,
            `owner__name` or `name`, each perhaps with `.git` at its end.

    Raises:
        TaskError: a column, the repository, the commit or a file is missing, a patch does not apply, or the tests
            are not pytest's; the message names the row, the rule and the remedy.
    """
    name = str(row.get("instance_id") or "?")
    for column in _COLUMNS:
        if column not in row:
            msg = f"row {name!r}: SWE-bench column {column!r} is missing; there must be {', '.join(_COLUMNS)}"
            raise TaskError(msg)
    try:
        return _read(row, _find_repository(str(row["repo"]), repositories))
    except (TaskError, ValueError) as error:
        msg = f"row {name!r}: {error}"
        raise TaskError(msg) from None


def _read(row: Mapping[str, Any], repository: Path) -> RepairTask:
    tree = GitTree(repository=str(repository), commit=resolve_commit(repository, str(row["base_commit"])))
    paths = list_files(tree)
    command = str(row.get("test_cmd") or _TEST_COMMAND)
    tests = _applied(tree, row, "test_patch")
    fail, keep = _names(row, "FAIL_TO_PASS"), _names(row, "PASS_TO_PASS")
    known = {*paths, *tests.files} - {*tests.deleted}
    for test in (*fail, *keep):
        if (path := read_id(test).path) not in known:
            msg = f"{test!r} is in {path}, which neither the commit nor test_patch has; give ids relative to the root"
            raise TaskError(msg)
    environment = _environment(row)
    suite = TestSuite(
        fail_to_pass=fail,
        pass_to_pass=tuple(test for test in keep if test not in fail),
        files=dict(tests.files),
        deleted=tests.deleted,
        executable=tests.executable,
        options=_options(tree, frozenset(paths)),
        plugins=_plugins(command),
        source=(".", *(folder for folder in ("src", "lib") if any(path.startswith(f"{folder}/") for path in paths))),
        python=str(environment.get("python") or "python3"),
    )
    solution = _applied(tree, row, "patch") if row.get("patch") else PatchedFiles({}, (), ())
    return RepairTask(
        id=str(row["instance_id"]),
        instruction=str(row.get("problem_statement") or "The code is wrong. Repair it."),
        base=tree,
        suite=suite,
        solution={**_texts(solution.files)},
        removed=solution.deleted,
        editable=tuple(sorted({"*.py", *(_pattern(path) for path in (*solution.files, *solution.deleted))})),
        test_command=command,
        image=next((str(row[column]) for column in _IMAGES if row.get(column)), environment.get("image")),
    )


def _find_repository(name: str, repositories: Repositories | None) -> Path:
    if repositories is None:
        msg = (
            f"the repository {name!r} is needed: read_tasks(..., repositories=FOLDER), "
            "with a clone or mirror of it in FOLDER"
        )
        raise TaskError(msg)
    if isinstance(repositories, Mapping):
        if name not in repositories:
            msg = f"repositories must have {name!r}; it has {sorted(repositories)[:8]}"
            raise TaskError(msg)
        return Path(repositories[name])
    folder = Path(repositories)
    spellings = (name, name.replace("/", "__"), name.rpartition("/")[2])
    names = [spelled + end for spelled in spellings for end in ("", ".git")]
    for candidate in names:
        if (folder / candidate).is_dir():
            return folder / candidate
    msg = f"there is no {name!r} in {folder}; make one: git clone --mirror URL {folder / names[3]}"
    raise TaskError(msg)


def _applied(tree: GitTree, row: Mapping[str, Any], column: str) -> PatchedFiles:
    text = str(row[column] or "")
    if not text.strip():
        return PatchedFiles({}, (), ())
    try:
        return apply_patch(tree, text if text.endswith("\n") else text + "\n")
    except TaskError as error:
        msg = f"{column} does not apply to {tree.commit}: {error}"
        raise TaskError(msg) from None


def _names(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = row.get(column) or ()
    names = json.loads(value) if isinstance(value, str) else list(value)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
        msg = f"{column} must be a list of pytest node ids, got {value!r:.200}"
        raise TaskError(msg)
    ordered = tuple(dict.fromkeys(cast("list[str]", names)))
    for name in ordered:
        try:
            read_id(name)
        except ValueError as error:
            msg = f"{column}: {error}"
            raise TaskError(msg) from None
    return ordered


def _plugins(command: str) -> tuple[str, ...]:
    """Returns the plugins that a test command loads.

    Raises:
        TaskError: it is no command of pytest.
    """
    words = shlex.split(command)
    if not any(PurePosixPath(word).name in {"pytest", "py.test"} for word in words):
        msg = f"test_cmd must be pytest's, for only its results can be trusted, got {command!r}"
        raise TaskError(msg)
    named = [after for word, after in itertools.pairwise(words) if word == "-p"]
    return tuple(name for name in named if not name.startswith("no:"))


def _environment(row: Mapping[str, Any]) -> Mapping[str, Any]:
    value = row.get("environment")
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json.loads(value)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _pattern(path: str) -> str:
    suffix = PurePosixPath(path).suffix
    return f"*{suffix}" if suffix else path


def _texts(files: Mapping[str, bytes]) -> dict[str, str]:
    """Returns the files that are text; what repairs code is."""
    texts: dict[str, str] = {}
    for path, data in files.items():
        try:
            texts[path] = data.decode()
        except UnicodeDecodeError:
            continue
    return texts


def _options(tree: GitTree, paths: frozenset[str]) -> dict[str, str]:
    """Returns what the repository's configuration says on which functions are tests, and on warnings."""
    readers: dict[str, Callable[[str], Mapping[str, Any] | None]] = {
        "pytest.ini": lambda text: _ini(text, "pytest"),
        "pyproject.toml": lambda text: tomllib.loads(text).get("tool", {}).get("pytest", {}).get("ini_options"),
        "tox.ini": lambda text: _ini(text, "pytest"),
        "setup.cfg": lambda text: _ini(text, "tool:pytest"),
    }
    for path, read in readers.items():
        if path in paths:
            try:
                found = read(read_file(tree, path).decode())
            except (ValueError, configparser.Error) as error:
                msg = f"{path} cannot be read: {error}"
                raise TaskError(msg) from None
            if found is not None:
                return {name: _lines(found[name]) for name in _OPTIONS if name in found}
    return {}


def _ini(text: str, section: str) -> Mapping[str, Any] | None:
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(text)
    return dict(parser[section]) if parser.has_section(section) else None


def _lines(value: Any) -> str:
    """Returns a setting as an ini file has it: further lines are indented."""
    lines = cast("list[Any]", value) if isinstance(value, list) else str(value).split("\n")
    return "".join(f"\n    {line}" for line in map(str, lines) if line.strip()) if len(lines) > 1 else str(*lines)
