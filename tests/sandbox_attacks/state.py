"""Attacks that set what a later command would find, hold up whoever opens a file, or tell what others have read."""

from .attack import Attack

__all__ = ["STATE"]

_OPEN = "import fcntl, mmap\nfd = os.open('/usr/bin/env', os.O_RDONLY)\n"
_OWN = "import fcntl\nfd = os.open('own', os.O_RDWR | os.O_CREAT)\n"

STATE = [
    Attack(
        "numbers of processes",
        "sh",
        r"""
        for f in pid_max ns_last_pid threads-max cad_pid
        do
          (cat /proc/sys/kernel/$f > /proc/sys/kernel/$f) 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "settings of the network",
        "sh",
        r"""
        find /proc/sys/net -type f 2>/dev/null | while read f
        do
          (: >> "$f") 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "settings of IPC and of users",
        "sh",
        r"""
        find /proc/sys/kernel /proc/sys/user /proc/sys/fs /proc/sys/vm -type f 2>/dev/null | while read f
        do
          (: >> "$f") 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "maps of users",
        "sh",
        r"""
        (echo 0 0 1 > /proc/self/uid_map) 2>/dev/null && echo BREACH
        (echo allow > /proc/self/setgroups) 2>/dev/null && echo BREACH
        """,
    ),
    Attack("slack of PID 1", "sh", "(echo 1 > /proc/1/timerslack_ns) 2>/dev/null && echo BREACH"),
    Attack("lease on a file of the system", "py", _OPEN + "attempt(fcntl.fcntl, fd, 1024, 0)"),
    Attack("lease on an own file", "py", _OWN + "attempt(fcntl.fcntl, fd, 1024, 1)"),
    Attack(
        "lock that everybody's /proc/locks has",
        "py",
        _OWN + "attempt(fcntl.fcntl, fd, 37, struct.pack('hhqqi4x', 1, 0, 31415926535, 0, 0))",
        bites=True,
    ),
    Attack(
        "have the machine read ahead, or forget",
        "py",
        "if libc.syscall(187, -1, 0, 1) or libc.syscall(221, -1, 0, 1, 4): breach('the advice is taken')",
        bites=True,
    ),
    Attack(
        "be told of a folder", "py", "import fcntl\nattempt(fcntl.fcntl, os.open('/usr/bin', os.O_RDONLY), 1026, 2)"
    ),
    Attack("fanotify", "py", "call(300, 0, 0)"),
    Attack(
        "which pages are in memory",
        "py",
        _OPEN
        + r"""
m = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
v = ctypes.create_string_buffer(8)
a = ctypes.c_void_p()
call(27, 0x400000, 4096, v)
call(27, 0x7f0000000000, 0, v)
""",
    ),
    Attack(
        "statistics of the cache",
        "py",
        _OPEN + "call(451, fd, struct.pack('QQ', 0, 4096), ctypes.create_string_buffer(64), 0)",
    ),
    Attack("read only what is in memory", "py", _OPEN + "attempt(os.preadv, fd, [bytearray(16)], 0, 8)"),
    Attack(
        "ask whether others have looked up a name",
        "py",
        """
        how = struct.pack('QQQ', 0, 0, 0x20)  # RESOLVE_CACHED
        for path in (b'/usr/bin/env', b'/usr/no-such-file'):
            known = libc.syscall(437, -100, path, how, 24) >= 0
            if known or ctypes.get_errno() in (errno.EAGAIN, errno.ENOENT): breach(path, known)
        """,
        bites=True,
    ),
    Attack(
        "read an own file only where it is in memory",
        "py",
        _OWN + "os.write(fd, b'x')\nattempt(os.preadv, fd, [bytearray(1)], 0, 8)",
    ),
    Attack(
        "signal PID 1 by a descriptor", "py", "fd = libc.syscall(434, 1, 0)\nif fd >= 0: libc.syscall(424, fd, 9, 0, 0)"
    ),
    Attack(
        "descriptors of PID 1 by their paths",
        "py",
        """
        for number in range(20):
            for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
                try: fd = os.open(f'/proc/1/fd/{number}', flags | os.O_NONBLOCK)
                except OSError: continue
                path = os.readlink(f'/proc/self/fd/{fd}')
                if path.startswith('/proc/') and flags == os.O_RDONLY and os.access(path, os.R_OK): continue  # anyhow
                if os.fstat(fd).st_rdev != os.makedev(1, 3): breach(number, path)
        """,
    ),
    Attack("advise others about memory", "py", "call(440, -1, 0, 0, 0, 0)\ncall(448, -1, 0)"),
    Attack("a place for a core dump", "sh", "(echo 0x7f > /proc/1/coredump_filter) 2>/dev/null && echo BREACH"),
    Attack(
        "threads of PID 1",
        "sh",
        "ls /proc/1/task/1/fd >/dev/null 2>&1 && cat /proc/1/task/1/mem 2>/dev/null && echo BREACH",
    ),
]
