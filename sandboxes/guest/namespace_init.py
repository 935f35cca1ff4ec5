"""PID 1 of a namespace sandbox: it makes the sandbox around itself, then serves as its guest."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from . import linux, seccomp
from .memory import GroupMemory, processes_memory
from .policy import NetworkCounters, Plain, kill_namespace, set_limit
from .serve import Guest
from .wire import Wire, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .run import ReapedChildren

__all__ = ["NamespaceGuest", "NamespacePolicy", "enter"]

AGENT_ID = 1000
_FILTER = seccomp.program()
_SHM = "size=64m,nr_inodes=1000,mode=1777"
_OWN_LIMITS = {  # of a command's own user namespace; they are counted by user otherwise, together with the host's
    "sys/user/max_inotify_instances": "8",
    "sys/user/max_inotify_watches": "8192",
}
_OWN_IPC_LIMITS = {"sys/kernel/msgmni": "64", "sys/kernel/sem": "250 32000 32 128"}
_TIMERS = 1024


class NamespacePolicy(Plain):
    """Takes every privilege from a command: own user and IPC namespace, no capabilities, system calls filtered.

    Args:
        settings: `limits`; `inner_id`, the id in the helper's user namespace that owns the workspace; `open_files`, how
            many a command may have.
        proc: a mount of `/proc` that can be written to; the one that commands see cannot.
        group: watches the memory of the control group, where there is one. It comes before the kernel, which may choose
            this process, and the sandbox would be lost.
    """

    def __init__(self, settings: Mapping[str, Any], proc: int, group: GroupMemory | None) -> None:
        self.limits = settings["limits"]
        self._inner_id: int = settings["inner_id"]
        self._open_files: int = settings["open_files"]
        self._proc = proc
        self.owner = (self._inner_id, self._inner_id)
        self._group = group
        self.over_memory = self._is_over_memory if group is None else group.is_over
        self._shm_born: tuple[int, ...] = ()
        self._mount_shm()
        self._last_pid = os.open("sys/kernel/ns_last_pid", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)

    def prepare(self) -> None:
        """Runs in the child before the program."""
        linux.unshare(linux.NEWIPC)  # while this is the user that may limit it
        for path, text in _OWN_IPC_LIMITS.items():
            linux.write_text(path, text, self._proc)
        linux.write_text("sys/kernel/shmall", str(max(1, self.limits["memory"] // _SHM_SHARE // _PAGE)), self._proc)
        if self._inner_id:
            os.setgroups([])
            os.setresgid(*(self._inner_id,) * 3)
            os.setresuid(*(self._inner_id,) * 3)
        linux.set_dumpable(dumpable=True)  # /proc/self must be ours to write the maps
        linux.write_text("self/oom_score_adj", "1000", self._proc)
        linux.unshare(linux.NEWUSER)
        linux.write_text("self/setgroups", "deny", self._proc)
        linux.write_text("self/uid_map", f"{AGENT_ID} {self._inner_id} 1", self._proc)
        linux.write_text("self/gid_map", f"{AGENT_ID} {self._inner_id} 1", self._proc)
        for path, text in _OWN_LIMITS.items():
            linux.write_text(path, text, self._proc)
        super().prepare()
        set_limit("RLIMIT_NPROC", self.limits["processes"])
        set_limit("RLIMIT_NOFILE", self._open_files)
        set_limit("RLIMIT_MEMLOCK", 1 << 20)
        set_limit("RLIMIT_SIGPENDING", _TIMERS)
        if self._group is None:
            set_limit("RLIMIT_AS", self.limits["memory"] * 4)
        linux.drop_bounding_set()
        linux.drop_capabilities()
        linux.no_new_privileges()
        linux.set_seccomp(_FILTER)

    def kill_all(self, children: ReapedChildren) -> int:
        """Kills and reaps everything in the PID namespace but this process."""
        return kill_namespace(children)

    def before_command(self) -> None:
        """Notes what memory is held by files of earlier states."""
        if self._group is not None:
            self._group.begin()

    def before_fork(self) -> None:
        """Starts the numbers of processes over: the next command has the number that all had, whatever ran before."""
        os.pwrite(self._last_pid, b"1", 0)

    def after_command(self) -> None:
        """Replaces `/dev/shm` where anything was done in it."""
        if _look_of("/dev/shm") != self._shm_born:
            linux.unmount("/dev/shm", lazy=True)  # something may hold on to a file in it until the kernel notices
            self._mount_shm()

    def _mount_shm(self) -> None:
        linux.mount("tmpfs", "/dev/shm", "tmpfs", linux.NOSUID | linux.NODEV | linux.NOEXEC | linux.NOATIME, _SHM)
        self._shm_born = _look_of("/dev/shm")

    def _is_over_memory(self) -> bool:
        """Whether all processes together hold more than they may; shared pages count once where it matters."""
        limit = self.limits["memory"]
        pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        return sum(_memory_of(f"/proc/{pid}/statm") for pid in pids) > limit and processes_memory() > limit


_PAGE = os.sysconf("SC_PAGE_SIZE")
_SHM_SHARE = 4  # of the memory limit may be in segments of System V, which may belong to no process


def _look_of(folder: str) -> tuple[int, ...]:
    """Returns what differs when anything was done in a folder, or to it: its times may be set back, but for one."""
    info = os.stat(folder)
    return info.st_ctime_ns, info.st_mtime_ns, info.st_mode, info.st_size


def _memory_of(statm: str) -> int:
    try:
        with open(statm) as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


class NamespaceGuest(Guest):
    """A guest whose workspace can be taken away and replaced by its parent.

    Args:
        wire: to the parent.
        settings: see `Guest`.
        policy: what holds around a command.
    """

    def serve(self) -> None:
        """Answers requests until the parent is gone."""
        self._network = NetworkCounters()
        super().serve()

    def do_detach(self, body: bytes) -> tuple[dict[str, Any], bytes]:
        """Ends what runs and lets go of workspace and tmp; they are whole and still when this returns.

        Nothing that runs can write to them any more. What holds on to them otherwise, such as sockets that have each
        other in flight, and that only the kernel can find and free, must not keep anybody waiting.
        """
        if self.shell is not None:
            self.do_shell_close(b"")
        for target in ("/workspace", "/tmp"):
            linux.unmount(target, lazy=True)
        return {}, b""

    def do_attach(self, body: bytes, fds: list[int], fresh: bool) -> tuple[dict[str, Any], bytes]:
        """Puts another workspace and tmp in place; with `fresh`, empties what is not part of a snapshot."""
        attach(fds)
        if fresh and self.commands_ran:
            self._forget_commands()
            self.commands_ran = False
        return {}, b""

    def _forget_commands(self) -> None:
        """Starts over with the network where it tells commands of earlier ones."""
        if self._network.changed():
            self.policy.kill_all(self.children)  # what waits to become a command is in the old one
            self.children.forget()
            self._network.close()
            linux.unshare(linux.NEWNET)
            linux.loopback_up()
            self._network.start_over()


def attach(fds: Sequence[int], places: Sequence[str] = ("/workspace", "/tmp")) -> None:
    """Puts mounts in place."""
    for fd, target in zip(fds, places, strict=True):
        linux.attach_mount(fd, target)
        os.close(fd)


def enter(wire: Wire, settings: dict[str, Any], fds: list[int]) -> None:
    """Makes the sandbox around this process, which must be PID 1 of its namespace, and serves until the parent is gone.

    Args:
        wire: to the parent.
        settings: see `Guest` and `NamespacePolicy`; `shown`, where mounts of parts of the host belong; `watched`, how
            many files there are for `GroupMemory`.
        fds: detached mounts of workspace and tmp, and of what is shown; the open files that have the memory of the
            control group, see `GroupMemory`; the open `cgroup.procs` of the control groups to join.
    """
    own, seen = 2, 2 + len(settings["shown"])
    mounts, shown, rest = fds[:own], fds[own:seen], fds[seen:]
    watched, groups = rest[: settings["watched"]], rest[settings["watched"] :]
    try:
        linux.unshare(linux.NEWNS | linux.NEWNET | linux.NEWIPC)
        linux.mount("proc", "/proc", "proc", linux.NOSUID | linux.NODEV | linux.NOEXEC, "hidepid=2")
        proc = linux.clone_tree("/proc")
        linux.set_attributes("/proc", linux.MOUNT_RDONLY)  # settings, and who is killed first, are not a command's
        attach(mounts)
        attach(shown, settings["shown"])
        linux.loopback_up()
        os.setsid()
        for number in range(1, signal.NSIG):
            if number not in {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
                signal.signal(number, signal.SIG_DFL)  # PID 1 ignores what it has no handler for
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        linux.set_dumpable(dumpable=False)
        linux.die_with_parent()
        policy = NamespacePolicy(settings, proc, _watch_of(watched, settings["limits"]))
        guest = NamespaceGuest(wire, settings, policy)
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


def _watch_of(watched: list[int], limits: Mapping[str, Any]) -> GroupMemory | None:
    if not watched:
        return None
    usage, stat, *reclaim = watched
    folders = ("/workspace", "/dev/shm")
    return GroupMemory(usage, stat, next(iter(reclaim), None), folders, limits["memory"], limits["files"])
