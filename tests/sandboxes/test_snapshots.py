# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
"""Snapshots: immutable, layered, content-addressed, portable, kept as long as needed and no longer."""

import gc
import io
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sandbox_backends import opener, skip_without

from agentenv.errors import SandboxError, SnapshotError
from agentenv.sandboxes import Limits, SandboxSpec, open_sandbox
from agentenv.sandboxes.base_files import archive_of_files, empty_archive
from agentenv.sandboxes.guest.content import TreeFault, store
from agentenv.sandboxes.guest.trees import Entry, assemble, read_entries, unpack
from agentenv.sandboxes.layers import Archives, flatten, merge_entries
from agentenv.sandboxes.namespace import MAX_LAYERS
from agentenv.sandboxes.namespace_host import namespace_host_for
from agentenv.sandboxes.snapshots import WorkspaceSnapshot

MIB = 1 << 20
PATHS = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a"])
STEPS = st.one_of(
    st.tuples(st.just("mkdir -p {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("rm -rf {0}"), PATHS),
    st.tuples(st.just("rm -rf {0}; mkdir {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("echo {1} > {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("echo {1} >> {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("rm -rf {0}; ln -s b {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("chmod 700 {0} 2>/dev/null"), PATHS),
    st.tuples(st.just("mv {0} b/moved 2>/dev/null"), PATHS),
    st.tuples(st.just("mkfifo {0} 2>/dev/null"), PATHS),
)
SHOW = "find . -printf '%p %y %#m %l\\n' | sort; find . -type f | sort | xargs -r cat"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=2, max_size=6))
def test_every_snapshot_of_any_history_restores_exactly(box, steps):
    """A chain of layers, its merge in Python, and one flat archive are the same files."""
    box.restore(WorkspaceSnapshot(box._origin.layers))
    history = []
    for number, step in enumerate(steps):
        box.exec(
            "\n".join(command.format(path, number) for command, path in step), timeout_s=1
        )  # a write to a pipe waits for ever
        plain = box._ask({"op": "scan"})[1]
        snapshot = box.snapshot()
        history.append((snapshot, box.exec(SHOW).stdout, plain))
    for snapshot, shown, plain in reversed(history):
        box.restore(snapshot)
        assert box.exec(SHOW).stdout == shown
        assert [[*e[:3], *e[4:]] for e in sorted(map(list, snapshot.entries.values()))] == [
            [*e[:3], *e[4:]] for e in sorted(json.loads(plain))
        ]
    flat = WorkspaceSnapshot((_stored(flatten(history[-1][0].layers)),))
    assert flat.content_id == history[-1][0].content_id
    box.restore(flat)
    assert box.exec(SHOW).stdout == history[-1][1]


def _stored(archive):
    return Archives().add(archive)


def test_a_long_history_stays_shallow_and_whole(box):
    snapshots = []
    for number in range(MAX_LAYERS * 2 + 5):
        box.exec(f"echo {number} > f{number % 7}; rm -rf d; mkdir d; echo {number} > d/{number}; echo x >> log")
        snapshots.append(box.snapshot())
    assert max(len(snapshot.layers) for snapshot in snapshots) <= MAX_LAYERS
    for number in (0, 1, MAX_LAYERS - 2, MAX_LAYERS - 1, MAX_LAYERS, 2 * MAX_LAYERS, len(snapshots) - 1):
        box.restore(snapshots[number])
        assert box.exec(f"cat f{number % 7}; ls d; wc -l < log").stdout == f"{number}\n{number}\n{number + 1}\n"


def test_an_unchanged_state_is_not_another_layer(box):
    box.write("f", "x")
    first = box.snapshot()
    box.exec("cat f; ls")
    assert box.snapshot() is first


def test_deleted_bytes_come_back_to_the_quota():
    with open_sandbox(SandboxSpec(limits=Limits(disk=16 * MIB))) as box:
        for _ in range(12):
            assert box.exec("rm -f big; head -c 6000000 /dev/zero > big").exit_code == 0
            box.snapshot()
        assert box.exec("head -c 12000000 /dev/zero > more").exit_code != 0


def test_the_quota_counts_what_snapshots_hold():
    with open_sandbox(SandboxSpec(limits=Limits(disk=8 * MIB, files=40))) as box:
        box.exec("head -c 5000000 /dev/zero > first")
        (child,) = box.fork(1)
        with child:
            for sandbox in (box, child):
                assert sandbox.exec("head -c 5000000 /dev/zero > second").exit_code != 0
        box.exec("for i in $(seq 30); do : > n$i; done")
        box.snapshot()
        assert box.exec("for i in $(seq 30); do : > m$i || exit 1; done").exit_code != 0


def test_a_base_of_any_size_is_not_charged():
    base = {f"f{number}": b"x" * MIB for number in range(8)}
    with open_sandbox(SandboxSpec(base=base, limits=Limits(disk=2 * MIB, files=10))) as box:
        assert box.exec("cat f0 > /tmp/copy; ls | wc -l").stdout == "8\n"
        assert box.exec("cat f0 f1 f2 > copy").exit_code != 0


def test_a_snapshot_with_an_open_shell_is_one_moment(box):
    """Both counters are written by one process: a copy in between would show them apart."""
    shell = box.shell()
    shell.run("(i=0; while :; do i=$((i+1)); echo $i > left; echo $i > right; done) > /dev/null 2>&1 &")
    time.sleep(0.1)
    snapshots = [box.snapshot() for _ in range(5)]
    assert shell.run("echo still here").stdout == "still here\n"
    shell.close()
    for snapshot in snapshots:
        box.restore(snapshot)
        left, right = (int(word or 0) for word in (box.read("left").strip(), box.read("right").strip()))
        assert left - right in {0, 1} or right == 0 or left == 0


@pytest.mark.docker
def test_snapshots_travel_between_namespace_and_docker():
    skip_without("docker")
    with open_sandbox(backend="namespace") as first, opener("docker")() as second:
        first.exec("mkdir -p d/e; echo 1 > d/e/f; ln -s f d/e/l; chmod 750 d; echo t > /tmp/t")
        first.snapshot()
        first.exec("rm d/e/l; echo 2 > d/g")
        there = first.snapshot()
        second.restore(there)
        assert second.snapshot().content_id == there.content_id
        second.exec("echo 3 >> d/g; rm -rf d/e; mkdir d/e")
        back = second.snapshot()
        first.restore(back)
        assert first.snapshot().content_id == back.content_id
        assert first.exec("cat d/g; ls d/e; cat /tmp/t").stdout == "2\n3\nt\n"


def test_a_pickled_snapshot_restores_in_a_fresh_process(box):
    box.exec("mkdir d; echo deep > d/f; ln -s d/f l; chmod 600 d/f")
    box.snapshot()
    box.exec("rm l; echo more >> d/f")
    snapshot = box.snapshot()
    code = (
        "import pickle, sys\n"
        "from agentenv.sandboxes import open_sandbox\n"
        "snapshot = pickle.load(sys.stdin.buffer)\n"
        "with open_sandbox() as box:\n"
        "    box.restore(snapshot)\n"
        "    print(snapshot.content_id, box.exec('cat d/f; ls').stdout.split())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(snapshot), capture_output=True, check=True)
    assert result.stdout.decode() == f"{snapshot.content_id} ['deep', 'more', 'd']\n"


def test_a_damaged_pickle_is_refused(box):
    data = pickle.dumps(box.snapshot())
    with pytest.raises(SnapshotError, match="damaged"):
        pickle.loads(data.replace(b'"dir"', b'"dir '))


def test_layers_are_dropped_with_their_last_reference():
    host = namespace_host_for(())
    with open_sandbox() as box:
        box.write("f", "1")
        snapshot = box.snapshot()
        number = snapshot.layers[-1].number
        (child,) = box.fork(1)
    host.ask({"op": "scan", "layer": number})
    del snapshot, box
    gc.collect()
    host.ask({"op": "scan", "layer": number})  # the fork still stands on it
    child.close()
    del child
    gc.collect()
    with pytest.raises(SandboxError, match="No such file"):
        host.ask({"op": "scan", "layer": number})


def test_archives_spill_to_disk_and_come_back():
    store = Archives(memory=3000)
    kept = [store.add(archive_of_files({"f": bytes([number]) * 1000})) for number in range(6)]
    held, on_disk = store.held
    assert held <= 3000
    assert on_disk >= 3
    for number, layer in enumerate(kept):
        assert layer.archive() == archive_of_files({"f": bytes([number]) * 1000})
    assert store.add(archive_of_files({"f": b"\0" * 1000})) is kept[0], "equal archives are kept once"
    del kept, layer
    gc.collect()
    assert store.held == (0, 0)


def test_layers_of_the_keeper_spill_to_disk_and_come_back(monkeypatch):
    host = namespace_host_for(())
    with open_sandbox(SandboxSpec(limits=Limits(disk=64 * MIB))) as box:
        snapshots = []
        for number in range(6):
            box.exec(f"head -c 4000000 /dev/urandom > f{number}")
            snapshots.append((box.snapshot(), box.exec("cat f* | sha256sum").stdout))
            box.restore(WorkspaceSnapshot(box._origin.layers))
        monkeypatch.setattr(host, "budget", 10 * MIB)
        host.spill()
        assert host.held <= 10 * MIB
        for snapshot, digest in snapshots:
            box.restore(snapshot)
            assert box.exec("cat f* | sha256sum").stdout == digest


@pytest.mark.parametrize("path", ["../x", "/x", "workspace/../x", "a//b", "workspace/./x", "", "workspace/\0"])
def test_an_archive_with_a_path_that_is_not_plain_is_refused(path):
    data = assemble([Entry(path, "file", 0o644, 0, 1)], [store(b"x")])
    with pytest.raises(TreeFault, match="not plain"):
        read_entries(io.BytesIO(data).read)


def test_an_archive_cannot_write_through_a_link(tmp_path):
    entries = [
        Entry("workspace", "dir", 0o755),
        Entry("workspace/l", "link", 0o777, 0, 0, "/tmp"),
        Entry("workspace/l/agentenv-escape", "file", 0o644, 0, 1),
    ]
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(TreeFault, match="in no folder that came before it"):
        unpack(io.BytesIO(assemble(entries, [store(b"x")])).read, {"workspace": root})
    os.close(root)
    assert not Path("/tmp/agentenv-escape").exists()


def test_merging_is_what_an_overlay_does():
    class Fixed:
        def __init__(self, *entries):
            self._entries = list(entries)

        def entries(self):
            return self._entries

    below = Fixed(
        Entry("workspace", "dir"),
        Entry("workspace/d", "dir"),
        Entry("workspace/d/x", "file"),
        Entry("workspace/f", "file"),
    )
    above = Fixed(
        Entry("workspace", "dir"),
        Entry("workspace/d", "fresh"),
        Entry("workspace/d/y", "file"),
        Entry("workspace/f", "gone"),
    )
    assert sorted(merge_entries([below, above])) == ["workspace", "workspace/d", "workspace/d/y"]
    assert sorted(merge_entries([below, Fixed(Entry("workspace/d", "file"))])) == [
        "workspace",
        "workspace/d",
        "workspace/f",
    ]


def test_the_empty_state():
    snapshot = WorkspaceSnapshot((_stored(empty_archive()),))
    assert sorted(snapshot.entries) == ["tmp", "workspace"]
