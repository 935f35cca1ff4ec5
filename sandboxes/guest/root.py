"""The root that sandboxes without an image share: allow-listed parts of the host, read-only, and empty places.

Built in a mount namespace of one's own, which nobody else sees.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from typing import TYPE_CHECKING

from . import linux

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ROOT",
    "SHOWN",
    "SHOWN_ETC",
    "STAGE",
    "WRITTEN_ETC",
    "add_kernel_files",
    "build_root",
    "mount_apart",
    "seal_root",
]

STAGE = "/sys"  # exists everywhere, and nobody in here needs it
ROOT = STAGE + "/root"
_EMPTY, _SIDE = STAGE + "/empty", STAGE + "/side"
SHOWN = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
SHOWN_ETC = (
    "alternatives",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "protocols",
    "services",
    "ssl/openssl.cnf",
    "python3*",
    "perl",
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
WRITTEN_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/sh\nagent:x:1000:1000:agent:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 sandbox\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def build_root(readonly: Sequence[str], *, apart: bool = False) -> list[tuple[str, str]]:
    """Builds the root at `ROOT`, on a new file system at `STAGE` that has room for mount points.

    Args:
        readonly: more folders and files of the host to show.
        apart: show what is in them as files of another file system: what is locked, listened at or waited for there is
            not what the host has. Where the kernel refuses that, they are the host's own files.

    Returns:
        What can be shown to each sandbox apart from the others, too: what `mount_apart` takes, and where it belongs.
    """
    linux.mount("tmpfs", STAGE, "tmpfs", linux.NOSUID | linux.NODEV, "mode=755,size=1m")
    os.mkdir(ROOT)
    linux.mount("tmpfs", ROOT, "tmpfs", linux.NOSUID | linux.NODEV, "mode=755,size=16m")
    for name in ("proc", "dev", "tmp", "run", "var", "workspace", "etc"):
        os.mkdir(f"{ROOT}/{name}")
    os.symlink("/tmp", f"{ROOT}/var/tmp")
    for name, text in WRITTEN_ETC.items():
        with open(f"{ROOT}/etc/{name}", "w") as file:
            file.write(text)
    etc = [path for pattern in SHOWN_ETC for path in glob.glob("/etc/" + pattern)]
    os.mkdir(_EMPTY)
    os.mkdir(_SIDE)
    for path in etc if apart else ():
        _copy(path, ROOT + path)
    found = [(ROOT + "/etc", "/etc")] if apart else []
    for path in (*SHOWN, *(path[1:] for path in etc), *(path.strip("/") for path in readonly)):
        found += _show("/" + path, apart=apart)
    return found


def _copy(path: str, target: str) -> None:
    """Copies a small part of `/etc`, as far as it can be read; files, folders and links, with nothing else of them."""
    with contextlib.suppress(OSError):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
        elif os.path.isdir(path):
            os.mkdir(target)
            for name in os.listdir(path):
                _copy(f"{path}/{name}", f"{target}/{name}")
        elif os.path.isfile(path):
            with open(path, "rb") as source, open(target, "xb") as copy:
                copy.write(source.read())


def _show(path: str, *, apart: bool) -> list[tuple[str, str]]:
    """Shows a file or folder of the host, read-only; a link is copied as a link. Returns what is shown apart."""
    target = ROOT + path
    if os.path.lexists(target) or not os.path.lexists(path):
        return []
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.realpath(os.path.dirname(target)).startswith(ROOT):
        raise OSError(errno.EXDEV, "a link leads out of the sandbox's root", path)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return []
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    found = _show_apart(path) if apart else []
    if not found:
        linux.bind(path, target)
    linux.set_attributes(target, linux.MOUNT_RDONLY | linux.MOUNT_NOSUID | linux.MOUNT_NODEV)
    return found


def _show_apart(path: str) -> list[tuple[str, str]]:
    """Shows a file or folder, with all that is mounted in it, through overlays; returns none where that cannot be."""
    places = [path] if not os.path.isdir(path) else [path, *filter(os.path.isdir, _mounted_below(path))]
    try:
        for place in places:
            mount = mount_apart(place)
            try:
                linux.attach_mount(mount, ROOT + place)
            finally:
                os.close(mount)
    except OSError:
        with contextlib.suppress(OSError):
            linux.unmount(ROOT + path, lazy=True)
        return []
    return [(place, place) for place in places]


def mount_apart(path: str) -> int:
    """Returns a mount, not attached yet, that shows a file or folder with inodes of its own."""
    if os.path.isdir(path):
        return linux.detached_overlay([path, _EMPTY])
    folder = linux.detached_overlay([os.path.dirname(path), _EMPTY])
    try:
        linux.attach_mount(folder, _SIDE)
    finally:
        os.close(folder)
    try:
        return linux.clone_tree(f"{_SIDE}/{os.path.basename(path)}")
    finally:
        linux.unmount(_SIDE, lazy=True)


def _mounted_below(path: str) -> list[str]:
    """Returns where something is mounted below a folder, what is above before what is below."""
    with open("/proc/self/mounts", "rb") as file:
        lines = [line.split()[1].decode("unicode_escape").encode("latin-1") for line in file]
    places = {os.fsdecode(line) for line in lines}
    return sorted(place for place in places if place.startswith(path.rstrip("/") + "/"))


def seal_root() -> None:
    """Makes the root read-only."""
    linux.set_attributes(ROOT, linux.MOUNT_RDONLY, recursive=False)


def add_kernel_files() -> None:
    """Adds devices and `/proc`, for sandboxes that share the kernel."""
    linux.bind("/proc", f"{ROOT}/proc")  # a sandbox may mount its own only while it sees a whole one
    folder = ROOT + "/dev"
    linux.mount("tmpfs", folder, "tmpfs", linux.NOSUID | linux.NOEXEC, "mode=755,size=64k")
    for name in _DEVICES:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o644))
        linux.bind(f"/dev/{name}", f"{folder}/{name}")
        linux.set_attributes(f"{folder}/{name}", linux.MOUNT_NOSUID | linux.MOUNT_NOEXEC)
    for name, tail in _DEVICE_LINKS.items():
        os.symlink("/proc/self/fd" + tail, f"{folder}/{name}")
    os.mkdir(folder + "/shm")
    linux.set_attributes(folder, linux.MOUNT_RDONLY, recursive=False)
