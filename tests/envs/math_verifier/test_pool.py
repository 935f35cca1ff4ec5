"""The worker pool: limits, replacement, threads, forks, and no process left behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentenv.envs.math_verifier import RequestError, WorkerPool
from agentenv.envs.math_verifier.pool import _Channel
from agentenv.errors import InfrastructureError, VerifierError

HANG = {"op": "verify", "gold": ["number", "72"], "answer": ["latex", "9^{9^{9^9}}"]}
RIGHT = {"op": "verify", "gold": ["latex", "72"], "answer": ["latex", "72"]}
WRONG = {"op": "verify", "gold": ["latex", "72"], "answer": ["latex", "73"]}


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(workers=2, cpu_limit_s=1.0) as pool:
        yield pool


def children(pid):
    """Process ids of the running children of a process, from the kernel's tables."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def alive(pids):
    found = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found


def wait_until_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive(pids)


def family(pool) -> list[int]:
    """The keeper and its workers."""
    return [pool.process_id, *children(pool.process_id)]


def test_verdicts(pool):
    assert pool.call(RIGHT)["right"] is True
    assert pool.call(WRONG)["right"] is False


def test_an_overrun_is_killed_and_replaced_at_once(pool):
    pool.call(RIGHT)
    workers = set(children(pool.process_id))
    start = time.monotonic()
    with pytest.raises(RequestError, match="more processor time than allowed"):
        pool.call(HANG)
    took = time.monotonic() - start
    assert took < 10  # one second of processor time, whatever else the machine does
    start = time.monotonic()
    for _ in range(4):
        assert pool.call(RIGHT)["right"] is True
    assert time.monotonic() - start < 3
    assert len(set(children(pool.process_id)) - workers) == 1
    assert len(children(pool.process_id)) == 2


def test_memory_is_bounded():
    terms = ["+", "x", ["+", "y", ["+", "z", ["+", "w", "v"]]]]
    power = ["expand", ["^", terms, ["number", "60", "1"]]]  # half a million terms
    with WorkerPool(workers=1, cpu_limit_s=30.0, memory_bytes=100 << 20) as pool:
        assert pool.call(RIGHT)["right"] is True
        with pytest.raises(RequestError, match="memory"):
            pool.call({"op": "evaluate", "tree": power})
        assert pool.call(RIGHT)["right"] is True


def test_a_crash_of_the_answers_making_is_the_answers_fault(pool, monkeypatch):
    """A worker that dies of a segmentation fault, and not at a good request: it is refused, and the pool goes on."""
    stop, shooting, check, checked = threading.Event(), threading.Lock(), pool._check, []

    def shoot():
        while not stop.is_set():
            with shooting:
                for worker in children(pool.process_id):
                    with_no_error(os.kill, worker, signal.SIGSEGV)
            time.sleep(0.02)

    def unharmed():
        with shooting:
            checked.append(check())

    monkeypatch.setattr(pool, "_check", unharmed)

    pool.call(RIGHT)
    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        with pytest.raises(RequestError, match=r"breaks the worker \(SIGSEGV\), and another request does not"):
            pool.call(HANG)
    finally:
        stop.set()
        shooter.join()
    assert (len(checked), pool.call(RIGHT)["right"]) == (1, True)


def test_a_worker_that_somebody_kills_once_is_no_verdict(pool):
    """Killed once, the request is repeated."""
    pool.call(RIGHT)
    killed = threading.Timer(0.2, lambda: [os.kill(worker, signal.SIGKILL) for worker in children(pool.process_id)])
    killed.start()
    with pytest.raises(RequestError, match="processor time"):  # the second try ran to its limit
        pool.call(HANG)
    killed.join()
    assert pool.call(RIGHT)["right"] is True


def test_a_request_that_fails_like_every_other_has_no_verdict():
    """The clock cuts off everything, a known good request too."""
    with WorkerPool(workers=1, wall_limit_s=1e-5) as pool:
        with pytest.raises(VerifierError, match="failed twice, last by SIGALRM; a known good request then") as caught:
            pool.call(RIGHT)
        assert isinstance(caught.value, InfrastructureError)


