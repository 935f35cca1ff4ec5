"""What a command leaves or holds harms itself alone: not its sandbox, not the next state, no sibling, not the host."""

import ctypes
import fcntl
import io
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from sandbox_attacks import PRELUDE
from sandbox_backends import marks, opener, skip_without

from agentenv.errors import SandboxError, SandboxLost
from agentenv.sandboxes import Limits
from agentenv.sandboxes.engines import engine_at
from agentenv.sandboxes.namespace_host import pid_of

LIMITS = Limits(time_s=20, memory=128 << 20, processes=64, disk=16 << 20, files=2000, file_size=64 << 20)
PLACES = [pytest.param(place, marks=marks(place)) for place in ("namespace", "docker", "podman", "gvisor")]
EVERYWHERE = [*PLACES, *(pytest.param(place, marks=marks(place)) for place in ("runsc", "process"))]
CYCLE = """
def cycle(*files):
    fds = [f if isinstance(f, int) else f.fileno() for f in files]
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    socket.send_fds(a, [b'x'], [c.fileno(), d.fileno(), *fds])
    socket.send_fds(c, [b'x'], [a.fileno(), b.fileno()])
    for s in (a, b, c, d): s.close()
def fill(folder):
    f = open(folder + '/full', 'wb')
    try:
        while True: f.write(b'x' * 65536); f.flush()
    except OSError: pass
    os.unlink(folder + '/full')
    return f
"""
PINNED = {
    "a file of /dev/shm": "f = open('/dev/shm/x', 'wb'); f.write(b'x' * 4096); f.flush(); cycle(f)",
    "a file of the workspace": "f = open('own', 'wb'); f.write(b'x' * 4096); f.flush(); cycle(f)",
    "a file of tmp that has no name": "f = open('/tmp/x', 'wb'); os.unlink('/tmp/x'); cycle(f)",
    "folders": "os.mkdir('d'); cycle(*(os.open(d, os.O_RDONLY) for d in ('d', '.', '/dev/shm', '/tmp')))",
    "a full workspace": "cycle(fill('.'))",
    "a full tmp": "cycle(fill('/tmp'))",
    "everything full": "cycle(fill('.'), fill('/tmp'), fill('/dev/shm'))",
    "a memory file": "m = os.memfd_create('m'); os.write(m, b'x' * (1 << 20)); cycle(m)",
    "many cycles": "f = open('own', 'wb')\nfor _ in range(60): cycle(f)",
    "a chain": (
        "f = open('own', 'wb')\n"
        "for _ in range(3): a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [f.fileno()]); f = b"
    ),
}


def python(box, code, **fields):
    return box.exec(["/usr/bin/python3", "-c", PRELUDE + CYCLE + code], env=HOST, **fields)


HOST = dict.fromkeys(("CANARY", "PORT", "SOCKET", "ABSTRACT", "HOST_PID"), "")


@pytest.fixture(scope="module")
def boxes():
    opened = {}
    yield opened
    for box in opened.values():
        box.close()


def box_at(place, boxes):
    """One sandbox per place for all messes: what one breaks, the next would show."""
    skip_without(place)
    if place not in boxes:
        boxes[place] = opener(place)(limits=LIMITS, base={"kept": "k"})
    return boxes[place]


@pytest.mark.parametrize("mess", PINNED)
@pytest.mark.parametrize("place", PLACES)
def test_what_only_the_kernel_can_free_keeps_nobody_waiting(place, mess, boxes):
    """Files that are open in sockets which hold each other: no process has them, and no unmounting gets them free."""
    box = box_at(place, boxes)
    before = box.snapshot()
    began = time.monotonic()
    for _ in range(1 if place == "gvisor" else 2):  # whose kernel is replaced each time, because it never frees them
        assert "Traceback" not in python(box, PINNED[mess]).stderr
        after = box.snapshot()
        (child,) = box.fork(1)
        with child:
            assert child.exec("cat kept").stdout == "k"
        box.restore(before)
        assert box.exec("ls; echo more > own; cat kept").stdout == "kept\nk"
        box.restore(after)
        box.restore(before)
        assert box.changes(before) == []
    assert time.monotonic() - began < 60


