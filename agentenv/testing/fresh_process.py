"""Snapshots that travel: restored and played on in a new Python process."""

import base64
import os
import pickle
import subprocess
import sys
from contextlib import closing
from typing import Any

from agentenv.protocols import Fidelity
from agentenv.testing.causes import HERE, MAIN, OUTSIDE, check_same
from agentenv.testing.clauses import Broken, Skipped
from agentenv.testing.probe import Probe, Trace, play

__all__ = ["check_travels", "play_in_fresh_process"]


def check_travels(probe: Probe) -> None:
    """Raises `Broken` where a pickled snapshot means something else in a fresh process."""
    position = probe.positions()[-1]
    with probe.episode(position) as env:
        snapshot = env.snapshot()
        rest = probe.actions[position:]
        env.restore(snapshot)
        expected = play(env, rest)
        if not _importable(type(env)):
            msg = f"{type(env).__qualname__} cannot be imported by name in another process; move it to a module"
            raise Skipped(msg)
        try:
            job = pickle.dumps((env, snapshot, rest))
        except Exception as error:
            cause = "the state, the task or a constructor argument holds a handle or a lock"
            raise Broken(cause, f"pickling raised {type(error).__name__}: {error}") from error
    reply = _in_fresh_process(job)
    if isinstance(reply, str):
        if snapshot.fidelity is Fidelity.LOCAL and reply.startswith("SnapshotError"):
            return
        lost = "Can't get attribute" in reply
        cause = MAIN if lost else OUTSIDE if reply.startswith("AttributeError") else HERE
        raise Broken(cause, f"restoring a pickled snapshot in a fresh process raised {reply}")
    check_same(expected, reply, HERE, "equal actions after restoring a pickled snapshot in a fresh process")


def _importable(cls: type) -> bool:
    """Whether another process finds the class under its name."""
    return cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__ and cls.__module__ in sys.modules


def _in_fresh_process(job: bytes) -> Trace | str:
    """Has a new Python process restore and play; returns what came back, or the text of the exception."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # not `-m`: names of the caller's `__main__` must not be found in a main module that happens to have them
    command = [
        sys.executable,
        "-c",
        "from agentenv.testing import fresh_process; fresh_process.play_in_fresh_process()",
    ]
    done = subprocess.run(command, input=job, capture_output=True, env=environment, timeout=120, check=False)  # noqa: S603
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
    return pickle.loads(base64.b64decode(done.stdout.rpartition(b"\n")[2]))  # noqa: S301  our own bytes


def play_in_fresh_process() -> None:
    """Plays the job on standard input and writes what came of it; see `_in_fresh_process`."""
    try:
        env, snapshot, actions = pickle.load(sys.stdin.buffer)  # noqa: S301  our own bytes
        with closing(env):
            env.restore(snapshot)
            reply: Any = play(env, actions)
    except Exception as error:  # noqa: BLE001  reported to the parent
        reply = f"{type(error).__name__}: {error}"
    sys.stdout.buffer.write(b"\n" + base64.b64encode(pickle.dumps(reply)))
