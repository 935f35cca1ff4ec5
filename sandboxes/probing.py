"""What a back end really enforces, found by trying to break it: one small attack per promise."""

import contextlib
import fcntl
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .guest_sandbox import GuestSandbox
from .spec import Limits, SandboxSpec

__all__ = ["PROMISES", "probe_by_doing", "try_processes"]

PROMISES: Mapping[str, str] = {
    "files": "commands see no file of the host beyond a read-only allow-list, and write none outside workspace and tmp",
    "network": "commands reach no network, not even the host's own services",
    "processes": "commands neither see nor signal processes outside the sandbox",
    "survivors": "nothing of a command lives on after it",
    "privileges": "commands have no capabilities and can gain none",
    "syscalls": "system calls that reach deep into the kernel are refused",
    "time": "a command is killed at its deadline",
    "output": "output beyond the limit is dropped",
    "memory": "all processes together stay below the memory limit",
    "guest_spared": "a command cannot have the kernel spare it, and kill its guest instead, when memory runs out",
    "process_count": "there are no more processes at once than the limit",
    "disk": "files stay below the disk limit",
    "inodes": "there are no more files than the limit",
    "file_size": "no file grows beyond the limit",
    "counted_by_user": "what the kernel counts by user (descriptors on their way, pipes) is this sandbox's alone",
    "shown_files": "what is locked or listened at among the files shown is not what the host has",
    "restore": "restore undoes all that a later command could read back",
    "constant_snapshot": "snapshot and fork do not depend on how much is in the workspace",
    "process_snapshot": "a snapshot can include running processes",
}
"""What a sandbox can promise, by name."""

_MIB = 1 << 20
_MUCH = 1_500_000
_LIMITS = Limits(time_s=5, memory=64 * _MIB, processes=24, disk=8 * _MIB, files=200, file_size=2 * _MIB, output=1000)
_HOG = "import sys\nb = []\nwhile len(b) < 256: b.append(b'x' * (1 << 20))\nprint('unlimited')"
_MANY = (
    "import os, signal\n"
    "signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))\n"
    "reader, writer = os.pipe()\n"
    "stop, go = os.pipe()\n"
    "for _ in range(8):\n"
    "    if not os.fork():\n"
    "        os.close(go)\n"
    "        held = b'x' * (24 << 20)\n"
    "        os.write(writer, b'.')\n"
    "        os.read(stop, 1)\n"
    "        os._exit(0)\n"
    "os.close(writer)\n"
    "count = 0\n"
    "while count < 8 and os.read(reader, 1): count += 1\n"
    "print('together' if count == 8 else count)"
)
_LOOSE = (
    "import os, socket\n"
    "block, keep = b'x' * 1900000, []\n"
    "for _ in range(100):\n"
    "    fd = os.memfd_create('loose')\n"
    "    os.write(fd, block)\n"
    "    keep += socket.socketpair()\n"
    "    socket.send_fds(keep[-1], [b'x'], [fd])\n"
    "    os.close(fd)\n"
    "print('loose')"
)
_IN_CONNECTIONS = (
    "import socket, time\n"
    "held, keep = 0, []\n"
    "listener = socket.create_server(('127.0.0.1', 0))\n"
    "while held < 256 << 20 and len(keep) < 160:\n"
    "    keep += [socket.create_connection(listener.getsockname()), listener.accept()[0]]\n"
    "    keep[-2].setblocking(False)\n"
    "    try:\n"
    "        while True: held += keep[-2].send(bytes(1 << 20))\n"
    "    except BlockingIOError: pass\n"
    "time.sleep(0.5)\n"
    "print('connections' if held >= 256 << 20 else held)"
)
_SEND_MANY = (
    "import os, socket, sys, time\n"
    "null, keep = os.open('/dev/null', os.O_RDONLY), []\n"
    "try:\n"
    "    for _ in range(int(sys.argv[1])):\n"
    "        keep += socket.socketpair()\n"
    "        socket.send_fds(keep[-1], [b'x'], [null] * 200)\n"
    "    print('sent', flush=True)\n"
    "except OSError as error: print(error.strerror, flush=True)\n"
    "open('sent', 'w').close()\n"
    "time.sleep(float(sys.argv[2]))"
)
_GREAT_PIPES = (
    "import fcntl, os, sys, time\n"
    "pipes = [os.pipe() for _ in range(int(sys.argv[1]))]\n"
    "for _, end in pipes[1:]:\n"
    "    try: fcntl.fcntl(end, 1031, 1 << 20)\n"
    "    except OSError: pass\n"
    "more = os.pipe()\n"
    "open('sent', 'w').close()\n"
    "print(fcntl.fcntl(os.pipe()[1], 1032))\n"
    "time.sleep(float(sys.argv[2]))"
)
_NEIGHBOR = (  # what runs commands is outside of the sandbox, but for a PID 1 of its own
    '[ "$PPID" = 1 ] && exit; cat "/proc/$PPID/status" > /dev/null && echo seen; kill -0 "$PPID" && echo signalled'
)
_LOCKED = "/usr/bin/env"
_LOCK = (
    "import fcntl, sys, time\n"
    f"file = open('{_LOCKED}', 'rb')\n"
    "try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); print('locked', flush=True)\n"
    "except OSError as error: print(error.strerror, flush=True)\n"
    "open('locked', 'w').close()\n"
    "time.sleep(float(sys.argv[1]))"
)
_LOOKS: Mapping[str, str] = {
    "the numbers of processes go on: a command can tell how many there were before": "echo $$",
    "what earlier commands took, of processor time and of memory at most, can be read": (
        "cut -d ' ' -f 14-17 /proc/1/stat; cd /sys/fs/cgroup; cat memory.peak memory/memory.max_usage_in_bytes"
    ),
    "files of the kernel, or counters of the network, outlive it": (
        "cat /proc/self/net/dev; ls -a /dev/shm /dev/mqueue; cat /proc/sysvipc/*"
    ),
}
_SEND = 'import socket; s = socket.socket(type=2); s.bind(("127.0.0.1", 0)); s.sendto(b"x", s.getsockname())'
_WORK = "x = b'x' * (30 << 20); sum(x[:10_000_000])"
_TRACES = f"echo x > /dev/shm/probe; echo x > /dev/mqueue/probe; python3 -c '{_SEND}'"
_CAPABILITIES = (
    "import ctypes, struct\n"
    "libc, data = ctypes.CDLL(None), ctypes.create_string_buffer(24)\n"
    "libc.capget(struct.pack('Ii', 0x20080522, 0), data)\n"
    "print(sum(struct.unpack('6I', data.raw)), libc.prctl(39, 0, 0, 0, 0))"
)