LEFT = {
    "a TCP connection": "s = socket.create_server(('', 0)); socket.create_connection(s.getsockname()).send(b'x')",
    "a datagram": "s = socket.socket(type=2); s.bind(('127.0.0.1', 0)); s.sendto(b'x', s.getsockname())",
    "a connection that fails": "attempt = socket.socket().connect_ex(('10.1.2.3', 9))",
    "a file of /dev/shm": "open('/dev/shm/x', 'w').write('x')",
    "the mode of /dev/shm": "try: os.chmod('/dev/shm', 0o700)\nexcept OSError: pass",
    "a file of /dev/shm whose time is set back": """
before = os.stat('/dev/shm')
open('/dev/shm/x', 'w').write('x')
try: os.utime('/dev/shm', ns=(before.st_atime_ns, before.st_mtime_ns))
except OSError: pass
""",
    "a file of /dev/shm that is gone": "open('/dev/shm/x', 'w').close(); os.unlink('/dev/shm/x')",
    "a message queue": "try: open('/dev/mqueue/x', 'w')\nexcept OSError: pass",
    "the highest number of a process": "try: open('/proc/sys/kernel/pid_max', 'w').write('400')\nexcept OSError: pass",
    "settings of the network": "try: open('/proc/sys/net/ipv4/ip_default_ttl', 'w').write('9')\nexcept OSError: pass",
    "files and modes": "os.chmod('.', 0o700); open('/tmp/x', 'w'); os.chmod('/tmp', 0o1770)",
}
LOOK = (
    "cat /proc/self/net/dev /proc/self/net/snmp /proc/self/net/netstat 2>/dev/null; "
    "grep -so 'inuse [0-9]*' /proc/self/net/sockstat; "  # the rest of it is the whole machine's
    "ls -a /dev/shm /dev/mqueue . /tmp 2>/dev/null; stat -c %a . /tmp /dev/shm; "
    "cat /proc/sys/kernel/pid_max /proc/sys/net/ipv4/ip_default_ttl /proc/sysvipc/* 2>/dev/null; true"
)


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("place", PLACES)
def test_restore_undoes(place, left, boxes):
    box = box_at(place, boxes)
    look = LOOK + ("; echo $$; stat -c %Y /dev/shm > /dev/null" if place == "namespace" else "")
    before = box.snapshot()
    box.restore(before)
    seen = box.exec(look).stdout
    assert seen
    for _ in range(2):
        assert "Traceback" not in python(box, LEFT[left]).stderr
        box.restore(before)
        assert box.exec(look).stdout == seen


HELD = {
    "inotify instances": "while libc.inotify_init() >= 0: pass",
    "timers": "while libc.syscall(222, 1, 0, ctypes.byref(ctypes.c_int())) >= 0: pass",
    "contexts of asynchronous I/O": "while libc.syscall(206, 5000, ctypes.byref(ctypes.c_ulong())) >= 0: pass",
    "descriptors in flight": """
null, keep = os.open('/dev/null', os.O_RDONLY), []
try:
    while True:
        keep += socket.socketpair()
        for _ in range(8): socket.send_fds(keep[-1], [b'x'], [null] * 250)
except OSError: pass
""",
    "terminals": "try:\n    while True: os.openpty()\nexcept OSError: pass",
    "locks on a file of the host": """
import fcntl
for path in ('/usr/bin/env', '/usr', '/usr/lib', '/etc', '/etc/passwd', '/etc/ld.so.cache'):
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
for flags in (os.O_RDONLY, os.O_WRONLY):
    try: fcntl.flock(os.open('/usr/bin/env', flags), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: pass
try: fcntl.lockf(os.open('/usr/bin/env', os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
except OSError: pass
""",
}
SAME_KERNEL = [param for param in PLACES if param.values != ("gvisor",)]


SHARE_FILES_WITH_THE_HOST = ("docker", "podman", "process")
"""Where locks on them are not promised to do no harm; `isolation.missing` names it."""


def held_in_places():
    for place in [*PLACES, pytest.param("process")]:
        for held in HELD:
            if not (place.values[0] in SHARE_FILES_WITH_THE_HOST and held == "locks on a file of the host"):
                yield pytest.param(*place.values, held, marks=place.marks)


