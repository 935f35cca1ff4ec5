"""Random programs from a grammar of resources and system calls. Each runs to its end whatever of it is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

__all__ = ["HEAD", "random_script"]

HEAD = """
import ctypes, fcntl, mmap, os, resource, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
keep, buffer, counter = [], ctypes.create_string_buffer(8192), iter(range(10 ** 9))
def attempt(action):
    try: return action()
    except BaseException as error:
        if isinstance(error, SystemExit): raise
def repeat(times, action):
    for _ in range(times):
        if attempt(action) is None: break
def hold(thing): keep.append(thing); return thing
def name(): return 'x%d' % next(counter)
def numbers(): return [int(fd) for fd in os.listdir('/proc/self/fd')][-100:]
def child(action, wait=True):
    pid = os.fork()
    if pid: return os.waitpid(pid, 0) if wait else pid
    try: signal.alarm(1); action()
    finally: os._exit(0)
def orphan(action): child(lambda: (os.setsid(), child(action, False)))
def thread(action): hold(threading.Thread(target=attempt, args=(action,), daemon=True)).start(); return True
def pin(*fds):
    a, b = socket.socketpair(); c, d = socket.socketpair()
    socket.send_fds(a, [b'x'], [c.fileno(), d.fileno(), *fds][:250])
    socket.send_fds(c, [b'x'], [a.fileno(), b.fileno()])
    for s in (a, b, c, d): s.close()
    return True
def grow(fd, size):
    while size > 0: size -= os.write(fd, bytes(65536))
    return hold(fd)
def flood(s):
    s.setblocking(False)
    try:
        while True: s.send(bytes(65536))
    except BlockingIOError: return hold(s)
