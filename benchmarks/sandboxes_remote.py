"""How long remote sandboxes take on a SWE-ReX server of this machine.

`python benchmarks/sandboxes_remote.py --json FILE` starts `swerex-remote` itself. Beside ours: what the server alone
takes for the same command, and the process back end, which has the same guest without a service between. Rows are the
fastest and the median of `--repeats` runs.
"""

import argparse
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.remote_swerex import SweRex

_SERVER = "from swerex.server import main; main()"
_AT = re.compile(rb"running on http://127\.0\.0\.1:(\d+)")
_DIRTY = "i=0; while [ $i -lt 50 ]; do head -c 2000 /dev/urandom > f$i; i=$((i+1)); done"
Times = dict[str, dict[str, float]]


@contextmanager
def serving() -> Generator[SweRex]:
    """A server, for a `with` block."""
    token = secrets.token_hex(8)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        argv = [sys.executable, "-c", _SERVER, "--host", "127.0.0.1", "--port", "0", "--auth-token", token]
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=file, cwd="/")
        try:
            while not (found := _AT.search(log.read_bytes())):
                if process.poll() is not None:
                    sys.exit(f"swerex-remote did not start (pip install swe-rex): {log.read_text()}")
                time.sleep(0.05)
            yield SweRex(f"http://127.0.0.1:{int(found[1])}", token)
        finally:
            process.kill()
            process.wait()


def bench_remote(repeats: int) -> Times:
    """Times the server alone, ours on it, and ours without it; milliseconds."""
    found: Times = {}

    def row(name: str, action: Callable[[], object]) -> None:
        times: list[float] = []
        for _ in range(repeats):
            began = time.perf_counter()
            action()
            times.append((time.perf_counter() - began) * 1e3)
        found[name] = {"fastest": min(times), "median": statistics.median(times)}
        print(f"  {name:55}{min(times):9.1f}{statistics.median(times):9.1f}", flush=True)

    def rows(name: str, open_one: Callable[[], GuestSandbox]) -> None:
        row(f"{name}: open and close", lambda: open_one().close())
        with open_one() as box:
            row(f"{name}: exec true", lambda: box.exec(["true"]))
            box.write("big", os.urandom(10**6))
            row(f"{name}: read 1 MB", lambda: box.read("big"))
            assert box.exec(_DIRTY).exit_code == 0
            row(f"{name}: snapshot, 50 files of 2 KB and one of 1 MB", box.snapshot)
            kept = box.snapshot()
            row(f"{name}: restore", lambda: box.restore(kept))
            row(f"{name}: fork and close", lambda: [child.close() for child in box.fork(1)])

    with serving() as service:
        row("SWE-ReX alone: execute true", lambda: service.run(["true"], 10))
        rows("remote", lambda: open_sandbox(backend="remote", require="process", remote=service))
    rows("process", lambda: open_sandbox(backend="process", require="process"))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="two runs of each")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores; milliseconds: fastest, median")
    times = bench_remote(2 if given.small else given.repeats)
    if given.json:
        given.json.write_text(json.dumps({"load": load, "milliseconds": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
