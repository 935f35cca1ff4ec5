"""How a module of `guest` is started as a process of its own, without the SDK around it."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

__all__ = ["BOOT", "end_guest", "guest_argv", "packed_guest", "start_guest"]

_END_S = 5.0
_HERE = Path(__file__).resolve().parent
_PACKED = (
    "wire",
    "content",
    "place",
    "aside",
    "trees",
    "files",
    "launch",
    "run",
    "policy",
    "shell",
    "serve",
    "linux",
    "seccomp",
    "landlock",
    "memory",
    "docker_init",
    "gvisor_init",
    "process_init",
    "remote_init",
)
_UNPACK = """
import sys, types
package = types.ModuleType("guest")
package.__path__ = []
sys.modules["guest"] = package
for name, text in SOURCES:
    module = types.ModuleType("guest." + name)
    module.__package__ = "guest"
    sys.modules["guest." + name] = module
    setattr(package, name, module)
    exec(compile(text, "guest/" + name + ".py", "exec"), module.__dict__)
module.main(SETTINGS)
"""
BOOT = (
    "import os\nn, b = int(os.read(0, 8)), b''\nwhile len(b) < n: b += os.read(0, n - len(b)) or os._exit(1)\nexec(b)"
)
"""A program for `python -c` that reads another from standard input, after eight digits of length, and runs it."""


def guest_argv(module: str) -> list[str]:
    """Returns the command that runs `main` of a module of `guest`.

    The folder is appended to `sys.path`, never put first: its other modules have names of the standard library.
    """
    code = f"import sys; sys.path.append({str(_HERE)!r}); from guest.{module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", code]


def start_guest(module: str, fds: Sequence[int], settings: Mapping[str, object]) -> "subprocess.Popen[bytes]":
    """Starts a module of `guest` as a process, whose arguments are the numbers of descriptors, and the settings.

    Args:
        module: its name.
        fds: what it gets; they stay open here.
        settings: it gets them as JSON.
    """
    given = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in fds]  # the standard ones may be closed here
    try:
        argv = [*guest_argv(module), *map(str, given), json.dumps(settings)]
        return subprocess.Popen(argv, pass_fds=given, stdin=subprocess.DEVNULL, start_new_session=True)
    finally:
        for fd in given:
            os.close(fd)


def end_guest(guest: "subprocess.Popen[bytes]") -> None:
    """Waits for a guest or a helper whose connection was closed, and kills one that does not end."""
    try:
        guest.wait(_END_S)
    except subprocess.TimeoutExpired:
        guest.kill()
        guest.wait()


@cache
def _sources(module: str) -> list[tuple[str, str]]:
    names = _PACKED[: _PACKED.index(module) + 1]
    return [(name, (_HERE / "guest" / f"{name}.py").read_text()) for name in names]


def packed_guest(module: str, settings: dict[str, object]) -> bytes:
    """Returns what to send to `BOOT` to run `main(settings)` of a module of `guest`, where no file of ours is."""
    program = f"SOURCES = {_sources(module)!r}\nSETTINGS = {settings!r}\n{_UNPACK}".encode()
    return b"%08d" % len(program) + program
