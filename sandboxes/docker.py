"""The `docker` back end: one container per sandbox, through the Docker SDK, on dockerd or on podman's socket.

The guest is PID 1 of the container and talks over one attached stream, so that a command costs milliseconds instead of
a `docker exec`, and everything it started can be killed from inside. Its program comes over the same stream: nothing of
it is in the image, which only has to have Python 3.8. Without an image, a skeleton is made around the host's `/usr`.

When this process ends, however it ends, the stream closes, the guest ends, and the engine removes the container.
"""

import contextlib
import itertools
import platform
import socket
from functools import cache
from typing import Any

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .base_files import empty_archive
from .cgroups import owner_tag
from .copied import CopiedSandbox
from .engines import LABEL, Engine, engine_at
from .guest.gvisor_init import HOST_MEMORY, host_threads
from .guest.wire import Closed, Failed, Late, Wire
from .guest_process import BOOT, packed_guest
from .guest_settings import AGENT, new_agent, settings_of
from .layers import archives
from .once import finalize_here
from .probing import probe_by_doing
from .shown import require_plain
from .skeleton import host_paths
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["DockerSandbox", "probe"]

_CAPABILITIES = ["KILL", "SETUID", "SETGID", "SETPCAP", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]
_HEADROOM = 256 << 20
_SHM = 64 << 20
_HIDDEN = ("/dev/mqueue", "/dev/pts")  # message queues outlive commands; terminals are counted for the machine
_START_S = 60.0
_STALL_S = 60.0
_CHUNK = 1 << 18
_STDERR = 2
_COMPLAINTS = 4096
_numbers = itertools.count()


class _StreamWire(Wire):
    """A wire over an attached container: what comes back is cut into frames with a head of eight bytes.

    Attributes:
        complaints: the beginning of what the guest wrote to its standard error, which is where it says why it ended.
    """

    takes_fds = False

    def __init__(self, link: Any) -> None:
        inner = getattr(link, "_sock", link)
        self._link: socket.socket = inner
        self._owner = link
        self._left = 0
        self.complaints = b""
        super().__init__(inner.fileno(), inner.fileno())

    @override
    def read_some(self, size: int, deadline: float | None) -> bytes:
        while not self._left:
            head = self._exactly(8, deadline)
            if len(head) < 8:
                return b""
            size_of_frame = int.from_bytes(head[4:], "big")
            if head[0] == _STDERR:
                self._listen(size_of_frame, deadline)
            else:
                self._left = size_of_frame
        part = self._exactly(min(size, self._left), deadline)
        self._left -= len(part)
        return part

    def _listen(self, size: int, deadline: float | None) -> None:
        """Keeps the beginning of a complaint, however long it is."""
        while size > 0 and (part := self._exactly(min(size, _CHUNK), deadline)):
            self.complaints = (self.complaints + part)[:_COMPLAINTS]
            size -= len(part)

    def _exactly(self, size: int, deadline: float | None) -> bytes:
        """Reads so many bytes before the deadline, fewer at the end: the sender may stop anywhere."""
        parts = bytearray()
        while len(parts) < size:
            self.wait(deadline)
            part = self._link.recv(size - len(parts))
            if not part:
                break
            parts += part
        return bytes(parts)

    @override
    def write(self, data: bytes) -> None:
        """Writes all of `data`; a guest that takes nothing for a minute, which a dead one may look like, is gone."""
        view = memoryview(data)
        self._link.settimeout(_STALL_S)
        try:
            for start in range(0, len(view), _CHUNK):
                self._link.sendall(view[start : start + _CHUNK])
        except (ConnectionError, TimeoutError) as error:
            msg = f"the other side has ended, or takes nothing: {error}"
            raise Closed(msg) from error
        finally:
            self._link.settimeout(None)

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._owner.close()
        self._link.close()