def test_a_death_is_blamed_on_the_request_it_befell(pool):
    """Honest requests right after hostile ones, while idle workers are shot: every verdict is right."""
    stop = threading.Event()

    def shoot():
        while not stop.is_set():
            for worker in children(pool.process_id):
                with_no_error(os.kill, worker, signal.SIGKILL)
            time.sleep(0.15)

    pool.call(RIGHT)
    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        for i in range(60):
            assert pool.call({**RIGHT, "gold": ["latex", str(i)], "answer": ["latex", str(i)]})["right"] is True
            assert pool.call(WRONG)["right"] is False
            time.sleep(0.01)
    finally:
        stop.set()
        shooter.join()


def test_a_worker_killed_before_it_noted_a_request_that_it_had_read_keeps_nobody_waiting():
    """What the keeper writes then names an earlier request, and the socket has nothing for the next worker to read."""
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as lines, ThreadPoolExecutor(1) as executor:
        answer = executor.submit(_Channel(ours).ask, RIGHT, 60.0)
        first = json.loads(next(lines))
        theirs.sendall(b'{"died": "SIGKILL", "id": 0}\n')
        assert json.loads(next(lines)) == first
        theirs.sendall(b'{"right": false, "id": 0}\n{"right": true, "id": 1}\n')
        assert answer.result(60)["right"] is True


def test_a_request_that_kills_whoever_reads_it_is_to_blame(pool):
    """No worker lives to note this one; each death is told at once, none by a timeout."""
    pool.call(RIGHT)
    with pytest.raises(RequestError, match=r"breaks the worker \(exit 1\), and another request does not"):
        pool.call({**RIGHT, "id": -1})
    assert pool.call(RIGHT)["right"] is True


def with_no_error(function, *arguments):
    with contextlib.suppress(ProcessLookupError):
        function(*arguments)


def test_idle_workers_killed_change_no_verdict(pool):
    pool.call(RIGHT)
    for worker in children(pool.process_id):
        os.kill(worker, signal.SIGKILL)
    time.sleep(0.2)
    assert [pool.call(RIGHT)["right"] for _ in range(4)] == [True] * 4


def test_who_overruns_the_clock_alone_is_to_blame():
    """A request that the clock cuts off, while a known good one is answered."""
    with WorkerPool(workers=1, cpu_limit_s=60.0, wall_limit_s=0.3) as pool:
        pool.call(RIGHT)
        with pytest.raises(RequestError, match=r"breaks the worker \(SIGALRM\), and another request does not"):
            pool.call(HANG)
        assert pool.call(RIGHT)["right"] is True


def test_a_stopped_keeper_is_replaced():
    with WorkerPool(workers=1, wall_limit_s=0.2) as pool:
        pool.call(RIGHT)
        first = family(pool)
        for pid in reversed(first):
            os.kill(pid, signal.SIGSTOP)
        assert pool.call(RIGHT)["right"] is True
        assert not set(family(pool)) & set(first)
        assert wait_until_gone(first, 10) == []


def test_a_killed_keeper_is_replaced(pool):
    pool.call(RIGHT)
    first = family(pool)
    os.kill(first[0], signal.SIGKILL)
    deadline = time.monotonic() + 10  # the death is not noticed in the same instant
    while pool.process_id == first[0] and time.monotonic() < deadline:
        assert pool.call(RIGHT)["right"] is True
    assert pool.process_id != first[0]
    assert pool.call(RIGHT)["right"] is True
    assert wait_until_gone(first, 5) == []  # workers die with their keeper


def test_many_threads_share_two_workers(pool):
    def ask(i):
        return pool.call({"op": "verify", "gold": ["latex", str(i)], "answer": ["latex", str(i if i % 3 else i + 1)]})[
            "right"
        ]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(300))) == [bool(i % 3) for i in range(300)]


