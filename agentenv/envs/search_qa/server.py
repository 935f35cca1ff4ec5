"""A retrieval server in Search-R1's protocol, over any retriever; the standard library's HTTP server, nothing else.

POST /retrieve    {"queries": [...], "topk": 3, "return_scores": true}   ->  {"result": [[...], ...]}
POST /documents   {"documents": ["id or title", ...]}                    ->  {"result": [[...], ...]}
GET  /health                                                             ->  {"status": "ok", ...}
"""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pydantic
from typing_extensions import override

from .corpus import Passage
from .retrieval import Hit, Retriever

__all__ = ["RetrievalServer"]

_MAX_BODY = 16 * 2**20


class _Query(pydantic.BaseModel):
    queries: list[str] = pydantic.Field(max_length=1024)
    topk: int | None = pydantic.Field(default=None, ge=1, le=1000)
    return_scores: bool = False


class _Lookup(pydantic.BaseModel):
    documents: list[str] = pydantic.Field(max_length=1024)


class RetrievalServer(ThreadingHTTPServer):
    """Serves a retriever, one thread per connection; all threads share the one retriever.

    There is no authentication and no encryption: keep it on a network you trust. `with RetrievalServer(...)` closes
    the socket; `serve_forever()` blocks until `shutdown()` is called from another thread.

    Args:
        retriever: what answers.
        host: the address to listen on; the default is this machine only.
        port: 0 picks a free one; see `url`.
        topk: hits per query where a request names no number. Search-R1's default is 3.

    Raises:
        OSError: the address is in use or not ours.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, retriever: Retriever, *, host: str = "127.0.0.1", port: int = 8000, topk: int = 3) -> None:
        self.retriever = retriever
        self.topk = topk
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where the server listens, as `HttpRetriever` takes it."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # otherwise each small answer waits 40 ms for an acknowledgement
    server: RetrievalServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {"status": "ok", "retriever": repr(self.server.retriever)})
        else:
            self._send(404, {"detail": f"no such path: {self.path}"})

    def do_POST(self) -> None:
        routes = {"/retrieve": self._retrieve, "/documents": self._documents}
        body = self._body()
        if body is None:
            return
        route = routes.get(self.path)
        if route is None:
            self._send(404, {"detail": f"no such path: {self.path}; there are {', '.join(routes)}"})
            return
        try:
            answer = route(body)
        except ValueError as error:  # pydantic's and ours: the request is wrong
            self._send(422, {"detail": str(error)[:2_000]})
        except Exception as error:  # noqa: BLE001  the server outlives a failing retriever, and the client is told
            self._send(500, {"detail": f"{type(error).__name__}: {error}"})
        else:
            self._send(200, answer)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: a training run makes millions of requests."""

    def _retrieve(self, body: bytes) -> dict[str, Any]:
        query = _Query.model_validate_json(body)
        found = self.server.retriever.search(query.queries, query.topk or self.server.topk)
        return {"result": [[_hit(hit, scored=query.return_scores) for hit in hits] for hits in found]}

    def _documents(self, body: bytes) -> dict[str, Any]:
        lookup = _Lookup.model_validate_json(body)
        return {"result": [[_document(p) for p in self.server.retriever.find(name)] for name in lookup.documents]}

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MAX_BODY:
            self.close_connection = True  # the body is still in the pipe
            self._send(413, {"detail": f"Content-Length must be a number up to {_MAX_BODY}, got {length!r}"})
            return None
        return self.rfile.read(int(length))

    def _send(self, status: int, answer: Mapping[str, Any]) -> None:
        data = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _document(passage: Passage) -> dict[str, str]:
    return {
        "id": passage.id,
        "title": passage.title,
        "text": passage.text,
        "contents": f'"{passage.title}"\n{passage.text}',
    }


def _hit(hit: Hit, *, scored: bool) -> dict[str, Any]:
    document = _document(hit.passage)
    return {"document": document, "score": hit.score} if scored else cast("dict[str, Any]", document)
