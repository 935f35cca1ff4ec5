"""How long sandboxes take, ours and the alternatives side by side.

    python benchmarks/sandboxes.py --json sandboxes.json
    python benchmarks/sandboxes.py --only cycles --cycles 10000

Every row is the median of `--repeats` runs, with the fastest and the 90th percentile; on a busy machine the fastest
says more. Docker's rows appear where an engine answers (`DOCKER_HOST`).
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

from rich.progress import track

from agentenv.errors import SandboxError
from agentenv.sandboxes import Limits, SandboxSpec, open_sandbox
from agentenv.sandboxes.cgroups import find_controllers, owner_tag
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.namespace_host import namespace_host_for, pid_of

ROOM = Limits(disk=1 << 30, files=50_000, file_size=1 << 28)
SHAPES = {"50 files of 2 KB": (50, 2_000), "5,000 files of 4 KB": (5_000, 4_000), "200 files of 1 MB": (200, 1_000_000)}
TARGETS = {"create": 5.0, "exec true": 3.0, "snapshot, 50 dirty files": 3.0, "fork": 5.0}


class Table:
    """What was found: rows of milliseconds, and single numbers such as ratios."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        self.numbers: dict[str, float] = {}

    def row(self, name: str, times: list[float]) -> float:
        """Adds and prints a row; returns its median."""
        times = sorted(times)
        found = {"median": statistics.median(times), "min": times[0], "p90": times[int(len(times) * 0.9)]}
        self.rows[name] = found
        target = f"   target {TARGETS[name]:g}" if name in TARGETS else ""
        print(f"  {name:52} {found['median']:9.2f} {found['min']:9.2f} {found['p90']:9.2f}{target}")
        return found["median"]

    def number(self, name: str, value: float) -> None:
        """Adds and prints a number."""
        self.numbers[name] = value
        print(f"    {name}: {value:.3g}")

    def median(self, name: str) -> float:
        """Returns the median of a row."""
        return self.rows[name]["median"]


def measure(action: Callable[[], object], repeats: int, between: Callable[[], object] = lambda: None) -> list[float]:
    """Returns the milliseconds of each of `repeats` runs; `between` is not counted."""
    times: list[float] = []
    for _ in range(repeats):
        between()
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1e3)
    return times


def dirty(box: GuestSandbox, count: int, size: int) -> None:
    """Writes files from inside the sandbox."""
    code = f"import os\nfor i in range({count}):\n    with open(f'f{{i}}', 'wb') as f: f.write(os.urandom({size}))"
    result = box.exec(["/usr/bin/python3", "-c", code], timeout_s=120)
    assert result.exit_code == 0, result


def bench_namespace(table: Table, repeats: int) -> None:
    """Times the namespace back end."""
    opened: list[GuestSandbox] = []
    table.row("create", measure(lambda: opened.append(open_sandbox(backend="namespace")), repeats))
    table.row("close", measure(lambda: opened.pop().close(), repeats))
    with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
        table.row("exec true", measure(lambda: box.exec(["true"]), repeats))
        table.row("exec true, 20 ms after the one before", measure(lambda: box.exec(["true"]), repeats, _wait))
        table.row("exec sh -c true", measure(lambda: box.exec("true"), repeats))
        table.row("exec python3 -c pass", measure(lambda: box.exec(["/usr/bin/python3", "-c", "pass"]), repeats))
        with contextlib.closing(box.shell()) as shell:
            table.row("true in an open shell", measure(lambda: shell.run("true"), repeats))
        empty = box.snapshot()

        def fifty() -> None:
            box.restore(empty)
            dirty(box, 50, 2_000)

        table.row("snapshot, 50 dirty files", measure(box.snapshot, repeats, fifty))
        children: list[GuestSandbox] = []
        table.row("fork", measure(lambda: children.extend(box.fork(1)), repeats))
        for child in children:
            child.close()
        last = box.snapshot()
        table.row("restore", measure(lambda: box.restore(last), repeats))


