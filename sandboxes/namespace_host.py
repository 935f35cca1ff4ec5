"""The parent's side of the helper and the spawner: one pair per process and set of extra read-only folders."""

import contextlib
import itertools
import json
import os
import select
import socket
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentenv.errors import SandboxError

from .cgroups import sweep_cgroups
from .guest.trees import Entry
from .guest.wire import Closed, Failed, Late, Lost, Wire
from .guest_process import end_guest, start_guest
from .layers import Layer, StoredLayer, archives
from .once import Helpers

__all__ = ["HeldLayer", "Host", "namespace_host_for"]

_START_S = 30.0
_REQUEST_S = 300.0
_SHARE = 4


class _LostOnTheWay(SandboxError):
    """A request or its answer lost the descriptors that belonged to it; the helper works as before.

    Attributes:
        unheard: whether it was the request.
        made: the layer that an answer told of.
    """

    def __init__(self, why: str, *, made: int | None = None) -> None:
        super().__init__(f"the helper of namespace sandboxes and this process cannot pass descriptors: {why}")
        self.unheard = made is None
        self.made = [] if made is None else [made]


class Host:
    """A running helper and spawner.

    Args:
        readonly: folders and files of the machine that its sandboxes see besides the usual ones.

    Attributes:
        inner_id: the id that owns workspaces, in the helper's user namespace.
        budget: bytes of layers to hold in memory; those that no open sandbox stands on move to disk beyond it.
        layers_lock: held while layers move.
    """

    def __init__(self, readonly: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._spawn_lock = threading.Lock()
        self._dropped: deque[int] = deque()
        self._loaded: weakref.WeakKeyDictionary[StoredLayer, HeldLayer] = weakref.WeakKeyDictionary()
        self._resident: weakref.WeakSet[HeldLayer] = weakref.WeakSet()
        self.layers_lock = threading.RLock()
        self.budget = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE
        control, self._control = _socket_pair()
        spawns, self._spawns = _socket_pair()
        own = os.pidfd_open(os.getpid())
        fds = (control, spawns, own)
        try:
            self._process = start_guest("namespace_helper", fds, {"readonly": readonly})
        finally:
            for fd in fds:
                os.close(fd)
        self._wire = Wire(self._control, self._control)
        self._spawn_wire = Wire(self._spawns, self._spawns)
        self.inner_id = self._await_start()
        sweep_cgroups()

    def _await_start(self) -> int:
        try:
            reply, _ = self._wire.receive(_START_S)
            if "map" in reply:
                for name in ("uid_map", "gid_map"):
                    Path(f"/proc/{reply['pid']}/{name}").write_text(reply["map"])
                self._wire.send({"mapped": True})
                reply, _ = self._wire.receive(_START_S)
        except (Closed, Late, OSError) as error:
            self.close()
            msg = f"the helper of namespace sandboxes did not start: {error}"
            raise SandboxError(msg) from error
        if "fault" in reply:
            self.close()
            msg = f"namespaces cannot be used here: {reply['message']}"
            raise SandboxError(msg)
        return reply["inner_id"]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, head: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[dict[str, Any], bytes]:
        """Sends the helper a request and returns its answer.

        Raises:
            SandboxError: it refused, or is gone.
        """
        with self._lock:
            numbers = self._take_dropped()
            try:
                reply, body = self._exchange(self._wire, {**head, "drop": numbers}, fds)
            except _LostOnTheWay as lost:
                self._dropped.extend(numbers if lost.unheard else lost.made)
                raise
        self._drop_queued()
        return reply, body

    def spawn(self, settings: dict[str, Any], fds: tuple[int, ...]) -> int:
        """Starts a sandbox around a wire and two mounts; returns a pidfd of its first process."""
        with self._spawn_lock:
            reply, _ = self._exchange(self._spawn_wire, {"settings": settings}, fds)
        return reply["fds"][0]

    def _exchange(self, wire: Wire, head: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], bytes]:
        try:
            wire.send(head, b"", fds)
            reply, body = wire.receive(_REQUEST_S)
        except Lost as error:
            raise _LostOnTheWay(str(error), made=error.head.get("upper")) from error
        except (Closed, Failed, Late) as error:
            self.close()
            msg = f"the helper of namespace sandboxes is gone: {error}"
            raise SandboxError(msg) from error
        except BaseException:
            self.close()  # an interrupted exchange would confuse the next one
            raise
        if reply.get("fault") == "lost":
            raise _LostOnTheWay(reply["message"])
        if "fault" in reply:
            msg = f"the helper of namespace sandboxes refused: {reply['message']}"
            raise SandboxError(msg)
        return reply, body

    # ------------------------------------------------------------------ layers

    @property
    def held(self) -> int:
        """Bytes of the layers in memory."""
        with self.layers_lock:
            return sum(layer.size for layer in self._resident)

    def adopt(self, reply: dict[str, Any]) -> "HeldLayer":
        """Returns the layer that the helper has just made; others may have to leave memory for it."""
        layer = HeldLayer(self, reply)
        with self.layers_lock:
            self._resident.add(layer)
            self.spill(sparing=layer)
        return layer

    def use(self, layers: Iterable[Layer]) -> "tuple[HeldLayer, ...]":
        """Returns these layers as layers of this helper, in memory until `unuse`."""
        with self.layers_lock:
            kept = tuple(self._load(layer) for layer in layers)
            for layer in kept:
                layer.users += 1
            return kept

    def unuse(self, layers: "Iterable[HeldLayer]") -> None:
        """Allows that layers, got by `use`, leave memory."""
        with self.layers_lock:
            for layer in layers:
                layer.users -= 1

    def _load(self, layer: Layer) -> "HeldLayer":
        if isinstance(layer, HeldLayer) and layer.host is self:
            if layer.stored is not None:
                layer.come_back(self._load_archive(layer.stored.archive()))
                self._resident.add(layer)
            return layer
        stored = layer if isinstance(layer, StoredLayer) else archives.add(layer.archive())
        kept = self._loaded.get(stored)
        if kept is None:
            kept = self._loaded[stored] = self.adopt(self._load_archive(stored.archive()))
        return self._load(kept)

    def _load_archive(self, archive: bytes) -> dict[str, Any]:
        with open(os.memfd_create("layer"), "wb", buffering=0) as file:  # noqa: PTH123  has no path
            _write_all(file.fileno(), archive)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            return self.ask({"op": "load", "size": len(archive)}, (file.fileno(),))[0]

    def spill(self, *, sparing: "HeldLayer | None" = None) -> None:
        """Moves layers that no sandbox stands on out of the helper until it is within its budget, the oldest first."""
        with self.layers_lock:
            over = self.held - self.budget
            for layer in sorted(self._resident, key=lambda layer: layer.born) if over > 0 else ():
                if over > 0 and not layer.users and layer is not sparing:
                    layer.go_away()
                    self._resident.discard(layer)
                    over -= layer.size

    def drop_next(self, number: int) -> None:
        """Lets go of a layer with the next request, for whoever makes one at once."""
        self._dropped.append(number)

    def drop(self, number: int) -> None:
        """Lets go of a layer. Never blocks: it is called by finalizers, at any point of any thread."""
        self.drop_next(number)
        self._drop_queued()

    def _take_dropped(self) -> list[int]:
        numbers: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                numbers.append(self._dropped.popleft())
        return numbers

    def _drop_queued(self) -> None:
        while self._dropped and self._lock.acquire(blocking=False):
            try:
                self._exchange(self._wire, {"op": "drop", "drop": self._take_dropped()}, ())
            except SandboxError:
                return  # it is gone, and all layers with it
            finally:
                self._lock.release()

    def close(self) -> None:
        """Ends the helper, and with it every sandbox and layer it holds."""
        if self._process.returncode is None:
            for fd in (self._control, self._spawns):
                with contextlib.suppress(OSError):
                    os.close(fd)
            end_guest(self._process)

    def abandon(self) -> None:
        """Forgets it in a forked child: closes what was inherited and leaves the processes alone."""
        for fd in (self._control, self._spawns):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._process.returncode = 0