def test_close_ends_everything_and_the_next_request_starts_anew():
    pool = WorkerPool(workers=2)
    assert pool.process_id is None  # nothing runs before the first request
    pool.call(RIGHT)
    pids = family(pool)
    assert len(pids) == 3
    pool.close()
    pool.close()
    assert wait_until_gone(pids, 5) == []
    assert pool.process_id is None
    assert pool.call(RIGHT)["right"] is True
    pids = family(pool)
    del pool  # collected, so closed
    assert wait_until_gone(pids, 5) == []


def test_a_pool_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with WorkerPool(workers=1) as pool, pytest.raises(VerifierError, match=r"cannot start.*nowhere"):
        pool.call(RIGHT)


def test_workers_that_cannot_start_are_reported(monkeypatch, tmp_path):
    """A machine that does not let processes limit themselves."""
    (tmp_path / "sitecustomize.py").write_text("import resource\ndel resource.setrlimit\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerPool(workers=2) as pool, pytest.raises(VerifierError, match="a worker cannot start"):
        pool.call(RIGHT)


def test_a_missing_parser_is_reported(monkeypatch, tmp_path):
    (tmp_path / "latex2sympy2_extended.py").write_text("raise ImportError('broken on purpose')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerPool(workers=1) as pool, pytest.raises(VerifierError, match="ImportError: broken on purpose"):
        pool.call(RIGHT)


@pytest.mark.parametrize("option", ["workers", "cpu_limit_s", "wall_limit_s", "memory_bytes"])
def test_options_must_be_positive(option):
    with pytest.raises(ValueError, match=f"{option} must be positive, got 0"):
        WorkerPool(**{option: 0})


PARENT = """
import os, sys, threading, time
from agentenv.envs.math_verifier import MathVerifier, WorkerPool, shared_verifier
pool = shared_verifier().pool
assert "sympy" not in sys.modules and "math_verify" not in sys.modules
thread = threading.Thread(target=lambda: shared_verifier().check("x+1", "1+x") or os._exit(1))
thread.start(); thread.join()
assert "sympy" not in sys.modules and "math_verify" not in sys.modules
hang = threading.Thread(target=lambda: shared_verifier().check("72", "9**9**9**9"), daemon=True)
hang.start(); time.sleep(0.3)
HOW
print(pool.process_id, flush=True)
time.sleep(60)
"""
FORKED_HOLDER = """
if os.fork() == 0:
    time.sleep(5); os._exit(0)
"""


@pytest.mark.parametrize("how", ["", FORKED_HOLDER], ids=["alone", "with a forked child that holds the sockets"])
def test_nothing_survives_a_parent_that_is_killed(how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT.replace("HOW", how)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    keeper = int(parent.stdout.readline())
    pids = [keeper, *children(keeper)]
    assert len(pids) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert wait_until_gone(pids, 4) == []


FORKS = """
import multiprocessing, os, sys, threading
from agentenv.envs.math_verifier import shared_verifier
def ask(_):
    verifier = shared_verifier()
    before = verifier.pool.process_id
    right = verifier.check("x+2", "2+x") and verifier.check("x+3", "3+x") and not verifier.check("x+1", "x+2")
    return right, before, verifier.pool.process_id, os.getpid()
if __name__ == "__main__":
    verifier = shared_verifier()
    assert verifier.check("x+1", "1+x")
    stop = threading.Event()
    def busy():  # other threads use the pool, and hold its lock, while the process forks
        i = 0
        while not stop.is_set():
            i += 1; assert verifier.check("x+1", f"x+1+{i}-{i}") is True
    threads = [threading.Thread(target=busy) for _ in range(3)]
    [t.start() for t in threads]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as processes:
        answers = processes.map(ask, range(8), chunksize=1)
    stop.set(); [t.join() for t in threads]
    assert all(right for right, *_ in answers), answers
    assert verifier.pool.process_id not in {keeper for _, _, keeper, _ in answers}
    assert verifier.check("x+1", "1+x+0")
    print("good")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_child_processes_have_a_pool_of_their_own(method, tmp_path):
    program = tmp_path / "forks.py"
    program.write_text(FORKS)
    done = subprocess.run([sys.executable, str(program), method], check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr
