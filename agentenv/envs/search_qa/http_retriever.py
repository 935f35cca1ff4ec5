r"""A retriever behind HTTP, in the protocol of Search-R1's retrieval server.

    POST /retrieve {"queries": [...], "topk": 3, "return_scores": true}
    -> {"result": [[{"document": {"id": ..., "contents": "\"Title\"\ntext"}, "score": ...}, ...], ...]}

One list per query, best first. Our own server also answers `POST /documents {"documents": [...]}` (ids or titles) with
lists of documents, which the protocol lacks.
"""

import http.client
import json
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

from agentenv.errors import RetrieverError

from .corpus import Passage, parse_passage
from .retrieval import Hit, check_search
from .string_table import fold

__all__ = ["HttpRetriever"]

_RETRIED = frozenset({429, 500, 502, 503, 504})


class HttpRetriever:
    """Searches by asking a server; may be shared by threads, each of which keeps its own connection.

    Args:
        url: `http://host:port`, with or without the path `/retrieve`.
        timeout_s: for one request.
        retries: how often a request is repeated after a failure to connect, a timeout, or a status of 429 or 5xx,
            waiting 0.1, 0.2, 0.4, ... seconds in between.

    Raises:
        ValueError: the URL is not of that form.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, retries: int = 3) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = f"url must be 'http://host:port' or 'https://host:port', got {url!r}"
            raise ValueError(msg)
        if timeout_s <= 0 or retries < 0:
            msg = f"timeout_s must be positive and retries at least 0, got {timeout_s} and {retries}"
            raise ValueError(msg)
        self.url, self.timeout_s, self.retries = url, timeout_s, retries
        self._https, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._base = parts.path.rstrip("/").removesuffix("/retrieve")
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"HttpRetriever({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self.url, self.timeout_s, self.retries)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Returns at most `k` hits per query, best first, in the server's order.

        Raises:
            ValueError: `k < 1`, or a query is too long.
            RetrieverError: the server did not answer in time, or not in the protocol.
        """
        check_search(queries, k)
        if not queries:
            return []
        answer = self._post("/retrieve", {"queries": list(queries), "topk": k, "return_scores": True})
        result = answer.get("result") if answer is not None else None
        if not isinstance(result, list) or len(cast("list[Any]", result)) != len(queries):
            self._refuse(f"'result' must be a list of {len(queries)} lists", answer)
        return [self._hits(hits)[:k] for hits in cast("list[Any]", result)]

    def find(self, document: str) -> tuple[Passage, ...]:
        """Returns the passage with this id, or else those with this title.

        A server without `/documents` is searched for the text instead, and what is found must have exactly this id or
        title: a document that its own title does not retrieve among the first 50 is then missed.

        Raises:
            RetrieverError: the server did not answer in time, or not in the protocol.
        """
        answer = self._post("/documents", {"documents": [document]}, missing_ok=True)
        if answer is not None:
            try:
                (rows,) = answer["result"]
                return tuple(parse_passage(row) for row in rows)
            except (KeyError, TypeError, ValueError):
                self._refuse("'result' must be one list of documents", answer)
        found = [hit.passage for hit in self.search([document], 50)[0]]
        by_id = tuple(p for p in found if p.id == document)
        return by_id or tuple(p for p in found if fold(p.title) == fold(document))

    def close(self) -> None:
        """Closes this thread's connection; the next request opens another."""
        self._local.kept = None

    def _hits(self, hits: Any) -> list[Hit]:
        try:
            return [self._hit(row) for row in hits]
        except (AttributeError, KeyError, TypeError, ValueError):
            self._refuse("a hit must be {'document': {'id', 'contents'}, 'score'}", hits)

    def _hit(self, row: dict[str, Any]) -> Hit:
        document: dict[str, Any] = row.get("document", row)  # without scores a server sends the documents themselves
        if document.get("id") is None:  # Search-R1's server over pyserini sends the contents alone
            contents: str = document["contents"]
            digest = blake2b(contents.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
            title = contents.partition("\n")[0].strip('"')
            document = {**document, "id": f"{title} #{digest}"}
        return Hit(parse_passage(document, where=self.url), float(row.get("score", 0.0)))

    def _post(self, path: str, body: Mapping[str, Any], *, missing_ok: bool = False) -> dict[str, Any] | None:
        payload = json.dumps(body).encode()
        reason = "no attempt"
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(0.1 * 2 ** (attempt - 1))
            try:
                status, data = self._request(self._base + path, payload)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                reason = f"{type(error).__name__}: {error}"
                continue
            if status == 200:
                return self._decode(data)
            if status in {404, 405} and missing_ok:
                return None
            reason = f"status {status}: {data[:200]!r}"
            if status not in _RETRIED:
                break
        msg = f"retrieval server {self.url} failed ({reason})"
        raise RetrieverError(msg)

    def _request(self, path: str, payload: bytes) -> tuple[int, bytes]:
        kept: _Connection | None = getattr(self._local, "kept", None)
        if kept is not None:
            try:
                return kept.post(path, payload)
            except ConnectionError:  # the server closed it while it was idle: no failure yet
                pass
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        kept = self._local.kept = _Connection(kind(self._host, self._port, timeout=self.timeout_s))
        return kept.post(path, payload)

    def _decode(self, data: bytes) -> dict[str, Any]:
        try:
            loaded: object = json.loads(data)
        except (ValueError, RecursionError) as error:
            self._refuse(f"not JSON ({error})", data)
        if not isinstance(loaded, dict):
            self._refuse("must be a JSON object", loaded)
        return cast("dict[str, Any]", loaded)

    def _refuse(self, rule: str, found: object) -> NoReturn:
        msg = f"retrieval server {self.url} broke the protocol: {rule}, got {repr(found)[:200]}"
        raise RetrieverError(msg)


class _Connection:
    """A connection that is closed when the thread or the retriever that holds it goes."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection

    def __del__(self) -> None:
        self._connection.close()

    def post(self, path: str, payload: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", path, payload, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        return response.status, response.read()


def _remake(url: str, timeout_s: float, retries: int) -> HttpRetriever:
    return HttpRetriever(url, timeout_s=timeout_s, retries=retries)
