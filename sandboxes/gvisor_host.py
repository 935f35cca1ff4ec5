"""The parent's side of the helper: one per process and set of extra read-only folders, see `guest/gvisor_helper.py`."""

import contextlib
import fcntl
import itertools
import os
import select
import shutil
import signal
import socket
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from agentenv.errors import SandboxError

from .cgroups import Cgroup, sweep_cgroups
from .folder import new_folder, sweep_folders
from .guest.gvisor_helper import IMAGES
from .guest.wire import Closed, Late, Wire
from .guest_process import end_guest, start_guest
from .namespace_host import wait_for_end
from .once import Helpers, finalize_here

__all__ = ["GvisorHost", "Image", "Running", "gvisor_host_for"]

FLAGS = ("--platform=systrap", "--network=none", "--overlay2=none", "--ignore-cgroups")
_START_S = 30.0
_CHECKPOINT_S = 120.0
_END_S = 10.0
_SHARE = 4
_PIPE = 1 << 20
_COMPLAINTS = 4096
_REMEDY = (
    "gVisor's runsc of 2024 or later has to be in PATH, e.g. on Debian 12: "
    "apt-get install -t bookworm-backports --no-install-recommends runsc"
)


_numbers = itertools.count()


class Image:
    """The running processes of a sandbox, as files; they are removed with the last reference.

    Attributes:
        folder: where they are, as the helper sees it.
        path: where they are, as this process sees it.
        size: bytes.
        in_memory: whether they are in memory, not on disk.
        host: whose image it is.
    """

    def __init__(self, host: "GvisorHost", folder: str, path: Path, *, in_memory: bool) -> None:
        self.host = host
        self.folder = folder
        self.path = path
        self.size = sum(file.stat().st_blocks * 512 for file in path.iterdir())
        self.in_memory = in_memory
        finalize_here(self, _remove_image, host if in_memory else None, path)