@pytest.mark.parametrize(("place", "held"), list(held_in_places()))
def test_neither_the_host_nor_siblings_feel_what_a_command_holds(place, held, boxes):
    box = box_at(place, boxes)
    code = HELD[held] + "\nopen('held', 'w').close(); time.sleep(4)"
    with opener(place)(limits=LIMITS, base={"kept": "k"}) as sibling:
        thread = threading.Thread(target=python, args=(box, code))
        thread.start()
        try:
            time.sleep(2)
            _host_works()
            locked = LOCKED if "locks" in held else ()
            result = sibling.exec(["/usr/bin/python3", "-c", PRELUDE + CYCLE + SIBLING, *locked], env={**HOST})
            assert (result.exit_code, result.stdout) == (0, "fine\n"), result
            sibling.restore(sibling.snapshot())
            for child in sibling.fork(2):
                child.close()
        finally:
            thread.join()
    assert box.exec("ls held").stdout == "held\n"


IN_FLIGHT = """
import os, socket, sys, time
null, keep = os.open('/dev/null', os.O_RDONLY), []
try:
    for _ in range(int(sys.argv[1])):
        keep += socket.socketpair()
        socket.send_fds(keep[-1], [b'x'], [null] * 250)
    print('sent')
except OSError as error: print(error.strerror)
open('held', 'w').close(); time.sleep(float(sys.argv[2]))
"""
ELSEWHERE = """
import sys
from agentenv.sandboxes import open_sandbox
with open_sandbox(backend="namespace") as box: print(box.exec(["/usr/bin/python3", "-c", sys.argv[1], "1", "0"]).stdout)
"""


def test_descriptors_in_flight_are_not_counted_for_sandboxes_of_another_process():
    """As root; an ordinary user has no other user to give, and `missing` says so."""
    with opener("namespace")() as box, box.shell() as shell:
        shell.run(f"{shlex.join(['/usr/bin/python3', '-c', IN_FLIGHT, '30', '60'])} & ")
        shell.run("while [ ! -e held ]; do sleep 0.05; done")
        other = subprocess.run([sys.executable, "-c", ELSEWHERE, IN_FLIGHT], capture_output=True, text=True, check=True)
        assert other.stdout == ("sent\n\n" if os.getuid() == 0 else "Too many references: cannot splice\n\n")


SIBLING = """
import fcntl
t = ctypes.c_int()
assert os.path.exists('/proc/self/fd') is not None
a, b = socket.socketpair()
with open('lock', 'w') as f: fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
for path in sys.argv[1:]: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
print('fine')
"""
LOCKED = ("/usr/bin/env", "/usr", "/usr/lib", "/etc", "/etc/passwd", "/etc/ld.so.cache")


def _host_works():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init()
    assert fd >= 0, "inotify_init"
    os.close(fd)
    timer = ctypes.c_int()
    assert libc.syscall(222, 1, 0, ctypes.byref(timer)) == 0, "timer_create"
    libc.syscall(226, timer)
    context = ctypes.c_ulong()
    assert libc.syscall(206, 1000, ctypes.byref(context)) == 0, "io_setup"
    libc.syscall(207, context)
    for fd in os.openpty():
        os.close(fd)
    with Path("/usr/bin/env").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---------------------------------------------------------------------- lost sandboxes


def _kill_guest(box, place):
    if place == "namespace":
        os.kill(pid_of(box._held.pidfd), signal.SIGKILL)
    elif place == "gvisor":
        signal.pidfd_send_signal(box._held.running.pidfd, signal.SIGKILL)
    elif place == "process":
        box._guest.kill()
    else:
        box._engine.api.kill(box._container)


@pytest.mark.parametrize("during", [True, False], ids=["during a command", "between commands"])
@pytest.mark.parametrize("place", EVERYWHERE)
def test_a_lost_sandbox_says_so_and_is_restored(place, during):
    skip_without(place)
    with opener(place)(limits=LIMITS, base={"kept": "k"}) as box:
        box.exec("echo more > own")
        before = box.snapshot()
        if during:
            threading.Timer(0.5, _kill_guest, (box, place)).start()
        else:
            _kill_guest(box, place)
            time.sleep(0.3)
        with pytest.raises(SandboxLost):
            box.exec("sleep 10")
        with pytest.raises(SandboxError, match="cannot be used"):
            box.exec("true")
        box.restore(before)
        assert box.exec("cat kept own").stdout == "kmore\n"
        assert box.changes(before) == []
        (child,) = box.fork(1)
        with child:
            assert child.exec("cat own").stdout == "more\n"
    with pytest.raises(SandboxError, match="cannot be used"):
        box.restore(before)