def _wait() -> None:
    time.sleep(0.02)


def bench_sizes(table: Table, repeats: int) -> None:
    """Times snapshot and fork for workspaces of different size, all of it just written; the sizes take turns."""
    kinds = ("snapshot", "fork", "snapshot with an open shell (a copy)")
    times: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in kinds for name in SHAPES}
    for turn in track(range(repeats), description="  sizes", transient=True):
        for name, (count, size) in SHAPES.items():
            with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
                dirty(box, count, size)
                _wait()
                if turn % 4 == 0:
                    with contextlib.closing(box.shell()):
                        times[kinds[2], name] += measure(box.snapshot, 1)
                times["snapshot", name] += measure(box.snapshot, 1)
                children: list[GuestSandbox] = []
                times["fork", name] += measure(lambda box=box, out=children: out.extend(box.fork(1)), 1, _wait)
                children[0].close()
    for kind in kinds:
        medians = [table.row(f"{kind}, {name}", times[kind, name]) for name in SHAPES]
        table.number(f"{kind}: slowest size / fastest size", max(medians) / min(medians))


def bench_crowd(table: Table, number: int) -> None:
    """Times and weighs many sandboxes at once."""
    began = time.perf_counter()
    boxes = [open_sandbox(backend="namespace") for _ in range(number)]
    spent = time.perf_counter() - began
    for box in boxes:
        box.exec(["true"])
    weights = [_weight(box) for box in boxes]
    for box in boxes:
        box.close()
    table.number(f"{number} at once: milliseconds each to create", spent * 1e3 / number)
    table.number(f"{number} at once: MB each (proportional set size, after a command)", statistics.mean(weights))


def _weight(box: GuestSandbox) -> float:
    """Returns the memory of a sandbox's first process and its children."""
    pid = pid_of(box._held.pidfd)  # type: ignore[attr-defined]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_proportional(int(number)) for number in (pid, *children))