class Running:
    """A sandbox that was started.

    Attributes:
        wire: to its guest.
        pidfd: its first process; what else it has ends with it.
    """

    def __init__(self, wire: Wire, pidfd: int, complaints: int) -> None:
        self.wire = wire
        self.pidfd = pidfd
        self._complaints = complaints

    def complaints(self) -> str:
        """Returns the end of what `runsc` and the guest wrote to standard error."""
        size = os.fstat(self._complaints).st_size
        text = os.pread(self._complaints, _COMPLAINTS, max(0, size - _COMPLAINTS))
        return text.decode(errors="replace").strip()

    def end(self) -> None:
        """Kills it and waits until nothing of it is left; its wire has been closed."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        wait_for_end(self.pidfd, _END_S)
        os.close(self.pidfd)
        os.close(self._complaints)


class GvisorHost:
    """A running helper.

    Args:
        readonly: folders and files of the machine that its sandboxes see besides the usual ones.

    Attributes:
        budget: bytes of images to hold in memory; those beyond it are on disk.

    Raises:
        SandboxError: `runsc` is missing, or this user may not make namespaces.
    """

    def __init__(self, readonly: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._images: weakref.WeakSet[Image] = weakref.WeakSet()
        self.budget = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE
        settings = {"readonly": readonly, "runsc": _find_runsc(), "flags": FLAGS}
        sweep_cgroups()
        sweep_folders()
        theirs, ours = socket.socketpair()
        self._control = ours.detach()
        self._folder = -1
        own = os.pidfd_open(os.getpid())
        try:
            with theirs:
                self._process = start_guest("gvisor_helper", (theirs.fileno(), own), settings)
        finally:
            os.close(own)
        self._wire = Wire(self._control, self._control)
        try:
            reply, _ = self._wire.receive(_START_S)
        except (Closed, Late) as error:
            self.close()
            msg = f"the helper of gVisor sandboxes did not start: {error}"
            raise SandboxError(msg) from error
        if "fault" in reply:
            self.close()
            msg = f"the helper of gVisor sandboxes did not start: {reply['message']}"
            raise SandboxError(msg)
        self._folder = reply["fds"][0]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        if self._process.poll() is not None or self._control < 0:
            return False
        poller = select.poll()
        poller.register(self._control, 0)  # hanging up is always reported
        return not poller.poll(0)

    @property
    def held(self) -> int:
        """Bytes of the images in memory."""
        return sum(image.size for image in list(self._images) if image.in_memory)

    def start(self, config: bytes, image: Image | None, cgroup: Cgroup | None) -> Running:
        """Starts a sandbox; whether its guest answers is for the caller to see.

        Args:
            config: of the container, in JSON.
            image: to start from.
            cgroup: to put it into.
        """
        stdin, write = os.pipe2(os.O_CLOEXEC)
        read, stdout = os.pipe2(os.O_CLOEXEC)
        complaints = os.memfd_create("complaints")
        os.fchmod(complaints, 0o600)  # whoever finds it among the descriptors of PID 1 may not open it
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE)  # the guest's program fits: writing it never waits
        groups = [] if cgroup is None else cgroup.open_members()
        wire = Wire(read, write)
        try:
            head = {"op": "start", "image": "" if image is None else image.folder}
            reply = self._ask(head, config, (stdin, stdout, complaints, *groups))
        except BaseException:
            wire.close()
            os.close(complaints)
            raise
        finally:
            for fd in (stdin, stdout, *groups):
                os.close(fd)
        return Running(wire, reply["fds"][0], complaints)

    def checkpoint(self, running: Running, memory: int) -> Image:
        """Takes an image of a sandbox, which goes on after it.

        Args:
            running: the sandbox.
            memory: bytes that the image may have; it goes to disk where memory is short.

        Raises:
            SandboxError: `runsc` could not; the message has its reason.
        """
        in_memory = self.held + memory <= self.budget
        if in_memory:
            name = str(next(_numbers))
            folder, path = f"{IMAGES}/{name}", Path(f"/proc/self/fd/{self._folder}/{name}")
            path.mkdir()
        else:
            path = new_folder()
            folder = str(path)
        try:
            self._take(running, folder)
            image = Image(self, folder, path, in_memory=in_memory)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self._images.add(image)
        return image

    def _take(self, running: Running, folder: str) -> None:
        report, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                self._ask({"op": "checkpoint", "image": folder}, b"", (running.pidfd, theirs))
            finally:
                os.close(theirs)
            text, _, code = _read_all(report, _CHECKPOINT_S).rpartition("\n")
        finally:
            os.close(report)
        if code != "0":
            msg = f"runsc could not take an image of what runs: {(text or code).strip()[-500:] or 'it was killed'}"
            raise SandboxError(msg)

    def _ask(self, head: dict[str, Any], body: bytes, fds: tuple[int, ...]) -> dict[str, Any]:
        with self._lock:
            try:
                self._wire.send(head, body, fds)
                reply, _ = self._wire.receive(_START_S)
            except (Closed, Late) as error:
                self.close()
                msg = f"the helper of gVisor sandboxes is gone: {error}"
                raise SandboxError(msg) from error
            except BaseException:
                self.close()  # an interrupted exchange would confuse the next one
                raise
        if "fault" in reply:
            msg = f"the helper of gVisor sandboxes refused: {reply['message']}"
            raise SandboxError(msg)
        return reply

    def close(self) -> None:
        """Ends the helper, and with it every sandbox, and every image in memory."""
        if self._process.returncode is None:
            self._close_fds()
            end_guest(self._process)

    def abandon(self) -> None:
        """Forgets it in a forked child: closes what was inherited and leaves the processes alone."""
        self._close_fds()
        self._process.returncode = 0

    def _close_fds(self) -> None:
        for fd in (self._control, self._folder):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._control = self._folder = -1


def _remove_image(host: GvisorHost | None, path: Path) -> None:
    """Removes an image, unless it was in the memory of a helper that has ended, and went with it."""
    if host is None or host.alive:
        shutil.rmtree(path, ignore_errors=True)


def _find_runsc() -> str:
    if os.getuid() != 0:
        msg = "the gvisor back end needs root: runsc makes namespaces, mounts and devices for its sandboxes"
        raise SandboxError(msg)
    found = shutil.which("runsc")
    if found is None:
        msg = f"runsc was not found. {_REMEDY}"
        raise SandboxError(msg)
    return str(Path(found).resolve())


def _read_all(fd: int, timeout_s: float) -> str:
    """Reads a pipe to its end; what came until then where that takes too long."""
    deadline = time.monotonic() + timeout_s
    parts = bytearray()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
        part = os.read(fd, 4096)
        if not part:
            break
        parts += part
    return parts.decode(errors="replace")


_hosts = Helpers(GvisorHost)


def gvisor_host_for(readonly: tuple[str, ...]) -> GvisorHost:
    """Returns this process's helper for a set of extra folders, starting it unless it runs."""
    return _hosts.get(readonly)
