"""The `remote` back end: sandboxes on machines of a service, reached by single commands.

The guest of the process back end is sent there as one program, goes on as a daemon between commands, and keeps the same
laws there. Whatever the service's own machines promise beside is not counted: it cannot be tried from here.
"""

import contextlib
import secrets
from functools import cache

from typing_extensions import override

from agentenv.errors import SandboxError
from agentenv.protocols import Capabilities

from .base_files import empty_archive
from .copied import CopiedSandbox
from .guest.wire import Closed, Failed, Late
from .guest_process import packed_guest
from .guest_settings import new_agent, settings_of
from .layers import archives
from .once import finalize_here
from .probing import probe_by_doing
from .remote_lease import LEASE_S, keep, let_go
from .remote_machines import RemoteMachine, RemoteService, blamed_on, service_of
from .remote_wire import RemoteWire, reply_of
from .snapshots import WorkspaceSnapshot
from .spec import SandboxSpec

__all__ = ["RemoteSandbox", "probe"]

_START_S = 60.0
_SLASH_TMP = "/tmp"
_PYTHON = 'PATH=/usr/local/bin:/usr/bin:$PATH; exec python3 "$@"'  # rather the system's than a slow shim in a home


class RemoteSandbox(CopiedSandbox):
    """A guest on a remote machine; see the module.

    Args:
        spec: what it shall be; folders of `readonly` are the machine's.
        origin: the state at opening.
        base_bytes: see `CopiedSandbox`.
    """

    def __init__(self, spec: SandboxSpec, origin: WorkspaceSnapshot, *, base_bytes: int | None = None) -> None:
        super().__init__(spec, origin, base_bytes=base_bytes)
        self._service = service_of(spec.remote)
        self._landlock = 0
        self._begin(origin)

    @override
    def _begin(self, origin: WorkspaceSnapshot) -> None:
        with blamed_on(type(self._service).__name__):
            machine = self._service.start(LEASE_S)
        home = f"{_SLASH_TMP}/agentenv-remote-{secrets.token_hex(12)}"
        self._wire = wire = RemoteWire(machine, home, self._archive_limit)
        self._finalizer = finalize_here(self, wire.close)
        try:
            with blamed_on(type(self._service).__name__):
                wire.python = self._start(machine, home)
            self._put(origin)
        except (Closed, Failed, Late) as error:
            self._release()
            msg = f"the guest of a remote sandbox did not start: {error}"
            raise SandboxError(msg) from error
        except BaseException:
            self._release()
            raise
        keep(wire)

    def _start(self, machine: RemoteMachine, home: str) -> str:
        """Starts the guest; returns the path of the interpreter that it runs in."""
        settings = settings_of(self.spec, workspace=f"{home}/workspace", tmp=f"{home}/tmp")
        settings |= {"readonly": tuple(self.spec.readonly), "agent": new_agent(), "may_lack_landlock": True}
        settings |= {"home": home, "lease_s": LEASE_S}
        program = f"{home}.py"
        machine.put(program, packed_guest("remote_init", settings)[8:], _START_S)
        code = "import os, sys; text = open(sys.argv[1]).read(); os.unlink(sys.argv[1]); exec(text)"
        reply = reply_of(machine.run(["sh", "-c", _PYTHON, "sh", "-I", "-S", "-c", code, program], _START_S))
        if "fault" in reply:
            raise SandboxError(reply["message"])
        self._landlock = int(reply["landlock"])
        return str(reply["python"])

    @override
    def require_level(self, level: str) -> None:
        if level != "none" and not self._landlock:
            msg = f"the machine's kernel has no Landlock, so that it promises only 'none', less than require={level!r}"
            raise SandboxError(msg)

    @property
    @override
    def isolation(self) -> Capabilities:
        """What is really enforced there."""
        return _probe(self._service, self._landlock)

    @override
    def _release(self) -> None:
        if isinstance(self._wire, RemoteWire):
            let_go(self._wire)
        super()._release()


def probe() -> Capabilities:
    """Returns what holds on the service that the environment names, found by attacking a sandbox there.

    Raises:
        SandboxError: none is named, or it opens no sandbox.
    """
    service = service_of(None)
    with contextlib.closing(_open_at(service, SandboxSpec())) as box:
        return box.isolation


def _open_at(service: RemoteService, spec: SandboxSpec) -> RemoteSandbox:
    spec = SandboxSpec(limits=spec.limits, remote=service)
    return RemoteSandbox(spec, WorkspaceSnapshot((archives.add(empty_archive()),)))


@cache
def _probe(service: RemoteService, landlock: int) -> Capabilities:
    level = "process" if landlock else "none"
    return probe_by_doing(level, "remote", lambda spec: _open_at(service, spec))
