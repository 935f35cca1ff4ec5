"""Whatever a guest sends, its parent ends with one kind of error, in time, and with no result that was not sent."""

import contextlib
import json
import os
import socket
import struct
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentenv.errors import SandboxError, SandboxLost, SandboxTimeout
from agentenv.sandboxes import Limits, SandboxSpec, WorkspaceSnapshot
from agentenv.sandboxes.base_files import archive_of_files, empty_archive
from agentenv.sandboxes.docker import _StreamWire
from agentenv.sandboxes.guest.content import TreeFault
from agentenv.sandboxes.guest.trees import Entry, assemble, parse_entries, read_entries
from agentenv.sandboxes.guest.wire import Closed, Failed, Late, Lost, Wire
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.layers import archives, check_archive

ENDS = (Closed, Failed, Late, Lost)
FUZZ = settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=12,
)
GOOD = {
    "exit_code": 0,
    "duration_s": 0.5,
    "timed_out": False,
    "truncated": False,
    "oom": False,
    "killed": 0,
    "split": 2,
    "alive": True,
    "live": False,
    "stale": False,
}
VALUES = st.sampled_from([0, -1, 2**70, True, None, "x", [], {}, 0.5, float("nan")])
HEADS = (
    JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
    | st.fixed_dictionaries({}, optional={"fault": st.sampled_from(["file", "guest", "lost", 3]), "message": JSON})
    .map(lambda head: {**head, "errno": "no"})
    .map(lambda head: json.dumps(head).encode())
    | st.tuples(st.sampled_from(sorted(GOOD)), VALUES).map(lambda pair: json.dumps({**GOOD, pair[0]: pair[1]}).encode())
    | st.just(b"[" * 100_000)
)


@st.composite
def messages(draw):
    """A message that is nearly right."""
    head, body = draw(HEADS), draw(st.binary(max_size=40))
    sizes = draw(st.sampled_from([(len(head), len(body)), (len(head), 2**64 - 1), (2**32 - 1, 0), (len(head), 2**50)]))
    return struct.pack("<IQ", *sizes) + head + body


STREAMS = st.binary(max_size=200) | messages() | st.lists(messages(), max_size=3).map(b"".join)


class Hostile(GuestSandbox):
    """A sandbox whose guest sends these bytes and hangs up, or keeps silent."""

    def __init__(self, sent, *, hangs_up=True):
        empty = WorkspaceSnapshot((archives.add(empty_archive()),))
        super().__init__(SandboxSpec(limits=Limits(output=1000, transfer=1000), image="hostile"), empty)
        self.sent, self.hangs_up = sent, hangs_up
        self._begin(empty)

    def close(self):
        super().close()
        self.theirs.close()

    def _begin(self, origin):
        if hasattr(self, "theirs"):
            self.theirs.close()
        ours, self.theirs = socket.socketpair()
        self.theirs.sendall(self.sent[:100_000])
        if self.hangs_up:
            self.theirs.shutdown(socket.SHUT_WR)
        fd = ours.detach()
        self._wire = Wire(fd, fd)


CALLS = {
    "exec": lambda box: box.exec("true"),
    "read": lambda box: box.read("f"),
    "export": lambda box: box.export(),
    "snapshot": lambda box: box.snapshot().content_id,
    "changes": lambda box: box.changes(),
    "shell": lambda box: box.shell().run("true"),
    "write": lambda box: box.write("f", b"x"),
}


@pytest.mark.parametrize("name", CALLS)
@FUZZ
@given(sent=STREAMS)
def test_a_hostile_guest_cannot_crash_its_parent(name, sent):
    box = Hostile(sent)
    try:
        CALLS[name](box)
    except (SandboxError, OSError):
        pass  # OSError: a WorkspaceError, which any guest may answer
    finally:
        box.close()


