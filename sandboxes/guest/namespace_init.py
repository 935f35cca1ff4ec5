"""PID 1 of a namespace sandbox: it makes the sandbox around itself, then serves as its guest."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from . import linux, seccomp
from .policy import Plain, kill_namespace, set_limit
from .serve import Guest
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .run import ReapedChildren

__all__ = ["NamespaceGuest", "NamespacePolicy", "enter"]

AGENT_ID = 1000
_SHM = "size=64m,nr_inodes=1000,mode=1777"
_OPEN_FILES = 1024
_END_S = 5.0


class NamespacePolicy(Plain):
    """Takes every privilege from a command: own user and IPC namespace, no capabilities, system calls filtered.

    Args:
        settings: `limits`; `inner_id`, the id in the helper's user namespace that owns the workspace; `cgroup`, whether
            the kernel limits the memory of all processes together, too. The watch here comes first, because the kernel
            may choose this process, and the sandbox would be lost.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.limits = settings["limits"]
        self._inner_id: int = settings["inner_id"]
        self.owner = (self._inner_id, self._inner_id)
        self._filter = seccomp.program()
        self._in_cgroup: bool = settings["cgroup"]
        self.over_memory = self._is_over_memory

    def prepare(self) -> None:
        """Runs in the child before the program."""
        if self._inner_id:
            os.setgroups([])
            os.setresgid(*(self._inner_id,) * 3)
            os.setresuid(*(self._inner_id,) * 3)
        linux.set_dumpable(dumpable=True)  # /proc/self must be ours to write the maps
        linux.write_text("/proc/self/oom_score_adj", "1000")
        linux.unshare(linux.NEWUSER | linux.NEWIPC)
        linux.write_text("/proc/self/setgroups", "deny")
        linux.write_text("/proc/self/uid_map", f"{AGENT_ID} {self._inner_id} 1")
        linux.write_text("/proc/self/gid_map", f"{AGENT_ID} {self._inner_id} 1")
        super().prepare()
        set_limit("RLIMIT_NPROC", self.limits["processes"])
        set_limit("RLIMIT_NOFILE", _OPEN_FILES)
        set_limit("RLIMIT_MEMLOCK", 1 << 20)
        if not self._in_cgroup:
            set_limit("RLIMIT_AS", self.limits["memory"] * 4)
        linux.drop_bounding_set()
        linux.drop_capabilities()
        linux.no_new_privileges()
        linux.set_seccomp(self._filter)

    def kill_all(self, children: ReapedChildren) -> int:
        """Kills and reaps everything in the PID namespace but this process."""
        return kill_namespace(children)

    def after_command(self) -> None:
        """Empties `/dev/shm`."""
        if os.listdir("/dev/shm"):
            linux.unmount("/dev/shm")
            mount_shm()

    def _is_over_memory(self) -> bool:
        """Whether all processes together hold more than they may; shared pages count once where it matters."""
        limit = self.limits["memory"]
        pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        if sum(_memory_of(f"/proc/{pid}/statm") for pid in pids) <= limit:
            return False
        return sum(_shared_memory_of(f"/proc/{pid}/smaps_rollup") for pid in pids) > limit


_PAGE = os.sysconf("SC_PAGE_SIZE")


def _memory_of(statm: str) -> int:
    try:
        with open(statm) as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _shared_memory_of(rollup: str) -> int:
    """Returns the proportional set size, without what is backed by files of the host."""
    try:
        with open(rollup) as file:
            lines = [line.split() for line in file]
    except OSError:
        return 0
    return sum(int(line[1]) << 10 for line in lines if line[0] in {"Pss_Anon:", "Pss_Shmem:"})


class NamespaceGuest(Guest):
    """A guest whose workspace can be taken away and replaced by its parent."""

    def do_detach(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Ends what runs and lets go of workspace and tmp; they are whole and still when this returns."""
        if self.shell is not None:
            self.do_shell_close(b"")
        for target in ("/workspace", "/tmp"):
            _unmount_soon(target)
        return {}, b""

    def do_attach(self, body: bytes, fds: list[int], fresh: bool) -> tuple[dict[str, Any], bytes]:
        """Puts another workspace and tmp in place; with `fresh`, empties what is not part of a snapshot."""
        attach(fds)
        if fresh:
            self.policy.after_command()
        return {}, b""


def _unmount_soon(target: str) -> None:
    """Unmounts; the helper may hold the mount for a moment after it sent it."""
    deadline = time.monotonic() + _END_S
    while True:
        try:
            linux.unmount(target)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.0002)
        else:
            return


def attach(fds: list[int]) -> None:
    """Puts the mounts of workspace and tmp in place."""
    for fd, target in zip(fds, ("/workspace", "/tmp"), strict=True):
        linux.attach_mount(fd, target)
        os.close(fd)


def mount_shm() -> None:
    """Mounts an empty `/dev/shm`."""
    linux.mount("tmpfs", "/dev/shm", "tmpfs", linux.NOSUID | linux.NODEV | linux.NOEXEC, _SHM)


def enter(wire: Wire, settings: dict[str, Any], mounts: list[int], groups: list[int]) -> None:
    """Makes the sandbox around this process, which must be PID 1 of its namespace, and serves until the parent is gone.

    Args:
        wire: to the parent.
        settings: see `Guest` and `NamespacePolicy`.
        mounts: detached mounts of workspace and tmp.
        groups: the open `cgroup.procs` of the control groups to join.
    """
    try:
        linux.unshare(linux.NEWNS | linux.NEWNET | linux.NEWIPC)
        linux.mount("proc", "/proc", "proc", linux.NOSUID | linux.NODEV | linux.NOEXEC, "hidepid=2")
        attach(mounts)
        mount_shm()
        linux.loopback_up()
        os.setsid()
        for number in range(1, signal.NSIG):
            if number not in {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
                signal.signal(number, signal.SIG_DFL)  # PID 1 ignores what it has no handler for
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        linux.set_dumpable(dumpable=False)
        linux.die_with_parent()
        guest = NamespaceGuest(wire, settings, NamespacePolicy(settings))
    except Exception as error:  # noqa: BLE001  whatever it is, the parent hears why
        wire.send({"fault": "guest", "message": reason_of(error)})
        return
    wire.send({"ready": True})
    try:
        for group in groups:  # now, because the kernel may take 20 ms for it; no command runs before
            os.write(group, b"0")  # whoever writes it
            os.close(group)
    except OSError as error:
        wire.receive()
        wire.send({"fault": "guest", "message": f"it could not join its control groups: {error.strerror}"})
        return
    guest.serve()


def parse(text: str) -> dict[str, Any]:
    """Reads settings."""
    return json.loads(text)
