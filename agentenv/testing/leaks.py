"""What an episode leaves behind: processes, mounts, threads, open files, temporary files."""

import gc
import re
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentenv.testing.causes import OVERRIDDEN
from agentenv.testing.clauses import Broken, Skipped
from agentenv.testing.probe import Probe, play

__all__ = ["check_leaks"]

_LEAK_TRIALS = 3
_ENGINES = re.compile(r"/(?:overlay2?|containers|netns)[/ ]")
"""Mounts of container engines: others of the machine start containers, too, and which is whose cannot be told."""


def check_leaks(probe: Probe) -> None:
    """Raises `Broken` where something is left after `close`."""
    position = min(1, probe.positions()[-1])  # where the episode still runs

    def episode() -> None:
        with probe.episode(position) as env:
            snapshot = env.snapshot()
            for child in env.fork(2):
                play(child, probe.actions)
                child.close()
            play(env, probe.actions)
            env.restore(snapshot)

    if not Path("/proc/self/task").exists():
        msg = "needs /proc"
        raise Skipped(msg)
    episode()  # what all environments of a process share may start now, once
    left = ""
    with _only_new_objects_collected():
        for _ in range(_LEAK_TRIALS):
            left = _left_by(episode, probe.leak_wait_s)
            if not left:  # what was left before came from elsewhere: another container of the machine, say
                return
    raise Broken(OVERRIDDEN.format(name="close"), f"left after close(): {left}")


def _left_by(episode: Callable[[], None], wait_s: float) -> str:
    """Plays an episode; returns what is left of it, in words. What goes away by itself soon is not left."""
    with _private_temporary_folder() as folder:
        before = _resources()
        episode()
        left = {kind: things - before[kind] for kind, things in _resources().items()}
        if files := sorted(str(path.relative_to(folder)) for path in folder.rglob("*")):
            return f"temporary files {files[:5]}"
    deadline = time.monotonic() + wait_s
    while any(left.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {kind: left[kind] & things for kind, things in _resources().items()}
    return next((f"{kind} {sorted(things)[:5]}" for kind, things in left.items() if things), "")


def _resources() -> dict[str, set[str]]:
    """What this process holds now: children, mounts, threads, open files."""
    gc.collect()
    files: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            files.add(f"{entry.name} -> {entry.readlink()}")
    children = {c for task in Path("/proc/self/task").iterdir() for c in (task / "children").read_text().split()}
    return {
        "processes": children,
        "mounts": {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if not _ENGINES.search(line)},
        "threads": {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()},
        "open files": {name for name in files if "/proc/" not in name},
    }


@contextmanager
def _only_new_objects_collected() -> Generator[None]:
    """Spares the collector what is there already: beside a large library or test suite, each search takes seconds."""
    gc.collect()
    frozen = gc.get_freeze_count()  # somebody else's, which stay so
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


@contextmanager
def _private_temporary_folder() -> Generator[Path]:
    """Sends `tempfile` to a folder of its own, so that what is left there is known to be ours."""
    previous = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = previous
