# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportPossiblyUnboundVariable=false
# pyright: reportArgumentType=false
"""The gvisor back end: snapshots with running processes, their branches, and that nothing of them is left."""

import contextlib
import gc
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandbox_backends import opener, skip_without

from agentenv.errors import SandboxError, SnapshotError, WorkspaceError
from agentenv.protocols import Fidelity
from agentenv.sandboxes import Limits, SandboxSpec, collect_garbage, open_sandbox
from agentenv.sandboxes.cgroups import find_controllers, owner_tag
from agentenv.sandboxes.guest.gvisor_helper import IMAGES
from agentenv.sandboxes.guest.root import ROOT
from agentenv.sandboxes.gvisor_host import gvisor_host_for
from agentenv.sandboxes.namespace_host import pid_of
from agentenv.sandboxes.snapshots import ProcessSnapshot

pytestmark = pytest.mark.docker
COUNT = "(while true; do n=$((n+1)); echo $n > tick; sleep 0.02; done) > /dev/null 2>&1 & disown"
PYTHON = """
coproc python3 -iqu 2> /dev/null
say() { echo "$1" >&${COPROC[1]}; read -r -u ${COPROC[0]} line; echo $line; }
"""


@pytest.fixture(autouse=True)
def engine():
    """Fails, or skips, where there is no runsc."""
    skip_without("gvisor")


@pytest.fixture
def box():
    """An empty sandbox."""
    with opener("gvisor")() as sandbox:
        yield sandbox


def tick(sandbox):
    """Returns the counter; 0 before it is there, or while it is being written."""
    try:
        return int(sandbox.read("tick") or 0)
    except WorkspaceError:
        return 0


def moves_on(sandbox, since):
    deadline = time.monotonic() + 10
    while tick(sandbox) <= since:
        if time.monotonic() > deadline:
            return False
    return True


def children_of(pid):
    """Every process below one, by pid, with its command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
                found |= children_of(int(folder.name))
    return found


def groups(pid=None):
    tag = owner_tag(pid)
    return [group for parent in set(find_controllers().values()) for group in parent.glob(f"agentenv-{tag}-*")]


def census():
    """What must not grow: descriptors, processes below this one, control groups, mounts, images."""
    gc.collect()
    host = gvisor_host_for(())
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        sum("runsc" in line or "[exe]" in line for line in children_of(os.getpid()).values()),
        len(groups()),
        [line for line in Path("/proc/self/mounts").read_text().splitlines() if ROOT in line or IMAGES in line],
        Path(f"/proc/{helper()}/mounts").read_text().count("\n"),
        list(Path(f"/proc/self/fd/{host._folder}").iterdir()),
        host.held,
    )


def helper():
    """The pid of what holds all sandboxes of this process."""
    (pid,) = (
        pid for pid, line in children_of(gvisor_host_for(())._process.pid).items() if "guest.gvisor_helper" in line
    )
    return pid


def test_jobs_go_on_in_every_branch(box):
    box.shell().run(COUNT)
    assert moves_on(box, 3)
    snapshot = box.snapshot(processes=True)
    taken = snapshot.entries["workspace/tick"]
    children = [*box.fork(2, processes=True), open_sandbox(SandboxSpec(base=snapshot), backend="gvisor")]
    try:
        for child in children:
            first = tick(child)
            assert moves_on(child, first)
        assert moves_on(box, tick(box)), "the original stands still"
        children[0].shell().close()
        still = children[0].read("tick")
        assert moves_on(children[1], tick(children[1])), "siblings share their processes"
        assert children[0].read("tick") == still, "closing the shell left the counter running"
    finally:
        for child in children:
            child.close()
    assert snapshot.entries["workspace/tick"] == taken


def test_a_shell_and_its_interpreter_go_on_in_each_branch_on_its_own(box):
    shell = box.shell()
    shell.run("X=5; cd /tmp; twice() { echo $(($1 * 2)); }; echo kept > /tmp/f; " + PYTHON)
    assert shell.run("say 'import random; r = random.Random(1); x = [41]; print(r.random())'").stdout
    left, right = box.fork(2, processes=True)
    with left, right:
        one, other = left.shell(), right.shell()
        for child in (one, other):
            assert child.run("pwd; twice $X; cat f").stdout == "/tmp\n10\nkept\n"
            assert child.run("say 'x.append(len(x)); print(x)'").stdout == "[41, 1]\n"
        one.run("X=left; say 'x.clear(); print()'")
        assert other.run("echo $X; say 'print(x)'").stdout == "5\n[41, 1]\n"
        drawn = [child.run("say 'print(r.random())'; echo $RANDOM").stdout for child in (shell, one, other)]
        assert len(set(drawn)) == 1, "random generators go on from the same state"


SERVER = """
import socketserver
class Count(socketserver.StreamRequestHandler):
    count = 0
    def handle(self):
        Count.count += 1
        self.wfile.write(b"%d\\n" % Count.count)
