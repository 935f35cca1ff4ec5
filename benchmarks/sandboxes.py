"""How long sandboxes take, ours and the alternatives side by side: `python benchmarks/sandboxes.py`.

Every row is the median of `--repeats` runs, with the fastest and the 90th percentile; on a busy machine the fastest
says more. Docker's rows appear where an engine answers (`DOCKER_HOST`).
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Generator
from pathlib import Path

from agentenv.errors import SandboxError
from agentenv.sandboxes import Limits, SandboxSpec, open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.keeping import pid_of

ROOM = Limits(disk=1 << 30, files=50_000, file_size=1 << 28)
SHAPES = {"50 files of 2 KB": (50, 2_000), "5,000 files of 4 KB": (5_000, 4_000), "200 files of 1 MB": (200, 1_000_000)}
TARGETS = {"create": 5.0, "exec true": 3.0, "snapshot, 50 dirty files": 3.0, "fork": 5.0}
Rows = dict[str, list[float]]


def measure(action: Callable[[], object], repeats: int, between: Callable[[], object] = lambda: None) -> list[float]:
    """Returns the milliseconds of each of `repeats` runs, sorted; `between` is not counted."""
    times: list[float] = []
    for _ in range(repeats):
        between()
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)


def show(name: str, times: list[float]) -> float:
    """Prints one row and returns its median."""
    median = statistics.median(times)
    target = f"   target {TARGETS[name]:g}" if name in TARGETS else ""
    print(f"  {name:44} {median:9.2f} {times[0]:9.2f} {times[int(len(times) * 0.9)]:9.2f}{target}")
    return median


def dirty(box: GuestSandbox, count: int, size: int) -> None:
    """Writes files from inside the sandbox."""
    code = f"import os\nfor i in range({count}):\n    with open(f'f{{i}}', 'wb') as f: f.write(os.urandom({size}))"
    result = box.exec(["/usr/bin/python3", "-c", code], timeout_s=120)
    assert result.exit_code == 0, result


def bench_namespace(repeats: int) -> dict[str, float]:
    """Times the namespace back end."""
    found: dict[str, float] = {}
    opened: list[GuestSandbox] = []
    found["create"] = show("create", measure(lambda: opened.append(open_sandbox(backend="namespace")), repeats))
    show("close", measure(lambda: opened.pop().close(), repeats))
    with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
        found["exec"] = show("exec true", measure(lambda: box.exec(["true"]), repeats))
        show("exec sh -c true", measure(lambda: box.exec("true"), repeats))
        show("exec python3 -c pass", measure(lambda: box.exec(["/usr/bin/python3", "-c", "pass"]), repeats))
        with contextlib.closing(box.shell()) as shell:
            show("true in an open shell", measure(lambda: shell.run("true"), repeats))
        empty = box.snapshot()

        def fifty() -> None:
            box.restore(empty)
            dirty(box, 50, 2_000)

        found["snapshot"] = show("snapshot, 50 dirty files", measure(box.snapshot, repeats, fifty))
        children: list[GuestSandbox] = []
        found["fork"] = show("fork", measure(lambda: children.extend(box.fork(1)), repeats))
        for child in children:
            child.close()
        last = box.snapshot()
        show("restore", measure(lambda: box.restore(last), repeats))
    return found


def bench_sizes(repeats: int) -> None:
    """Times snapshot and fork for workspaces of different size, all of it just written."""
    fastest: dict[str, list[float]] = {}

    def row(kind: str, name: str, times: list[float]) -> None:
        show(f"{kind}, {name}", times)
        fastest.setdefault(kind, []).append(times[0])

    for name, (count, size) in SHAPES.items():
        snapshots: list[float] = []
        for _ in range(max(3, repeats // 4)):
            with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
                dirty(box, count, size)
                snapshots += measure(box.snapshot, 1)
        row("snapshot", name, sorted(snapshots))
        with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
            dirty(box, count, size)
            children: list[GuestSandbox] = []
            row("fork", name, measure(lambda box=box, children=children: children.extend(box.fork(1)), repeats))
            for child in children:
                child.close()
        with open_sandbox(SandboxSpec(limits=ROOM), backend="namespace") as box:
            dirty(box, count, size)
            with contextlib.closing(box.shell()):
                row("snapshot with an open shell (a copy)", name, measure(box.snapshot, 3))
    for kind, values in fastest.items():
        print(f"    {kind}: the slowest size is {max(values) / min(values):.2f} times the fastest (of the minima)")


def bench_crowd(number: int) -> None:
    """Times and weighs many sandboxes at once."""
    began = time.perf_counter()
    boxes = [open_sandbox(backend="namespace") for _ in range(number)]
    print(f"  {number} at once: {(time.perf_counter() - began) * 1e3 / number:.2f} ms each to create", end="")
    weights = [_weight(box) for box in boxes]
    for box in boxes:
        box.close()
    print(f", {statistics.mean(weights):.2f} MB each (proportional set size)")


def _weight(box: GuestSandbox) -> float:
    pid = pid_of(box._held.pidfd)  # type: ignore[attr-defined]
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def bench_cycles(number: int) -> None:
    """Opens and closes many sandboxes and counts what is left."""

    def census() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(Path("/proc/self/mounts").read_text().splitlines())

    open_sandbox(backend="namespace").close()
    before, began = census(), time.perf_counter()
    for _ in range(number):
        open_sandbox(backend="namespace").close()
    spent = time.perf_counter() - began
    print(f"  {number} create-and-close cycles: {spent * 1e3 / number:.2f} ms each")
    print(f"    descriptors and mounts went from {before} to {census()}")


@contextlib.contextmanager
def _copied_tree(count: int, size: int) -> Generator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        source = Path(name, "source")
        source.mkdir()
        for number in range(count):
            (source / f"f{number}").write_bytes(os.urandom(size))
        yield source


def bench_alternatives(repeats: int, ours: dict[str, float]) -> None:
    """Times what people do without us."""
    plain = show("subprocess.run(['true'])", measure(lambda: subprocess.run(["true"], check=True), repeats))
    print(f"    our exec is {ours['exec'] / plain:.1f} times a bare subprocess")
    for name, (count, size) in SHAPES.items():
        with _copied_tree(count, size) as source:
            copy = source.parent / "copy"
            times = measure(
                lambda s=source, c=copy: shutil.copytree(s, c), 3, lambda c=copy: shutil.rmtree(c, ignore_errors=True)
            )
            median = show(f"shutil.copytree on tmpfs, {name}", times)
            print(f"    our snapshot is {median / ours['snapshot']:.0f} times faster")


def bench_docker(repeats: int, ours: dict[str, float]) -> None:
    """Times the docker back end, and Docker used directly."""
    from agentenv.sandboxes.engines import engine_at
    from agentenv.sandboxes.skeleton import host_paths

    engine = engine_at()
    client = engine.client
    opened: list[GuestSandbox] = []
    show("docker back end: create", measure(lambda: opened.append(open_sandbox(backend="docker")), 5))
    guest = show("docker back end: exec true", measure(lambda: opened[0].exec(["true"]), repeats))
    dirty(opened[0], 50, 2_000)
    show("docker back end: snapshot, 50 dirty files", measure(opened[0].snapshot, repeats))
    last = opened[0].snapshot()
    show("docker back end: restore", measure(lambda: opened[0].restore(last), repeats))
    show("docker back end: close", measure(lambda: opened.pop().close(), 5))
    binds = [f"{path}:{path}:ro" for path in host_paths(SandboxSpec())]
    start = {"network_mode": "none", "detach": True, "volumes": binds}
    container = client.containers.run(engine.skeleton_image, ["sleep", "600"], **start)
    try:
        bare = show("docker exec true", measure(lambda: container.exec_run(["true"]), repeats))
        print(f"    through the guest it is {bare / guest:.1f} times faster")
        write = "i=0; while [ $i -lt 50 ]; do head -c 2000 /dev/urandom > /workspace/f$i; i=$((i+1)); done"
        container.exec_run(["sh", "-c", write])
        made: list[str] = []

        def commit_and_run() -> None:
            image = container.commit()
            child = client.containers.run(image.id, ["sleep", "600"], **start)
            made.extend((image.id, child.id))

        slow = show("docker commit + docker run", measure(commit_and_run, 5))
        for image, child in zip(made[::2], made[1::2], strict=True):
            client.containers.get(child).remove(force=True)
            client.images.remove(image, force=True)
        print(f"    our snapshot + fork is {slow / (ours['snapshot'] + ours['fork']):.0f} times faster")
    finally:
        container.remove(force=True)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--cycles", type=int, default=1000)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    open_sandbox(backend="namespace").close()  # starts the keeper
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"  {'milliseconds':44} {'median':>9} {'min':>9} {'p90':>9}")
    ours = bench_namespace(arguments.repeats)
    bench_sizes(arguments.repeats)
    bench_crowd(100)
    bench_cycles(arguments.cycles)
    bench_alternatives(arguments.repeats, ours)
    try:
        bench_docker(arguments.repeats, ours)
    except SandboxError as error:
        print(f"  docker: {error}")


if __name__ == "__main__":
    main()