def probe_by_doing(
    level: str, backend: str, make: Callable[[SandboxSpec], GuestSandbox], given: Mapping[str, str] | None = None
) -> Capabilities:
    """Returns what holds in a sandbox that `make` opens.

    Args:
        level: the isolation level.
        backend: its name.
        make: opens a sandbox.
        given: promises that are not tried here: `""` where one holds, otherwise the reason it does not.

    Raises:
        SandboxError: no sandbox can be opened, or it runs no commands.
    """
    found: dict[str, str] = dict(given or {})
    with make(SandboxSpec(limits=_LIMITS)) as sandbox:
        if sandbox.exec(["true"]).exit_code != 0:
            msg = f"the {backend} back end opens a sandbox, but no command runs in it"
            raise SandboxError(msg)
        for name, attack in _ATTACKS.items():
            if name not in found:
                found[name] = attack(sandbox)
    enforced = frozenset(name for name, reason in found.items() if not reason)
    missing = {name: found[name] for name in PROMISES if found.get(name)}
    return Capabilities(level, enforced, missing, backend)


def _files(sandbox: GuestSandbox) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="agentenv-probe-", suffix=".txt") as canary:
        canary.write("secret")
        canary.flush()
        Path(canary.name).chmod(0o666)
        before = Path(canary.name).stat()
        result = sandbox.exec(
            ["sh", "-c", 'cat "$1"; echo x > "$1"; chmod 644 "$1"; touch -d @1 "$1"', "sh", canary.name]
        )
        after = Path(canary.name).stat()
        seen = "secret" in result.stdout or Path(canary.name).read_text() != "secret"
    if (before.st_mode, before.st_mtime_ns) != (after.st_mode, after.st_mtime_ns):
        return "the mode or the time of a file of the host could be changed"
    return "a file of the host could be read or written" if seen else ""


