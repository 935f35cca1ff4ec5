"""The helper: holds the layers of all namespace sandboxes of one parent, in mounts that nobody else can see.

It lives in user and mount namespaces of its own. Every layer is a tmpfs there; when the helper ends, however it ends,
the kernel frees them all. It builds the root that sandboxes share, starts the spawner, and then serves its parent: make
a layer, lay an overlay over layers, freeze what was written, merge, pack, scan, drop.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from . import layering, linux, trees
from .helping import answer_parent
from .launch import forbid_imports
from .policy import raise_open_files, set_limit
from .root import ROOT, STAGE, add_kernel_files, build_root, mount_apart, seal_root
from .serve import close_on_exec
from .spawner import serve_spawns
from .wire import Closed, Lost, Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NamespaceHelper", "main"]

_LAYERS = STAGE + "/layers"
_VIEW = _LAYERS + "/view"
_REST_S = 0.02
_SUBORDINATE, _SLOTS = 2_200_000_000, 30_000  # above what distributions, subuid and systemd hand out
_SUBORDINATE_COUNT = 65536
_MOST_KEPT = 4  # of what a sandbox is shown
_MOST_SHOWN = 48  # of as many descriptors as a message may have, and a sandbox gets some more


# ---------------------------------------------------------------------- layers


class NamespaceHelper:
    """Serves the layers.

    A layer is a tmpfs with a folder `layer`. One that a sandbox writes to has it as `up` until it is frozen: an overlay
    that still winds down may hold on to `up`, so its content is moved, in one step, to where nothing ever was in use.

    Args:
        wire: to the parent.
        closer: to the process that lets go of large things.
        owner: user and group, in here, that own the files of workspaces.
        shown: what each sandbox is shown apart from the others, see `build_root`.
    """

    def __init__(self, wire: Wire, closer: Wire, owner: tuple[int, int], shown: Sequence[tuple[str, str]]) -> None:
        self._wire = wire
        self._shown = shown
        self._closer = closer
        self._owner = owner
        self._next = 0
        self._overlays: dict[int, list[int]] = {}  # by upper layer; kept, so that no sandbox's end waits for theirs

    def serve(self, parent: int) -> None:
        """Answers requests until the parent, a process known by descriptor, is gone."""
        answer_parent(self._wire, parent, self._answer)

    def _answer(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes, list[int]]:
        received: list[int] = head.pop("fds", [])
        try:
            for number in head.pop("drop", []):
                self._drop(number)
            return getattr(self, "do_" + head.pop("op"))(received, **head)
        except trees.TreeFault as error:
            return {"fault": "helper", "message": str(error)}, b"", []
        except Exception as error:  # noqa: BLE001  whatever it is: other sandboxes need this process
            return {"fault": "helper", "message": reason_of(error)}, b"", []
        finally:
            for fd in received:
                os.close(fd)

    def _new(self, size: int, files: int) -> int:
        self._next += 1
        path = _path(self._next)
        os.mkdir(path)
        options = f"mode=755,size={size},nr_inodes={files + 4}"
        linux.mount("tmpfs", path, "tmpfs", linux.NOSUID | linux.NODEV, options)
        os.mkdir(path + "/layer")
        return self._next

    def _drop(self, number: int) -> None:
        content = os.open(_path(number), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        linux.unmount(_path(number), lazy=True)
        os.rmdir(_path(number))
        self._bury(*self._overlays.pop(number, ()), content)

    def _bury(self, *fds: int) -> None:
        """Has the last references to file systems given up elsewhere: that takes time in the number of their files."""
        if fds:
            self._closer.send({}, b"", fds)
        for fd in fds:
            os.close(fd)

    def do_drop(self, fds: list[int]) -> tuple[dict[str, Any], bytes, list[int]]:
        """Only drops what the request lists."""
        return {}, b"", []

    def do_load(self, fds: list[int], size: int) -> tuple[dict[str, Any], bytes, list[int]]:
        """Makes a layer of an archive, read from the descriptor that came along."""
        with open(os.dup(fds[0]), "rb") as stream:
            files = len(trees.read_entries(stream.read))
            stream.seek(0)
            number = self._new(size + (files << 12) + (1 << 20), files + 16)
            try:
                for name in ("workspace", "tmp"):
                    os.mkdir(f"{_path(number)}/layer/{name}")
                with _Opened(number) as up:
                    roots = {
                        name: os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=up) for name in ("tmp", "workspace")
                    }
                    try:
                        trees.unpack(stream.read, roots, owner=self._owner)
                        for fd in roots.values():
                            os.fchown(fd, *self._owner)
                    finally:
                        for fd in roots.values():
                            os.close(fd)
            except BaseException:
                self._drop(number)
                raise
        return self._frozen(number)

    def _frozen(self, number: int) -> tuple[dict[str, Any], bytes, list[int]]:
        path = _path(number)
        linux.set_attributes(path, linux.MOUNT_RDONLY)
        info = os.statvfs(path)
        used = (info.f_blocks - info.f_bfree) * info.f_frsize
        return {"layer": number, "size": used, "files": info.f_files - info.f_ffree}, b"", []

    def do_compose(
        self, fds: list[int], layers: list[int], disk: int, files: int, first: bool
    ) -> tuple[dict[str, Any], bytes, list[int]]:
        """Lays an overlay with an empty upper layer over `layers` (bottom first); returns mounts of workspace, tmp.

        With `first`, also mounts of what a new sandbox sees of the host, where locks are its own, and their places.
        """
        mounts: list[int] = []
        upper = self._new(disk, files)
        try:
            for name in ("up", "work"):
                os.mkdir(f"{_path(upper)}/{name}")
            lowers = [_path(number) + "/layer" for number in reversed(layers)]
            overlay = linux.detached_overlay(lowers, _path(upper) + "/up", _path(upper) + "/work")
            self._overlays[upper] = [overlay]
            _clone_both(overlay, mounts)
            shown = self._shown if first else ()
            for source, _ in shown:
                mounts.append(mount_apart(source))
            self._overlays[upper] += [os.dup(fd) for fd in mounts[2 : 2 + _MOST_KEPT]]
        except BaseException:
            for fd in mounts:
                os.close(fd)
            self._drop(upper)
            raise
        return {"upper": upper, "shown": [place for _, place in shown]}, b"", mounts

    def do_changed(self, fds: list[int], upper: int, layers: list[int]) -> tuple[dict[str, Any], bytes, list[int]]:
        """Whether anything was written to an upper layer."""
        path = _path(upper) + "/up"
        changed = False
        for name in os.listdir(path):
            below = f"{path}/{name}"
            changed = changed or _has_names(below) or os.stat(below).st_mode != self._mode_below(layers, name)
        return {"changed": changed}, b"", []

    def _mode_below(self, layers: list[int], name: str) -> int:
        for number in reversed(layers):
            try:
                return os.stat(f"{_path(number)}/layer/{name}").st_mode
            except FileNotFoundError:
                continue
        return 0

    def do_freeze(self, fds: list[int], upper: int) -> tuple[dict[str, Any], bytes, list[int]]:
        """Makes an upper layer, which no sandbox may use any more, a layer."""
        path = _path(upper)
        for name in os.listdir(path + "/up"):
            os.rename(f"{path}/up/{name}", f"{path}/layer/{name}")
        self._bury(*self._overlays.pop(upper, ()))
        return self._frozen(upper)

    def do_copy(self, fds: list[int], upper: int) -> tuple[dict[str, Any], bytes, list[int]]:
        """Makes a layer of a copy of an upper layer that a sandbox goes on using."""
        return self._merged([upper], "up")

    def do_merge(self, fds: list[int], layers: list[int]) -> tuple[dict[str, Any], bytes, list[int]]:
        """Makes one layer of several (bottom first); the marks that hide what is below stay."""
        return self._merged(layers, "layer")

    def _merged(self, layers: list[int], folder: str) -> tuple[dict[str, Any], bytes, list[int]]:
        sizes = [os.statvfs(_path(number)) for number in layers]
        size = sum((info.f_blocks - info.f_bfree) * info.f_frsize for info in sizes) + (1 << 20)
        number = self._new(size, sum(info.f_files - info.f_ffree for info in sizes) + 16)
        try:
            with _Opened(number) as target:
                for layer in layers:
                    with _Opened(layer, folder) as source:
                        layering.lay_over(source, target)
        except BaseException:
            self._drop(number)
            raise
        return self._frozen(number)

    def do_pack(self, fds: list[int], layer: int) -> tuple[dict[str, Any], bytes, list[int]]:
        """Writes the archive of a layer to the descriptor that came along."""
        with _Opened(layer) as up, _Roots(up) as roots, open(os.dup(fds[0]), "wb") as out:
            out.writelines(trees.pack(roots, layer=True))
        return {}, b"", []

    def do_scan(self, fds: list[int], layer: int) -> tuple[dict[str, Any], bytes, list[int]]:
        """Returns the entries of a layer, with digests."""
        with _Opened(layer) as up, _Roots(up) as roots:
            return {}, json.dumps(trees.scan(roots, layer=True, digests=True)).encode(), []


def _clone_both(overlay: int, mounts: list[int]) -> None:
    """Adds mounts of workspace and tmp of an overlay that is attached nowhere; before Linux 6.15 it has to be."""
    names = ("workspace", "tmp")
    try:
        mounts += [linux.clone_tree(name, overlay) for name in names]
    except OSError:
        linux.attach_mount(overlay, _VIEW)
        try:
            mounts += [linux.clone_tree(f"{_VIEW}/{name}") for name in names]
        finally:
            linux.unmount(_VIEW, lazy=True)


class _Opened:
    """A layer's open folder, for a `with` block."""

    def __init__(self, number: int, folder: str = "layer") -> None:
        self._path = f"{_path(number)}/{folder}"

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


