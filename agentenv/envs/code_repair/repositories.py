"""Git repositories as the start of a task: the files of one commit, and what a patch makes of them.

Everything is read from the object database of a clone or mirror on the host: no work tree, no checkout, no hooks, no
filters, and nothing is written into the repository. Sandboxes get the files of the commit and no `.git`, so no later
commit, tag or branch is there to be read.
"""

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import pydantic.dataclasses

from agentenv.errors import TaskError
from agentenv.sandboxes import SandboxSpec
from agentenv.sandboxes.opening import origin_of

from .suites import as_bytes, check_path

__all__ = ["GitTree", "PatchedFiles", "apply_patch", "check_out", "list_files", "read_file", "resolve_commit"]

_LINK, _SUBMODULE, _EXECUTABLE = "120000", "160000", "100755"
_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class GitTree:
    """The files of one commit.

    Attributes:
        repository: folder of a clone, a mirror or a bare repository on the host.
        commit: full hash of the commit.
    """

    repository: str = pydantic.Field(min_length=1)
    commit: str = pydantic.Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")


class _Blob(NamedTuple):
    mode: str
    name: str
    path: str


@dataclass(frozen=True)
class PatchedFiles:
    """What a patch makes of a commit.

    Attributes:
        files: contents of added and changed files, by path.
        executable: those of them that are executable.
        deleted: files that it removes.
    """

    files: Mapping[str, bytes]
    executable: tuple[str, ...]
    deleted: tuple[str, ...]


def resolve_commit(repository: str | os.PathLike[str], commit: str) -> str:
    """Returns the full hash of a commit.

    Raises:
        TaskError: it is not in the repository, or there is none.
    """
    name = f"{commit}^{{commit}}"
    if not commit or commit.startswith("-"):
        msg = f"base_commit must be a commit, got {commit!r}"
        raise TaskError(msg)
    _git(repository, "rev-parse", "--git-dir")
    try:
        return _git(repository, "rev-parse", "--verify", "--end-of-options", name).decode().split()[-1]
    except TaskError:
        msg = f"base_commit {commit!r} is not in {repository}; get it: git -C {repository} fetch --all --tags"
        raise TaskError(msg) from None


@functools.lru_cache(maxsize=64)
def _blobs(tree: GitTree) -> tuple[_Blob, ...]:
    listed = _git(tree.repository, "ls-tree", "-r", "-z", "--full-tree", tree.commit)
    found: list[_Blob] = []
    for entry in filter(None, listed.split(b"\0")):
        head, _, path = entry.partition(b"\t")
        mode, _, name = head.decode().split(" ")
        found.append(_Blob(mode, name, os.fsdecode(path)))
    return tuple(found)


def list_files(tree: GitTree) -> tuple[str, ...]:
    """Returns the paths of all files and links of a commit, in order."""
    return tuple(sorted(blob.path for blob in _blobs(tree) if blob.mode != _SUBMODULE))


def read_file(tree: GitTree, path: str) -> bytes:
    """Returns the content of one file of a commit.

    Raises:
        KeyError: there is no such file.
    """
    for blob in _blobs(tree):
        if blob.path == path and blob.mode not in {_LINK, _SUBMODULE}:
            return _git(tree.repository, "cat-file", "blob", blob.name)
    raise KeyError(path)


@functools.lru_cache(maxsize=32)
def check_out(
    tree: GitTree | None, files: tuple[tuple[str, str | bytes], ...] = (), executable: tuple[str, ...] = ()
) -> Any:
    """Returns the state of a sandbox that holds the files of a commit, with modes and links, and no `.git`.

    Submodules are empty folders. Files of Git LFS are the pointers that the repository has.

    Args:
        tree: the commit; nothing without one.
        files: more files, which lie over them.
        executable: which of these are executable.

    Raises:
        TaskError: the repository cannot be read, or has paths that are not plain.
    """
    with tempfile.TemporaryDirectory(prefix="agentenv-tree-") as place:
        folder = Path(place)
        folder.chmod(0o755)
        blobs = _blobs(tree) if tree else ()
        if tree:
            plain = [blob for blob in blobs if blob.mode not in {_LINK, _SUBMODULE}]
            for blob, data in zip(plain, _contents(tree, plain), strict=True):
                _write(_place(folder, blob.path), data, executable=blob.mode == _EXECUTABLE)
        for name, content in files:
            _write(_place(folder, name), as_bytes(content), executable=name in executable)
        if tree:
            links = [blob for blob in blobs if blob.mode == _LINK]
            for blob, target in zip(links, _contents(tree, links), strict=True):  # last: no file is written through one
                _place(folder, blob.path).symlink_to(os.fsdecode(target))
        for blob in blobs:
            if blob.mode == _SUBMODULE:
                _place(folder, blob.path).mkdir()
        return origin_of(SandboxSpec(base=folder))