def text(path, what): return open(path, 'w').write(what) + 1
"""

_RULES: dict[str, tuple[str, ...]] = {
    "place": ("'.'", "'/tmp'", "'/dev/shm'", "'/tmp/d'"),
    "shown": ("'/usr/bin/env'", "'/usr'", "'/etc/passwd'", "'/usr/lib'", "'/etc/ld.so.cache'", "'/'", "'/dev/null'"),
    "few": ("1", "3", "10", "40"),
    "many": ("30", "300", "3000", "30000"),
    "size": ("1", "4096", "1 << 20", "8 << 20", "64 << 20", "512 << 20"),
    "signal": ("9", "11", "15", "17", "19", "20", "25", "50", "64"),
    "pid": ("0", "1", "-1", "os.getpid()", "os.getppid()", "2", "2 ** 22"),
    "file": (
        "os.open({place} + '/' + name(), os.O_CREAT | os.O_RDWR)",
        "os.open({place}, os.O_TMPFILE | os.O_RDWR)",
        "os.open({place}, os.O_RDONLY)",
        "os.open({place}, os.O_PATH)",
        "os.open({shown}, os.O_RDONLY)",
        "os.memfd_create(name())",
        "os.open('/proc/self/fd', os.O_RDONLY)",
        "os.open('/dev/zero', os.O_RDWR)",
        "socket.socket(socket.AF_UNIX, {few} % 3 + 1).detach()",
        "socket.create_server(('127.0.0.1', 0)).detach()",
        "os.pipe()[1]",
        "os.eventfd(5)",
        "os.pidfd_open(os.getpid())",
        "select.epoll().fileno()",
        "libc.timerfd_create(1, 0)",
        "libc.signalfd(-1, buffer, 0)",
        "os.openpty()[0]",
    ),
    "number": ("{any_call}",),
    "argument": (
        "0",
        "1",
        "-1",
        "2 ** 31",
        "4096",
        "buffer",
        "ctypes.byref(buffer, 64)",
        "b'/workspace'",
        "b'/proc/self/mem'",
        "b'/tmp/x1'",
        "0x7e020000",
        "os.getpid()",
        "{file}",
    ),
    "action": (
        "hold({file})",
        "grow({file}, {size})",
        "pin({file}, {file})",
        "pin(*numbers())",
        "pin(grow(os.memfd_create('m'), {size}))",
        "flood(hold(socket.socketpair())[0])",
        "socket.send_fds(hold(socket.socketpair())[0], [b'x'], [{file}] * 200)",
        "os.write(hold(os.pipe())[1], bytes(60000))",
        "fcntl.fcntl(hold(os.pipe())[1], 1031, {size})",
        "hold(mmap.mmap(-1, {size})).write(b'x' * 65536)",
        "hold(bytearray({size}))",
        "libc.mlockall({few})",
        "libc.shmat(libc.shmget(0, {size}, 0o1600), 0, 0)",
        "libc.semget(0, {many}, 0o600) + 1",
        "libc.msgsnd(libc.msgget(0, 0o600), buffer, 4096, 0o4000) + 1",
        "libc.inotify_add_watch(hold(libc.inotify_init()), {place}.encode(), 0xfff)",
        "libc.syscall(222, 1, 0, buffer) + 1",
        "libc.syscall(206, {many}, buffer) + 1",
        "libc.syscall(250, 0, -3, 1)",
        "libc.syscall(248, b'user', name().encode(), b'x' * 100, 100, -2) + 1",
        "hold(os.openpty())",
        "fcntl.flock(hold(os.open({shown}, os.O_RDONLY)), fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(hold({file}), fcntl.LOCK_EX)",
        "fcntl.lockf(hold({file}), fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "fcntl.fcntl(hold({file}), 1024, {few} % 3)",
        "fcntl.fcntl(hold({file}), 1026, 0x8000001f)",
        "fcntl.fcntl({file}, 1033, {few})",
        "fcntl.fcntl({file}, 1036, buffer)",
        "os.ftruncate({file}, 1 << 40)",
        "os.posix_fallocate({file}, 0, {size})",
        "os.mkdir({place} + '/' + name())",
        "os.mkdir('/tmp/d')",
        "os.chdir(os.mkdir('deep') or 'deep') or 1",
        "os.symlink({shown}, {place} + '/' + name()) or 1",
        "os.mkfifo({place} + '/' + name()) or 1",
        "os.link({shown}, {place} + '/' + name()) or 1",
        "os.link('/workspace/kept', {place} + '/' + name()) or 1",
        "os.rename({place}, {place} + '/' + name())",
        "os.unlink('/workspace/kept')",
        "os.chmod({place}, {few})",
        "os.chmod('/workspace/kept', 0o6000)",
        "os.setxattr({place}, 'user.' + name(), bytes(2000)) or 1",
        "os.utime({place}, (2 ** 40, -5))",
        "hold(socket.socket(socket.AF_UNIX)).bind({place} + '/' + name()) or 1",
        "hold(socket.socket(socket.AF_UNIX)).bind('\\0' + name()) or 1",
        "hold(socket.create_server(('', 0))) and socket.create_connection(keep[-1].getsockname()).send(b'x')",
        "socket.socket(type=2).sendto(b'x', ('127.0.0.1', 9))",
        "text('/proc/self/oom_score_adj', '-1000')",
        "text('/proc/sys/kernel/pid_max', '400')",
        "text('/proc/sys/kernel/ns_last_pid', '{many}')",
        "text('/proc/self/coredump_filter', 'ff')",
        "text('/proc/self/timerslack_ns', '1')",
        "text('/proc/1/oom_score_adj', '1000')",
        "text('/sys/fs/cgroup/' + name(), 'x')",
        "signal.signal({signal}, signal.SIG_IGN) and 1",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))",
        "os.kill({pid}, {signal})",
        "libc.prctl({few}, 1, 0, 0, 0) + 1",
        "libc.prctl(36, 1, 0, 0, 0) + 1",
        "libc.prctl({many} % 80, {few}, buffer, 0, 0) + 1",
        "os.setpriority({few} % 3, {pid}, -5)",
        "os.sched_setscheduler({pid}, {few} % 4, os.sched_param({few}))",
        "os.sched_setaffinity({pid}, [0])",
        "resource.setrlimit({few} % 16, (1 << 30, 1 << 30)) or 1",
        "libc.syscall({any_call}, {argument}, {argument}, {argument}, {argument}) + 1",
        "child(lambda: libc.syscall({any_call}, {argument}, {argument}, {argument}, {argument}, {argument}))",
        "child(lambda: libc.syscall({any_call}, {argument}, {argument}, {argument}))",
        "child(lambda: {action})",
        "child(lambda: {action}, False)",
        "child(lambda: repeat({few}, lambda: {action}), False)",
        "orphan(lambda: {action})",
        "orphan(lambda: time.sleep(60))",
        "thread(lambda: {action})",
        "thread(lambda: time.sleep(60))",
        "libc.vfork() or os._exit(0)",
        "os.read({file}, 65536)",
        "os.write(1, b'x' * 65536)",
        "os.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 60 & sleep 60'], {{}})",
        "os.sendfile({file}, {file}, 0, 65536)",
        "os.splice({file}, {file}, 65536)",
        "os.copy_file_range({file}, {file}, 65536)",
    ),
    "statement": (
        "attempt(lambda: {action})",
        "attempt(lambda: {action})",
        "repeat({few}, lambda: {action})",
        "repeat({many}, lambda: {action})",
        "attempt(lambda: child(lambda: repeat({many}, lambda: {action})))",
        "attempt(lambda: ({action}, {action}))",
    ),
    "end": (
        "",
        "",
        "time.sleep(0.3)",
        "time.sleep(60)",
        "os._exit(3)",
        "os.kill(0, 9)",
        "os.kill(-1, 9)",
        "os.abort()",
    ),
}
_HOLE = re.compile(r"(?<!\{)\{(\w+)\}(?!\})")
_DEEPEST = 5
_NEWEST_CALL = 480


def random_script(rng: random.Random) -> str:
    """Returns a program, without its head, of one to eight statements."""
    lines = [_expand("{statement}", rng, 0) for _ in range(rng.randint(1, 8))]
    return "\n".join((*lines, _expand("{end}", rng, 0)))


def _expand(text: str, rng: random.Random, depth: int) -> str:
    """Returns a text in which every hole has been filled by one of its rules."""

    def fill(found: re.Match[str]) -> str:
        name = found[1]
        if name == "any_call":
            return str(rng.randrange(_NEWEST_CALL))
        rules = _RULES[name]
        if depth > _DEEPEST:  # none that goes deeper
            rules = tuple(rule for rule in rules if "{action}" not in rule) or rules
        return _expand(rng.choice(rules), rng, depth + 1)

    return _HOLE.sub(fill, text).replace("{{}}", "{}")
