"""Runs one program, and ends with it everything that it started: `python -I supervisor.py COMMAND ...`.

A file of its own, of the standard library alone, because it is the program's parent process: what the program leaves
behind, in whichever session or process group, becomes its child, and is killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 2.0
_NOT_FOUND = 127


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _descendants() -> list[int]:
    """Every process below this one."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)] = int(fields[1])
    found: list[int] = []
    level = [os.getpid()]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found += level
    return found


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _kill_all() -> None:
    while found := _descendants():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
        _reap()


def _leave(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def main(command: list[str]) -> int:
    """Returns the program's exit code: 128 + signal where one ended it."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _leave)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        try:
            program = subprocess.Popen(command, preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))  # noqa: S603, PLW1509  no threads here
        except OSError as problem:
            sys.stderr.write(f"{command[0]} cannot be run: {problem}\n")
            return _NOT_FOUND
        try:
            code = program.wait()
        except SystemExit:
            program.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_GRACE_SECONDS)
            raise
        return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
