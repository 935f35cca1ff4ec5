"""The `gvisor` back end: one `runsc` per sandbox, without a daemon; its snapshots can include running processes.

A sandbox has a kernel of its own, gVisor's, in an ordinary process of the host. The guest is PID 1 in it and talks over
two pipes. Workspace and `/tmp` are in that kernel's memory, so an image of it is everything at once: files, the open
shell, its jobs, live interpreters. An image starts any number of sandboxes that go on from there.
"""

import contextlib
import json
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Self, TypeVar, cast

from typing_extensions import override

from agentenv.errors import SandboxError, SnapshotError
from agentenv.protocols import Capabilities

from .base_files import empty_archive
from .cgroups import Cgroup, find_controllers
from .copied import CopiedSandbox
from .guest.gvisor_init import HOST_MEMORY, host_threads
from .guest.root import ROOT
from .guest.wire import Closed, Late
from .guest_process import BOOT, packed_guest
from .guest_settings import AGENT, settings_of
from .gvisor_host import Image, Running, gvisor_host_for
from .layers import archives
from .once import finalize_here
from .probing import probe_by_doing, try_processes
from .snapshots import ProcessSnapshot, WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["GvisorSandbox", "probe"]

_BACKEND = "gvisor"
_CAPABILITIES = ("KILL", "SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_START_S = 60.0
_SHM = 64 << 20
_AHEAD = max(2, os.cpu_count() or 1)

T = TypeVar("T")


class _Resources:
    """What one sandbox holds outside of Python; freed once, by `close` or by the garbage collector."""

    def __init__(self) -> None:
        self.running: Running | None = None
        self.cgroup: Cgroup | None = None

    def abort(self) -> None:
        """Frees it while nobody else has closed the wire."""
        if self.running is not None:
            self.running.wire.close()
        self.free()

    def free(self) -> None:
        """Frees it; the wire has been closed."""
        if self.running is not None:
            self.running.end()
            self.running = None
        if self.cgroup is not None:
            self.cgroup.close()
            self.cgroup = None


class GvisorSandbox(CopiedSandbox):
    """A container with a kernel of its own; see the module.

    Args:
        spec: what it shall be.
        origin: the state at opening.
        base_bytes: see `CopiedSandbox`.
        launched: a container that was started for it already.
    """

    def __init__(
        self,
        spec: SandboxSpec,
        origin: WorkspaceSnapshot,
        *,
        base_bytes: int | None = None,
        launched: "_Resources | None" = None,
    ) -> None:
        super().__init__(spec, origin, base_bytes=base_bytes)
        self._host = gvisor_host_for(spec.readonly)
        self._held = _Resources()
        if isinstance(origin, ProcessSnapshot):
            self._go_on(origin, launched)
            self._find_shell(origin)
        else:
            self._begin(origin, launched)

    @override
    def _begin(self, origin: WorkspaceSnapshot, launched: "_Resources | None" = None) -> None:
        self._host = gvisor_host_for(self.spec.readonly)
        if isinstance(origin, ProcessSnapshot):
            self._go_on(origin, launched)
            return
        self._adopt(launched or self._launch(None), fresh=True)
        try:
            self._put(origin)
        except BaseException:
            self._release()
            raise

    def _launch(self, image: Image | None) -> "_Resources":
        """Starts a container, which takes its time; `_adopt` waits for it."""
        held = _Resources()
        try:
            if find_controllers():
                held.cgroup = self._new_cgroup()
            held.running = self._host.start(self._config(), image, held.cgroup)
        except BaseException:
            held.free()
            raise
        return held

    def _adopt(self, held: "_Resources", *, fresh: bool) -> None:
        """Waits for the guest of a container, which then takes the place of the one there is."""
        assert held.running is not None
        try:
            self._await_guest(held.running, fresh=fresh)
        except BaseException:
            held.abort()
            raise
        wire, old, self._held = self._wire, self._held, held
        self._wire = held.running.wire
        if self._finalizer is not None:
            self._finalizer.detach()
        self._finalizer = finalize_here(self, held.abort)
        if wire is not None:
            wire.close()
        old.free()

    def _await_guest(self, running: Running, *, fresh: bool) -> None:
        wire = running.wire
        try:
            if fresh:
                settings = settings_of(self.spec)
                settings["agent"] = AGENT
                settings["filtered"] = platform.machine() in {"x86_64", "aarch64"}
                wire.write(packed_guest("gvisor_init", settings))
            else:
                wire.send({"op": "continue"})
            wire.receive(_START_S)
        except (Closed, Late, OSError) as error:
            what = "start" if fresh else "go on from an image"
            msg = f"a gVisor sandbox did not {what}: {running.complaints() or error}"
            raise SandboxError(msg) from error

    def _new_cgroup(self) -> Cgroup:
        """Returns a group with room for the guest kernel; the limits themselves are kept inside, before it is full."""
        limits = self.spec.limits
        memory = limits.memory + 2 * (limits.disk + self._base_bytes) + _SHM + HOST_MEMORY
        return Cgroup(memory=memory, processes=host_threads(limits.processes))

    def _config(self) -> bytes:
        """Returns the container's configuration, as OCI has it."""
        limits = self.spec.limits
        inodes = limits.files + len(self._origin.entries) + 8
        disk = ["nosuid", "nodev", f"size={limits.disk + self._base_bytes}", f"nr_inodes={inodes}"]
        shm = ["nosuid", "nodev", "noexec", "mode=1777", f"size={_SHM}"]
        capabilities = [f"CAP_{name}" for name in _CAPABILITIES]
        process = {
            "user": {"uid": 0, "gid": 0},
            "args": ["/usr/bin/python3", "-I", "-S", "-c", BOOT],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        }
        mounts = [
            _mount("/usr", "bind", f"{ROOT}/usr", ["ro", "rbind"]),
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs"),
            _mount("/dev/shm", "tmpfs", options=shm),
            _mount("/workspace", "tmpfs", options=[*disk, "mode=755"]),
            _mount("/tmp", "tmpfs", options=[*disk, "mode=1777"]),
        ]
        config = {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": ROOT, "readonly": True},
            "hostname": "sandbox",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": name} for name in _NAMESPACES]},
        }
        return json.dumps(config).encode()

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced here."""
        return probe()

    @override
    def _open(self, origin: WorkspaceSnapshot, launched: _Resources | None = None) -> Self:
        return type(self)(self.spec, origin, base_bytes=self._base_bytes, launched=launched)

    @override
    def _put(self, snapshot: WorkspaceSnapshot) -> None:
        if isinstance(snapshot, ProcessSnapshot):
            self._go_on(snapshot, None)
        else:
            super()._put(snapshot)

    def _go_on(self, snapshot: ProcessSnapshot, launched: _Resources | None) -> None:
        frozen = cast("_Frozen", snapshot.image)
        self._adopt(launched or self._launch(frozen.image), fresh=False)
        self._base_bytes = frozen.base_bytes

    @override
    def _open_each(self, origin: WorkspaceSnapshot, n: int) -> Iterator[Self | SandboxError]:
        """Starts the containers side by side, no more than there are cores."""
        image = cast("_Frozen", origin.image).image if isinstance(origin, ProcessSnapshot) else None
        ahead: deque[_Resources | SandboxError] = deque()
        try:
            for left in range(n, 0, -1):
                while len(ahead) < min(_AHEAD, left):
                    ahead.append(_or_error(lambda: self._launch(image)))
                launched = ahead.popleft()
                if isinstance(launched, SandboxError):
                    yield launched
                else:
                    yield _or_error(lambda held=launched: self._open(origin, held))
        finally:
            for held in ahead:
                if not isinstance(held, SandboxError):
                    held.abort()

    @override
    def _take_processes(self) -> ProcessSnapshot:
        assert self._held.running is not None
        try:
            reply, archive = self._ask({"op": "hold"})
            image = self._host.checkpoint(self._held.running, reply["memory"])
        finally:
            with contextlib.suppress(SandboxError):
                self._ask({"op": "continue"})
        frozen = _Frozen(image, self.spec, self._base_bytes)
        layers = self._kept(archive).layers
        return ProcessSnapshot(layers, _BACKEND, frozen, shell_open=reply["live"])

    @override
    def _require_own(self, snapshot: ProcessSnapshot) -> None:
        if not isinstance(snapshot.image, _Frozen):
            super()._require_own(snapshot)
            return
        other = [name for name in _KEPT if getattr(snapshot.image.spec, name) != getattr(self.spec, name)]
        if other:
            msg = (
                f"running processes keep the {other[0]} of the sandbox they were taken in, and this one has others: "
                "restore the snapshot's `files`, or open a sandbox with the same spec"
            )
            raise SnapshotError(msg)
        if not snapshot.image.image.host.alive:
            msg = "the processes of this snapshot are lost: what held them ended, or belongs to another process"
            raise SnapshotError(msg)

    @override
    def _break(self, why: str) -> None:
        if self._held.cgroup is not None and self._held.cgroup.count_oom_kills():
            why += "; the machine's kernel killed it for memory"
        if self._held.running is not None and (complaints := self._held.running.complaints()):
            why += f"; it wrote: {complaints}"
        super()._break(why)

    @override
    def _free(self) -> None:
        self._held.free()


_KEPT = ("limits", "env", "readonly")


class _Frozen:
    """What a snapshot keeps of the processes.

    Attributes:
        image: of the container.
        spec: of the sandbox it was taken in.
        base_bytes: likewise.
    """

    def __init__(self, image: Image, spec: SandboxSpec, base_bytes: int) -> None:
        self.image = image
        self.spec = spec
        self.base_bytes = base_bytes


def _or_error(make: Callable[[], T]) -> T | SandboxError:
    try:
        return make()
    except SandboxError as error:
        return error


def _mount(target: str, kind: str, source: str = "none", options: list[str] | None = None) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options or []}


@cache
def probe() -> Capabilities:
    """Returns what holds on this machine, found by attacking a sandbox.

    Raises:
        SandboxError: gVisor does not work here; the message says why and what helps.
    """
    with _open_empty(SandboxSpec()) as sandbox:
        why = try_processes(sandbox)
    newer = "It takes runsc of 2024 or later, e.g. from bookworm-backports on Debian 12"
    given = {"process_snapshot": why and f"{why}. {newer}"}
    given["guest_spared"] = ""  # its kernel kills nobody for memory; the guest does
    return probe_by_doing("kernel", _BACKEND, _open_empty, given)


def _open_empty(spec: SandboxSpec) -> GvisorSandbox:
    return GvisorSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)))
