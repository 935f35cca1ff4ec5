"""Attacks that try to reach deep into the kernel, or become more."""

from .attack import Attack

__all__ = ["KERNEL"]

KERNEL = [
    Attack(
        "own user namespace",
        "sh",
        r"""
        unshare -U true 2>/dev/null && echo BREACH
        unshare -Ur true 2>/dev/null && echo BREACH
        """,
    ),
    Attack(
        "other namespaces",
        "py",
        r"""
        for flag in (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x2000000, 0x80):
            call(272, flag)
        """,
    ),
    Attack(
        "namespaces through clone and clone3",
        "py",
        r"""
        for flag in (0x20000, 0x10000000, 0x20000000, 0x40000000):
            r = libc.syscall(56, flag | 17, 0, 0, 0, 0)
            if r == 0: os._exit(0)
            if r > 0: breach('clone', hex(flag))
        args = struct.pack('11Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
        r = libc.syscall(435, args, len(args))
        if r == 0: os._exit(0)
        if r > 0: breach('clone3')
        """,
    ),
    Attack(
        "mount",
        "py",
        r"""
        call(165, b'tmpfs', b'/tmp', b'tmpfs', 0, 0)
        call(166, b'/proc', 2)
        call(155, b'/tmp', b'/tmp')
        """,
    ),
    Attack(
        "mount with the new calls",
        "py",
        r"""
        call(430, b'tmpfs', 0)
        call(428, -100, b'/', 1)
        call(429, -1, b'', -100, b'/tmp', 4)
        call(442, -100, b'/', 0, bytes(32), 32)
        """,
    ),
    Attack(
        "BPF",
        "py",
        r"""
        call(321, 0, bytes(128), 128)
        call(321, 5, bytes(128), 128)
        """,
    ),
    Attack(
        "performance events",
        "py",
        r"""
        call(298, struct.pack('IIQQQQQQ', 1, 112, 0, 0, 0, 0, 0, 0) + bytes(64), 0, -1, -1, 0)
        """,
    ),
    Attack(
        "userfaultfd",
        "py",
        r"""
        call(323, 0)
        call(323, 1)
        """,
    ),
    Attack(
        "io_uring",
        "py",
        r"""
        call(425, 4, ctypes.create_string_buffer(256))
        """,
    ),
    Attack(
        "keyrings",
        "py",
        r"""
        call(248, b'user', b'name', b'value', 5, -3)
        call(250, 0, -3, 1)
        call(249, b'user', b'name', 0, -3)
        """,
    ),
    Attack(
        "load a module, boot a kernel",
        "py",
        r"""
        call(175, bytes(64), 64, b'')
        call(313, 0, b'', 0)
        call(246, 0, 0, 0, 0)
        call(320, 0, 0, 0, b'', 0)
        call(169, 0xfee1dead, 672274793, 0, 0)
        """,
    ),
    Attack(
        "the kernel's log",
        "py",
        r"""
        call(103, 3, ctypes.create_string_buffer(64), 64)
        call(103, 10, 0, 0)
        """,
    ),
    Attack(
        "the clock and the host's name",
        "py",
        r"""
        call(227, 0, struct.pack('qq', 0, 0))
        call(164, struct.pack('qq', 0, 0), 0)
        call(170, b'evil', 4)
        call(171, b'evil', 4)
        """,
    ),
    Attack(
        "swap, accounting, quotas, ports",
        "py",
        r"""
        call(167, b'/tmp/x', 0)
        call(163, b'/tmp/x')
        call(179, 0, b'/dev/vda', 0, 0)
        call(172, 3)
        call(173, 0, 1, 1)
        """,
    ),
    Attack(
        "type into a terminal",
        "py",
        r"""
        import fcntl
        try:
            m, s = os.openpty()
            attempt(fcntl.ioctl, s, 0x5412, b'x')
        except OSError: pass
        attempt(fcntl.ioctl, 0, 0x5412, b'x')
        """,
    ),
    Attack(
        "calls of other architectures",
        "py",
        r"""
        call(0x40000000 | 39)
        call(0x40000000 | 165, 0, 0, 0, 0, 0)
        """,
    ),
    Attack(
        "become root",
        "py",
        r"""
        for f in (os.setuid, os.setgid, os.seteuid): attempt(f, 0)
        attempt(os.setgroups, [0])
        if os.getuid() == 0: breach('is root')
        """,
    ),
    Attack(
        "set-user-id programs",
        "sh",
        r"""
        cp /usr/bin/id ./id && chmod 4755 id && ./id -u | grep -qx 0 && echo BREACH
        for p in su mount passwd chsh newgrp sudo
        do
          p=$(command -v $p) && [ -u $p ] && grep -q 'NoNewPrivs:.*0' /proc/self/status && echo BREACH
        done
        """,
    ),
    Attack(
        "raise limits",
        "py",
        r"""
        import resource
        for n in ('NPROC', 'FSIZE', 'CORE', 'NOFILE'):
            k = getattr(resource, 'RLIMIT_' + n)
            attempt(resource.setrlimit, k, (resource.getrlimit(k)[1] + 1,) * 2)
        """,
    ),
    Attack(
        "real-time priority",
        "py",
        r"""
        attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))
        attempt(os.nice, -5)
        """,
    ),
    Attack(
        "capabilities",
        "sh",
        r"""
        grep -E '^Cap(Eff|Prm|Bnd|Amb|Inh)' /proc/self/status | grep -qv 0000000000000000 && echo BREACH
        """,
    ),
    Attack(
        "move pages of others",
        "py",
        r"""
        call(256, 1, 64, bytes(8), bytes(8))
        call(312, 1, os.getpid(), 0, 0, 0)
        call(448, -1, 0)
        """,
    ),
]
