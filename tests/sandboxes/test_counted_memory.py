"""The memory limit counts what is held, not what the kernel has not freed yet."""

import pytest
from sandbox_backends import marks, opener, skip_without

from agentenv.sandboxes import Limits

LIMITS = Limits(time_s=60, memory=64 << 20, processes=64, disk=16 << 20, files=500)
MAP = """
import mmap, os, socket, sys, time
def give_back(size, *, huge=False):
    m = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge: m.madvise(mmap.MADV_HUGEPAGE)
    m[::4096] = b'x' * (size // 4096)
    if huge:
        for at in range(0, size, 2 << 20): m.madvise(mmap.MADV_DONTNEED, at, (2 << 20) - 65536)
    else: m.madvise(mmap.MADV_FREE)
    time.sleep(0.05)
    return m
"""
NOT_HELD = {
    "pages given back": "maps = [give_back(40 << 20) for _ in range(5)]",
    "names that do not exist": "for n in range(400000): os.access(f'/usr/lib/{n}', 0)",
    "the rest of huge pages": "maps = [give_back(40 << 20, huge=True) for _ in range(5)]",
}
PLACES = [pytest.param(place, marks=marks(place)) for place in ("namespace", "docker", "podman")]
NOT_PROMISED = [("docker", "the rest of huge pages"), ("podman", "the rest of huge pages")]


def python(box, code):
    return box.exec(["/usr/bin/python3", "-c", MAP + code])


@pytest.fixture(scope="module")
def box_at():
    opened = {}

    def get(place):
        skip_without(place)
        if place not in opened:
            opened[place] = opener(place)(limits=LIMITS)
        return opened[place]

    yield get
    for box in opened.values():
        box.close()


@pytest.mark.kernel
@pytest.mark.parametrize("what", NOT_HELD)
@pytest.mark.parametrize("place", PLACES)
def test_what_nobody_holds_is_not_counted(place, what, box_at):
    if (place, what) in NOT_PROMISED:
        return
    result = python(box_at(place), NOT_HELD[what] + "\nprint('done')")
    assert (result.stdout, result.oom) == ("done\n", False), result
    result = box_at(place).exec("echo alive")
    assert (result.stdout, result.oom) == ("alive\n", False), result


@pytest.mark.kernel
@pytest.mark.parametrize("place", PLACES)
def test_what_was_given_back_and_is_used_again_is_counted(place, box_at):
    code = "maps = [give_back(40 << 20) for _ in range(3)]\nfor m in maps: m[::4096] = b'y' * (len(m) // 4096)\n"
    result = python(box_at(place), code + "time.sleep(5)")
    assert result.oom, result
    assert box_at(place).exec("echo alive").stdout == "alive\n"


@pytest.mark.docker
@pytest.mark.parametrize("place", ["gvisor", "runsc", "docker"])
def test_files_of_the_workspace_are_not_counted(place):
    """They have a limit of their own; a full disk leaves all of the memory."""
    skip_without(place)
    with opener(place)(limits=Limits(memory=64 << 20, disk=100 << 20)) as box:
        for folder in (".", "/tmp"):
            box.exec(f"head -c 90000000 /dev/zero > {folder}/full")
        result = python(box, "block = b'x' * (40 << 20); time.sleep(0.1); print('done')")
        assert (result.stdout, result.oom) == ("done\n", False), result


LEAKED = {
    "files": "f = open('own', 'wb'); f.write(b'x' * (8 << 20)); f.flush(); os.unlink('own'); cycle(f.fileno())",
    "a memory file": "m = os.memfd_create('m')\nfor _ in range(5): os.write(m, bytes(8 << 20))\ncycle(m)",
    "messages": """
for _ in range(200):
    a, b = socket.socketpair()
    a.setblocking(False)
    a.send(bytes(200000))
    cycle(a.fileno(), b.fileno())
""",
}
CYCLE = """
def cycle(*fds):
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    socket.send_fds(a, [b'x'], [c.fileno(), d.fileno(), *fds])
    socket.send_fds(c, [b'x'], [a.fileno(), b.fileno()])
    for s in (a, b, c, d): s.close()
"""


@pytest.mark.docker
@pytest.mark.kernel
@pytest.mark.parametrize("leaked", LEAKED)
def test_restore_undoes_what_no_process_holds_and_gvisor_never_frees(leaked, box_at):
    """Its kernel does not look for sockets that hold each other; later states would have less memory and less disk."""
    box = box_at("gvisor")
    look = ["sh", "-c", "grep Shmem: /proc/meminfo; df /workspace /tmp"]
    before = box.snapshot()
    seen = box.exec(look).stdout
    result = python(box, CYCLE + LEAKED[leaked])
    assert result.exit_code == 0, result
    box.restore(before)
    assert box.exec(look).stdout == seen
    result = python(box, "block = b'x' * (25 << 20); open('f', 'wb').write(bytes(14 << 20)); print('done')")
    assert (result.stdout, result.oom) == ("done\n", False), result
    box.restore(before)
