"""Attacks that try to use more than was given, or leave something behind."""

from .attack import Attack

__all__ = ["RESOURCES"]

RESOURCES = [
    Attack(
        "more memory than allowed",
        "py",
        r"""
        b = []
        try:
            for _ in range(2500):
                b.append(bytearray(os.urandom(1) * (1 << 20)))
            breach('2.5 GB of memory')
        except MemoryError: pass
        print('TRIED', flush=True)
        """,
    ),
    Attack(
        "more memory, over many processes",
        "py",
        r"""
        pids = []
        for _ in range(8):
            p = os.fork()
            if p == 0:
                b = bytearray(b'x') * (200 << 20)
                time.sleep(2)
                os._exit(0)
            pids.append(p)
        if all(os.waitpid(p, 0)[1] == 0 for p in pids):
            breach('1.6 GB over processes')
        print('TRIED', flush=True)
        """,
    ),
    Attack(
        "more shared memory than allowed",
        "py",
        r"""
        import mmap
        try:
            m = mmap.mmap(-1, 2500 << 20)
            for i in range(0, 2500 << 20, 4096): m[i] = 1
            breach('2.5 GB shared')
        except (OSError, MemoryError): pass
        print('TRIED', flush=True)
        """,
    ),
    Attack(
        "fill /dev/shm",
        "sh",
        r"""
        head -c 1000000000 /dev/zero > /dev/shm/x 2>/dev/null && echo BREACH
        """,
    ),
    Attack(
        "fill the workspace",
        "sh",
        r"""
        i=0
        while [ $i -lt 20 ]
        do
          head -c 100000000 /dev/zero > f$i 2>/dev/null || break
          i=$((i+1))
        done
        [ $i -eq 20 ] && echo BREACH
        rm -f f*
        """,
    ),
    Attack(
        "fill /tmp",
        "sh",
        r"""
        i=0
        while [ $i -lt 20 ]
        do
          head -c 100000000 /dev/zero > /tmp/f$i 2>/dev/null || break
          i=$((i+1))
        done
        [ $i -eq 20 ] && echo BREACH
        rm -f /tmp/f*
        """,
    ),
    Attack(
        "use up inodes",
        "py",
        r"""
        n = 0
        try:
            for n in range(60000): open(f'i{n}', 'w').close()
            breach('60000 files')
        except OSError: pass
        for k in range(n + 1):
            try: os.unlink(f'i{k}')
            except OSError: pass
        """,
    ),
    Attack(
        "one huge file",
        "sh",
        r"""
        head -c 1000000000 /dev/zero > big 2>/dev/null && echo BREACH
        rm -f big
        """,
    ),
    Attack(
        "300 MB of output",
        "sh",
        r"""
        head -c 300000000 /dev/zero | tr '\0' x
        echo
        echo TRIED >&2
        """,
    ),
    Attack(
        "never end",
        "sh",
        r"""
        echo TRIED
        while :
        do
          :
        done
        """,
    ),
    Attack(
        "ignore every signal",
        "py",
        r"""
        import signal
        for n in range(1, 65):
            try: signal.signal(n, signal.SIG_IGN)
            except (OSError, ValueError): pass
        print('TRIED', flush=True)
        while True: time.sleep(9)
        """,
    ),
    Attack(
        "System V memory that stays",
        "py",
        r"""
        if libc.shmget(0x1234, 4096, 0o666) >= 0:
            breach('found the segment of an earlier command')
        libc.shmget(0x1234, 4096, 0o1666)
        """,
    ),
    Attack(
        "message queues",
        "py",
        r"""
        call(240, b'queue', os.O_CREAT | os.O_RDWR, 0o666, 0)
        """,
    ),
    Attack(
        "files in /dev/shm that stay",
        "sh",
        r"""
        [ -e /dev/shm/stay ] && echo BREACH
        echo x > /dev/shm/stay
        """,
    ),
    Attack(
        "a very deep folder",
        "py",
        r"""
        for _ in range(3000):
            try: os.mkdir('d'); os.chdir('d')
            except OSError: break
        """,
    ),
    Attack(
        "strange names",
        "py",
        r"""
        for n in (b'\n', b'\x1b[31m', b'-rf', b'\xff\xfe', b' ', b'*', b'a' * 255):
            open(b'/workspace/' + n, 'w').close()
        """,
    ),
    Attack(
        "pipes full of data",
        "py",
        r"""
        ends = []
        try:
            while True:
                r, w = os.pipe()
                os.set_blocking(w, False)
                ends.append(r)
                while True:
                    try: os.write(w, bytes(65536))
                    except BlockingIOError: break
        except OSError: pass
        if len(ends) > 4000: breach(len(ends), 'full pipes')
        """,
    ),
]
