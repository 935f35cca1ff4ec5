"""The system calls that a command may not make, as a seccomp filter.

Refused: everything that mounts, makes namespaces, looks into other processes, loads code into the kernel, reaches
devices of the machine or persistent kernel objects, tells whether others have read a file lately, is counted for the
machine as a whole (contexts of asynchronous I/O, huge pages) or seen in all of it (locks of open files), and every call
newer than the ones reviewed here. Advice on what to keep in memory, or to write out, is not taken. Sockets may be Unix,
IPv4, IPv6 (the network namespace is empty) or routing netlink: others, such as `AF_VSOCK` and `AF_ALG`, are not held
back by a network namespace.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DENIED", "OF_OWN_FILES", "program"]

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _ARG = 0, 4, 16
_X32 = 0x40000000
_NEWEST = 466  # removexattrat, Linux 6.13
_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone takes
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# name: (x86-64, arm64); None where the architecture does not have it
DENIED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "cachestat": (451, 451),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_cancel": (210, 3),
    "io_destroy": (207, 1),
    "io_getevents": (208, 4),
    "io_pgetevents": (333, 292),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "mincore": (27, 232),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# what a user may do to files of its own wherever they are, which Landlock does not see
OF_OWN_FILES: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "chown": (92, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "futimesat": (261, None),
    "lchown": (94, None),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}
_X86 = platform.machine() == "x86_64"
_AUDIT_ARCH = 0xC000003E if _X86 else 0xC00000B7
_CLONE, _CLONE3 = (56, 435) if _X86 else (220, 435)
_SOCKET, _SOCKETPAIR, _IOCTL = (41, 53, 16) if _X86 else (198, 199, 29)
_SET_PRIORITY, _IOPRIO_SET = (141, 251) if _X86 else (140, 30)
_OF_PROCESSES = (302, 144, 142, 203, 314) if _X86 else (261, 119, 118, 122, 274)  # prlimit64, sched_set*
_MAKE_NODE = ((133, 1), (259, 2)) if _X86 else ((33, 2),)  # mknod, mknodat, and where their mode is
_DEVICE = 0o020000  # the bit that S_IFCHR and S_IFBLK have, and pipes, sockets and files do not
_SYSTEM_V = (29, 64, 68) if _X86 else (194, 190, 186)  # shmget, semget, msgget
_INOTIFY = (253, 294) if _X86 else (26,)  # inotify_init, inotify_init1
_FCNTL, _SETLEASE, _NOTIFY = 72 if _X86 else 25, 1024, 1026
_OPEN_FILE_LOCKS = (
    36,
    37,
    38,
)  # F_OFD_*: everybody's /proc/locks has them, with numbers of choice
_FILL_CACHE = (187, 221) if _X86 else (213, 223)  # readahead, fadvise64: for the page cache that all share
_SYNC = 162 if _X86 else 81  # writes out all that the machine has not written yet
_OPENAT2 = 437  # can tell which names others have looked up: RESOLVE_CACHED, which is where no filter sees it
_HUGE = (  # pages of the machine's pool, which no limit counts: mmap, memfd_create, shmget
    ((9, 3, 0x40000), (319, 1, 4), (29, 2, 0o4000)) if _X86 else ((222, 3, 0x40000), (279, 1, 4), (194, 2, 0o4000))
)
_READ_NOW = (327, 5, 8) if _X86 else (286, 5, 8)  # preadv2, where its flags are, RWF_NOWAIT
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16


class _Assembler:
    """Collects instructions; every check ends with the system call's number loaded."""

    def __init__(self) -> None:
        self.code: list[bytes] = []

    def op(self, code: int, value: int, yes: int = 0, no: int = 0) -> None:
        self.code.append(struct.pack("HBBI", code, yes, no, value))

    def refuse(self, error: int) -> None:
        self.op(_RET, _ERRNO | error)

    def deny(self, number: int, error: int = errno.EPERM) -> None:
        """Refuses a call whatever its arguments."""
        self.op(_JEQ, number, 0, 1)
        self.refuse(error)

    def allow_only(self, number: int, argument: int, values: tuple[int, ...], error: int) -> None:
        """Refuses a call unless the low half of an argument is one of `values`."""
        count = len(values)
        self.op(_JEQ, number, 0, count + 3)
        self.op(_LD, _ARG + 8 * argument)
        for index, value in enumerate(values):
            self.op(_JEQ, value, count - index)
        self.refuse(error)
        self.op(_LD, _NUMBER)

    def deny_value(self, number: int, argument: int, value: int, error: int = errno.EPERM) -> None:
        """Refuses a call when the low half of an argument is `value`."""
        self.op(_JEQ, number, 0, 4)
        self.op(_LD, _ARG + 8 * argument)
        self.op(_JEQ, value, 0, 1)
        self.refuse(error)
        self.op(_LD, _NUMBER)

    def deny_flags(self, number: int, argument: int, flags: int, error: int = errno.EPERM) -> None:
        """Refuses a call when an argument has one of `flags`."""
        self.op(_JEQ, number, 0, 4)
        self.op(_LD, _ARG + 8 * argument)
        self.op(_JSET, flags, 0, 1)
        self.refuse(error)
        self.op(_LD, _NUMBER)


