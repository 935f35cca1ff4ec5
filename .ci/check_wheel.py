"""Builds sdist and wheel, installs the wheel beside openai-agents in an empty environment, and tests it from elsewhere.

openai-agents installs a top-level package `agents`; ours is `agentenv.agents`, so both must keep working.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> None:
    """Runs a command, and stops everything where it fails."""
    sys.stdout.write(f"$ {' '.join(map(str, command))}\n")
    sys.stdout.flush()
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    subprocess.run(list(map(str, command)), cwd=cwd, check=True, env=environment | {"PYTHONSAFEPATH": "1"})  # noqa: S603


def main() -> None:
    """Builds, installs, tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        (wheel,) = (folder / "dist").glob("*.whl")
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        constraints = ROOT / "constraints.txt"
        needed = [f"agentenv-rl[dev] @ {wheel.as_uri()}", "openai-agents"]
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", constraints, *needed, cwd=folder)
        for part in ("tests", "docs", "examples"):
            shutil.copytree(ROOT / part, folder / part)
        for part in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "llms.txt", "Makefile", "pyproject.toml"):
            shutil.copy(ROOT / part, folder)
        check = "import agents, agentenv.agents as ours; assert agents.__file__ != ours.__file__; agents.Agent"
        run(python, "-c", check, cwd=folder)
        tests = sys.argv[1:] or ["tests/credit", "tests/agents", *sorted(map(str, Path("tests").glob("test_*.py")))]
        run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=folder)


if __name__ == "__main__":
    main()