server = socketserver.TCPServer(("127.0.0.1", 8000), Count)
open("listening", "w").close()
server.serve_forever()
"""
ASK = "exec 5<>/dev/tcp/127.0.0.1/8000; read -r count <&5; exec 5>&-; echo $count"


def test_a_server_goes_on_serving_in_each_branch(box):
    box.write("server.py", SERVER)
    shell = box.shell()
    shell.run("python3 server.py > /dev/null 2>&1 &\nwhile [ ! -e listening ]; do sleep 0.02; done")
    assert shell.run(ASK).stdout == "1\n"
    left, right = box.fork(2, processes=True)
    with left, right:
        assert "Running" in left.shell().run("jobs").stdout
        assert [left._shell.run(ASK).stdout for _ in range(3)] == ["2\n", "3\n", "4\n"]
        assert right.shell().run(ASK).stdout == "2\n"
        assert shell.run(ASK).stdout == "2\n"


def test_a_branch_of_a_branch_of_a_branch():
    generations = [opener("gvisor")()]
    try:
        generations[0].shell().run("way=root; " + PYTHON)
        for number in range(3):
            (child,) = generations[-1].fork(1, processes=True)
            generations.append(child)
            child.shell().run(f"way=$way/{number}; say 'way = \"'$way'\"; print()'")
            child.write(f"at{number}", "")
        last = generations[-1]._shell
        assert last.run("echo $way; say 'print(way)'; ls /workspace").stdout.split() == [
            *("root/0/1/2", "root/0/1/2"),
            *("at0", "at1", "at2"),
        ]
        assert generations[1]._shell.run("echo $way; ls /workspace").stdout == "root/0\nat0\n"
    finally:
        for sandbox in generations:
            sandbox.close()


def test_one_snapshot_is_restored_many_times_at_once(box):
    box.shell().run("X=1; " + COUNT)
    assert moves_on(box, 2)
    snapshot = box.snapshot(processes=True)
    others = [opener("gvisor")() for _ in range(3)]

    def work(number):
        sandbox = others[number % 3]
        sandbox.restore(snapshot)
        shell = sandbox.shell()
        result = shell.run(f"X=$((X + {number})); echo $X").stdout
        return result, moves_on(sandbox, tick(sandbox))

    try:
        with ThreadPoolExecutor(3) as pool:
            for turn in range(0, 6, 3):
                assert list(pool.map(work, range(turn, turn + 3))) == [
                    (f"{1 + number}\n", True) for number in range(turn, turn + 3)
                ]
    finally:
        for sandbox in others:
            sandbox.close()


def test_restore_brings_back_files_and_processes_and_outlives_its_sandbox():
    box, other = opener("gvisor")(), opener("gvisor")()
    with box, other:
        box.write("f", "then")
        shell = box.shell()
        shell.run("X=then")
        snapshot = box.snapshot(processes=True)
        plain = box.snapshot()
        assert snapshot.content_id == plain.content_id
        assert (snapshot.fidelity, plain.fidelity) == (Fidelity.LOCAL, Fidelity.PORTABLE)
        shell.run("X=now; echo now > f; sleep 314 & disown")
        assert [change.path for change in box.changes(snapshot)] == ["f"]
        box.restore(snapshot)
        with pytest.raises(SandboxError, match="this shell has ended"):
            shell.run("true")
        with pytest.raises(SandboxError, match="a shell is open"):
            box.exec("true")
        assert box.shell().run("echo $X; cat f; pgrep -c sleep").stdout == "then\nthen0\n"
        with pytest.raises(SandboxError, match="open in this sandbox already"):
            box.shell()
        box.close()
        other.restore(snapshot)
        with other.shell() as found:
            assert found.run("echo $X; cat f").stdout == "then\nthen"
        assert other.exec("cat f").stdout == "then"
        other.restore(snapshot)
        other.restore(plain)
        assert other.exec("cat f; pgrep -c bash").stdout == "then0\n", "files alone bring no processes back"


def test_a_snapshot_without_a_shell_and_the_limits_of_its_branches():
    limits = Limits(memory=96 << 20, processes=20, disk=8 << 20, time_s=30)
    with opener("gvisor")(limits=limits, base={"big": b"x" * (6 << 20)}) as box:
        box.write("f", "1")
        (child,) = box.fork(1, processes=True)
        (grandchild,) = child.fork(1)
        with child, grandchild:
            for sandbox in (child, grandchild):
                assert sandbox.exec("cat f").stdout == "1"
                hog = sandbox.exec(["python3", "-c", "b = []\nfor _ in range(300): b.append(bytes(range(256)) * 4096)"])
                assert hog.oom
                assert sandbox.exec("for i in $(seq 40); do sleep 1 & done").exit_code
                assert sandbox.exec("head -c 5000000 /dev/zero > a").exit_code == 0
                assert sandbox.exec("head -c 5000000 /dev/zero > b").exit_code
                assert "inodes" in sandbox.isolation.missing


def test_files_travel_to_other_back_ends_and_back(box):
    box.exec("mkdir d; echo 1 > d/f; ln -s d/f l; chmod 700 d; echo t > /tmp/t")
    shown = "ls -lR --time-style=+ | grep -v total | cut -c1-10; cat d/f l /tmp/t"
    with open_sandbox(backend="namespace") as other:
        taken = box.snapshot()
        other.restore(pickle.loads(pickle.dumps(taken)))
        assert other.exec(shown).stdout == box.exec(shown).stdout
        assert other.snapshot().content_id == taken.content_id
        other.exec("echo 2 >> d/f")
        box.restore(other.snapshot())
        assert box.exec("cat d/f").stdout == "1\n2\n"
        assert box.snapshot().content_id == other.snapshot().content_id
        box.shell()
        other.restore(box.snapshot(processes=True).files)
        assert other.exec("cat d/f").stdout == "1\n2\n"


def test_wrong_use(box):
    box.shell()
    snapshot = box.snapshot(processes=True)
    with pytest.raises(SnapshotError, match="pickle its `files` instead"):
        pickle.dumps(snapshot)
    assert pickle.loads(pickle.dumps(snapshot.files)).content_id == snapshot.content_id
    with open_sandbox(backend="namespace") as other:
        with pytest.raises(SnapshotError, match=r"NamespaceSandbox cannot restore .* the gvisor back end took"):
            other.restore(snapshot)
        with pytest.raises(SandboxError, match="the gvisor back end can"):
            other.snapshot(processes=True)
        with pytest.raises(SandboxError, match="the gvisor back end can"):
            other.fork(1, processes=True)
        assert other.exec("echo fine").stdout == "fine\n"
    with pytest.raises(SnapshotError, match="NamespaceSandbox cannot restore"):
        open_sandbox(SandboxSpec(base=snapshot), backend="namespace")
    with pytest.raises(SnapshotError, match=r"keep the limits .* open a sandbox with the same spec"):
        open_sandbox(SandboxSpec(base=snapshot, limits=Limits(disk=1 << 20)), backend="gvisor")
    with open_sandbox(SandboxSpec(base=snapshot), require="container") as found:
        assert type(found) is type(box)
    foreign = ProcessSnapshot(snapshot.layers, "other", object(), shell_open=False)
    with pytest.raises(SnapshotError, match=r"GvisorSandbox cannot restore .* the other back end took"):
        box.restore(foreign)
    with pytest.raises(ValueError, match="n must be at least 0"):
        box.fork(-1, processes=True)
    assert box.fork(0, processes=True) == []


def test_a_failed_restore_leaves_the_sandbox_as_it_was(box):
    shell = box.shell()
    shell.run("X=5")
    snapshot = box.snapshot(processes=True)
    before = census()
    os.truncate(snapshot.image.image.path / "checkpoint.img", 100)
    with pytest.raises(SandboxError, match="did not go on from an image"):
        box.restore(snapshot)
    assert shell.run("echo $X").stdout == "5\n"
    failed = box.fork_each(1, processes=True)
    assert failed[0].shell().run("echo $X").stdout == "5\n"
    failed[0].close()
    del failed
    assert census()[:5] == before[:5]


def test_cycles_leak_nothing(box):
    box.shell().run(COUNT)
    (child,) = box.fork(1, processes=True)
    child.close()
    del child
    before = census()
    for _ in range(3):
        snapshot = box.snapshot(processes=True)
        children = box.fork(2, processes=True)
        children[0].restore(snapshot)
        children[0].close()
        del children, snapshot  # one is not closed
    assert census() == before
    assert before[5:] == ([], 0)


def test_images_beyond_the_budget_are_on_disk_and_freed(box, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(gvisor_host_for(()), "budget", 0)
    shell = box.shell()
    shell.run("X=5")
    snapshot = box.snapshot(processes=True)
    assert len(list(tmp_path.iterdir())) == 1
    assert gvisor_host_for(()).held == 0 < snapshot.image.image.size
    box.restore(snapshot)
    assert box.shell().run("echo $X").stdout == "5\n"
    del snapshot
    gc.collect()
    assert list(tmp_path.iterdir()) == []


PIPES = """
import fcntl, os, sys, time
for held in map(int, sys.argv[1:]):
    ends = []
    for _ in range(held * 4):  # of a quarter MiB, all in the kernel's own memory
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 18)
        os.set_blocking(writer, False)
        os.write(writer, bytes(1 << 18))
        ends += reader, writer
    time.sleep(0.2 if held < 110 else 2)
    for end in ends:
        os.close(end)
