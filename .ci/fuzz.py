"""Runs the property tests with a fresh seed, in a random order, for a bounded time; a failure prints the seed.

The main pass of CI repeats itself exactly, so that it says something about the change; this pass looks for what nobody
has seen yet. It ends well when nothing is found in time.
"""

import argparse
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"


def main() -> int:
    """Runs them and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="of a run to repeat; fresh by default")
    parser.add_argument("--seconds", type=float, default=180, help="after which whatever is left is not tried")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("tests", nargs="*")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    files = [str(path) for path in TESTS.rglob("test_*.py") if "hypothesis" in path.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "-n", str(arguments.workers), "--dist"]
    command += ["worksteal", f"--hypothesis-seed={seed}", f"--shuffle={seed}", f"--stop-after={arguments.seconds}"]
    command += arguments.tests or files
    sys.stdout.write(f"property tests, seed {seed}, for {arguments.seconds:g} seconds at most\n")
    sys.stdout.flush()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603
    if code:
        sys.stdout.write(f"found with seed {seed}: python .ci/fuzz.py --seed {seed} --seconds 3600 [TEST ...]\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
