"""What all tests share: settings of Hypothesis, and the ordinary user for whom namespaces must also work.

Hypothesis repeats itself exactly, and has no deadline on a loaded machine.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import agentenv

settings.register_profile("agentenv", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("agentenv")


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs Python code as a user without privileges: this one, or, for root, one that is made and removed."""
    if os.getuid():
        yield lambda code, before=(): _run((*before, sys.executable), code, _import_folders())
        return
    name = f"agentenv{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    become = ("setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", "--inh-caps=-all")
    with tempfile.TemporaryDirectory(prefix="agentenv-user-") as shown:
        prefix, folders = _shown_to_all(Path(shown), _import_folders())
        python = _python_for((*prefix, *become), folders)
        yield lambda code, before=(): _run((*prefix, *become, *before, python), code, folders)
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
    script = " && ".join((*mounts, 'exec "$@"'))
    return ("unshare", "--mount", "sh", "-c", script, "sh"), found


_TRIAL = "import pydantic, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


def _python_for(prefix: tuple[str, ...], folders: list[str]) -> str:
    """Returns an interpreter that the user may run: this one may live where only root can look."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if _run((*prefix, candidate), _TRIAL, folders).returncode == 0:
            return candidate
    message = f"an ordinary user can run no {version} with the packages here"
    if os.environ.get("REQUIRE_DOCKER") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    """Environments that fail do so as often as this test says, and all are closed in the end."""
    from envs_for_tests import Counted, Flaky, MemorySandbox

    Counted.opened.clear()
    Flaky.failing_resets = Flaky.failing_restores = 0
    yield
    assert not Counted.opened
    assert not MemorySandbox.opened