"""


def test_what_the_kernel_holds_no_more_is_not_counted(box):
    """Its collector frees late: what an earlier command held harms none after it."""
    for _ in range(6):
        result = box.exec(["python3", "-c", PIPES, "100"])
        assert (result.exit_code, result.oom) == (0, False), result
        assert box.exec("echo alive").stdout == "alive\n"


def test_what_the_kernel_holds_is_counted(box):
    assert box.exec(["python3", "-c", PIPES, "120"]).exit_code == 0
    result = box.exec(["sh", "-c", 'for i in 1 2 3; do python3 -c "$0" 115 & done; wait', PIPES])
    assert result.oom, result
    assert box.exec("echo alive").stdout == "alive\n"


def test_killed_from_outside(box):
    snapshot = box.snapshot(processes=True)
    before = census()
    with opener("gvisor")() as other, ThreadPoolExecutor() as pool:
        (kernel,) = (
            pid for pid, line in children_of(pid_of(other._held.running.pidfd)).items() if "runsc-sandbox" in line
        )
        future = pool.submit(other.exec, "sleep 60")
        time.sleep(0.3)
        os.kill(kernel, signal.SIGKILL)
        with pytest.raises(SandboxError, match="guest died"):
            future.result(10)
        with pytest.raises(SandboxError, match="cannot be used: its guest died"):
            other.snapshot(processes=True)
    assert census() == before
    with open_sandbox(SandboxSpec(base=snapshot), backend="gvisor") as again:
        assert again.exec("echo alive").stdout == "alive\n"


def test_a_killed_warden_takes_all_along_and_is_replaced():
    box = opener("gvisor")()
    snapshot = box.snapshot(processes=True)
    below = children_of(helper())
    assert any("runsc-sandbox" in line for line in below.values())
    os.kill(helper(), signal.SIGKILL)
    with pytest.raises(SandboxError):
        for _ in range(200):
            box.exec("true")
    assert not [pid for pid in below if Path(f"/proc/{pid}/exe").exists()]
    box.close()
    with opener("gvisor")() as fresh:
        with pytest.raises(SnapshotError, match="the processes of this snapshot are lost"):
            fresh.restore(snapshot)
        fresh.restore(snapshot.files)
        assert fresh.exec("echo new").stdout == "new\n"


@pytest.mark.parametrize("busy", ["shell.run('sleep 60')", "box.snapshot(processes=True)", "time.sleep(60)"])
def test_killing_the_parent_leaves_nothing(busy, tmp_path):
    code = (
        "import time\n"
        "from agentenv.sandboxes import open_sandbox\n"
        "from agentenv.sandboxes.gvisor_host import gvisor_host_for\n"
        "box = open_sandbox(backend='gvisor')\n"
        "shell = box.shell()\n"
        "shell.run('sleep 314159 & disown')\n"
        "kept = box.snapshot(processes=True)\n"
        "gvisor_host_for(()).budget = 0\n"
        "on_disk = box.snapshot(processes=True)\n"
        "child, = box.fork(1, processes=True)\n"
        "print('ready', flush=True)\n"
        f"while True: {busy}\n"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.3)
    below = children_of(parent.pid)
    assert sum("runsc-sandbox" in line for line in below.values()) >= 2
    assert list(tmp_path.iterdir())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while (left := [pid for pid in below if Path(f"/proc/{pid}/exe").exists()]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    removed = subprocess.run(
        [sys.executable, "-c", "from agentenv.sandboxes import collect_garbage as c; c()"], env=env, check=True
    )
    assert removed.returncode == 0
    assert list(tmp_path.iterdir()) == []
    collect_garbage()
    assert not groups(parent.pid)


def test_what_it_needs_is_said(ordinary_user, monkeypatch, tmp_path):
    code = (
        "from agentenv.sandboxes import open_sandbox\n"
        "try: open_sandbox(backend='gvisor')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    assert "the gvisor back end needs root" in ordinary_user(code).stdout
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "SandboxError" in missing.stdout
    assert "runsc was not found" in missing.stdout
    assert "bookworm-backports" in missing.stdout


def test_a_runsc_that_takes_no_images_keeps_the_other_promises(tmp_path):
    wrapper = tmp_path / "runsc"
    wrapper.write_text(
        '#!/bin/sh\ncase "$*" in *" checkpoint "*) echo "checkpoint: context deadline exceeded" >&2; exit 128;; esac\n'
        f'exec {shutil.which("runsc")} "$@"\n'
    )
    wrapper.chmod(0o755)
    code = (
        "from agentenv.sandboxes import open_sandbox\n"
        "from agentenv.sandboxes.gvisor import probe\n"
        "found = probe()\n"
        "assert 'network' in found.enforced, found\n"
        "print(found.missing['process_snapshot'])\n"
        "box = open_sandbox(backend='gvisor'); print(box.fork(1)[0].exec('echo works').stdout)\n"
        "try: box.snapshot(processes=True)\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print(box.exec('echo goes on').stdout)\n"
    )
    env = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert "context deadline exceeded" in result.stdout, result
    assert "takes runsc of 2024 or later" in result.stdout
    assert result.stdout.endswith("works\n\nSandboxError\ngoes on\n\n"), result
