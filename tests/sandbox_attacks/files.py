"""Attacks that try to reach files, devices and settings of the host."""

from .attack import Attack

__all__ = ["FILES"]

FILES = [
    Attack(
        "read a file of the host",
        "sh",
        r"""
        cat "$CANARY" 2>/dev/null | grep -q secret-3141 && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "search everything for the secret",
        "sh",
        r"""
        for d in /etc /home /root /var /opt /srv /mnt /media /run /tmp /dev/shm /boot /workspace
        do
          timeout 10 grep -rslI -m1 "secret-3141" $d 2>/dev/null
        done | grep -q . && echo BREACH
        """,
    ),
    Attack(
        "write over a file of the host",
        "sh",
        r"""
        echo x >> "$CANARY" 2>/dev/null && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "secrets in the environment",
        "sh",
        r"""
        env | grep -q secret-3141 && echo BREACH
        cat /proc/*/environ 2>/dev/null | grep -q secret-3141 && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "follow /proc/1/root",
        "sh",
        r"""
        ls /proc/1/root/ 2>/dev/null && echo BREACH
        ls /proc/1/cwd/ 2>/dev/null && echo BREACH
        """,
    ),
    Attack(
        "follow /proc/self/root upwards",
        "sh",
        r"""
        cat /proc/self/root/../../..$CANARY 2>/dev/null && echo BREACH
        """,
        bites=True,
    ),
    Attack(
        "hard link to a system file",
        "sh",
        r"""
        ln /etc/passwd here 2>/dev/null && echo BREACH
        ln /bin/sh here 2>/dev/null && echo BREACH
        """,
    ),
    Attack(
        "change system files",
        "sh",
        r"""
        for f in /etc/passwd /usr/bin/env /usr/lib/x /usr/local/lib/sitecustomize.py /bin/x /lib/x /x /dev/x /proc/x
        do
          (echo x >> $f) 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "poison Python's site-packages",
        "py",
        r"""
        import site
        for d in [*site.getsitepackages(), os.path.dirname(os.__file__)]:
            attempt(open, d + '/sitecustomize.py', 'w')
        """,
    ),
    Attack(
        "remount read-write",
        "sh",
        r"""
        mount -o remount,rw /usr 2>/dev/null && echo BREACH
        mount -o remount,rw / 2>/dev/null && echo BREACH
        """,
    ),
    Attack(
        "make and read disk devices",
        "py",
        r"""
        for major in (8, 252, 253, 254, 259):
            attempt(os.mknod, f'disk{major}', 0o60666, os.makedev(major, 0))
        attempt(os.mknod, 'mem', 0o20666, os.makedev(1, 1))
        """,
    ),
    Attack(
        "forge a whiteout of the overlay",
        "py",
        r"""
        attempt(os.mknod, 'white', 0o20000, 0)
        """,
    ),
    Attack(
        "forge overlay attributes",
        "py",
        r"""
        os.makedirs('d', exist_ok=True)
        attempt(os.setxattr, 'd', 'trusted.overlay.opaque', b'y')
        attempt(os.setxattr, 'd', 'security.capability', b'y' * 20)
        """,
    ),
    Attack(
        "devices of the machine",
        "sh",
        r"""
        for d in sda vda nvme0n1 mem kmem kmsg port kvm fuse loop0 nvidia0
        do
          [ -e /dev/$d ] && (: < /dev/$d) 2>/dev/null && echo BREACH $d
        done
        """,
    ),
    Attack(
        "file handles of the host",
        "py",
        r"""
        call(303, -100, b'/etc/passwd', ctypes.create_string_buffer(128), ctypes.byref(ctypes.c_int()), 0)
        call(304, 3, ctypes.create_string_buffer(128), 0)
        """,
    ),
    Attack(
        "descriptors left open",
        "py",
        r"""
        for n in os.listdir('/proc/self/fd'):
            try: target = os.readlink('/proc/self/fd/' + n)
            except OSError: continue
            if int(n) > 2: breach(n, target)
        """,
    ),
    Attack(
        "escape from chroot",
        "py",
        r"""
        call(161, b'/tmp')
        """,
    ),
    Attack(
        "kernel settings",
        "sh",
        r"""
        for f in \
          /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe \
          /proc/sys/vm/drop_caches /proc/sysrq-trigger \
          /proc/sys/kernel/hostname /proc/sys/fs/binfmt_misc/register \
          /sys/kernel/uevent_helper /proc/self/attr/current
        do
          (echo h > $f) 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "control groups",
        "sh",
        r"""
        find / -xdev -name release_agent 2>/dev/null | grep -q . && echo BREACH
        for f in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs
        do
          (echo $$ > $f) 2>/dev/null && echo BREACH $f
        done
        """,
    ),
    Attack(
        "kernel memory and symbols",
        "sh",
        r"""
        head -c 64 /proc/kcore 2>/dev/null | grep -q . && echo BREACH
        grep -qv '^0000000000000000' /proc/kallsyms 2>/dev/null && echo BREACH
        """,
    ),
    Attack("the mode of a file of the host", "py", "attempt(os.chmod, CANARY, 0o666)", bites=True),
    Attack("the time of a file of the host", "py", "attempt(os.utime, CANARY, (1, 1))", bites=True),
    Attack("the owner of a file of the host", "py", "attempt(os.chown, CANARY, -1, os.getgid())", bites=True),
    Attack(
        "modes of folders of the host", "py", "for d in ('/tmp/..', '/usr', '/usr/bin'): attempt(os.chmod, d, 0o755)"
    ),
]
