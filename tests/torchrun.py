"""Runs a script on two processes through torchrun, and reads what each of them reports."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["leave", "run_on_two_processes"]


def leave(accelerator: Any) -> None:
    """Ends a process of a script, once the others have got there, too.

    Threads of torch and gloo may outlive the group that they were made for, and abort the process now and then when the
    interpreter ends (`terminate called without an active exception`): the interpreter is left out.
    """
    accelerator.wait_for_everyone()
    accelerator.end_training()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_on_two_processes(script: Path, folder: Path) -> list[dict[str, Any]]:
    """Returns the reports `rank_0.json` and `rank_1.json` that the script leaves in the folder, its one argument."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONSAFEPATH", None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(script), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert reports[0]["world"] == 2
    return reports
