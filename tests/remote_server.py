"""A SWE-ReX server, `swerex-remote` of PyPI's `swe-rex`, as a process of this machine."""

import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agentenv.sandboxes.remote_swerex import SweRex

_START_S = 60.0
_AT = re.compile(rb"running on http://127\.0\.0\.1:(\d+)")


class Server:
    """Runs until `close`.

    Args:
        before: words to start it with.

    Attributes:
        service: what names it in a `SandboxSpec`.
    """

    def __init__(self, before: tuple[str, ...] = ()) -> None:
        token = secrets.token_hex(8)
        self._folder = tempfile.TemporaryDirectory(prefix="swerex-")
        self._log = Path(self._folder.name, "log")
        code = "from swerex.server import main; main()"
        argv = [*before, sys.executable, "-c", code, "--host", "127.0.0.1", "--port", "0", "--auth-token", token]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, cwd="/")
        self.service = SweRex(f"http://127.0.0.1:{self._port()}", token)

    def _port(self) -> int:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := _AT.search(self.said()):
                return int(found[1])
            time.sleep(0.05)
        msg = f"swerex-remote did not start: {self.said().decode(errors='replace')}"
        self.close()
        raise AssertionError(msg)

    def said(self) -> bytes:
        """Returns its log."""
        return self._log.read_bytes()

    def close(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
