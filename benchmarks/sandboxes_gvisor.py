"""How long gVisor sandboxes take, with and without running processes: `python benchmarks/sandboxes_gvisor.py`.

Needs root and `runsc`. Every row is the median of `--repeats` runs, with the fastest and the 90th percentile; on a busy
machine the fastest says more.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox

_DIRTY = "import os\nfor i in range(50):\n    with open(f'f{i}', 'wb') as f: f.write(os.urandom(2000))"
_HEAP = "coproc python3 -iqu 2> /dev/null; echo 'import os; x = os.urandom(128 << 20); print(1)' >&${COPROC[1]}; "


def bench_gvisor(repeats: int) -> dict[str, float]:
    """Times the gvisor back end; returns the medians in milliseconds."""
    found: dict[str, float] = {}
    opened: list[GuestSandbox] = []

    def row(name: str, action: Callable[[], object], between: Callable[[], object] = lambda: None) -> None:
        found[name] = _show(name, _measure(action, repeats, between))

    def close_all() -> None:
        while opened:
            opened.pop().close()

    def forks(box: GuestSandbox, number: int) -> Callable[[], None]:
        return lambda: opened.extend(box.fork(number, processes=True))

    with open_sandbox(backend="gvisor") as box:
        row("create", lambda: opened.append(open_sandbox(backend="gvisor")))
        row("close", lambda: opened.pop().close())
        row("exec true", lambda: box.exec(["true"]))
        assert box.exec(["/usr/bin/python3", "-c", _DIRTY]).exit_code == 0
        row("snapshot of files, 50 files of 2 KB", box.snapshot)
        row("fork without processes", lambda: opened.extend(box.fork(1)), close_all)
        close_all()
        shell = box.shell()
        shell.run("sleep 1000 & disown")
        row("true in an open shell", lambda: shell.run("true"))
        row("snapshot with processes: guest, bash, sleep", lambda: box.snapshot(processes=True))
        kept = box.snapshot(processes=True)
        row("restore with processes", lambda: box.restore(kept))
        row("fork with processes", forks(box, 1), close_all)
        row("4 forks with processes", forks(box, 4), close_all)
        close_all()
        box.shell().run(_HEAP + "read -r -u ${COPROC[0]} line", timeout_s=60)
        row("snapshot with processes: an interpreter of 128 MB", lambda: box.snapshot(processes=True))
        row("fork with processes: an interpreter of 128 MB", forks(box, 1), close_all)
        close_all()
    return found


def _measure(action: Callable[[], object], repeats: int, between: Callable[[], object]) -> list[float]:
    times: list[float] = []
    for _ in range(repeats):
        between()
        began = time.perf_counter()
        action()
        times.append((time.perf_counter() - began) * 1e3)
    return sorted(times)


def _show(name: str, times: list[float]) -> float:
    median = statistics.median(times)
    print(f"  {name:50} {median:9.1f} {times[0]:9.1f} {times[int(len(times) * 0.9)]:9.1f}", flush=True)
    return median


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats: int = parser.parse_args().repeats
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; milliseconds: median, fastest, 90th percentile")
    bench_gvisor(repeats)


if __name__ == "__main__":
    main()
