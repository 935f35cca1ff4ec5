"""Python code run as a user without privileges."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import agentenv

__all__ = ["NoPython", "as_ordinary_user"]


class NoPython(Exception):
    """An ordinary user can run no interpreter with the packages here."""


@contextmanager
def as_ordinary_user() -> Generator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Yields what runs Python code as a user without privileges: this one, or, for root, one made and removed.

    Raises:
        NoPython: it can run no interpreter.
    """
    if os.getuid():
        yield lambda code, before=(): _run((*before, sys.executable), code, _import_folders())
        return
    name = f"agentenv{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    become = ("setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", "--inh-caps=-all")
    try:
        with tempfile.TemporaryDirectory(prefix="agentenv-user-") as shown:
            prefix, folders = _shown_to_all(Path(shown), _import_folders())
            python = _python_for((*prefix, *become), folders)
            yield lambda code, before=(): _run((*prefix, *become, *before, python), code, folders)
    finally:
        subprocess.run(["userdel", name], check=True)


def _run(argv: tuple[str, ...], code: str, folders: list[str]) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": os.pathsep.join(folders), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath}
    command = [*argv, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd="/", timeout=120)


def _import_folders() -> list[str]:
    repository = Path(agentenv.__file__).resolve().parents[1]
    return [str(repository), *(path for path in sys.path if path.endswith("site-packages"))]


def _shown_to_all(place: Path, folders: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Returns what shows folders, which may lie where only root looks, to a command; and where it finds them."""
    place.chmod(0o755)
    mounts: list[str] = []
    found: list[str] = []
    for number, folder in enumerate(folders):
        target = place / str(number)
        target.mkdir()
        found.append(str(target))
        mounts.append(shlex.join(["mount", "--bind", folder, str(target)]))
    script = " && ".join((*mounts, *_uncover(Path(sys.base_prefix), place / "python"), 'exec "$@"'))
    return ("unshare", "--mount", "sh", "-c", script, "sh"), found


def _uncover(python: Path, place: Path) -> list[str]:
    """Returns commands that show Python at its own path, where a folder above it is closed to others."""
    closed = next((folder for folder in reversed(python.parents) if not folder.stat().st_mode & 0o001), None)
    if closed is None:
        return []
    place.mkdir()
    commands = (
        ["mount", "--bind", python, place],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", closed],
        ["mkdir", "-p", python],
        ["mount", "--bind", place, python],
    )
    return [shlex.join(map(str, command)) for command in commands]


_TRIAL = "import pydantic, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


def _python_for(prefix: tuple[str, ...], folders: list[str]) -> str:
    """Returns an interpreter that the user may run: this one may live where only root can look."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = f"{sys.base_prefix}/bin/{version}"
    for candidate in (sys.executable, own, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if _run((*prefix, candidate), _TRIAL, folders).returncode == 0:
            return candidate
    message = f"an ordinary user can run no {version} with the packages here"
    raise NoPython(message)
