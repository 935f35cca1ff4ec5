# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportPossiblyUnboundVariable=false
"""Nothing is left behind, and nothing else breaks: after close, kill, crash, garbage collection and fork."""

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandbox_backends import opener, skip_without

from agentenv.errors import SandboxError
from agentenv.sandboxes import SandboxSpec, collect_garbage, open_sandbox
from agentenv.sandboxes.cgroups import find_controllers, owner_lives, owner_tag
from agentenv.sandboxes.namespace_host import namespace_host_for, pid_of

MARK = "314159265"


def running(mark):
    """Pids of processes, of any namespace, whose command line has `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark in (folder / "cmdline").read_text():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def groups():
    return [
        folder for parent in set(find_controllers().values()) for folder in parent.glob(f"agentenv-{owner_tag()}-*")
    ]


def census():
    """What must not grow: descriptors, children, control groups, mounts of this process."""
    gc.collect()
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "layers" in line]
    descendants = subprocess.run(["pgrep", "-c", "-P", str(os.getpid())], capture_output=True, check=False).stdout
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        descendants,
        len(groups()),
        mounts,
    )


def keeper_layers():
    """How many layers the helper holds: it has one mount for each."""
    pid = namespace_host_for(())._process.pid
    return Path(f"/proc/{pid}/mounts").read_text().count("/layers/")


def test_cycles_leak_nothing():
    open_sandbox(backend="namespace").close()
    before, layers = census(), keeper_layers()
    for _ in range(60):
        with open_sandbox(SandboxSpec(base={"a": "1"}), backend="namespace") as box:
            box.exec("echo x > f")
            box.snapshot()
    del box
    assert census() == before
    namespace_host_for(()).ask({"op": "drop"})
    assert keeper_layers() == layers


def test_a_forgotten_sandbox_is_freed():
    open_sandbox(backend="namespace").close()
    before = census()
    box = open_sandbox(backend="namespace")
    pid = pid_of(box._held.pidfd)
    assert Path(f"/proc/{pid}").exists()
    del box
    assert census() == before
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize(
    "backend", ["namespace", pytest.param("docker", marks=pytest.mark.docker), "process", "subprocess"]
)
def test_killing_the_parent_leaves_nothing_running(backend):
    skip_without(backend)
    mark = f"{MARK}{os.getpid()}"
    code = (
        "from agentenv.sandboxes import open_sandbox\n"
        f"box = open_sandbox(backend={backend!r}, require='none')\n"
        f"box.shell().run('sleep {mark} & disown')\n"
        "print('ready', flush=True)\n"
        "__import__('time').sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    started = wait_until(lambda: [pid for pid in running(mark) if pid != parent.pid])
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert started, "the background process did not start"
    assert wait_until(lambda: not running(mark)), running(mark)
    wait_until(lambda: not collect_garbage(), 3)
    tag = f"agentenv-{owner_tag(parent.pid)}"
    left = [folder for folder in set(find_controllers().values()) if list(folder.glob(f"{tag}*"))]
    assert not left


@pytest.mark.parametrize(
    "backend", ["namespace", pytest.param("docker", marks=pytest.mark.docker), "process", "subprocess"]
)
def test_killing_the_parent_in_the_middle_of_a_command(backend):
    skip_without(backend)
    mark = f"{MARK}7{os.getpid()}"
    code = (
        "from agentenv.sandboxes import open_sandbox\n"
        f"open_sandbox(backend={backend!r}, require='none').exec(['sleep', '{mark}'])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    assert wait_until(lambda: [pid for pid in running(mark) if pid != parent.pid], 20)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not running(mark))


def test_a_sandbox_killed_from_outside_is_an_error_and_nothing_more():
    with open_sandbox(backend="namespace") as box, open_sandbox(backend="namespace") as other:
        kept = box.snapshot()
        os.kill(pid_of(box._held.pidfd), signal.SIGKILL)
        with pytest.raises(SandboxError, match="guest died"):
            box.exec("true")
        with pytest.raises(SandboxError, match="cannot be used: its guest died"):
            box.read("f")
        other.restore(kept)
        assert other.exec("echo alive").stdout == "alive\n"


def test_a_sandbox_killed_in_the_middle_of_a_command():
    with open_sandbox(backend="namespace") as box, ThreadPoolExecutor() as pool:
        pid = pid_of(box._held.pidfd)
        future = pool.submit(box.exec, "sleep 60")
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="guest died"):
            future.result(10)


def test_a_killed_helper_breaks_its_sandboxes_and_is_replaced():
    box = open_sandbox(backend="namespace")
    namespace_host_for(())._process.kill()
    assert wait_until(lambda: not namespace_host_for(()) or namespace_host_for(()).alive)
    with pytest.raises(SandboxError):
        for _ in range(100):
            box.exec("true")
            time.sleep(0.05)
    box.close()
    with open_sandbox(backend="namespace") as fresh:
        assert fresh.exec("echo new").stdout == "new\n"


def test_a_forked_process_has_sandboxes_of_its_own():
    code = (
        "import os\n"
        "from agentenv.sandboxes import open_sandbox\n"
        "box = open_sandbox(backend='namespace')\n"
        "pid = os.fork()\n"
        "with open_sandbox(backend='namespace') as own: print(own.exec('echo own').stdout, end='', flush=True)\n"
        "if pid == 0: os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(box.exec('echo old').stdout, end='')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout == "own\nown\nold\n", result


def test_64_forks_run_at_once_without_seeing_each_other():
    with open_sandbox(backend="namespace") as box, ThreadPoolExecutor(8) as pool:
        box.write("shared", "start")
        children = box.fork(64)
        try:

            def work(number):
                child = children[number]
                child.exec(f"echo {number} >> shared; echo {number} > /tmp/own; sleep 0.05")
                return child.exec("cat shared /tmp/own; ls / | wc -l").stdout.split()[:2]

            assert list(pool.map(work, range(64))) == [[f"start{number}", str(number)] for number in range(64)]
        finally:
            for child in children:
                child.close()
        assert box.read("shared") == b"start"


def test_a_failed_fork_is_reported_per_child(monkeypatch):
    with open_sandbox(backend="namespace") as box:
        opened = type(box)._open
        turns = iter([True, False, True, True, False])

        def sometimes(self, origin):
            if next(turns):
                return opened(self, origin)
            why = "no room"
            raise SandboxError(why)

        monkeypatch.setattr(type(box), "_open", sometimes)
        children = box.fork_each(3)
        assert [isinstance(child, SandboxError) for child in children] == [False, True, False]
        assert children[2].exec("echo ok").stdout == "ok\n"
        for child in children[::2]:
            child.close()
        with pytest.raises(SandboxError, match="1 of 2 forks failed, the first with: no room"):
            box.fork(2)


def test_owner_tags():
    assert owner_lives(owner_tag())
    ended = subprocess.Popen(["sleep", "60"])
    tag = owner_tag(ended.pid)
    assert owner_lives(tag)
    ended.kill()
    ended.wait()
    assert not owner_lives(tag)
    place = owner_tag().partition("-")[0]
    assert not owner_lives(f"{place}-{os.getpid()}-1"), "a pid used again is another owner"
    assert owner_lives("another00-1-1"), "what runs elsewhere cannot be known to be dead"


def test_garbage_of_dead_owners_is_removed():
    ended = subprocess.Popen(["true"])
    tag = owner_tag(ended.pid)
    ended.wait()
    made = [parent / f"agentenv-{tag}-0" for parent in set(find_controllers().values())]
    mine = [parent / f"agentenv-{owner_tag()}-999999" for parent in set(find_controllers().values())]
    for folder in made + mine:
        folder.mkdir()
    try:
        removed = collect_garbage()
        assert not any(folder.exists() for folder in made)
        assert all(folder.exists() for folder in mine)
        assert {f"cgroup {folder}" for folder in made} <= set(removed)
    finally:
        for folder in mine:
            folder.rmdir()


@pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")
def test_subprocess_folders_of_dead_owners_are_removed():
    code = (
        "import os, signal, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from agentenv.sandboxes import open_sandbox\n"
        "box = open_sandbox(backend='subprocess', require='none')\n"
        "print(box._folder, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    folder = Path(killed.stdout.strip())
    assert folder.name.startswith("agentenv-folder-")
    with opener("subprocess")():
        assert not folder.exists()


@pytest.mark.docker
def test_no_socket_is_left_of_an_engine_that_does_not_answer(tmp_path):
    """Neither where nobody listens nor where nothing is: a warning would befall whatever test comes next."""
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    for path, why in ((stale, "Connection refused"), (tmp_path / "none.sock", "No such file")):
        with pytest.raises(SandboxError, match=rf"no container engine answers \(unix://{path}: .*{why}"):
            open_sandbox(backend="docker", engine=f"unix://{path}")
        gc.collect()
