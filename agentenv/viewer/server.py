"""A local server over a run: the page, and what it asks while the run goes on."""

import gzip
import hmac
import json
import secrets
import sys
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
from .terminal import Terminals
from .view import View

__all__ = ["ViewServer"]

_LOOK_SECONDS = 0.5
_HOSTS = {"127.0.0.1", "localhost"}
_HEADER = "X-Agentenv-Token"
_LONGEST = 100_000
"""Bytes of a question with a body: a line that a person typed."""


class ViewServer(ThreadingHTTPServer):
    """Serves a view on this machine alone: `with ViewServer(view) as server: server.serve_forever()`.

    It answers only where the request names this machine as its host (a page from elsewhere cannot ask through a name
    that it points here), comes from no other page, and, but for the empty page, brings the token: so that nobody else
    on this machine can read what is served, or play. Files are never written, and only the trees of the run are read.

    Args:
        view: what is served.
        port: on 127.0.0.1; 0 for any that is free.

    Raises:
        OSError: the port is taken, or may not be used.

    Attributes:
        token: what every question must bring, in the header `X-Agentenv-Token`; chosen anew for each server.
    """

    daemon_threads = True

    def __init__(self, view: View, port: int = 0) -> None:
        self._terminals = Terminals()  # before the port is asked for: where it is taken, `server_close` is called
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            msg = f"must be free on 127.0.0.1, got {port}: {error.strerror}; 0 takes any that is"
            raise OSError(error.errno, msg) from error
        self.token = secrets.token_urlsafe(24)
        self._view = view
        self._lock = threading.Lock()
        self._looked = 0.0
        self._version = 1
        self._overview: tuple[int, Mapping[str, Any]] | None = None

    @property
    def url(self) -> str:
        """The address of the page, with the token where only the page sees it."""
        return f"http://127.0.0.1:{self.server_port}/#token={self.token}"

    @override
    def server_close(self) -> None:
        """Ends the server, and all that is played."""
        self._terminals.close()
        super().server_close()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a page that was closed while it asked."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def play(self, verb: str, asked: Mapping[str, Any]) -> object:
        """Starts, feeds, reads or stops a session of `agentenv play`.

        Raises:
            KeyError: there is no such verb, session or tree, or something is missing.
            ValueError: the node cannot be played from, the line is none, or the session has ended.
        """
        if verb == "start":
            with self._lock:
                words = self._view.play(str(asked["tree"]), int(asked["node"]))
            return {"session": self._terminals.start(words)}
        session = str(asked["session"])
        if verb == "read":
            return self._terminals.read(session, max(0, int(asked["since"])))
        if verb == "send":
            self._terminals.send(session, str(asked["line"]))
        elif verb == "stop":
            self._terminals.stop(session)
        else:
            raise KeyError(verb)
        return {}

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
        parts = urlsplit(self.path)
        if parts.path == "/" and self._is_from_here():
            self._send(HTTPStatus.OK, live_page().encode(), "text/html; charset=utf-8")
        elif self._is_allowed():
            self._answer(lambda: self.server.answer(unquote(parts.path), parse_qs(parts.query)))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"say how long it is, {_LONGEST} bytes at most")
            return
        body = self.rfile.read(int(length))
        kind, _, verb = urlsplit(self.path).path.removeprefix("/api/").partition("/")
        if not self._is_allowed():
            return
        if kind != "play":
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing like that")
            return
        self._answer(lambda: self.server.play(verb, dict(json.loads(body))))

    def _is_from_here(self) -> bool:
        """Whether the browser asks this machine by its name, and for a page of ours; what is not is refused."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        name, _, port = host.partition(":")
        if name not in _HOSTS or port not in {"", str(self.server.server_port)}:
            self._refuse(HTTPStatus.FORBIDDEN, f"ask this server as 127.0.0.1:{self.server.server_port}")
        elif origin not in {None, f"http://{host}"}:
            self._refuse(HTTPStatus.FORBIDDEN, "another page may not ask this server")
        else:
            return True
        return False

    def _is_allowed(self) -> bool:
        """The same, and whether the token is right."""
        if not self._is_from_here():
            return False
        if hmac.compare_digest(self.headers.get(_HEADER, "").encode(), self.server.token.encode()):
            return True
        self._refuse(HTTPStatus.UNAUTHORIZED, "open the address that `agentenv view` printed, with its token")
        return False

    def _answer(self, find: Callable[[], object]) -> None:
        try:
            found = find()
        except KeyError as error:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is nothing like {error}")
        except (ValueError, TypeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._send(HTTPStatus.OK, encode(found))

    def _refuse(self, status: HTTPStatus, problem: str) -> None:
        self._send(status, encode({"problem": problem}))

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
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the page was closed while it waited
            self.close_connection = True

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: requests come every second."""