class HeldLayer:
    """A layer that a helper holds in memory, or that had to leave it; dropped when nothing refers to it.

    Attributes:
        host: whose layer it is.
        number: names it there, while it is in memory.
        stored: its archive, while it is not.
        users: how many open sandboxes stand on it.
        born: its place in the order of their making.
        size: bytes that it uses.
        files: files and folders that it has.
    """

    def __init__(self, host: Host, reply: dict[str, Any]) -> None:
        self.host = host
        self.stored: StoredLayer | None = None
        self.users = 0
        self.born = next(_births)
        self._entries: list[Entry] | None = None
        self.come_back(reply)

    def come_back(self, reply: dict[str, Any]) -> None:
        """Is in the helper's memory from here on."""
        self.number: int = reply["layer"]
        self.size: int = reply["size"]
        self.files: int = reply["files"]
        self.stored = None
        self._finalizer = weakref.finalize(self, self.host.drop, self.number)
        self._finalizer.atexit = False

    def go_away(self) -> None:
        """Leaves the helper's memory."""
        self.stored = archives.add(self.archive())
        self._finalizer()

    def archive(self) -> bytes:
        """Returns the layer as an archive."""
        with self.host.layers_lock:
            if self.stored is not None:
                return self.stored.archive()
            with open(os.memfd_create("layer"), "r+b", buffering=0) as file:  # noqa: PTH123  has no path
                self.host.ask({"op": "pack", "layer": self.number}, (file.fileno(),))
                file.seek(0)
                return file.readall()

    def entries(self) -> list[Entry]:
        """Returns its entries, with digests of files; computed once."""
        with self.host.layers_lock:
            if self._entries is None:
                self._entries = self.stored.entries() if self.stored is not None else self._scan()
            return self._entries

    def _scan(self) -> list[Entry]:
        body = self.host.ask({"op": "scan", "layer": self.number})[1]
        return [Entry(*fields) for fields in json.loads(body)]


def _socket_pair() -> tuple[int, int]:
    theirs, ours = socket.socketpair()
    return theirs.detach(), ours.detach()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


_births = itertools.count()
_hosts = Helpers(Host)


def namespace_host_for(readonly: tuple[str, ...]) -> Host:
    """Returns this process's helper for a set of extra folders, starting it unless it runs."""
    return _hosts.get(readonly)


def pid_of(pidfd: int) -> int:
    """Returns the pid, as this process sees it, of the process behind a descriptor; -1 when it has ended."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(text.partition("Pid:")[2].split()[0])


def wait_for_end(pidfd: int, timeout_s: float) -> bool:
    """Waits until the process behind a descriptor has ended; says whether it has."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))