def _network(sandbox: GuestSandbox) -> str:
    lines = sandbox.exec("cat /proc/net/dev").stdout.splitlines()[2:]
    links = {line.partition(":")[0].strip() for line in lines}
    return f"network interfaces are visible: {sorted(links - {'lo'})}" if links - {"lo"} else ""


def _processes(sandbox: GuestSandbox) -> str:
    numbers = sandbox.exec("ls /proc").stdout.split()
    seen = str(os.getpid()) in numbers and len([number for number in numbers if number.isdigit()]) > 8
    reached = sandbox.exec(_NEIGHBOR).stdout.split()
    if seen or "seen" in reached:
        return "processes outside of the sandbox are visible"
    if "signalled" in reached:
        return "processes of this user outside of it can be signalled: Landlock prevents that from version 6 on (6.12)"
    return ""


def _survivors(sandbox: GuestSandbox) -> str:
    sandbox.exec("(setsid sleep 30 &) ; true")
    count = sandbox.exec("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 3[0]'").stdout.strip()
    return "" if count == "0" else "a background process outlived its command"


def _privileges(sandbox: GuestSandbox) -> str:
    python = sandbox.exec("command -v python3").stdout.strip()
    if not python:
        return "cannot be tried: there is no python3 in the sandbox"
    held = sandbox.exec([python, "-c", _CAPABILITIES]).stdout.split()
    if len(held) != 2 or held[0] != "0":
        return "commands have capabilities"
    return "" if held[1] == "1" else "set-user-id programs work"


def _syscalls(sandbox: GuestSandbox) -> str:
    return "a user namespace can be made" if sandbox.exec("unshare -U true").exit_code == 0 else ""


def _time(sandbox: GuestSandbox) -> str:
    return "" if sandbox.exec("sleep 5", timeout_s=0.05).timed_out else "a deadline passed without effect"


def _output(sandbox: GuestSandbox) -> str:
    return "" if sandbox.exec("head -c 5000 /dev/zero").truncated else "output was not limited"


def _memory(sandbox: GuestSandbox) -> str:
    python = sandbox.exec("command -v python3").stdout.strip()
    if not python:
        return "cannot be tried: there is no python3 in the sandbox"
    hog = sandbox.exec([python, "-c", _HOG])
    if "unlimited" in hog.stdout:
        return "256 MiB could be used with a limit of 64 MiB"
    if "together" in sandbox.exec([python, "-c", _MANY]).stdout:
        return "each process is limited, but eight of them held 192 MiB with a limit of 64 MiB"
    if "loose" in sandbox.exec([python, "-c", _LOOSE]).stdout:
        return "what no process has (files in memory, messages of sockets) is not counted: no control group can be made"
    if "connections" in sandbox.exec([python, "-c", _IN_CONNECTIONS]).stdout:
        return "messages in TCP connections are not counted: 256 MiB of them with a limit of 64 MiB"
    return ""


def _guest_spared(sandbox: GuestSandbox) -> str:
    result = sandbox.exec("(echo 0 > /proc/self/oom_score_adj) 2>/dev/null && cat /proc/self/oom_score_adj")
    first = sandbox.exec("cat /proc/self/oom_score_adj 2>/dev/null").stdout
    if result.exit_code == 0 and first.strip() != "0":
        return "oom_score_adj can be written: neither Landlock nor a read-only /proc keeps a command from it"
    return ""


def _process_count(sandbox: GuestSandbox) -> str:
    result = sandbox.exec("i=0; while [ $i -lt 60 ]; do sleep 2 & i=$((i+1)); done; echo all; true")
    return "60 processes could run with a limit of 24" if "all" in result.stdout and not result.stderr else ""


def _disk(sandbox: GuestSandbox) -> str:
    result = sandbox.exec("for i in 1 2 3 4 5 6 7 8 9; do head -c 1500000 /dev/zero > d$i || exit 1; done; echo all")
    sandbox.exec("rm -f d*")
    return "13 MB could be written with a limit of 8 MiB" if "all" in result.stdout else ""


def _inodes(sandbox: GuestSandbox) -> str:
    result = sandbox.exec("i=0; while [ $i -lt 400 ]; do : > n$i || exit 1; i=$((i+1)); done; echo all")
    sandbox.exec("rm -f n*")
    return "400 files could be made with a limit of 200" if "all" in result.stdout else ""


