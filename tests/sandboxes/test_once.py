"""What belongs to one process stays its own: forked children free nothing, and threads compute a thing once."""

import gc
import inspect
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sandbox_backends import marks, opener, skip_without

from agentenv.errors import SandboxError
from agentenv.sandboxes import cgroups, open_sandbox
from agentenv.sandboxes.once import finalize_here, once

PLACES = [pytest.param(p, marks=marks(p)) for p in ("namespace", "docker", "gvisor", "process", "subprocess")]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("place", PLACES)
def test_a_forked_child_takes_nothing_from_its_parent(place):
    skip_without(place)
    sandbox = opener(place)()
    pid = os.fork()
    if not pid:
        try:
            del sandbox
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with sandbox:
        assert sandbox.exec("echo here").stdout == "here\n"


def test_finalizers_run_where_they_were_made():
    class Thing:
        pass

    thing, freed = Thing(), []
    finalize_here(thing, freed.append, 1)
    del thing
    gc.collect()
    assert freed == [1]


def test_a_result_is_computed_once_by_any_number_of_threads():
    calls = []

    @once
    def slow(x):
        calls.append(x)
        time.sleep(0.05)
        return object()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(slow, [1] * 8))) == 1
    assert calls == [1]
    assert slow(2) is not slow(1)
    assert calls == [1, 2]


def test_every_thread_finds_the_same_controllers():
    expected = cgroups.find_controllers()
    barrier = threading.Barrier(4)

    def find(_):
        barrier.wait()
        return inspect.unwrap(cgroups.find_controllers)()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(find, range(4))) == [expected] * 4


@pytest.mark.kernel
@pytest.mark.skipif(not cgroups.find_controllers(), reason="no control groups can be made here")
def test_a_sandbox_that_cannot_join_its_control_groups_runs_nothing(monkeypatch):
    monkeypatch.setattr(cgroups.Cgroup, "open_members", lambda self: [os.open("/dev/full", os.O_WRONLY)])
    with open_sandbox(backend="namespace") as sandbox, pytest.raises(SandboxError, match="could not join its control"):
        sandbox.exec("true")


def test_a_process_without_standard_descriptors_opens_sandboxes():
    code = (
        "import sys; from agentenv.sandboxes import open_sandbox\n"
        "with open_sandbox(backend='namespace') as box: sys.stderr.write(box.exec('echo here').stdout)\n"
    )
    argv = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", code]
    assert subprocess.run(argv, stderr=subprocess.PIPE, check=False).stderr == b"here\n"
