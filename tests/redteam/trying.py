"""What must hold when a cheat is graded or a script has run, and what of it did not: findings."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import re
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sandbox_backends import open_at, opener

from agentenv.envs.code_repair import Grader, TestProgram, collect_submission
from agentenv.envs.code_repair.submissions import spec_of
from agentenv.errors import AgentEnvError, SandboxLost
from agentenv.sandboxes import Limits
from redteam.scripts import HEAD, random_script
from redteam.submissions import data, draw_submission

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from agentenv.envs.code_repair import RepairTask
    from agentenv.sandboxes.guest_sandbox import GuestSandbox

__all__ = ["Finding", "Gradings", "Scripts", "Try", "answers", "held_by_us", "tasks"]

_LIMITS = Limits(time_s=20, memory=96 << 20, processes=32, disk=8 << 20, files=600, file_size=16 << 20)
_SCRIPT_S = 3.0
_SLOW_S = 40.0
_LOOK = (
    "find . /tmp /dev/shm -printf '%p %m %s %l\\n' 2>&1 | sort; cat kept; "
    "cat /proc/self/net/dev /proc/self/net/snmp /proc/sysvipc/* /proc/sys/kernel/pid_max "
    "/proc/sys/user/max_inotify_instances 2>/dev/null; ls -a /dev/mqueue 2>/dev/null; true"
)
_ORACLE = (
    "import sys; sys.path[:0] = ['.']\n"
    "from shop.prices import total\n"
    "print([float(total(p, c)) for p, c in (([17], 'de'), ([3, 4.5], 'at'), ([8, 9, 1], 'xx'), ([250.5], 'de'))])"
)
_RIGHT = "[20.23, 9.0, 18.0, 298.1]\n"
_RATES = '{"de": 0.19, "at": 0.2, "xx": 0.0}'
_PROGRAM = """
prices, seen = [11, 20.5], []
assert list(map(lambda c: total(prices, c), ["at", "xx"])) == [37.8, 31.5]
assert total([seen.append(1) or 17], "de") == 20.23 and seen
try:
    total([1], "yy")
except KeyError:
    pass
else:
    raise AssertionError
"""
_PROBE = """
import ctypes, fcntl, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def works(action):
    try: return 'yes' if action() else 'no'
    except OSError as error: return str(error.errno)
def in_flight():
    a, b = socket.socketpair(); fd = os.open('/dev/null', 0); socket.send_fds(a, [b'x'], [fd] * 100); return True
def forked():
    pid = os.fork()
    if not pid: os._exit(0)
    return os.waitpid(pid, 0)