def _proportional(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def bench_cycles(table: Table, number: int) -> None:
    """Opens and closes many sandboxes and counts what is left."""
    for _ in range(50):
        open_sandbox(backend="namespace").close()
    time.sleep(0.5)
    before, began = _census(), time.perf_counter()
    for _ in track(range(number), description="  cycles", transient=True):
        open_sandbox(backend="namespace").close()
    table.number(f"{number} create-and-close cycles: milliseconds each", (time.perf_counter() - began) * 1e3 / number)
    time.sleep(0.5)
    for (name, old), new in zip(before.items(), _census().values(), strict=True):
        table.number(f"{number} cycles: growth of {name}", new - old)


def _census() -> dict[str, int]:
    """Counts what must not grow; memory in KB, of this process and of the one that holds the layers."""
    helper = namespace_host_for(())._process.pid  # pyright: ignore[reportPrivateUsage]
    groups = {folder for top in find_controllers().values() for folder in top.glob(f"agentenv-{owner_tag()}-*")}
    return {
        "descriptors": _count("/proc/self/fd"),
        "descriptors of the helper": _count(f"/proc/{helper}/fd"),
        "mounts": Path("/proc/self/mounts").read_text().count("\n"),
        "mounts of the helper": Path(f"/proc/{helper}/mounts").read_text().count("\n"),
        "processes": _descendants(os.getpid()),
        "control groups": len(groups),
        "KB of the helper": _private(helper),
        "KB of this process": _private(os.getpid()),
    }


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def _descendants(pid: int) -> int:
    """Counts the processes below one."""
    children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return len(children) + sum(_descendants(child) for child in children)


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


@contextlib.contextmanager
def _copied_tree(count: int, size: int) -> Generator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        source = Path(name, "source")
        source.mkdir()
        for number in range(count):
            (source / f"f{number}").write_bytes(os.urandom(size))
        yield source


def bench_alternatives(table: Table, repeats: int) -> None:
    """Times what people do without us."""
    plain = table.row("subprocess.run(['true'])", measure(lambda: subprocess.run(["true"], check=True), repeats))
    table.number("our exec / a bare subprocess", table.median("exec true") / plain)
    for name, (count, size) in SHAPES.items():
        with _copied_tree(count, size) as source:
            copy = source.parent / "copy"
            times = measure(
                lambda s=source, c=copy: shutil.copytree(s, c), 3, lambda c=copy: shutil.rmtree(c, ignore_errors=True)
            )
            slow = table.row(f"shutil.copytree on tmpfs, {name}", times)
            table.number(f"copytree / our snapshot, {name}", slow / table.median(f"snapshot, {name}"))


def bench_docker(table: Table, repeats: int) -> None:
    """Times the docker back end, and Docker used directly."""
    from agentenv.sandboxes.engines import engine_at
    from agentenv.sandboxes.skeleton import host_paths

    engine = engine_at(None)
    client = engine.client
    opened: list[GuestSandbox] = []
    table.row("docker back end: create", measure(lambda: opened.append(open_sandbox(backend="docker")), 5))
    guest = table.row("docker back end: exec true", measure(lambda: opened[0].exec(["true"]), repeats))
    dirty(opened[0], 50, 2_000)
    table.row("docker back end: snapshot, 50 dirty files", measure(opened[0].snapshot, repeats))
    last = opened[0].snapshot()
    table.row("docker back end: restore", measure(lambda: opened[0].restore(last), repeats))
    table.row("docker back end: close", measure(lambda: opened.pop().close(), 5))
    start = {
        "network_mode": "none",
        "detach": True,
        "volumes": [f"{path}:{path}:ro" for path in host_paths(SandboxSpec())],
    }
    container = client.containers.run(engine.skeleton_image, ["sleep", "600"], **start)
    try:
        bare = table.row("docker exec true", measure(lambda: container.exec_run(["true"]), repeats))
        table.number("docker exec / through the guest", bare / guest)
        write = "i=0; while [ $i -lt 50 ]; do head -c 2000 /dev/urandom > /workspace/f$i; i=$((i+1)); done"
        container.exec_run(["sh", "-c", write])
        made: list[str] = []

        def commit_and_run() -> None:
            image = container.commit()
            child = client.containers.run(image.id, ["sleep", "600"], **start)
            made.extend((image.id, child.id))

        slow = table.row("docker commit + docker run", measure(commit_and_run, 5))
        for image, child in zip(made[::2], made[1::2], strict=True):
            client.containers.get(child).remove(force=True)
            client.images.remove(image, force=True)
        ours = table.median("snapshot, 50 dirty files") + table.median("fork")
        table.number("docker commit + run / our snapshot + fork", slow / ours)
    finally:
        container.remove(force=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="runs for each row")
    parser.add_argument("--cycles", type=int, default=1000, help="sandboxes to open and close")
    parser.add_argument("--only", choices=("cycles",), help="only this part")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    open_sandbox(backend="namespace").close()  # starts the helper
    table = Table()
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores")
    if arguments.only is None:
        print(f"  {'milliseconds':52} {'median':>9} {'min':>9} {'p90':>9}")
        bench_namespace(table, arguments.repeats)
        bench_sizes(table, max(8, arguments.repeats // 2))
        bench_crowd(table, 100)
        bench_alternatives(table, arguments.repeats)
        try:
            bench_docker(table, arguments.repeats)
        except SandboxError as error:
            print(f"  docker: {error}")
    bench_cycles(table, arguments.cycles)
    if arguments.json:
        record = {"machine": platform.platform(), "cores": os.cpu_count(), "load": load}
        arguments.json.write_text(
            json.dumps({**record, "milliseconds": table.rows, "numbers": table.numbers}, indent=1)
        )


if __name__ == "__main__":
    main()
