"""pytest for sandboxes that have none: the pure-Python packages that this process imports, compiled in a sandbox.

They go into `FOLDER` below the sandbox's `/tmp`, outside of the workspace. An image that has its own pytest keeps it.
"""

import functools
import importlib.util
import io
import tarfile
from contextlib import closing
from pathlib import Path

from agentenv.distribution import pip_install
from agentenv.errors import MissingDependencyError, SandboxError
from agentenv.protocols import Sandbox
from agentenv.sandboxes import SandboxSpec

from .interpreter import FOLDER
from .submissions import OpenSandbox

__all__ = ["install_pytest", "pytest_archive"]

_PACKAGES = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
_OPTIONAL = ("py", "exceptiongroup", "tomli", "typing_extensions")  # some versions of pytest or Python need them
_LEXERS = frozenset({"__init__.py", "_mapping.py", "diff.py", "python.py", "special.py"})  # the others take megabytes
_PROBE = "import pytest, sys; sys.exit(int(pytest.__version__.split('.')[0]) < 7)"
_COMPILE = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", ".")
_UNPACK = (
    "import io, os, sys, tarfile; "
    f"tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())).extractall(os.environ['TMPDIR'] + '/{FOLDER}')"
)


@functools.lru_cache(maxsize=64)
def pytest_archive(open_: OpenSandbox, image: str | None = None, python: str = "python3") -> bytes:
    """Returns pytest and what it imports as a tar archive, compiled for the sandbox; empty if the image has pytest.

    Raises:
        MissingDependencyError: pytest is needed, and is not installed here either.
        SandboxError: the sandbox's Python cannot run it.
    """
    if image is not None:
        with closing(open_(SandboxSpec(image=image))) as sandbox:
            if sandbox.exec([python, "-I", "-B", "-c", _PROBE]).exit_code == 0:
                return b""
    with closing(open_(SandboxSpec(base=_sources(), image=image))) as sandbox:
        compiled = sandbox.exec([python, "-I", "-S", *_COMPILE], timeout_s=120)
        code = f"import sys; sys.path.append('.'); {_PROBE}"
        tried = sandbox.exec([python, "-I", "-S", "-c", code], timeout_s=60)
        if compiled.exit_code or tried.exit_code:
            msg = (
                f"pytest does not run with {python!r} of the sandbox: {(compiled.stderr + tried.stderr)[-400:]}; "
                "use a Python that this pytest supports, or an image that has pytest"
            )
            raise SandboxError(msg)
        return _tar(sandbox.export(["*"]))


def install_pytest(sandbox: Sandbox, archive: bytes, python: str = "python3") -> None:
    """Puts what `pytest_archive` returned into a sandbox.

    Raises:
        SandboxError: there is no room for it.
    """
    if archive:
        done = sandbox.exec([python, "-I", "-S", "-W", "ignore", "-c", _UNPACK], stdin=archive)
        if done.exit_code:
            msg = f"pytest cannot be put into the sandbox: {done.stderr[-400:]}"
            raise SandboxError(msg)


def _sources() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name in (*_PACKAGES, *_OPTIONAL):
        found = importlib.util.find_spec(name)
        if found is not None and found.submodule_search_locations:
            folder = Path(found.submodule_search_locations[0])
            files |= {
                f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
                for path in folder.rglob("*.py")
                if path.parent != folder / "lexers" or path.name in _LEXERS
            }
        elif found is not None and (found.origin or "").endswith(".py"):
            files[f"{name}.py"] = Path(str(found.origin)).read_bytes()
        elif name in _PACKAGES:
            msg = f"hidden test suites need pytest, but {name!r} is not installed: {pip_install('pytest')}"
            raise MissingDependencyError(msg)
    return files


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