@FUZZ
@given(data=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_entries_from_hostile_bytes(data):
    for parse in (
        parse_entries,
        lambda text: check_archive(len(text).to_bytes(8, "little") + text),
        check_archive,
    ):
        with contextlib.suppress(TreeFault):
            parse(data)


@FUZZ
@given(
    entries=st.lists(
        st.tuples(
            st.sampled_from(["workspace", "tmp", "workspace/a", "workspace/a/b", "@x/y", "../x", "workspace//x", ""]),
            st.sampled_from(["dir", "file", "link", "fifo", "gone", "fresh", "socket"]),
            st.integers(-1, 2**13),
            st.sampled_from([0, -1, 2**64, 5]),
            st.sampled_from([0, 1, 4096, -5, 2**62, 2**70]),
            st.sampled_from(["", "workspace/a", "../../etc"]),
        ),
        max_size=5,
    ),
    rest=st.binary(max_size=60),
)
def test_archives_that_are_nearly_right(entries, rest):
    data = assemble([Entry(*fields) for fields in entries], [rest])
    try:
        check_archive(data)
        snapshot = WorkspaceSnapshot((archives.add(data),))
        assert snapshot.content_id
    except (TreeFault, ValueError):
        pass


def serve(data, *, then="silence"):
    """Returns our end of a connection on which somebody sends these bytes."""
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    if then == "hang up":
        theirs.close()
    return ours, theirs


@FUZZ
@given(frames=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=50)), max_size=4))
def test_frames_of_a_hostile_container(frames):
    data = b"".join(bytes((kind, 0, 0, 0)) + size.to_bytes(4, "big") + body for kind, size, body in frames)
    ours, theirs = serve(data, then="hang up")
    wire = _StreamWire(ours)
    try:
        with pytest.raises(ENDS):
            while True:
                wire.receive(1.0, limit=1000)
        assert len(wire.complaints) <= 4096
    finally:
        ours.close()
        theirs.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"\2", b"\2\0\0\0\0\0\0\1", b"\2\0\0\0\xff\xff\xff\xff", b"\1\0\0\0\0\0\0\4ab", b"\1\0\0\0\0\0\0\1x" * 5],
)
def test_silence_of_a_container_ends_at_the_deadline(data):
    """One byte on standard error and then nothing must not keep anybody waiting for ever."""
    ours, theirs = serve(data)
    began = time.monotonic()
    with pytest.raises(Late):
        _StreamWire(ours).receive(0.3)
    assert time.monotonic() - began < 3
    ours.close()
    theirs.close()


def test_a_trickle_ends_at_the_deadline():
    """A byte now and then does not renew it."""
    ours, theirs = serve(b"")
    over = threading.Event()

    def trickle():
        while not over.wait(0.05):
            theirs.send(b"\2\0\0\0\0\0\0\1x")

    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    with pytest.raises(Late):
        _StreamWire(ours).receive(0.5)
    over.set()
    thread.join()
    assert time.monotonic() - began < 3
    ours.close()
    theirs.close()


@pytest.mark.parametrize("size", [10**6, 2**40, 2**64 - 2])
def test_a_body_that_is_too_long_is_not_read(size):
    head = json.dumps(GOOD).encode()
    box = Hostile(struct.pack("<IQ", len(head), size) + head, hangs_up=False)
    with pytest.raises(SandboxLost, match="more than was asked for"):
        box.exec("true")
    box.close()


def test_a_stream_that_is_too_long_is_not_read():
    head = json.dumps(GOOD).encode()
    piece = struct.pack("<I", 900) + bytes(900)
    box = Hostile(struct.pack("<IQ", len(head), 2**64 - 1) + head + piece * 3, hangs_up=False)
    with pytest.raises(SandboxLost, match="more than was asked for"):
        box.exec("true")
    box.close()


def test_a_stream_that_fails_says_why_and_the_connection_goes_on():
    ours, theirs = socket.socketpair()

    def pieces():
        yield b"one"
        raise OSError(5, "Input/output error", "workspace/f")

    sender, receiver = Wire(theirs.fileno(), theirs.fileno()), Wire(ours.fileno(), ours.fileno())
    sender.send({"op": 1}, pieces())
    with pytest.raises(Failed, match="workspace/f: Input/output error"):
        receiver.receive(2)
    sender.send({"op": 2}, iter([b"a" * 30_000, b"", b"b"]))
    assert receiver.receive(2) == ({"op": 2}, b"a" * 30_000 + b"b")
    ours.close()
    theirs.close()


def test_descriptors_that_are_lost_cost_one_message_only():
    ours, theirs = socket.socketpair()
    sender, receiver = Wire(theirs.fileno(), theirs.fileno()), Wire(ours.fileno(), ours.fileno())
    text = json.dumps({"fds": 1}).encode()
    theirs.sendall(struct.pack("<IQ", len(text), 0) + text + b"?")
    with pytest.raises(Lost):
        receiver.receive(2)
    null = os.open(os.devnull, os.O_RDONLY)
    sender.send({"op": 1}, b"", [null])
    head, _ = receiver.receive(2)
    assert head["op"] == 1
    for fd in (null, *head["fds"]):
        os.close(fd)
    ours.close()
    theirs.close()


def test_a_late_guest_is_lost_and_its_sandbox_can_be_restored():
    box = Hostile(b"", hangs_up=False)
    with pytest.raises(SandboxTimeout):
        box._ask({"op": "read", "path": "f", "limit": 1}, timeout_s=0.1)
    with pytest.raises(SandboxError, match="did not answer"):
        box.exec("true")
    box.sent, box.hangs_up = struct.pack("<IQ", 2, 2) + b"{}ok", True
    box.restore(box._origin)
    assert box.read("f") == b"ok"
    box.close()
    with pytest.raises(SandboxError, match="it is closed"):
        box.restore(box._origin)


def test_good_archives_pass():
    data = archive_of_files({"a/b": "x", "c": b"\0" * 10_000})
    check_archive(data)
    assert [entry.path for entry in read_entries(iter_reader(data))][-1] == "workspace/c"


def iter_reader(data):
    position = 0

    def read(size):
        nonlocal position
        part = data[position : position + size]
        position += len(part)
        return part

    return read