# ---------------------------------------------------------------------- containers


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "podman", "gvisor", "runsc", "namespace"])
def test_modes_survive_a_restore(place, boxes):
    """Set-user-id, set-group-id and sticky bits, too."""
    box = box_at(place, boxes)
    before = box.snapshot()
    box.exec("mkdir d; touch f g; chmod 2775 d; chmod 2755 f; chmod 6711 g; mkdir s; chmod 1777 s")
    seen = box.exec("stat -c '%n %a' d f g s").stdout
    assert seen == "d 2775\nf 2755\ng 6711\ns 1777\n"
    state = box.snapshot()
    box.restore(before)
    box.restore(state)
    assert box.exec("stat -c '%n %a' d f g s").stdout == seen
    assert box.snapshot().content_id == state.content_id
    box.restore(before)


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "podman"])
def test_both_disks_full_at_the_default_limits(place):
    """What has to be copied out is more than the guest may hold."""
    skip_without(place)
    with opener(place)() as box:
        for folder in (".", "/tmp"):
            box.exec(f"cd {folder}; head -c 130000000 /dev/urandom > a; head -c 120000000 a > b")
        state = box.snapshot()
        (child,) = box.fork(1)
        with child:
            assert child.snapshot().content_id == state.content_id
        box.restore(state)
        assert box.exec("ls -s /tmp | wc -l").stdout == "3\n"


MANY = "for i in range(12000): os.close(os.open(f'/tmp/f{i}', os.O_CREAT | os.O_WRONLY))"


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "podman", "gvisor"])
def test_more_empty_files_than_the_memory_limit_has_room_for(place):
    """Whoever makes them may be killed, or not be counted; the guest, which packs them, is neither."""
    skip_without(place)
    with opener(place)(limits=Limits(time_s=60, memory=16 << 20, disk=4 << 20, files=20_000)) as box:
        before = box.snapshot()
        result = python(box, MANY)
        assert result.oom or result.exit_code == 0, result
        state = box.snapshot()
        (child,) = box.fork(1)
        with child:
            assert child.snapshot().content_id == state.content_id
        box.restore(before)
        assert box.exec("echo alive").stdout == "alive\n"


def image_of(place, name, files=(), changes=()):
    """Imports an image with an evil interpreter or with volumes; returns the engine and the image's name."""
    skip_without(place)
    url = os.environ["CONTAINER_HOST"] if place == "podman" else None
    engine = engine_at(url)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("usr", "evil", "tmp", "workspace", "etc", "proc", "dev", "sys", "data"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(info)
        for link in ("bin", "lib", "lib64", "sbin"):
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(info)
        for path, text in files:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text.encode()))
    engine.api.import_image_from_data(out.getvalue(), repository=name, tag="latest", changes=list(changes))
    fields = {"engine": url} if url else {}
    return {"image": f"{name}:latest", "readonly": ("/usr",), **fields}


HOSTILE = {
    "a byte and silence": "printf x >&2; exec sleep 1000",
    "silence": "exec sleep 1000",
    "noise": "exec cat /dev/urandom",
    "noise on standard error": "exec cat /dev/zero >&2",
    "an early end": "exit 3",
    "a ready message and an early end": "printf '\\002\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000{}'",
    "an endless body": "printf '\\002\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\001{}'; exec cat /dev/zero",
    "no object": "printf '\\001\\000\\000\\000\\000\\000\\000\\000\\000\\000\\000\\0001'; sleep 1000",
}


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "podman"])
@pytest.mark.parametrize("script", HOSTILE)
def test_an_image_with_a_hostile_interpreter(place, script, monkeypatch):
    monkeypatch.setattr("agentenv.sandboxes.docker._START_S", 2.0)
    monkeypatch.setattr("agentenv.sandboxes.docker._STALL_S", 2.0)  # an engine may be slow to see that nobody listens
    files = [("evil/python3", f"#!/bin/sh\n{HOSTILE[script]}\n")]
    changes = ["ENV PATH=/evil:/usr/bin:/bin"]
    fields = image_of(place, f"agentenv-hostile-{list(HOSTILE).index(script)}", files, changes)
    began = time.monotonic()
    with pytest.raises(SandboxError):
        opener("docker")(**fields)
    assert time.monotonic() - began < 30


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "podman"])
def test_volumes_of_an_image_cannot_be_written(place):
    """They would be the host's disk, without a limit, and survive a restore."""
    fields = image_of(place, "agentenv-volume", [("data/given", "from the image")], ["VOLUME /data"])
    with opener("docker")(**fields) as box:
        assert box.exec("echo x > /data/x").exit_code != 0
        assert "x" not in box.exec("ls /data").stdout.split()
