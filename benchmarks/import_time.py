"""Measures what `import agentenv` costs in a fresh interpreter, beside `import gymnasium` and other parts of it.

Every number is the median of `python -c "import X"` minus the median of `python -c ""`: seconds on the wall clock, and
seconds of the processor (user and system), which other programs change little. The modules take turns, so that a slow
moment of the machine meets all of them. Compiled files are warm.

    python benchmarks/import_time.py
    python benchmarks/import_time.py --repeats 41 --json import_time.json --budget 0.3
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

__all__ = ["main", "measure"]

MODULES = ("agentenv", "gymnasium", "pydantic", "numpy")
_MOST = 2.5  # times the processor seconds of gymnasium, which is most of it, and slow where the machine is
Times = dict[str, list[float]]


def measure(modules: tuple[str, ...], repeats: int) -> tuple[Times, Times]:
    """Returns wall and processor seconds of `repeats` fresh imports of each module, after one that warms up.

    Args:
        modules: what to import; `""` imports nothing.
        repeats: how often, at least 1.
    """
    wall: Times = {module: [] for module in modules}
    processor: Times = {module: [] for module in modules}
    for i in range(repeats + 1):
        for module in modules:
            command = [sys.executable, "-c", f"import {module}" if module else ""]
            start = time.perf_counter()
            child = os.posix_spawn(sys.executable, command, os.environ)
            _, status, usage = os.wait4(child, 0)
            seconds = time.perf_counter() - start
            if status:
                msg = f"import {module} failed"
                raise ImportError(msg)
            if i:
                wall[module].append(seconds)
                processor[module].append(usage.ru_utime + usage.ru_stime)
    return wall, processor


def net_medians(times: Times) -> dict[str, float]:
    """Returns the median of each module minus that of the bare interpreter."""
    bare = statistics.median(times[""])
    return {module: statistics.median(values) - bare for module, values in times.items() if module}


def main() -> int:
    """Prints the table; returns 1 where the budget is exceeded."""
    parser = argparse.ArgumentParser(description="Time of `import agentenv` in fresh interpreters.")
    parser.add_argument("--repeats", type=int, default=21, help="imports per module (default 21)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    limit = f"fail where it takes more seconds, and more than {_MOST} times the processor seconds of gymnasium"
    parser.add_argument("--budget", type=float, help=limit)
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")

    wall, processor = measure(("", *MODULES), arguments.repeats)
    net_wall, net_processor = net_medians(wall), net_medians(processor)
    print(f"Python {platform.python_version()}, {arguments.repeats} fresh interpreters per module")
    print(f"{'import':<12}{'wall s':>10}{'processor s':>14}")
    for module in MODULES:
        print(f"{module:<12}{net_wall[module]:>10.3f}{net_processor[module]:>14.3f}")
    ratio = net_processor["agentenv"] / net_processor["gymnasium"]
    print(f"import agentenv takes {ratio:.2f} times the processor time of import gymnasium")

    if arguments.json:
        report = {
            "python": platform.python_version(),
            "repeats": arguments.repeats,
            "net_wall_s": net_wall,
            "net_processor_s": net_processor,
            "ratio_to_gymnasium": ratio,
            "wall_s": wall,
            "processor_s": processor,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    fastest = min(wall["agentenv"]) - min(wall[""])  # other programs only ever add to it
    if arguments.budget is not None and fastest > arguments.budget and ratio > _MOST:
        limits = f"{arguments.budget} s and {_MOST} times gymnasium"
        print(f"the fastest took {fastest:.3f} s, over the budget of {limits}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
