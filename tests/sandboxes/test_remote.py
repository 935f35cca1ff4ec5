# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false
"""Sandboxes on a real SWE-ReX server: every law, a repair, what a server, a network and an owner can do to them."""

import errno
import functools
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from add_task import TASK
from remote_server import Server

from agentenv.envs.code_repair import CodeRepair
from agentenv.errors import SandboxError, SandboxLost
from agentenv.sandboxes import Limits, Ran, open_sandbox, remote, remote_lease
from agentenv.sandboxes.guest.wire import Closed, Failed, Late, Wire
from agentenv.sandboxes.remote_swerex import SweRex
from agentenv.sandboxes.remote_wire import RemoteWire
from agentenv.testing import SANDBOX_CLAUSES, run_sandbox_clauses

MARK = "271828182"


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def opens(server):
    return functools.partial(open_sandbox, backend="remote", require="process", remote=server.service)


@pytest.fixture
def short_lease(monkeypatch):
    """Machines live for a few seconds without their owner."""
    monkeypatch.setattr(remote, "LEASE_S", 4.0)
    monkeypatch.setattr(remote_lease, "LEASE_S", 4.0)


@pytest.fixture
def place(monkeypatch):
    """Where on the machine the sandboxes of this test have their folders."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(remote, "_SLASH_TMP", folder)
        yield Path(folder)


def running():
    """Whether the command that the killed owner started still runs."""
    return subprocess.run(["pgrep", "-f", f"^sleep {MARK}"], stdout=subprocess.DEVNULL, check=False).returncode == 0


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("clause", SANDBOX_CLAUSES, ids=lambda clause: clause.name)
def test_a_remote_sandbox_keeps_the_law(opens, clause):
    (verdict,) = run_sandbox_clauses(opens, clauses=[clause])
    assert verdict.outcome == "passed", verdict.detail


# ---------------------------------------------------------------------- what it promises


def test_what_is_promised_was_tried_there(monkeypatch, server):
    monkeypatch.setenv("AGENTENV_REMOTE", f"swe-rex:{server.service.url}")
    monkeypatch.setenv("SWEREX_TOKEN", server.service.token)
    found = remote.probe()
    assert (found.backend, found.level) == ("remote", "process")
    assert {"files", "network", "survivors", "time", "output", "file_size"} <= found.enforced
    assert {"memory", "disk", "constant_snapshot", "process_snapshot"} <= found.missing.keys()
    with open_sandbox(backend="remote", require="process") as box:
        assert box.isolation is found


def test_no_more_is_given_than_it_promises(opens):
    with pytest.raises(SandboxError, match="promises only 'process', less than require='namespace'"):
        opens(require="namespace")


# Landlock's three calls fail, as in gVisor's kernel: 444 to 446
LACKS_LANDLOCK = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
rows = [(0x20, 0, 0, 0), (0x35, 0, 2, 444), (0x25, 1, 0, 446), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *row) for row in rows)
kept = ctypes.create_string_buffer(code)
program = struct.pack("HP", len(rows), ctypes.addressof(kept))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_machine_without_landlock_promises_nothing(place):
    bare = Server((sys.executable, "-c", LACKS_LANDLOCK))
    try:
        with pytest.raises(SandboxError, match="no Landlock, so that it promises only 'none'"):
            open_sandbox(backend="remote", require="process", remote=bare.service)
        assert list(place.iterdir()) == []
        with open_sandbox(backend="remote", require="none", remote=bare.service) as box:
            assert box.exec("echo on; ls ../own").stdout == "on\n"  # what is on its way is the guest's alone
            assert box.isolation.level == "none"
            assert "are visible" in box.isolation.missing["processes"]
    finally:
        bare.close()


# ---------------------------------------------------------------------- contents


def test_contents_of_every_size_and_kind_arrive(opens):
    every = bytes(range(256))
    files = {
        "lines": b"a\r\nb\rc\n",
        "inline": every * 100,
        "beyond an argument": every * 1_000,
        "beyond a piece": every * 40_000 + b"end",
        "empty": b"",
        "é/\n'\"$x `y` \\ %s {}/*": b"name",
        "\udcff-no-text": b"name",
    }
    with opens() as box:
        box.upload(files)
        assert {path: box.read(path) for path in files} == files
        assert box.export() == files
        assert (
            box.exec(["sha256sum"], stdin=files["beyond a piece"]).stdout
            == box.exec(["sh", "-c", "sha256sum < 'beyond a piece'"]).stdout
        )
        with opens(base=pickle.loads(pickle.dumps(box.snapshot()))) as other:
            assert other.export() == files


def test_output_beyond_all_limits(opens):
    with opens(limits=Limits(output=300_000)) as box:
        result = box.exec("yes | head -c 200000000; yes 1 | head -c 400000 >&2")
        assert (len(result.stdout), len(result.stderr), result.truncated) == (300_000, 300_000, True)
        binary = box.exec("head -c 1000000 /dev/urandom")
        assert binary.truncated
        assert box.exec("echo on").stdout == "on\n"


def test_states_move_between_back_ends(opens):
    with open_sandbox(backend="namespace", base={"a/b": "b"}) as near, opens() as far:
        near.exec("ln -s a/b link; mkfifo pipe; chmod 711 a; echo t > $TMPDIR/t")
        state = near.snapshot()
        far.restore(state)
        assert far.exec("cat link $TMPDIR/t; test -p pipe").stdout == "bt\n"
        assert far.snapshot().content_id == state.content_id
        far.exec("echo more >> a/b")
        near.restore(far.snapshot())
        assert near.read("a/b") == b"bmore\n"


def _breaks():
    yield b"x" * 300_000
    raise OSError(errno.EIO, "broken")


BODIES = {"none": b"", "whole": b"x" * 700_000, "pieces": [b"one", b"two" * 200_000], "breaks": _breaks}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_message_is_passed_on_as_it_is(body):
    made = iter(body) if isinstance(body, list) else body() if callable(body) else body
    sender, receiver = socket.socketpair()
    with sender, receiver:
        writer = threading.Thread(target=Wire(sender.fileno(), sender.fileno()).send, args=({"a": "é"}, made))
        writer.start()
        copy = bytearray()
        Wire(receiver.fileno(), receiver.fileno()).pass_on(copy.extend)
        writer.join()
        sender.shutdown(socket.SHUT_WR)
        assert receiver.recv(1) == b""  # all of it, and no more
        feeder = threading.Thread(target=receiver.sendall, args=(bytes(copy),))
        feeder.start()
        try:
            head, content = Wire(sender.fileno(), sender.fileno()).receive(60)
            assert (head, content) == ({"a": "é"}, b"".join(body) if isinstance(body, list) else body)
        except Failed as error:
            assert callable(body)
            assert "broken" in str(error)
        feeder.join()


class Nonsense:
    """A machine that runs nothing and prints what it likes."""

    patience_s = 0.01

    def __init__(self, told):
        self.told = told

    def run(self, argv, timeout_s):
        return Ran(0, self.told)

    def get(self, path, timeout_s):
        return b"12345"


@pytest.mark.parametrize(
    "told",
    [
        "",
        "agentenv",
        "agentenv[]",
        "agentenv" + "[" * 100_000,
        'agentenv{"state": 3}',
        'agentenv{"state": "done"}',
        'agentenv{"state": "done", "size": true, "data": "eA=="}',
        'agentenv{"state": "done", "size": -1, "data": ""}',
        'agentenv{"state": "done", "size": 1, "data": "?"}',
        'agentenv{"state": "done", "size": 1, "data": ["eA=="]}',
        'agentenv{"state": "done", "size": 2, "data": "eA=="}',
        'agentenv{"state": "done", "size": 4}',
        'agentenv{"state": "done", "size": 99999}',
        'agentenv{"state": "working"}',
    ],
)
def test_nonsense_from_a_machine_is_no_answer(told, monkeypatch):
    monkeypatch.setattr("agentenv.sandboxes.remote_wire._PAUSES", ())
    wire = RemoteWire(Nonsense("noise\n" + told + "\n"), "/nowhere", most=1000)
    wire.send({"op": "exec"})
    with pytest.raises((Closed, Late, SandboxError)):
        wire.receive(0.05)


# ---------------------------------------------------------------------- a repair


def call(name, **arguments):
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def test_a_repair_branches_there(opens):
    with closing(CodeRepair(tasks=[TASK], sandbox=opens)) as env:
        env.reset(seed=0)
        env.step(call("run", command="echo noise > scratch"))
        before = env.snapshot()
        assert env.sandbox.isolation.backend == "remote"
        right, wrong = env.fork(2)
        with closing(right), closing(wrong):
            right.step(call("edit_file", path="m.py", old="a - b", new="a + b"))
            wrong.step(call("edit_file", path="m.py", old="a - b", new="a * b"))
            assert [branch.step(call("submit"))[1] for branch in (right, wrong)] == [1.0, 0.0]
        assert env.step(call("submit"))[1] == 0.0
        env.restore(before)
        env.step(call("edit_file", path="m.py", old="a - b", new="b + a"))
        assert env.step(call("submit"))[1] == 1.0


# ---------------------------------------------------------------------- what goes wrong


@dataclass(frozen=True)
class Lossy(SweRex):
    """Does what it is asked, and loses every other answer on the way."""

    counts: list[object] = field(default_factory=list[object], hash=False)

    def run(self, argv, timeout_s):
        ran = super().run(argv, timeout_s)
        self.counts.append(argv)
        if len(self.counts) % 2:
            return ran
        msg = "the answer was lost"
        raise OSError(msg)


def test_a_command_whose_answer_is_lost_is_not_run_again(server, monkeypatch):
    monkeypatch.setattr("agentenv.sandboxes.remote_wire._PAUSES", (0.01, 0.01))
    lossy = Lossy(server.service.url, server.service.token)
    with open_sandbox(backend="remote", require="process", remote=lossy) as box:
        for _ in range(6):
            assert box.exec("echo x >> log").exit_code == 0
        assert box.read("log") == b"x\n" * 6
    assert len(lossy.counts) > 12


def test_a_server_killed_in_mid_command_is_nobodys_fault(monkeypatch, place):
    monkeypatch.setattr("agentenv.sandboxes.remote_wire._PAUSES", (0.01, 0.01))
    doomed = Server()
    try:
        box = open_sandbox(backend="remote", require="process", remote=doomed.service)
        state = box.snapshot()
        killer = threading.Timer(0.5, doomed.close)
        killer.start()
        with pytest.raises(SandboxError, match="does not answer") as caught:
            box.exec("sleep 60")
        killer.join()
        assert not isinstance(caught.value, SandboxLost)  # which would ask whether the command did it
        with pytest.raises(SandboxError, match="does not answer"):
            box.restore(state)
        box.close()
    finally:
        doomed.close()
        end_by_hand(place)  # its lease is long


def end_by_hand(place):
    """Ends the daemons of a test, as nobody who is gone can."""
    subprocess.run(["pkill", "-KILL", "-f", f"{place}/agentenv-remote-"], check=False)


def test_a_guest_killed_from_outside_is_lost_and_comes_back(opens, place):
    with opens() as box:
        box.write("kept", "x")
        state = box.snapshot()
        killer = threading.Timer(0.5, end_by_hand, [place])
        killer.start()
        with pytest.raises(SandboxLost):
            box.exec("sleep 60")
        killer.join()
        assert list(place.iterdir()) == []
        box.restore(state)
        assert box.read("kept") == b"x"


def test_a_machine_ends_with_its_owner_and_lives_as_long(opens, server, place, short_lease):
    code = (
        "import sys, time\n"
        "from agentenv.sandboxes import open_sandbox, remote, remote_lease\n"
        "from agentenv.sandboxes.remote_swerex import SweRex\n"
        f"remote.LEASE_S, remote_lease.LEASE_S, remote._SLASH_TMP = 4.0, 4.0, {str(place)!r}\n"
        "box = open_sandbox(backend='remote', require='process', remote=SweRex(*sys.argv[1:]))\n"
        f"box.shell().run('sleep {MARK} & sleep 0.1')\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", code, server.service.url, server.service.token]
    with opens() as box:
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as owner:
            assert owner.stdout.readline() == b"ready\n"
            assert running()
            owner.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not running() and len(list(place.iterdir())) == 1)
        assert box.exec("echo on").stdout == "on\n"  # asked nothing for as long, but renewed
    assert wait_until(lambda: not any("remote-lease" in thread.name for thread in threading.enumerate()))
    assert list(place.iterdir()) == []


def test_wrong_names_and_services_that_do_not_answer(server, monkeypatch):
    monkeypatch.delenv("AGENTENV_REMOTE", raising=False)
    opens = functools.partial(open_sandbox, backend="remote", require="none")
    for service, error, match in (
        (None, SandboxError, "give remote= or set AGENTENV_REMOTE"),
        ("nowhere", ValueError, "must name a service, one of swe-rex:http"),
        ("swe-rex", ValueError, "needs to know more: swe-rex:http"),
        ("swe-rex:127.0.0.1:1", ValueError, "named by a URL"),
        ("swe-rex:http://127.0.0.1:1", SandboxError, "does not answer 'is_alive'"),
        (SweRex(server.service.url, "wrong"), SandboxError, "answered 'is_alive' with"),
        (7, TypeError, "SandboxSpec.remote must be"),
    ):
        with pytest.raises(error, match=match):
            opens(remote=service)
    with pytest.raises(ValueError, match="needs backend='remote', got 'docker'"):
        open_sandbox(backend="docker", remote="e2b")
    with pytest.raises(SandboxError, match=r"process: remote='swe-rex:http://127.0.0.1:1' needs backend='remote'"):
        open_sandbox(require="none", remote="swe-rex:http://127.0.0.1:1")
