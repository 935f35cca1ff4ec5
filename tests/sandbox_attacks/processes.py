"""Attacks that try to reach other processes, or outlive the command."""

from .attack import Attack

__all__ = ["PROCESSES"]

PROCESSES = [
    Attack(
        "see processes of the host",
        "sh",
        r"""
        [ -d "/proc/$HOST_PID" ] && grep -q 271828 "/proc/$HOST_PID/cmdline" && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "signal a process of the host",
        "sh",
        r"""
        grep -q 271828 "/proc/$HOST_PID/cmdline" 2>/dev/null && kill -0 "$HOST_PID" 2>/dev/null && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "kill everything",
        "sh",
        r"""
        (sleep 0.1
        kill -9 -1) & sleep 0.5
        """,
    ),
    Attack(
        "signal PID 1",
        "py",
        r"""
        import signal
        for n in [*range(1, 32), *range(34, 65)]:
            try: os.kill(1, n)
            except OSError: pass
        """,
    ),
    Attack(
        "trace PID 1",
        "py",
        r"""
        call(101, 16, 1, 0, 0)
        call(101, 0x4206, 1, 0, 0)
        """,
    ),
    Attack(
        "read the memory of PID 1",
        "py",
        r"""
        for n in ('mem', 'maps', 'environ', 'auxv', 'stack', 'syscall', 'fd', 'map_files', 'exe'):
            p = '/proc/1/' + n
            read = os.listdir if n in ('fd', 'map_files') else os.readlink if n == 'exe' else one_byte
            attempt(read, p)
        """,
    ),
    Attack(
        "copy memory of PID 1",
        "py",
        r"""
        b = ctypes.create_string_buffer(16)
        v = (ctypes.c_void_p * 2)(ctypes.addressof(b), 16)
        call(310, 1, v, 1, v, 1, 0)
        call(311, 1, v, 1, v, 1, 0)
        """,
    ),
    Attack(
        "take descriptors of PID 1",
        "py",
        r"""
        try: fd = os.pidfd_open(1)
        except OSError: fd = -1
        call(438, fd, 3, 0)
        call(438, fd, 0, 0)
        """,
    ),
    Attack(
        "change limits and priority of PID 1",
        "py",
        r"""
        import resource
        attempt(resource.prlimit, 1, resource.RLIMIT_NOFILE, (0, 0))
        attempt(os.sched_setaffinity, 1, {0})
        attempt(os.setpriority, os.PRIO_PROCESS, 1, 19)
        attempt(os.setpriority, os.PRIO_USER, 0, 19)
        """,
    ),
    Attack(
        "enter namespaces of PID 1",
        "py",
        r"""
        for n in ('mnt', 'pid', 'net', 'user', 'ipc', 'uts'):
            try: fd = os.open('/proc/1/ns/' + n, os.O_RDONLY)
            except OSError:
                fd = os.open('/proc/self/ns/' + n, os.O_RDONLY)
            call(308, fd, 0)
        """,
    ),
    Attack(
        "daemon that outlives the command",
        "sh",
        r"""
        (setsid sh -c 'sleep 1
        echo BREACH > late' > /dev/null 2>&1 &) &
        """,
    ),
    Attack(
        "descendant that holds the output",
        "sh",
        r"""
        (setsid sleep 60 &) &
        """,
    ),
    Attack(
        "fork bomb",
        "sh",
        r"""
        timeout 1 sh -c 'b() { b | b & }
        b' 2>/dev/null
        i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done  # where it explodes, nothing can be forked to wait
        """,
    ),
    Attack(
        "bomb of threads",
        "py",
        r"""
        import threading
        n = 0
        try:
            for n in range(3000):
                threading.Thread(target=time.sleep, args=(3,), daemon=True).start()
            breach('3000 threads')
        except (RuntimeError, MemoryError): pass
        print('TRIED', flush=True)
        os._exit(0)
        """,
    ),
    Attack(
        "limits of a process of the host",
        "py",
        "call(302, int(HOST_PID), 7, 0, ctypes.create_string_buffer(16))",
        bites=True,
    ),
    Attack(
        "where a process of the host runs",
        "py",
        "attempt(os.sched_setaffinity, int(HOST_PID), os.sched_getaffinity(0))",
        bites=True,
    ),
]