class DockerSandbox(CopiedSandbox):
    """A container; see the module.

    Args:
        spec: what it shall be.
        origin: the state at opening.
        base_bytes: see `CopiedSandbox`.
    """

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot, *, base_bytes: int | None = None) -> None:
        super().__init__(spec, origin, base_bytes=base_bytes)
        self._container = ""
        require_plain(tuple(spec.readonly), "docker")
        self._engine: Engine = engine_at(spec.engine)
        self._begin(origin)

    @override
    def _begin(self, origin: WorkspaceSnapshot) -> None:
        from docker.errors import APIError, DockerException, ImageNotFound

        try:
            self._start()
            self._put(origin)
        except ImageNotFound as error:
            msg = f"the engine has no image {self.spec.image!r}: docker pull {self.spec.image}"
            raise SandboxError(msg) from error
        except (APIError, DockerException) as error:
            self._remove()
            msg = f"the container engine refused a sandbox: {error}"
            raise SandboxError(msg) from error
        except BaseException:
            self._remove()
            raise

    def _start(self) -> None:
        api = self._engine.api
        image = self.spec.image or self._engine.skeleton_image
        settings = settings_of(self.spec)
        settings["agent"] = AGENT if self._has_own_kernel else new_agent()
        settings["filtered"] = platform.machine() in {"x86_64", "aarch64"}
        python = "/usr/bin/python3" if self.spec.image is None else "python3"
        created = api.create_container(
            image,
            [python, "-I", "-S", "-c", BOOT],
            name=f"agentenv-{owner_tag()}-{next(_numbers)}",
            hostname="sandbox",
            user="0:0",
            stdin_open=True,
            working_dir="/",
            network_disabled=True,
            labels={LABEL: owner_tag()},
            host_config=self._host_config(api),
        )
        self._container = created["Id"]
        self._finalizer = finalize_here(self, self._engine.remove, self._container)
        link = api.attach_socket(self._container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        wire = _StreamWire(link)
        try:
            api.start(self._container)
            wire.write(packed_guest("gvisor_init" if self._has_own_kernel else "docker_init", settings))
            wire.receive(_START_S, limit=0)
        except (Closed, Failed, Late) as error:
            wire.close()
            why = wire.complaints.decode(errors="replace").strip() or str(error)
            msg = f"no guest answered in a container of {image!r}; the image needs python3: {why}"
            raise SandboxError(msg) from error
        except BaseException:
            wire.close()
            raise
        self._wire = wire

    @property
    def _has_own_kernel(self) -> bool:
        """Whether it runs on gVisor, which limits memory and processes itself, before the machine would."""
        return self.spec.runtime == "runsc"

    def _host_config(self, api: Any) -> Any:
        from docker.types import LogConfig, Ulimit

        limits = self.spec.limits
        files = 2 * (limits.disk + self._base_bytes) + _SHM  # charged to it as well
        memory = limits.memory + files + (HOST_MEMORY if self._has_own_kernel else _HEADROOM)
        podman = self._engine.is_podman
        inodes = "" if podman else f",nr_inodes={limits.files + len(self._origin.entries) + 8}"
        shm_inodes = "" if podman else ",nr_inodes=1000"
        tmpfs = f"rw,exec,nosuid,nodev,size={limits.disk + self._base_bytes}{inodes}"
        shown = host_paths(self.spec) if self.spec.image is None else self.spec.readonly
        return api.create_host_config(
            network_mode="none",
            auto_remove=True,
            binds=[f"{path}:{path}:ro" for path in shown],
            cap_drop=["ALL"],
            cap_add=_CAPABILITIES,
            security_opt=["no-new-privileges"],
            read_only=not podman,  # or it lays another /tmp, without a limit, over ours
            tmpfs={
                "/workspace": f"{tmpfs},mode=755",
                "/tmp": f"{tmpfs},mode=1777",
                "/dev/shm": f"rw,nosuid,nodev,noexec,size={_SHM}{shm_inodes},mode=1777",
                **dict.fromkeys((*_HIDDEN, *self._volumes()), "ro,size=4k,mode=755"),
            },
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=host_threads(limits.processes) if self._has_own_kernel else limits.processes + 1,
            ulimits=[Ulimit(name="nofile", soft=1024, hard=1024), Ulimit(name="nproc", soft=4096, hard=4096)],
            ipc_mode="private" if podman else "none",
            runtime=self.spec.runtime,
            log_config=LogConfig(type="none"),
        )

    def _volumes(self) -> list[str]:
        """Returns where the image wants to write to the machine's disk; nothing is there, and nothing can be."""
        if self.spec.image is None:
            return []
        volumes: dict[str, Any] = self._engine.api.inspect_image(self.spec.image)["Config"].get("Volumes") or {}
        own = {"/workspace", "/tmp", "/dev/shm", *_HIDDEN, *self.spec.readonly}
        return sorted(path for path in volumes if path.rstrip("/") not in own)

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced here."""
        return probe(self.spec.runtime, self.spec.engine)

    @override
    def _free(self) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._container:
            self._engine.remove(self._container)
            self._container = ""


@cache
def probe(runtime: str | None = None, engine: str | None = None) -> Capabilities:
    """Returns what holds on this machine, found by attacking a container.

    Args:
        runtime: of the container, the engine's default without one.
        engine: its URL, see `engine_at`.

    Raises:
        SandboxError: no engine answers, or its containers do not run.
    """
    given = {"guest_spared": ""} if runtime == "runsc" else {}  # gVisor kills nobody for memory; the guest does

    def make(spec: SandboxSpec) -> DockerSandbox:
        spec = SandboxSpec(limits=spec.limits, runtime=runtime, engine=engine)
        return DockerSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)))

    return probe_by_doing("kernel" if runtime == "runsc" else "container", "docker", make, given)