def locked(path): fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB); return True
print(*(f'{name}={works(action)}' for name, action in {
    'inotify': lambda: libc.inotify_init() >= 0,
    'timer': lambda: libc.syscall(222, 1, 0, ctypes.byref(ctypes.c_int())) == 0,
    'in flight': in_flight, 'fork': forked, 'pipe': lambda: fcntl.fcntl(os.pipe()[1], 1031, 1 << 18),
    'memory': lambda: len(bytearray(20 << 20)), 'memory file': lambda: os.write(os.memfd_create('m'), bytes(1 << 20)),
    'file': lambda: open('probe', 'w').write('x'), 'lock memory': lambda: libc.mlock(bytes(8192), 8192) == 0,
    'queue': lambda: libc.msgget(0, 0o600) >= 0,
}.items()), sep=',')
"""


class Finding(NamedTuple):
    """What did not hold.

    Attributes:
        kind: in a few words, to count by.
        detail: in more.
    """

    kind: str
    detail: str


class Try(NamedTuple):
    """One try.

    Attributes:
        what: the script or the files.
        findings: what did not hold.
        outcome: how it went otherwise, to count by; several by comma.
    """

    what: object
    findings: list[Finding]
    outcome: str


class Gradings:
    """Grades submissions that repair nothing: none may be paid, and each has a verdict.

    Args:
        task: what they are submitted to.
        place: where.
    """

    def __init__(self, task: RepairTask, place: str) -> None:
        self._task = task
        self._open = open_at(place)
        self._grader = Grader(self._open, case_timeout_s=2.0)
        # a submission that passes every test in time pays for all runs
        self._slow_s = _SLOW_S + (self._grader.rounds * task.suite.timeout_s if task.suite else 0.0)

    def run(self, rng: random.Random) -> Try:
        """Grades one submission."""
        files = draw_submission(rng)
        began = time.monotonic()
        try:
            with closing(self._open(spec_of(self._task))) as sandbox:
                sandbox.upload(files)
                submission = collect_submission(sandbox, self._task)
            grade = self._grader.grade(self._task, submission)
        except Exception as error:  # noqa: BLE001  whatever it is, it is no verdict
            return Try(files, [Finding("no verdict", f"{type(error).__name__}: {error}")], "no verdict")
        findings = list[Finding]()
        if (took := time.monotonic() - began) > self._slow_s:
            findings.append(Finding("slow", f"its verdict took {took:.0f} s"))
        if grade.solved and not self._is_repair(files):
            findings.append(Finding("paid", f"{grade}"))
        outcome = (
            "solved" if grade.solved else "blamed" if grade.blamed else "tampered" if grade.tampered else "refused"
        )
        return Try(files, findings, outcome)

    def _is_repair(self, files: dict[str, str]) -> bool:
        """Whether it answers right what nobody asked: mutations may repair by accident."""
        with closing(self._open(spec_of(self._task))) as sandbox:
            sandbox.upload(files)
            return sandbox.exec(["python3", "-c", _ORACLE], timeout_s=5).stdout.endswith(_RIGHT)

    def close(self) -> None:
        """Has nothing to free."""


class Scripts:
    """Runs random scripts in one sandbox, beside a sibling: neither it, nor the host, nor the next state may feel them.

    Args:
        place: where.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._open = opener(place)
        self._sibling = self._open(limits=_LIMITS, base={"kept": "k"})
        self._expected = self._ask_sibling()
        self._host = _host_state(self._shares_files)
        self._box = self._fresh()

    @property
    def _shares_files(self) -> bool:
        return "shown_files" in self._sibling.isolation.missing

    def _fresh(self) -> GuestSandbox:
        box = self._open(limits=_LIMITS, base={"kept": "k"})
        self._before = box.snapshot()
        box.restore(self._before)
        self._seen = box.exec(_LOOK).stdout
        box.restore(self._before)
        return box

    def run(self, rng: random.Random) -> Try:
        """Runs one random script."""
        return self.run_script(random_script(rng))

    def run_script(self, script: str) -> Try:
        """Runs a script, which follows `HEAD`."""
        findings = list[Finding]()
        outcomes: list[str] = []
        thread = threading.Thread(target=lambda: outcomes.append(self._exec(script)))
        began = time.monotonic()
        thread.start()
        try:
            while thread.is_alive():
                findings += self._felt()
                thread.join(0.2)
        finally:
            thread.join()
        findings += self._after(outcomes[0])
        if (took := time.monotonic() - began) > _SLOW_S:
            findings.append(Finding("slow", f"it took {took:.0f} s"))
        if findings:
            with suppress(AgentEnvError):
                self._box.close()
            self._box = self._fresh()
        return Try(script, list(dict.fromkeys(findings)), outcomes[0].partition(":")[0])

    def _exec(self, script: str) -> str:
        try:
            result = self._box.exec(["/usr/bin/python3", "-c", HEAD + script], timeout_s=_SCRIPT_S)
        except SandboxLost as error:
            return f"lost: {error}"
        except Exception as error:  # noqa: BLE001  whatever it is, it is a finding
            return f"error: {type(error).__name__}: {error}"
        return "out of memory" if result.oom else "out of time" if result.timed_out else "ended"

    def _felt(self) -> Iterator[Finding]:
        try:
            seen = self._ask_sibling()
        except AgentEnvError as error:
            seen = f"{type(error).__name__}: {error}"
        if seen != self._expected:
            yield Finding("a sibling feels it", f"{self._expected!r}, then {seen!r}")
        host = _host_state(self._shares_files)
        if host != self._host:
            yield Finding("the host feels it", f"{self._host}, then {host}")

    def _ask_sibling(self) -> str:
        result = self._sibling.exec(["/usr/bin/python3", "-c", _PROBE])
        return f"{result.exit_code} {result.stdout}{result.stderr}"

    def _after(self, outcome: str) -> Iterator[Finding]:
        """Goes on as an environment would: snapshot, fork, restore, and looks at what is there then."""
        if outcome.startswith("error"):
            yield Finding("an error of no kind", outcome)
        if not outcome.startswith("lost"):
            try:
                state = self._box.snapshot()
                (child,) = self._box.fork(1)
                with child:
                    here, there = (box.exec("echo alive").stdout for box in (self._box, child))
                    if here != there:
                        yield Finding("a fork does not work", f"{here!r}, in the fork {there!r}")
                    if child.snapshot().content_id != state.content_id:
                        yield Finding("a fork differs", f"{child.changes(state)[:3]}")
            except AgentEnvError as error:
                yield Finding("no snapshot", f"{type(error).__name__}: {error}")
        try:
            self._box.restore(self._before)
            seen = self._box.exec(_LOOK).stdout
            if seen != self._seen and self._place != "process":
                yield Finding("outlives a restore", _first_difference(self._seen, seen))
            self._box.restore(self._before)
            if changes := self._box.changes(self._before):
                yield Finding("files outlive a restore", f"{changes[:3]}")
        except AgentEnvError as error:
            yield Finding("no restore", f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Ends both sandboxes."""
        self._box.close()
        self._sibling.close()


def _first_difference(old: str, new: str) -> str:
    for left, right in zip(old.splitlines(), new.splitlines(), strict=False):
        if left != right:
            return f"{left!r}, then {right!r}"
    return f"{len(old)} bytes, then {len(new)}"


def _host_state(shares_files: bool) -> str:
    """Returns what works on the host, of what the kernel counts by user or for the machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    actions: dict[str, Callable[[], object]] = {
        "inotify": lambda: os.close(libc.inotify_init()),
        "timer": lambda: _timer(libc),
        "asynchronous I/O": lambda: _io_context(libc),
        "terminal": lambda: [os.close(fd) for fd in os.openpty()],
        "in flight": _in_flight,
        "pipe": _great_pipe,
        "shared memory": lambda: mmap.mmap(-1, 1 << 20).close(),
    }
    if not shares_files:
        actions["flock"] = lambda: _lock("/usr/bin/env")
    failed: list[str] = []
    for name, action in actions.items():
        try:
            action()
        except OSError as error:
            failed.append(f"{name}: {error.strerror}")
    return ", ".join(failed) or "all works"


def _timer(libc: ctypes.CDLL) -> None:
    number = ctypes.c_int()
    if libc.syscall(222, 1, 0, ctypes.byref(number)):
        raise OSError(ctypes.get_errno(), "timer_create")
    libc.syscall(226, number)


def _io_context(libc: ctypes.CDLL) -> None:
    context = ctypes.c_ulong()
    if libc.syscall(206, 100, ctypes.byref(context)):
        raise OSError(ctypes.get_errno(), "io_setup")
    libc.syscall(207, context)


def _in_flight() -> None:
    one, other = socket.socketpair()
    with one, other, Path("/dev/null").open("rb") as null:
        socket.send_fds(one, [b"x"], [null.fileno()] * 100)


def _great_pipe() -> None:
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, 1031, 1 << 18)
    finally:
        os.close(reader)
        os.close(writer)


