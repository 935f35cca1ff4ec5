"""Attacks on what the kernel counts for a user or for the whole machine, and on memory that belongs to no process.

The numbers in them are far below what a machine allows, and far above what a command needs.
"""

from .attack import Attack

__all__ = ["COUNTED"]

_MANY = """
def many(limit, make):
    kept = []
    try:
        while len(kept) <= limit: kept.append(make())
        breach(len(kept), 'of', make.__name__)
    except (OSError, MemoryError): pass
    return kept
"""
COUNTED = [
    Attack("contexts of asynchronous I/O", "py", "call(206, 1, ctypes.byref(ctypes.c_ulong()))"),
    Attack("a great context of asynchronous I/O", "py", "call(206, 60000, ctypes.byref(ctypes.c_ulong()))"),
    Attack(
        "submit asynchronous I/O", "py", "call(209, 0, 0, 0); call(208, 0, 0, 0, 0, 0); call(333, 0, 0, 0, 0, 0, 0)"
    ),
    Attack(
        "inotify instances",
        "py",
        _MANY
        + r"""
def instance():
    fd = libc.inotify_init()
    if fd < 0: raise OSError
    return fd
many(64, instance)
""",
    ),
    Attack(
        "inotify instances over processes",
        "py",
        """
        n = 0
        r, w = os.pipe()
        for _ in range(20):
            if os.fork() == 0:
                while libc.inotify_init() >= 0: os.write(w, b'x')
                time.sleep(2); os._exit(0)
        time.sleep(1.5)
        os.set_blocking(r, False)
        n = len(os.read(r, 65536)) if os.write(w, b'-') else 0
        if n > 80: breach(n, 'instances')
        """,
    ),
    Attack(
        "watches on everything",
        "py",
        """
        fd, n = libc.inotify_init(), 0
        for top in ('/usr', '/proc'):
            for where, folders, files in os.walk(top):
                for name in (*folders, *files):
                    n += libc.inotify_add_watch(fd, os.path.join(where, name).encode(), 2) >= 0
                if n > 9000: breach(n, 'watches'); break
            if n > 9000: break
        """,
    ),
    Attack(
        "timers",
        "py",
        _MANY
        + r"""
def timer():
    t = ctypes.c_int()
    if libc.syscall(222, 1, 0, ctypes.byref(t)) < 0: raise OSError
many(4000, timer)
""",
    ),
    Attack(
        "queued signals",
        "py",
        _MANY
        + """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [50])
def queued():
    info = struct.pack('iiiixxxx', 50, 0, -1, 0) + bytes(104)
    if libc.syscall(129, os.getpid(), 50, info) < 0: raise OSError
many(4000, queued)
""",
    ),
    Attack(
        "lock much memory",
        "py",
        r"""
        import mmap
        m = mmap.mmap(-1, 64 << 20)
        call(325, ctypes.addressof(ctypes.c_char.from_buffer(m)), 64 << 20, 0)
        """,
    ),
    Attack(
        "lock all memory to come",
        "py",
        "if libc.syscall(151, 2) >= 0:\n    try: bytearray(100 << 20); breach('locked')\n    except MemoryError: pass",
    ),
    Attack("secret memory", "py", "call(447, 0)"),
    Attack("terminals", "py", _MANY + "many(32, os.openpty)"),
    Attack("terminals by their device", "py", "attempt(os.open, '/dev/ptmx', os.O_RDWR)"),
    Attack(
        "queues of System V",
        "py",
        _MANY + "def queue():\n    if libc.msgget(0, 0o600) < 0: raise OSError\nmany(200, queue)",
    ),
    Attack(
        "semaphores of System V",
        "py",
        _MANY + "def semaphores():\n    if libc.semget(0, 30000, 0o600) < 0: raise OSError\nmany(64, semaphores)",
    ),
    Attack(
        "segments of System V that nobody is attached to",
        "py",
        """
        libc.shmat.restype = ctypes.c_void_p
        libc.shmdt.argtypes = [ctypes.c_void_p]
        n = 0
        for _ in range(100):
            number = libc.shmget(0, 16 << 20, 0o600)
            if number < 0: break
            where = libc.shmat(number, 0, 0)
            ctypes.memset(where, 1, 16 << 20)
            libc.shmdt(where)
            n += 16
        if n > 700: breach(n, 'MB in segments')
        """,
    ),
    Attack(
        "memory files",
        "py",
        """
        fds, block = [], bytes(1 << 20)
        try:
            for n in range(1500):
                if n % 50 == 0: fds.append(os.memfd_create('x'))
                os.write(fds[-1], block.replace(b'\\0', b'x', 1))
            breach(n, 'MB in memory files')
        except OSError: pass
        """,
    ),
    Attack(
        "memory files that are on their way",
        "py",
        """
        block, keep = b'x' * (1 << 20), []
        try:
            for n in range(60):
                fd = os.memfd_create('x')
                for _ in range(25): os.write(fd, block)
                keep += socket.socketpair()
                socket.send_fds(keep[-1], [b'x'], [fd])
                os.close(fd)
            breach(n * 25, 'MB in flight')
        except OSError: pass
        """,
    ),
    Attack(
        "memory files of a process that is gone, spared by the kernel",
        "py",
        """
        try: open('/proc/self/oom_score_adj', 'w').write('0')
        except OSError: pass
        block = b'x' * (1 << 20)
        keep = []
        for _ in range(40):
            a, b = socket.socketpair()
            keep += [a, b]
            if os.fork() == 0:
                fd = os.memfd_create('x')
                for _ in range(40): os.write(fd, block)
                socket.send_fds(a, [b'x'], [fd])
                os._exit(0)
            os.wait()
        breach('1.6 GB')
        """,
    ),
    Attack(
        "socket buffers",
        "py",
        """
        held, keep, block = 0, [], bytes(1 << 16)
        try:
            for _ in range(30):
                if os.fork() == 0:
                    mine = []
                    try:
                        while True:
                            a, b = socket.socketpair()
                            mine += [a, b]
                            for s in (a, b):
                                s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                                s.setblocking(False)
                                try:
                                    while True: s.send(block)
                                except BlockingIOError: pass
                    except OSError: time.sleep(6); breach('socket buffers stay'); os._exit(0)
            time.sleep(8)
        except OSError: pass
        """,
    ),
    Attack(
        "connections full of data",
        "py",
        """
        held, keep = 0, []
        try:
            listener = socket.create_server(('127.0.0.1', 0))
            while held < 700 << 20 and len(keep) < 900:
                keep += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
                for s in keep[-2:]:
                    s.setblocking(False)
                    try:
                        while True: held += s.send(bytes(1 << 20))
                    except BlockingIOError: pass
            if held >= 700 << 20: time.sleep(3); breach(held >> 20, 'MB in connections')
        except OSError: pass
        """,
    ),
    Attack("huge pages of the machine", "py", "call(319, b'x', 4)\ncall(29, 0, 2 << 20, 0o5600)"),
    Attack(
        "huge pages of the machine, without a file",
        "py",
        "import mmap\nattempt(mmap.mmap, -1, 2 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)",
    ),
    Attack(
        "great pipes",
        "py",
        """
        import fcntl
        held, keep = 0, []
        try:
            while held < 1500:
                r, w = os.pipe()
                keep += [r, w]
                os.set_blocking(w, False)
                try: fcntl.fcntl(w, 1031, 1 << 20)
                except OSError: pass
                try:
                    while True: held += os.write(w, bytes(1 << 16)) / (1 << 20)
                except BlockingIOError: pass
            breach(held, 'MB in pipes')
        except OSError: pass
        """,
    ),
    Attack(
        "descriptors in flight",
        "py",
        """
        n, keep = 0, []
        null = os.open('/dev/null', os.O_RDONLY)
        try:
            while n < 6000:
                a, b = socket.socketpair()
                keep += [a, b]
                for _ in range(8): socket.send_fds(a, [b'x'], [null] * 250); n += 250
            breach(n, 'descriptors in flight')
        except OSError: pass
        """,
    ),
    Attack(
        "files in /dev/shm without end",
        "py",
        """
        n = 0
        try:
            for n in range(70000): open(f'/dev/shm/{n}', 'w').close()
            breach(n, 'files')
        except OSError: pass
        """,
    ),
    Attack(
        "files in /tmp without end",
        "py",
        """
        n = 0
        try:
            for n in range(70000): open(f'/tmp/n{n}', 'w').close()
            breach(n, 'files')
        except OSError: pass
        for k in range(n + 1):
            try: os.unlink(f'/tmp/n{k}')
            except OSError: pass
        """,
    ),
    Attack("message queues by their folder", "py", "attempt(open, '/dev/mqueue/x', 'w')"),
    Attack(
        "be spared when memory is short",
        "py",
        """
        for name, least in (('oom_score_adj', '0'), ('oom_adj', '0')):
            path = '/proc/self/' + name
            if not os.path.exists(path) or open(path).read() == '0\\n': continue  # there was nothing to gain
            try: open(path, 'w').write(least)
            except OSError: continue
            if open(path).read() == '0\\n': breach('spared by', name)
        """,
    ),
    Attack(
        "have PID 1 killed first",
        "sh",
        '(echo 1000 > /proc/1/oom_score_adj) 2>/dev/null && [ "$(cat /proc/1/oom_score_adj)" = 1000 ] && echo BREACH',
    ),
    Attack(
        "deadline scheduling", "py", "call(314, 0, struct.pack('IIQiIQQQ', 48, 6, 0, 0, 0, 10**7, 10**7, 10**7), 0)"
    ),
    Attack("real-time I/O", "py", "call(251, 1, 0, 1 << 13)"),
]
