"""Namespace sandboxes of this checkout against those of another one, in turns, so that a busy machine slows both alike.

    git worktree add --detach ../before COMMIT
    python benchmarks/sandboxes_against.py ../before --rounds 40 --json against.json

Prints milliseconds, fastest and median, and the ratios of ours to theirs. Only what both can do is timed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from rich.progress import track

ROOT = Path(__file__).resolve().parent.parent
WORKER = """
import json, sys, time
from agentenv.sandboxes import open_sandbox
def timed(action, after=lambda made: None):
    began = time.perf_counter()
    made = action()
    took = (time.perf_counter() - began) * 1e3
    after(made)
    return took
def make(): return open_sandbox(backend="namespace")
def shut(*boxes): [box.close() for box in boxes]
box, child = make(), make()
kept = box.snapshot()
def written():
    for i in range(50): box.write(f"f{i}", b"x" * 2000)
def ran():
    box.exec(["true"])
def first():
    made = make()
    made.exec(["true"])
    return made
ACTIONS = {
    "create": lambda: timed(make, shut),
    "create, exec true": lambda: timed(first, shut),
    "exec true": lambda: timed(lambda: box.exec(["true"])),
    "exec true, 20 ms after the one before": lambda: (time.sleep(0.02), timed(lambda: box.exec(["true"])))[1],
    "exec python3 -c pass": lambda: timed(lambda: box.exec(["/usr/bin/python3", "-c", "pass"])),
    "snapshot, 50 files of 2 KB": lambda: (written(), timed(box.snapshot))[1],
    "fork": lambda: timed(lambda: box.fork(1)[0], shut),
    "restore": lambda: timed(lambda: box.restore(kept)),
    "restore after a command": lambda: (ran(), timed(lambda: box.restore(kept)))[1],
    "restore, exec true": lambda: (ran(), timed(lambda: (box.restore(kept), box.exec(["true"]))))[1],
    "restore after a command, 20 ms after it": lambda: (ran(), time.sleep(0.02), timed(lambda: box.restore(kept)))[2],
    "close": lambda: timed(make().close),
}
for line in sys.stdin:
    name, count = json.loads(line)
    print(json.dumps([ACTIONS[name]() for _ in range(count)] if name else list(ACTIONS)), flush=True)
shut(box, child)
"""


class Worker:
    """A process that times actions with the code of one checkout."""

    def __init__(self, checkout: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(checkout)}
        argv = [sys.executable, "-P", "-c", WORKER]
        self._process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, name: str, count: int = 1) -> list[float]:
        """Returns the times of an action in milliseconds; the actions' names without one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, count]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def main() -> None:
    """Times both and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=5, help="how often in a row")
    parser.add_argument("--only", default="", help="actions whose name has this in it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    ours, theirs = Worker(ROOT), Worker(arguments.before.resolve())
    names = [str(name) for name in ours.ask("") if arguments.only in str(name)]
    theirs.ask("")
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in names}
    for turn in track(range(arguments.rounds), description="  rounds", transient=True):
        for name in names:
            pairs = [*zip((ours, theirs), times[name], strict=True)]
            for worker, found in pairs if turn % 2 else reversed(pairs):
                found.extend(worker.ask(name, arguments.batch))
    ours.close()
    theirs.close()
    print(f"{'ms':42}{'fastest':>9}{'before':>9}{'ratio':>7}{'median':>9}{'before':>9}{'ratio':>7}")
    rows: dict[str, dict[str, float]] = {}
    for name, (new, old) in times.items():
        row = [min(new), min(old), statistics.median(new), statistics.median(old)]
        print(
            f"{name:42}{row[0]:9.2f}{row[1]:9.2f}{row[0] / row[1]:7.2f}{row[2]:9.2f}{row[3]:9.2f}{row[2] / row[3]:7.2f}"
        )
        rows[name] = dict(zip(("fastest", "fastest before", "median", "median before"), row, strict=True))
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": os.getloadavg()[0], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
