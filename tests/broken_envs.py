"""One environment per law of the contract, broken in exactly that law. Each is a mistake that people make."""

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import agentenv as ae
from agentenv.errors import SandboxError, SnapshotError, VerifierError

__all__ = ["BROKEN", "CountsOutside", "FragileTool", "KeepsReferences", "NeedsALock", "Sound", "stop_leaks"]


class Sound(ae.ToolEnv):
    """Breaks no law: a sum of numbers, with a random one in every answer."""

    max_steps = 4

    class State(ae.State):
        numbers: list[int] = []
        bias: int = 0

    def start(self, task):
        self.state.bias = int(self.np_random.integers(1000))
        return "Add numbers."

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        self.state.numbers.append(number)
        noise = int(self.np_random.integers(1000))
        return f"{sum(self.state.numbers) + self.state.bias} and {noise}"


class InfoMissing(Sound):
    """`reset` returns no info."""

    def reset(self, *, seed=None, options=None) -> Any:
        observation, _ = super().reset(seed=seed, options=options)
        return observation, None


class Unseeded(Sound):
    """Draws a number with `random` when it is made, so that seeds do not tell all."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drawn = random.randrange(10**9)

    def start(self, task):
        self.state.bias = self.drawn
        return "Add numbers."


class RaisesOnBadText(Sound):
    """Decodes what the agent wrote without expecting nonsense."""

    def on_text(self, text):
        _, found, call = text.partition("<tool_call>")
        return str(json.loads(call)) if found else "Use the tool."


class BlamesOthers(Sound):
    """Takes what a long text does to its parser for a failure of infrastructure."""

    def on_text(self, text):
        if len(text) > 100_000:
            msg = "the parser died"
            raise VerifierError(msg)
        return "Use the tool."


class FragileTool(Sound):
    """Its tool raises on some numbers, in the middle of episodes."""

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        return str(1 / (number - 4))


class NeverEnds(Sound):
    """Goes on after the end."""

    def step(self, action):
        if self.step_count == self.max_steps:
            self._phase = "running"
        return super().step(action)


class NumpyInfo(Sound):
    """Reports a numpy integer, which JSON does not know."""

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, info | {"total": np.sum(self.state.numbers, dtype=np.int64)}


class RemembersOutside(Sound):
    """Keeps what it has seen in an attribute instead of in the state."""

    def start(self, task):
        self.seen = set()
        return super().start(task)

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        known = number in self.__dict__.setdefault("seen", set())
        self.seen.add(number)
        return "again" if known else super().add(number)


class OnlyTheLatest(Sound):
    """Restores the latest snapshot only."""

    latest = None

    def snapshot(self):
        self.latest = super().snapshot()
        return self.latest

    def restore(self, snapshot, /):
        if self.latest not in {None, snapshot} and snapshot.env_id == self.env_id:
            msg = "this snapshot is stale"
            raise SnapshotError(msg)
        super().restore(snapshot)


class DrawsInSnapshot(Sound):
    """Names its snapshots with random numbers of the episode."""

    def snapshot(self):
        snapshot = super().snapshot()
        self.label = int(self.np_random.integers(10**9))
        return snapshot


class WritesFiles(Sound):
    """Writes into the working directory instead of a sandbox."""

    numbering: ClassVar = itertools.count()

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        Path(f"log-{os.getpid()}-{next(self.numbering)}").touch()
        return super().add(number)


class KeepsStepCount(Sound):
    """Counts on after a restore."""

    max_steps = None

    def restore(self, snapshot, /):
        steps = self._step_count
        super().restore(snapshot)
        self._step_count = steps

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        answer = super().add(number)
        return self.finish(answer) if len(self.state.numbers) == 4 else answer


class SharesState(Sound):
    """Gives its forks the state itself."""

    def fork(self, n) -> Any:
        children = super().fork(n)
        for child in children:
            child.state = self.state
        return children


class AcceptsAll(Sound):
    """Restores snapshots of others."""

    def restore(self, snapshot, /):
        super().restore(replace(snapshot, env_id=self.env_id))


class NamesNothing(Sound):
    """Refuses snapshots of others without saying which."""

    def restore(self, snapshot, /):
        if snapshot.env_id != self.env_id:
            msg = "wrong snapshot"
            raise SnapshotError(msg)
        super().restore(snapshot)


_BIASES: dict[int, int] = {}


class KeepsAHandle(Sound):
    """Its state holds a key into a table of this process."""

    def start(self, task):
        handle = len(_BIASES)
        _BIASES[handle] = int(self.np_random.integers(1000))
        self.state.bias = handle
        return "Add numbers."

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        self.state.numbers.append(number)
        return str(sum(self.state.numbers) + _BIASES[self.state.bias])


class DiesElsewhere(Sound):
    """Brings down any other process that restores its snapshots."""

    def start(self, task):
        self.state.bias = os.getpid()
        return "Add numbers."

    def restore(self, snapshot, /):
        super().restore(snapshot)
        if self.state.bias != os.getpid():
            os._exit(3)


class EndsEarly(Sound):
    """A snapshot uses up a step."""

    def snapshot(self):
        snapshot = super().snapshot()
        self._step_count += 1
        return snapshot


class LeavesFiles(Sound):
    """Makes a temporary folder that it does not remove."""

    def start(self, task):
        tempfile.mkdtemp()
        return super().start(task)


class LeavesProcesses(Sound):
    """Starts a process that it does not end."""

    started: ClassVar[list[subprocess.Popen[bytes]]] = []

    def start(self, task):
        self.started.append(subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE))
        return super().start(task)


class LeavesThreads(Sound):
    """Starts a thread that it does not end; all have one name."""

    started: ClassVar[list[tuple[threading.Thread, threading.Event]]] = []

    def start(self, task):
        stop = threading.Event()
        self.started.append((threading.Thread(target=stop.wait, name="worker"), stop))
        self.started[-1][0].start()
        return super().start(task)


class LeavesDescriptors(Sound):
    """Opens a file that it does not close."""

    opened: ClassVar[list[int]] = []

    def start(self, task):
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        return super().start(task)


class CountsOutside(Sound):
    """Numbers its answers in an attribute: breaks many laws at once."""

    answers = 0

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        self.answers += 1
        return f"{self.answers}: {super().add(number)}"


class KeepsReferences(Sound):
    """Its snapshots are the state itself, not a copy."""

    def snapshot(self):
        snapshot = super().snapshot()
        self.__dict__.setdefault("kept", {})[snapshot.state] = self.state
        return snapshot

    def restore(self, snapshot, /):
        super().restore(snapshot)
        self.state = self.__dict__.get("kept", {}).get(snapshot.state, self.state)


class NeedsALock(Sound):
    """Is made with something that does not pickle."""

    def __init__(self, lock=None, **kwargs):
        super().__init__(**kwargs)
        self.lock = lock


class Pad:
    """A sandbox that keeps one text, in this process."""

    def __init__(self, text=""):
        self.text = text

    def write(self, _path, content):
        self.text = content

    def exec(self, _argv, **_):
        return self.text

    def snapshot(self, **_):
        return self.text

    def restore(self, snapshot, /):
        self.text = snapshot

    def fork(self, n):
        return [Pad(self.text) for _ in range(n)]

    def close(self):
        pass


class Padded(Sound):
    """Breaks no law: writes the numbers down in a sandbox."""

    sandbox: Any

    def make_sandbox(self) -> Any:
        return Pad()

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        self.sandbox.write("numbers", f"{self.sandbox.text} {number}")
        return super().add(number)


class ForgivesLosses(Padded):
    """Opens another sandbox where one is lost, as if nothing had been."""

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        try:
            return super().add(number)
        except SandboxError:
            self.sandbox = Pad(self.sandbox.text)
            return "0"


class CallsLossesOutages(Padded):
    """Says "infrastructure" of a lost sandbox, whatever lost it."""

    @ae.tool
    def add(self, number: int) -> str:
        """Add a number."""
        try:
            return super().add(number)
        except SandboxError as error:
            msg = "no sandbox"
            raise VerifierError(msg) from error


def stop_leaks():
    """Ends what the leaking environments left."""
    for process in LeavesProcesses.started:
        process.kill()
        process.communicate()
    LeavesProcesses.started.clear()
    for thread, stop in LeavesThreads.started:
        stop.set()
        thread.join()
    LeavesThreads.started.clear()
    for descriptor in LeavesDescriptors.opened:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    LeavesDescriptors.opened.clear()


BROKEN = {
    InfoMissing: ("gymnasium", "gymnasium says: .*`env.reset..` was not a dictionary"),
    Unseeded: ("seeded", "two episodes with the same seed: step 1 gave .* elsewhere than `self.np_random`"),
    RaisesOnBadText: ("mistakes", r"step\('<tool_call>.*raised JSONDecodeError.*raise ToolError"),
    BlamesOthers: ("blame", r"step\('xxx.*raised VerifierError: the parser died, in a fresh.*reward 0 and say why"),
    ForgivesLosses: (
        "lost",
        r"lost the sandbox, for the first time: .*breakages=None.*`SandboxLost` leave it",
    ),
    CallsLossesOutages: ("lost", r"step 0 .*lost the sandbox, and raised VerifierError: no sandbox.*leave it"),
    NeverEnds: ("ended", "after the end gave an answer.*`step` is overridden"),
    NumpyInfo: ("json", r"info of step 1 is not JSON: Object of type int64.*int\(\) or float\(\)"),
    RemembersOutside: ("equal", "again: step 1 gave .*kept outside `self.state`.*: here `self.seen`"),
    OnlyTheLatest: ("valid", "other snapshots and restores raised SnapshotError: this snapshot is stale.*refers to"),
    DrawsInSnapshot: ("pure", "without and with a snapshot before every step: .*`snapshot` draws random numbers"),
    WritesFiles: ("undo", "did not undo files .*'log-.*outside `self.sandbox`"),
    KeepsStepCount: ("undo", "did not bring back the step count.*`restore` is overridden"),
    SharesState: ("siblings", "a step in one sibling changed the state of another.*share a mutable object"),
    AcceptsAll: ("foreign", "a snapshot of 'other/Env-v0' was restored into 'AcceptsAll-v0'.*`restore` is overridden"),
    NamesNothing: ("foreign", "must name 'other/Env-v0' and 'NamesNothing-v0', got 'wrong snapshot'"),
    DiesElsewhere: ("travels", "fresh process raised exit code 3: .*fidelity = Fidelity.LOCAL"),
    EndsEarly: ("pure", r"a snapshot before every step: step 2 gave .*False\) and then .*True\)"),
    KeepsAHandle: ("travels", r"fresh process raised KeyError.*fidelity = Fidelity.LOCAL"),
    LeavesFiles: ("leaks", r"left after close\(\): temporary files \['tmp.*`close` is overridden"),
    LeavesProcesses: ("leaks", r"left after close\(\): processes \['\d"),
    LeavesThreads: ("leaks", r"left after close\(\): threads \['worker"),
    LeavesDescriptors: ("leaks", r"left after close\(\): open files \['\d+ -> /dev/null"),
}
"""Each class with the one law that it breaks and what the report says."""