class _Roots:
    """The open workspace and tmp of a layer, as far as it has them, for a `with` block."""

    def __init__(self, up: int) -> None:
        self._up = up

    def __enter__(self) -> dict[str, int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fds = {name: os.open(name, flags, dir_fd=self._up) for name in sorted(os.listdir(self._up))}
        return self._fds

    def __exit__(self, *error: object) -> None:
        for fd in self._fds.values():
            os.close(fd)


def _has_names(folder: str) -> bool:
    with os.scandir(folder) as names:
        return next(names, None) is not None


def _path(number: int) -> str:
    return f"{_LAYERS}/{number}"


# ---------------------------------------------------------------------- start


def _half_of(path: str) -> str:
    """Returns half of a number of `/proc`: what all sandboxes together may have of what the host counts by user."""
    with open(path) as file:
        return str(max(1, int(file.read()) // 2))


def _first_subordinate() -> int:
    """Returns the first id of the machine's for this helper: of those that no other has, which much is counted by."""
    return _SUBORDINATE + int.from_bytes(os.urandom(4), "little") % _SLOTS * _SUBORDINATE_COUNT


def _own_namespaces(wire: Wire, settings: Mapping[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """Enters own namespaces and builds the root; returns the id in here that owns workspaces, and what is shown apart.

    Root builds the root with its own eyes (the interpreter may live where only root may look), and then becomes an
    ordinary user that exists nowhere else. An ordinary user needs the user namespace first.
    """
    uid, gid = os.getuid(), os.getgid()
    set_limit("RLIMIT_SIGPENDING", resource.getrlimit(resource.RLIMIT_SIGPENDING)[0] // 2)  # for all sandboxes together
    watches = _half_of("/proc/sys/fs/inotify/max_user_instances")
    if uid:
        linux.unshare(linux.NEWUSER)
        linux.write_text("/proc/sys/user/max_inotify_instances", watches)
        linux.write_text("/proc/self/setgroups", "deny")
        linux.write_text("/proc/self/uid_map", f"0 {uid} 1")
        linux.write_text("/proc/self/gid_map", f"0 {gid} 1")
    linux.unshare(linux.NEWNS)
    linux.make_private()
    shown = build_root(settings["readonly"], apart=True)[:_MOST_SHOWN]
    add_kernel_files()
    seal_root()
    os.mkdir(_LAYERS)
    if uid == 0:
        linux.unshare(linux.NEWUSER)
        linux.write_text("/proc/sys/user/max_inotify_instances", watches)
        wire.send({"map": f"0 {_first_subordinate()} {_SUBORDINATE_COUNT}", "pid": os.getpid()})
        wire.receive(30)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        linux.unshare(linux.NEWNS)
    linux.mount("tmpfs", _LAYERS, "tmpfs", linux.NOSUID | linux.NODEV, "mode=755")
    os.mkdir(_VIEW)
    return (0 if uid else 1000), shown


def _able(shown: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns what this user can show to each sandbox apart: by its own path, or as it is shown to all already."""
    found: list[tuple[str, str]] = []
    for source, place in shown:
        for candidate in (source, ROOT + place):
            try:
                os.close(mount_apart(candidate))
            except OSError:
                continue  # a closed folder is above it, or overlays lie on overlays too high
            found.append((candidate, place))
            break
    return found


def _received(wire: Wire) -> list[int]:
    """Returns the descriptors of the next message; none where they were lost on the way, and thereby closed."""
    try:
        return wire.receive()[0]["fds"]
    except Lost:
        return []


def _fork_closer() -> Wire:
    """Starts the process that closes what it is sent, and thereby frees what nobody else refers to.

    It waits a little, because the kernel holds locks meanwhile that making the next layer needs, too.
    """
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        fd = ours.detach()
        wire = Wire(fd, fd)
        wire.patience_s = 0  # what is not sent is closed here, which only takes longer
        return wire
    try:
        linux.die_with_parent()
        ours.close()
        wire = Wire(theirs.fileno(), theirs.fileno())
        while True:
            fds = _received(wire)
            time.sleep(_REST_S)
            while select.select([theirs], (), (), 0)[0]:
                fds += _received(wire)
            for fd in fds:
                os.close(fd)
    except Closed:
        os._exit(0)
    finally:
        os._exit(1)


def _fork_spawner(link: int) -> None:
    """Starts the process that forks sandboxes.

    Its mount namespace has the shared root and nothing else. It is PID 1 of a namespace in which all sandboxes nest, so
    when it ends the kernel ends them.
    """
    linux.unshare(linux.NEWPID)
    if os.fork():
        os.close(link)
        return
    try:
        linux.die_with_parent()
        os.setsid()
        linux.unshare(linux.NEWNS | linux.NEWUTS)
        socket.sethostname("sandbox")
        linux.bind(ROOT, ROOT)
        linux.pivot_into(ROOT)
        serve_spawns(link)
    finally:
        os._exit(0)


def main() -> None:
    """Runs a helper: `python -c ... CONTROL_FD SPAWN_FD PARENT_FD SETTINGS`."""
    control, spawns, parent = (int(word) for word in sys.argv[1:4])
    settings = json.loads(sys.argv[4])
    close_on_exec()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = Wire(control, control)
    try:
        raise_open_files()
        inner_id, shown = _own_namespaces(wire, settings)
        closer = _fork_closer()
        _fork_spawner(spawns)
        forbid_imports()
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        wire.send({"fault": "helper", "message": reason_of(error)})
        return
    wire.send({"ready": True, "inner_id": inner_id})
    NamespaceHelper(wire, closer, (inner_id, inner_id), _able(shown)).serve(parent)