def _file_size(sandbox: GuestSandbox) -> str:
    result = sandbox.exec("head -c 3000000 /dev/zero > big && echo all")
    sandbox.exec("rm -f big")
    return "a file grew beyond the limit" if "all" in result.stdout else ""


def _counted_by_user(sandbox: GuestSandbox) -> str:
    python = sandbox.exec("command -v python3").stdout.strip()
    if not python:
        return "cannot be tried: there is no python3 in the sandbox"
    found = _beside(sandbox, [python, "-c", _SEND_MANY], "30", "1")
    if found != "sent":
        return f"while another sandbox has many descriptors on their way, none can be sent: {found}"
    found, usual = _beside(sandbox, [python, "-c", _GREAT_PIPES], "80", "1"), os.sysconf("SC_PAGE_SIZE") * 16
    return f"while another sandbox has great pipes, new ones have {found} bytes" if int(found or 0) < usual else ""


def _beside(sandbox: GuestSandbox, program: list[str], much: str, little: str) -> str:
    """Returns what a program prints, asked for `little`, while it runs in another sandbox and has `much`."""
    (other,) = sandbox.fork(1)
    with other, sandbox.shell() as shell:
        shell.run(f"{shlex.join([*program, much, '30'])} & while [ ! -e sent ]; do sleep 0.01; done; rm sent")
        return other.exec([*program, little, "0"]).stdout.strip()


def _shown_files(sandbox: GuestSandbox) -> str:
    python = sandbox.exec("command -v python3").stdout.strip()
    if not python:
        return "cannot be tried: there is no python3 in the sandbox"
    (other,) = sandbox.fork(1)
    with other, sandbox.shell() as shell:
        shell.run(f"{shlex.join([python, '-c', _LOCK, '30'])} & while [ ! -e locked ]; do sleep 0.01; done; rm locked")
        if "locked" not in other.exec([python, "-c", _LOCK, "0"]).stdout:
            return "they are the machine's own: a lock on one holds up other sandboxes, and whoever else locks it"
        with contextlib.suppress(FileNotFoundError), Path(_LOCKED).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "they are the machine's own: a lock on one holds up whoever else locks it"
    return ""


def _restore(sandbox: GuestSandbox) -> str:
    before = sandbox.snapshot()
    found: list[str] = []
    for traces in (f'python3 -c "{_WORK}"', _TRACES):  # after the second some back ends begin anew
        sandbox.restore(before)
        seen = [sandbox.exec(look).stdout for look in _LOOKS.values()]
        sandbox.exec(traces)
        sandbox.restore(before)
        again = [sandbox.exec(look).stdout for look in _LOOKS.values()]
        found += [why for why, then, now in zip(_LOOKS, seen, again, strict=True) if then != now]
    return "; ".join(dict.fromkeys(found))


def _constant_snapshot(sandbox: GuestSandbox) -> str:
    sandbox.exec(f"head -c {_MUCH} /dev/urandom > much")
    before = sandbox.snapshot()
    sandbox.exec("echo > little")
    after = sandbox.snapshot()
    sandbox.exec("rm much little")
    copied = sum(len(layer.archive()) for layer in after.layers if layer not in before.layers)
    return f"a snapshot copies the workspace: {copied} bytes after a change of one" if copied > _MUCH else ""


def try_processes(sandbox: GuestSandbox) -> str:
    """Returns why processes that run in a sandbox cannot be taken into a snapshot; `""` where they can."""
    with sandbox.shell() as shell:
        shell.run("x=4")
        try:
            (child,) = sandbox.fork(1, processes=True)
        except SandboxError as error:
            return str(error)
        with child:
            return "" if child.shell().run("echo $x").stdout == "4\n" else "a shell did not go on as it was"


_ATTACKS: Mapping[str, Callable[[GuestSandbox], str]] = {
    "files": _files,
    "network": _network,
    "processes": _processes,
    "survivors": _survivors,
    "privileges": _privileges,
    "syscalls": _syscalls,
    "time": _time,
    "output": _output,
    "memory": _memory,
    "guest_spared": _guest_spared,
    "process_count": _process_count,
    "disk": _disk,
    "inodes": _inodes,
    "file_size": _file_size,
    "counted_by_user": _counted_by_user,
    "shown_files": _shown_files,
    "restore": _restore,
    "constant_snapshot": _constant_snapshot,
    "process_snapshot": try_processes,
}
