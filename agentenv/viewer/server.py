"""A local server over a run: the page, and what it asks while the run goes on."""

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from typing_extensions import override

from .data import encode
from .page import live_page
from .view import View

__all__ = ["ViewServer"]

_LOOK_SECONDS = 0.5
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


class ViewServer(ThreadingHTTPServer):
    """Serves a view on this machine alone: `with ViewServer(view) as server: server.serve_forever()`.

    It answers GET alone, changes nothing, and only where the request names this machine as its host, so that a page
    from elsewhere cannot ask through the browser. Whoever has an account on this machine can read what is served.

    Args:
        view: what is served.
        port: on 127.0.0.1; 0 for any that is free.
    """

    daemon_threads = True

    def __init__(self, view: View, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._view = view
        self._lock = threading.Lock()
        self._looked = 0.0
        self._version = 1
        self._overview: tuple[int, Mapping[str, Any]] | None = None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def answer(self, path: str, query: Mapping[str, list[str]]) -> object:
        """Returns what a page asks for.

        Raises:
            KeyError: there is no such thing.
            ValueError: an estimator or its options cannot be.
        """
        kind, _, rest = path.strip("/").removeprefix("api/").partition("/")
        answers: dict[str, Callable[[], object]] = {
            "version": lambda: {"version": self._version},
            "overview": self._read_overview,
            "tree": lambda: self._view.tree(rest),
            "details": lambda: self._read_details(rest),
            "credit": lambda: self._view.credit_by(rest, query["name"][0], query.get("option", ())),
        }
        with self._lock:
            self._look()
            return answers[kind]()

    def _look(self) -> None:
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._version += self._view.run.look()
            self._looked = time.monotonic()

    def _read_overview(self) -> object:
        if self._overview is None or self._overview[0] != self._version:
            self._overview = (self._version, self._view.overview())
        return {**self._overview[1], "version": self._version}

    def _read_details(self, rest: str) -> object:
        name, _, first = rest.rpartition("/")
        return self._view.details(name, int(first))


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _HOSTS:
            self._send(HTTPStatus.FORBIDDEN, b'{"problem": "ask this server as 127.0.0.1"}')
            return
        parts = urlsplit(self.path)
        if parts.path == "/":
            self._send(HTTPStatus.OK, live_page().encode(), "text/html; charset=utf-8")
            return
        try:
            found = self.server.answer(unquote(parts.path), parse_qs(parts.query))
        except KeyError as error:
            self._send(HTTPStatus.NOT_FOUND, encode({"problem": f"there is nothing like {error}"}))
        except (ValueError, TypeError) as error:
            self._send(HTTPStatus.BAD_REQUEST, encode({"problem": str(error)}))
        else:
            self._send(HTTPStatus.OK, encode(found))

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        packed = len(body) > 2000 and "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body, 1) if packed else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: requests come every second."""
