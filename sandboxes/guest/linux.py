"""The few Linux calls that Python does not have: namespaces, mounts, capabilities, seccomp. Errors are `OSError`."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct

__all__ = [
    "attach_mount",
    "bind",
    "clone_tree",
    "detached_overlay",
    "die_with_parent",
    "drop_bounding_set",
    "drop_capabilities",
    "loopback_up",
    "mount",
    "pivot_into",
    "set_attributes",
    "set_dumpable",
    "setns",
    "unmount",
    "unshare",
]

NEWNS, NEWUTS, NEWIPC, NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
NEWPID, NEWNET, NEWCGROUP = 0x20000000, 0x40000000, 0x2000000
NOSUID, NODEV, NOEXEC, NOATIME = 2, 4, 8, 1024
MOUNT_RDONLY, MOUNT_NOSUID, MOUNT_NODEV, MOUNT_NOEXEC = 1, 2, 4, 8
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_DETACH = 2
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_CLOEXEC = 0o2000000
_LAST_CAPABILITY = 63
_X86 = platform.machine() == "x86_64"
_PIVOT_ROOT = 155 if _X86 else 41
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 24, 38, 47
_CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def _call(number: int, *args: object) -> int:
    return _libc.syscall(number, *args)


def unshare(flags: int) -> None:
    """Moves this process into new namespaces."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """Moves this process, or its later children, into an existing namespace."""
    _check(_libc.setns(fd, kind), f"setns {kind:#x}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mounts a file system."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode())
    _check(result, f"mount {kind} on {target} ({options})")


def make_private() -> None:
    """Keeps every later mount of this namespace to itself."""
    _check(_libc.mount(None, b"/", None, _REC | _PRIVATE, None), "make mounts private")


def bind(source: str, target: str) -> None:
    """Shows `source`, with everything mounted in it, at `target`."""
    _check(_libc.mount(source.encode(), target.encode(), None, _BIND | _REC, None), f"bind {source} on {target}")


def unmount(target: str, *, lazy: bool = False) -> None:
    """Unmounts; without `lazy` it fails while something uses the mount."""
    _check(_libc.umount2(target.encode(), _DETACH if lazy else 0), f"unmount {target}")


def set_attributes(target: str, attributes: int, *, recursive: bool = True) -> None:
    """Adds attributes (read-only, no set-user-id, no devices) to a mount."""
    flags = _AT_RECURSIVE if recursive else 0
    record = struct.pack("QQQQ", attributes, 0, 0, 0)
    result = _call(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, record, len(record))
    _check(result, f"set attributes {attributes:#x} of {target}")


def detached_overlay(lowers: list[str], upper: str = "", work: str = "") -> int:
    """Returns an overlay, mounted nowhere yet.

    Args:
        lowers: read-only layers, the topmost first.
        upper: where changes go; without it nothing can change, and there have to be two layers.
        work: an empty folder next to it.

    Raises:
        OSError: with the kernel's own explanation.
    """
    context = _check(_call(_FSOPEN, b"overlay", 1), "overlay file system")
    try:
        options = [("lowerdir+", lower) for lower in lowers]
        for name, value in (*options, *((("upperdir", upper), ("workdir", work)) if upper else ())):
            _configure(context, _SET_STRING, name.encode(), value.encode())
        _configure(context, _SET_FLAG, b"userxattr", None)
        _configure(context, _CREATE, None, None)
        return _check(_call(_FSMOUNT, context, 1, MOUNT_NOSUID | MOUNT_NODEV), "overlay mount")
    finally:
        os.close(context)


def _configure(context: int, command: int, name: bytes | None, value: bytes | None) -> None:
    if _call(_FSCONFIG, context, command, name, value, 0) < 0:
        code = ctypes.get_errno()
        try:
            why = os.read(context, 4096).decode(errors="replace").strip()
        except OSError:
            why = ""
        raise OSError(code, why or os.strerror(code), f"overlay {name} {value}")


def attach_mount(fd: int, target: str) -> None:
    """Puts a detached mount at `target`."""
    result = _call(_MOVE_MOUNT, fd, b"", _AT_FDCWD, target.encode(), 4)
    _check(result, f"attach a mount at {target}")


def clone_tree(path: str, below: int = _AT_FDCWD) -> int:
    """Returns a detached mount that shows the folder `path`, of the folder `below`.

    That may be a detached mount itself from Linux 6.15 on.
    """
    return _check(_call(_OPEN_TREE, below, path.encode(), 1 | _CLOEXEC), f"clone {path}")


def pivot_into(root: str) -> None:
    """Makes `root`, a mount point, the root of this mount namespace and detaches the old one."""
    os.chdir(root)
    _check(_call(_PIVOT_ROOT, b".", b"."), f"pivot into {root}")
    unmount(".", lazy=True)
    os.chdir("/")


def loopback_up() -> None:
    """Brings up the loopback interface of this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        fcntl.ioctl(link, 0x8914, struct.pack("16sh14x", b"lo", 1))


def die_with_parent() -> None:
    """Has this process killed when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "die with parent")


def set_dumpable(*, dumpable: bool) -> None:
    """Allows or forbids that others of the same user look into this process."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0), "dumpable")


def no_new_privileges() -> None:
    """Makes set-user-id programs and file capabilities mean nothing from here on."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")


def drop_bounding_set() -> None:
    """Makes sure that no program can gain a capability; needs the right to (`CAP_SETPCAP`)."""
    for capability in range(_LAST_CAPABILITY + 1):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # the kernel knows no more


def drop_capabilities() -> None:
    """Gives up every capability that is held."""
    _libc.prctl(_PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    _check(_libc.capset(header, bytes(24)), "drop capabilities")


def set_seccomp(program: bytes) -> None:
    """Installs a classic BPF program as the filter of this process and its descendants."""
    buffer = ctypes.create_string_buffer(program, len(program))
    record = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.prctl(22, 2, record, 0, 0), "seccomp filter")


def write_text(path: str, text: str, folder: int | None = None) -> None:
    """Writes a file of `/proc` in one piece; `path` may be relative to an open folder."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
