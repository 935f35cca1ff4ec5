"""A provider for OpenEnv's validator that starts what it validates as a process, where theirs starts a container."""

# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportGeneralTypeIssues=false, reportUntypedBaseClass=false

import os
import socket
import subprocess
import sys
import time
import urllib.request

from openenv.validation.providers import ExecResult, StartupError
from openenv.validation.types import ProviderCapability

__all__ = ["ProcessProvider"]


class Running:
    """A server that was started."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}"
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, folder / "server" / "app.py"],
            cwd=folder,
            env=os.environ | {"PORT": str(port), "PYTHONPATH": path},
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.base_url}/health", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    msg = "the server did not start"
                    raise StartupError(msg) from None
                time.sleep(0.1)

    def inspect(self):
        return {}

    def logs(self, max_bytes=65536):
        return ""

    def exec(self, argv, timeout_s):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
        return ExecResult(done.returncode, done.stdout, done.stderr, 0.0)

    def stop(self):
        self._process.terminate()
        self._process.wait()


class ProcessProvider:
    """Starts the folder's own server/app.py with this Python."""

    name = "process"
    capabilities = frozenset({ProviderCapability.IMAGE_BUILD})
    supported_network_modes = frozenset({"public"})

    def build(self, root, execution):
        self._root = root
        return "sha256:" + "0" * 64

    def start(self, spec):
        return Running(self._root)
