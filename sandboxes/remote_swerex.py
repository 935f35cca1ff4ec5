"""Sandboxes on a SWE-ReX server (`swerex-remote`, of PyPI's `swe-rex`), spoken to over HTTP.

One server is one machine: sandboxes on it are folders and guests beside each other. It serves one request at a time.
"""

import base64
import contextlib
import http.client
import json
import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agentenv.errors import SandboxError

from .remote_machines import Ran

__all__ = ["TOKEN", "SweRex"]

TOKEN = "SWEREX_TOKEN"  # noqa: S105  the name of a variable
"""The environment variable with the server's token, where none is given."""

_START_S = 20.0
_PART = 8 << 20
_READ_PART = 'tail -c +"$1" "$3" | head -c "$2" | base64 | tr -d "\\n"'


@dataclass(frozen=True, slots=True)
class SweRex:
    """A SWE-ReX server, and at once the machine that it is.

    Attributes:
        url: of the server, `http://HOST:PORT`.
        token: that it was started with; `TOKEN` of the environment by default.
        patience_s: short, because the server has others wait meanwhile.
    """

    url: str
    token: str = field(default="", repr=False)
    patience_s: float = 0.1

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            msg = f"a SWE-ReX server is named by a URL like http://127.0.0.1:8000, got {self.url!r}"
            raise ValueError(msg)

    def start(self, lease_s: float) -> "SweRex":
        """Returns itself, after asking whether it answers."""
        del lease_s  # the guest ends itself
        self._call("is_alive", None, _START_S)
        return self

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        """Runs a command."""
        reply = self._json("execute", {"command": list(argv), "timeout": timeout_s}, timeout_s)
        with self._understood():
            return Ran(int(reply["exit_code"]), str(reply["stdout"]), str(reply["stderr"]))

    def put(self, path: str, content: bytes, timeout_s: float) -> None:
        """Writes a file."""
        edge = secrets.token_hex(16)
        head = f'--{edge}\r\nContent-Disposition: form-data; name="target_path"\r\n\r\n{path}\r\n--{edge}\r\n'
        file = 'Content-Disposition: form-data; name="file"; filename="file"\r\n\r\n'
        body = b"".join((head.encode(), file.encode(), content, f"\r\n--{edge}--\r\n".encode()))
        self._call("upload", body, timeout_s, f"multipart/form-data; boundary={edge}")

    def get(self, path: str, timeout_s: float) -> bytes:
        """Returns a file, piece by piece; the server's own way to read one is for text, and changes line ends."""
        parts = bytearray()
        while True:
            ran = self.run(["sh", "-c", _READ_PART, "sh", str(len(parts) + 1), str(_PART), path], timeout_s)
            with self._understood():
                part = base64.b64decode(ran.stdout, validate=True)
            parts += part
            if len(part) < _PART:
                return bytes(parts)

    def renew(self, lease_s: float) -> None:
        """Does nothing: the server lives as long as whoever started it wants."""

    def delete(self) -> None:
        """Does nothing, likewise."""

    def _json(self, name: str, request: object, timeout_s: float) -> Any:
        data = self._call(name, json.dumps(request).encode(), timeout_s, "application/json")
        with self._understood():
            return json.loads(data)

    def _call(self, name: str, body: bytes | None, timeout_s: float, kind: str = "") -> bytes:
        headers = {"X-API-Key": self.token or os.environ.get(TOKEN, ""), **({"Content-Type": kind} if kind else {})}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/{name}", body, headers)  # noqa: S310  checked above
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310
                return reply.read()
        except urllib.error.HTTPError as error:
            msg = f"the SWE-ReX server at {self.url} answered {name!r} with {error.code}: {_said_by(error):.500}"
            raise SandboxError(msg) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error or type(error).__name__
            msg = f"the SWE-ReX server at {self.url} does not answer {name!r}: {reason}"
            raise SandboxError(msg) from error

    @contextlib.contextmanager
    def _understood(self) -> Any:
        try:
            yield
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the SWE-ReX server at {self.url} sent what is no answer: {error!r:.200}"
            raise SandboxError(msg) from error


def _said_by(error: urllib.error.HTTPError) -> str:
    with error, contextlib.suppress(OSError, http.client.HTTPException):
        return error.read(2000).decode(errors="replace")
    return ""
