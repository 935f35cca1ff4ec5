"""A sandbox, and the ordinary user that the namespace back end must also work for."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import agentenv
from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox


@pytest.fixture
def box() -> Iterator[GuestSandbox]:
    """An empty namespace sandbox."""
    with open_sandbox(backend="namespace") as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs Python code as a user without privileges: this one, or, for root, one that is made and removed."""
    name = ""
    prefix: tuple[str, ...] = ()
    if os.getuid() == 0:
        name = f"agentenv{os.getpid()}"
        subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
        prefix = ("setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", "--inh-caps=-all")

    def run(code: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        env = {"PYTHONPATH": os.pathsep.join(_import_folders()), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.defpath}
        argv = [*prefix, *before, _python_for(prefix, env), "-c", code]
        return subprocess.run(argv, capture_output=True, text=True, check=False, env=env, cwd="/", timeout=120)

    yield run
    if name:
        subprocess.run(["userdel", name], check=True)


def _import_folders() -> list[str]:
    repository = Path(agentenv.__file__).resolve().parents[1]
    return [str(repository), *(path for path in sys.path if path.endswith("site-packages"))]


_TRIAL = "import pydantic, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


def _python_for(prefix: tuple[str, ...], env: dict[str, str]) -> str:
    """Returns an interpreter that the user may run: this one may live where only root can look."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        trial = subprocess.run([*prefix, candidate, "-c", _TRIAL], env=env, cwd="/", capture_output=True, check=False)
        if trial.returncode == 0:
            return candidate
    pytest.skip(f"an ordinary user can run no {version} with the packages here")