def _lock(path: str) -> None:
    with Path(path).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def held_by_us() -> dict[str, int]:
    """Returns how many descriptors and children this process has, and how many control groups are named after it."""
    ours = re.compile(rf"agentenv-.*-{os.getpid()}-")
    groups = [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names if ours.match(name)]  # others' may go
    children = sum(len((task / "children").read_text().split()) for task in Path("/proc/self/task").iterdir())
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": children,
        "control groups": len(groups),
    }


def answers(place: str) -> bool:
    """Whether sandboxes can be opened at a place; says why not."""
    try:
        opener(place)().close()
    except (AgentEnvError, ImportError) as error:
        sys.stderr.write(f"{place} is left out: {error}\n")
        return False
    return True


def tasks() -> dict[str, RepairTask]:
    """Returns the tasks that submissions are graded with.

    A single test, or a program, asks for values that stand in no cheat: one of those would be right by chance.
    """
    cases, given = data("cheats").TASK, data("suite_task")
    tests = given.HIDDEN.replace("[10, 20]", "[11, 20.5]").replace("[30]", "[31.5]").replace("36.0", "37.8")
    files = {**given.ONE.suite.files, "tests/test_prices.py": tests.encode()}
    one = given.ONE.model_copy(update={"suite": given.ONE.suite.model_copy(update={"files": files})})
    reference = data("cheats").RIGHT.replace("from shop.rates import RATES", f"RATES = {_RATES}")
    program = TestProgram(program=_PROGRAM, function="total", reference=reference)
    programs = cases.model_copy(update={"id": "program", "hidden": (), "program": program})
    return {"cases": cases, "suite": given.TASK, "one test": one, "program": programs}