def _write(path: Path, data: bytes, *, executable: bool) -> None:
    path.write_bytes(data)
    path.chmod(0o755 if executable else 0o644)


def _place(folder: Path, path: str) -> Path:
    if ".git" in path.lower().split("/"):
        msg = f"a commit cannot have a file named {path!r}"
        raise TaskError(msg)
    place = folder / check_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _contents(tree: GitTree, blobs: list[_Blob]) -> Iterator[bytes]:
    """Yields the contents of blobs, in order."""
    asked = "".join(f"{blob.name}\n" for blob in blobs).encode()
    answer = memoryview(_git(tree.repository, "cat-file", "--batch", data=asked)) if blobs else memoryview(b"")
    start = 0
    for blob in blobs:
        end = start + answer[start : start + 200].tobytes().index(b"\n")
        words = answer[start:end].tobytes().split()
        if len(words) != 3 or words[1] != b"blob":
            msg = f"{blob.path} of {tree.commit} is missing in {tree.repository}: fetch the whole repository"
            raise TaskError(msg)
        size = int(words[2])
        yield answer[end + 1 : end + 1 + size].tobytes()
        start = end + 1 + size + 1


def apply_patch(tree: GitTree, patch: str) -> PatchedFiles:
    """Returns what a patch, binary or not, makes of a commit. Links that it makes are left out.

    Raises:
        TaskError: it does not apply.
    """
    with tempfile.TemporaryDirectory(prefix="agentenv-patch-") as place:
        objects = _git(tree.repository, "rev-parse", "--git-path", "objects").decode().rstrip("\n")
        env = {
            "GIT_INDEX_FILE": f"{place}/index",
            "GIT_OBJECT_DIRECTORY": place,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(_git_folder(tree.repository) / objects),
        }
        run = functools.partial(_git, tree.repository, env=env)
        run("read-tree", tree.commit)
        run("apply", "--cached", "--whitespace=nowarn", "-", data=patch.encode())
        changed = run("diff-index", "--cached", "-z", "--no-renames", tree.commit).split(b"\0")
        files, executable, deleted = dict[str, bytes](), list[str](), list[str]()
        for head, name in zip(changed[::2], changed[1::2], strict=False):
            _, mode, _, blob, status = head.decode().split(" ")
            path = check_path(os.fsdecode(name))
            if status == "D":
                deleted.append(path)
            elif mode not in {_LINK, _SUBMODULE}:
                files[path] = run("cat-file", "blob", blob)
                executable += [path] if mode == _EXECUTABLE else []
        return PatchedFiles(files, tuple(executable), tuple(deleted))


def _git_folder(repository: str | os.PathLike[str]) -> Path:
    """Returns the git folder of a clone, or a bare repository itself.

    Raises:
        TaskError: it is neither.
    """
    folder = Path(repository).resolve()
    for place in (folder / ".git", folder):
        if (place / "objects").is_dir() and (place / "HEAD").exists():
            return place
    msg = f"{str(repository)!r} is no git repository: give a clone, a mirror or a bare repository"
    raise TaskError(msg)


def _git(
    repository: str | os.PathLike[str], *words: str, data: bytes = b"", env: Mapping[str, str] | None = None
) -> bytes:
    """Runs git on a repository and returns what it printed.

    Raises:
        TaskError: it failed, or is not installed.
    """
    folder = str(_git_folder(repository))
    argv = ["git", f"--git-dir={folder}", "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false", *words]
    settings = {"PATH": os.environ.get("PATH", os.defpath), **_ENV, **(env or {})}
    try:
        done = subprocess.run(argv, input=data, capture_output=True, env=settings, check=False)  # noqa: S603
    except OSError as error:
        msg = f"git cannot be run: {error}; install git"
        raise TaskError(msg) from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        msg = f"git {words[0]} failed in {folder}: {why[-400:]}"
        raise TaskError(msg)
    return done.stdout