def program(*, system_v: bool = True, sockets: bool = True, alone: bool = True) -> bytes:
    """Returns the filter for this machine's architecture.

    Args:
        system_v: allow System V IPC, whose objects outlive their processes; only where a command has its own namespace.
        sockets: allow sockets (pairs are always allowed); only where they lead nowhere.
        alone: allow what reaches files and processes of the same user, wherever they are, and inotify, which is counted
            by user; only where a command is a user of its own, or sees no others.
    """
    out = _Assembler()
    out.op(_LD, _ARCH)
    out.op(_JEQ, _AUDIT_ARCH, 1, 0)
    out.refuse(errno.EPERM)
    out.op(_LD, _NUMBER)
    out.op(_JGE, _X32, 0, 1)
    out.refuse(errno.EPERM)
    out.op(_JGE, _NEWEST + 1, 0, 1)
    out.refuse(errno.ENOSYS)
    for number in (*_numbers(DENIED), *(() if alone else _numbers(OF_OWN_FILES))):
        out.deny(number)
    for number in () if system_v else _SYSTEM_V:
        out.deny(number, errno.ENOSYS)
    for number in () if alone else _INOTIFY:
        out.deny(number, errno.EMFILE)
    for command in (_SETLEASE, _NOTIFY):  # both hold up, or tell of, whoever else opens the file
        out.deny_value(_FCNTL, 1, command)
    for command in _OPEN_FILE_LOCKS:
        out.deny_value(_FCNTL, 1, command, errno.EINVAL)
    _leave_the_machine_alone(out)
    out.deny(_CLONE3, errno.ENOSYS)  # its flags are in memory, where a filter cannot see them; libc falls back to clone
    out.deny_flags(_CLONE, 0, _NAMESPACES)
    for number, argument in _MAKE_NODE:
        out.deny_flags(number, argument, _DEVICE)
    out.allow_only(_SOCKETPAIR, 0, (_UNIX,), errno.EAFNOSUPPORT)
    out.allow_only(_SOCKET, 0, (_UNIX, _INET, _INET6, _NETLINK) if sockets else (), errno.EAFNOSUPPORT)
    _only_routing_netlink(out)
    for request in (_TIOCSTI, _TIOCLINUX):
        out.deny_value(_IOCTL, 1, request)
    _only_own_processes(out, alone=alone)
    for number, itself in ((_SET_PRIORITY, 0), (_IOPRIO_SET, 1)):
        out.allow_only(number, 0, (itself,), errno.EPERM)  # a process, not a group or all of a user
        out.allow_only(number, 1, (0,), errno.EPERM)
    out.op(_RET, _ALLOW)
    return b"".join(out.code)


def _numbers(calls: Mapping[str, tuple[int | None, int | None]]) -> list[int]:
    """Returns the numbers of calls on this machine's architecture."""
    return [number for pair in calls.values() if (number := pair[0 if _X86 else 1]) is not None]


def _leave_the_machine_alone(out: _Assembler) -> None:
    for number in (*_FILL_CACHE, _SYNC):
        out.deny(number, 0)  # advice that is not taken
    for number, argument, flag in _HUGE:
        out.deny_flags(number, argument, flag, errno.ENOMEM)  # as where there are none
    out.deny(_OPENAT2, errno.ENOSYS)  # libraries fall back to openat
    out.deny_flags(*_READ_NOW, errno.EOPNOTSUPP)


def _only_own_processes(out: _Assembler, *, alone: bool) -> None:
    for number in _OF_PROCESSES:
        if alone:
            out.deny_value(number, 0, 1)  # the guest, where a command is of its user
        else:
            out.allow_only(number, 0, (0,), errno.EPERM)


def _only_routing_netlink(out: _Assembler) -> None:
    out.op(_JEQ, _SOCKET, 0, 6)
    out.op(_LD, _ARG)
    out.op(_JEQ, _NETLINK, 0, 3)
    out.op(_LD, _ARG + 16)
    out.op(_JEQ, 0, 1, 0)
    out.refuse(errno.EPROTONOSUPPORT)
    out.op(_LD, _NUMBER)
