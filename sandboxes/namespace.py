"""The `namespace` back end, the default: Linux namespaces and overlays, without a daemon, as root or as anybody.

A sandbox is one process, PID 1 of its own PID, mount, network, IPC and user namespaces. Its workspace and `/tmp` are an
overlay in memory: immutable layers below, a small tmpfs with the sandbox's disk and inode limits on top. A snapshot
makes the top layer immutable and puts a new one over it, so neither it nor a fork depends on how much is in it.
"""

import contextlib
import os
import signal
import socket
from dataclasses import replace
from functools import cache
from typing import Any

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities, ExecResult

from .base_files import empty_archive
from .cgroups import Cgroup, find_controllers
from .guest.trees import Entry
from .guest.wire import Closed, Late, Wire
from .guest_sandbox import GuestSandbox
from .guest_settings import settings_of
from .layers import archives
from .namespace_host import HeldLayer, Host, namespace_host_for, wait_for_end
from .once import finalize_here
from .probing import probe_by_doing
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["NamespaceSandbox", "probe"]

MAX_LAYERS = 32
_START_S = 30.0
_END_S = 10.0
_LEAST_DISK = 64 << 10
_HEADROOM = 256 << 20
_LEAST_FILES = 8


class _Resources:
    """What one sandbox holds outside of Python; freed once, by `close` or by the garbage collector."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.chain: tuple[HeldLayer, ...] = ()
        self.upper: int | None = None
        self.pidfd: int | None = None
        self.cgroup: Cgroup | None = None
        self.wire: Wire | None = None

    def free(self) -> None:
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            wait_for_end(self.pidfd, _END_S)
            os.close(self.pidfd)
            self.pidfd = None
        if self.cgroup is not None:
            self.cgroup.close()
            self.cgroup = None
        if self.upper is not None:
            self.host.drop(self.upper)
            self.upper = None
        chain, self.chain = self.chain, ()
        self.host.unuse(chain)


class NamespaceSandbox(GuestSandbox):
    """A sandbox of Linux namespaces; see the module."""

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot) -> None:
        super().__init__(spec, origin)
        self._begin(origin)

    @override
    def _begin(self, origin: WorkspaceSnapshot) -> None:
        self._host = namespace_host_for(self.spec.readonly)
        self._held = _Resources(self._host)
        self._finalizer = finalize_here(self, self._held.free)
        try:
            mounts, places = self._compose(origin, first=True)
            self._start(mounts, places)
        except BaseException:
            self._held.free()
            raise

    def _compose(self, snapshot: WorkspaceSnapshot, *, first: bool = False) -> tuple[tuple[int, ...], list[str]]:
        """Lays a new upper layer over a snapshot; returns the mounts. The upper layer before it is no longer held.

        With `first`, more mounts follow: of what a sandbox sees of the host, with the places where they belong.
        """
        chain = self._host.use(snapshot.layers)
        before, self._held.chain = self._held.chain, chain
        self._host.unuse(before)
        self._state = snapshot
        written = chain[1:]
        limits = self.spec.limits
        request = {
            "op": "compose",
            "first": first,
            "layers": [layer.number for layer in chain],
            "disk": max(_LEAST_DISK, limits.disk - sum(layer.size for layer in written)),
            "files": max(_LEAST_FILES, limits.files - sum(layer.files for layer in written)),
        }
        reply, _ = self._host.ask(request)
        self._held.upper = reply["upper"]
        return tuple(reply["fds"]), reply["shown"]

    def _start(self, mounts: tuple[int, ...], places: list[str]) -> None:
        limits = self.spec.limits
        controllers = find_controllers()
        settings = settings_of(self.spec)
        settings["inner_id"] = self._host.inner_id
        settings["shown"] = places
        theirs, ours = socket.socketpair()
        fd = ours.detach()
        wire = Wire(fd, fd)
        groups: list[int] = []
        watched: list[int] = []
        try:
            with theirs:
                if controllers:
                    # files in memory are charged to whoever writes them: they must not eat up the processes' share
                    memory = limits.memory + limits.disk + _HEADROOM
                    self._held.cgroup = Cgroup(memory=memory, messages=limits.memory, processes=limits.processes + 1)
                    groups = self._held.cgroup.open_members()
                    watched = self._held.cgroup.open_memory()
                settings["watched"] = len(watched)
                self._held.pidfd = self._host.spawn(settings, (theirs.fileno(), *mounts, *watched, *groups))
            reply, _ = wire.receive(_START_S)
        except (Closed, Late, OSError) as error:
            wire.close()
            msg = f"a namespace sandbox did not start: {error}"
            raise SandboxError(msg) from error
        except BaseException:
            wire.close()
            raise
        finally:
            for given in (*mounts, *watched, *groups):
                os.close(given)
        if "fault" in reply:
            wire.close()
            msg = f"a namespace sandbox did not start: {reply['message']}"
            raise SandboxError(msg)
        self._wire = self._held.wire = wire

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced here."""
        return probe()

    @override
    def _run(self, request: dict[str, Any], body: bytes, timeout_s: float) -> tuple[ExecResult, dict[str, Any]]:
        cgroup = self._held.cgroup
        before = 0 if cgroup is None else cgroup.count_oom_kills()
        result, reply = super()._run(request, body, timeout_s)
        if cgroup is not None and cgroup.count_oom_kills() > before:
            result = replace(result, oom=True)
        return result, reply

    @override
    def _take(self) -> WorkspaceSnapshot:
        chain = [layer.number for layer in self._held.chain]
        live = self._shell is not None and self._ask({"op": "stop"})[0]["live"]
        try:
            reply, _ = self._host.ask({"op": "changed", "upper": self._held.upper, "layers": chain})
            if not reply["changed"]:
                return self._state
            if live:
                reply, _ = self._host.ask({"op": "copy", "upper": self._held.upper})
                return WorkspaceSnapshot((*self._held.chain, self._host.adopt(reply)))
        finally:
            if live:
                self._ask({"op": "continue"})
        return self._freeze()

    def _freeze(self) -> WorkspaceSnapshot:
        """Makes the upper layer a layer of the snapshot and goes on with a new one over it."""
        try:
            self._ask({"op": "detach"})
            reply, _ = self._host.ask({"op": "freeze", "upper": self._held.upper})
            self._held.upper = None
            layer = self._host.adopt(reply)
            if self._held.cgroup is not None:
                self._held.cgroup.allow(layer.size)
            layers = self._shorten((*self._held.chain, layer))
            snapshot = WorkspaceSnapshot(layers)
            self._attach(self._compose(snapshot)[0], fresh=False)
        except BaseException:
            self._break("a snapshot of it failed half way")
            raise
        return snapshot

    def _shorten(self, layers: tuple[HeldLayer, ...]) -> tuple[HeldLayer, ...]:
        """Merges what was written since the base when it has become too many layers, or may hold much that is gone."""
        written = layers[1:]
        room = self.spec.limits.disk - written[0].size
        added = sum(layer.size for layer in written[1:])
        if len(layers) < MAX_LAYERS and added <= room // 2:
            return layers
        if len(written) < 2:
            return layers
        kept = self._host.use(written)
        try:
            reply, _ = self._host.ask({"op": "merge", "layers": [layer.number for layer in kept]})
        finally:
            self._host.unuse(kept)
        return (layers[0], self._host.adopt(reply))

    def _attach(self, mounts: tuple[int, ...], *, fresh: bool) -> None:
        try:
            self._ask({"op": "attach", "fresh": fresh}, fds=mounts)
        finally:
            for mount in mounts:
                os.close(mount)

    @override
    def _put(self, snapshot: WorkspaceSnapshot) -> None:
        try:
            self._ask({"op": "detach"})
            if self._held.upper is not None:
                self._host.drop_next(self._held.upper)
                self._held.upper = None
            self._attach(self._compose(snapshot)[0], fresh=True)
        except BaseException:
            self._break("restoring it failed half way")
            raise

    @override
    def _entries(self) -> dict[str, Entry]:
        return self._take().entries

    @override
    def _free(self) -> None:
        self._held.wire = None  # closed already
        self._held.free()


_REMEDY = (
    "Namespaces need Linux 6.6 or later and user namespaces for this user: sysctl user.max_user_namespaces above 0, "
    "kernel.unprivileged_userns_clone=1 on old Debian, kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor "
    "profile on Ubuntu; inside Docker, run the container with --security-opt seccomp=unconfined --security-opt "
    "apparmor=unconfined --security-opt systempaths=unconfined"
)


@cache
def probe() -> Capabilities:
    """Returns what holds on this machine, found by attacking a sandbox.

    Raises:
        SandboxError: namespaces do not work here; the message says why and what helps.
    """
    try:
        return probe_by_doing("namespace", "namespace", open_empty)
    except SandboxError as error:
        msg = f"{error}. {_REMEDY}"
        raise SandboxError(msg) from error


def open_empty(spec: SandboxSpec) -> NamespaceSandbox:
    """Opens a sandbox with nothing in it."""
    return NamespaceSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)))
