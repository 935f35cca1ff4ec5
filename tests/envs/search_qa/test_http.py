import json
import pickle
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agentenv.envs.search_qa.bm25 import Bm25Retriever
from agentenv.envs.search_qa.http_retriever import HttpRetriever
from agentenv.envs.search_qa.retrieval import Retriever
from agentenv.envs.search_qa.server import RetrievalServer
from agentenv.envs.search_qa.world import make_world
from agentenv.errors import RetrieverError

QUERIES = ["the capital", "novel by", "zzz", "born in 1850", "café ”quoted“"]


@pytest.fixture(scope="module")
def local():
    return Bm25Retriever.build(make_world(5, people=20).passages)


@contextmanager
def serving(server: ThreadingHTTPServer) -> Generator[Any]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(local):
    with serving(RetrievalServer(local, port=0)) as server:
        yield server


def post(url, body, *, raw=False):
    data = body if raw else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def test_remote_equals_local(server, local):
    remote = HttpRetriever(server.url)
    assert isinstance(remote, Retriever)
    assert remote.search(QUERIES, 4) == local.search(QUERIES, 4)
    assert remote.search([], 4) == []
    for document in ("d3", local.passages[5].title.lower(), "nobody"):
        assert remote.find(document) == local.find(document)
    assert HttpRetriever(server.url + "/retrieve").search(["capital"], 1) == local.search(["capital"], 1)
    again = pickle.loads(pickle.dumps(remote))
    assert again.search(["capital"], 1) == local.search(["capital"], 1)


def test_threads_share_a_retriever(server, local):
    remote = HttpRetriever(server.url)
    expected = local.search(QUERIES, 3)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(lambda _: remote.search(QUERIES, 3), range(40)))


def test_the_protocol_of_search_r1(server, local):
    """The request and the answer as Search-R1's own client writes and reads them."""
    answer = post(server.url + "/retrieve", {"queries": ["capital", "novel"], "topk": 2, "return_scores": True})
    assert list(answer) == ["result"]
    assert [len(hits) for hits in answer["result"]] == [2, 2]
    for hits, expected in zip(answer["result"], local.search(["capital", "novel"], 2), strict=True):
        for hit, (passage, score) in zip(hits, [(h.passage, h.score) for h in expected], strict=True):
            content = hit["document"]["contents"]
            title, text = content.split("\n")[0], "\n".join(content.split("\n")[1:])
            assert (title, text, hit["score"]) == (f'"{passage.title}"', passage.text, score)
            assert hit["document"]["id"] == passage.id
    plain = post(server.url + "/retrieve", {"queries": ["capital"]})
    assert len(plain["result"][0]) == 3  # the default
    assert set(plain["result"][0][0]) >= {"id", "contents"}  # without scores, the documents themselves


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/retrieve", b"{", 422),
        ("/retrieve", b'{"queries": "one text"}', 422),
        ("/retrieve", b'{"queries": ["x"], "topk": 0}', 422),
        ("/retrieve", b'{"queries": ["x"], "topk": 100000}', 422),
        ("/retrieve", json.dumps({"queries": ["x" * 1_000_000]}).encode(), 422),
        ("/documents", b"[]", 422),
        ("/elsewhere", b"{}", 404),
    ],
)
def test_bad_requests_are_answered_and_survived(server, path, body, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(server.url + path, body, raw=True)
    assert caught.value.code == status
    assert "detail" in json.load(caught.value)
    caught.value.close()
    assert post(server.url + "/retrieve", {"queries": ["capital"]})["result"][0]


def test_a_body_without_or_beyond_length_is_refused(server):
    host, port = server.server_address[:2]
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.putrequest("POST", "/retrieve")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    response.read()
    connection.close()


def test_health(server):
    with urllib.request.urlopen(server.url + "/health", timeout=10) as response:
        assert json.load(response)["status"] == "ok"


class Scripted(BaseHTTPRequestHandler):
    """A server that answers what a test tells it to: (status, body) in turn, the last one for ever."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append(self.path)
        status, body = server.script[min(len(server.requests), len(server.script)) - 1]
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = server.hang_up  # without having said so

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@contextmanager
def scripted(*script, hang_up=False) -> Generator[tuple[str, list[str]]]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.script, server.requests, server.hang_up = script, [], hang_up
    with serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}", server.requests


HIT = {"document": {"id": "7", "contents": '"Paris"\nA city.'}, "score": 2.5}


def test_a_server_that_knows_only_the_protocol():
    """Search-R1's own server has no /documents: reading falls back on searching."""
    with scripted((404, {}), (200, {"result": [[HIT]]})) as (url, requests):
        remote = HttpRetriever(url)
        assert [p.text for p in remote.find("paris")] == ["A city."]
        assert requests == ["/documents", "/retrieve"]
        assert remote.search(["x"], 1)[0][0].passage.title == "Paris"
    without_ids = 200, {"result": [[{"contents": '"Paris"\nOne.'}, {"contents": '"Paris"\nTwo.'}]]}
    with scripted((404, {}), without_ids) as (url, _):
        one, two = HttpRetriever(url).find("Paris")
    with scripted((404, {}), without_ids) as (url, _):
        assert HttpRetriever(url).find(two.id) == (two,) != (one,)
    with scripted((200, {"result": [[{"contents": '"Paris"\nA city.'}, HIT]]})) as (url, _):
        first, second = HttpRetriever(url).search(["x"], 5)[0]
        assert (second.passage.id, second.score) == ("7", 2.5)
        assert first.score == 0
        assert first.passage.id.startswith("Paris #")  # passages of one article differ


def test_passing_failures_are_retried():
    with scripted((503, b"busy"), (500, b""), (200, {"result": [[HIT]]})) as (url, requests):
        assert len(HttpRetriever(url).search(["x"], 1)[0]) == 1
        assert len(requests) == 3


def test_an_idle_connection_that_the_server_closed_is_no_failure():
    with scripted((200, {"result": [[HIT]]}), hang_up=True) as (url, requests):
        remote = HttpRetriever(url, retries=0)
        for _ in range(3):
            assert len(remote.search(["x"], 1)[0]) == 1
        assert len(requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "requests", "message"),
    [
        (500, b"boom", 2, "status 500"),
        (422, b"no", 1, "status 422"),
        (404, b"", 1, "status 404"),
        (200, b"<html>", 1, "not JSON"),
        (200, [], 1, "must be a JSON object"),
        (200, {}, 1, "'result' must be a list of 1 lists"),
        (200, {"result": [[], []]}, 1, "'result' must be a list of 1 lists"),
        (200, {"result": [["text"]]}, 1, "a hit must be"),
        (200, {"result": [[{"document": {"id": "1"}}]]}, 1, "a hit must be"),
        (200, {"result": [[{**HIT, "score": "high"}]]}, 1, "a hit must be"),
        (200, {"result": [None]}, 1, "a hit must be"),
    ],
)
def test_a_server_that_fails_or_breaks_the_protocol(status, body, requests, message):
    with scripted((status, body)) as (url, seen):
        with pytest.raises(RetrieverError, match=message):
            HttpRetriever(url, retries=1).search(["x"], 1)
        assert len(seen) == requests


def test_no_server_and_no_answer():
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RetrieverError, match="timed out"):
            HttpRetriever(url, timeout_s=0.05, retries=0).search(["x"], 1)
    with pytest.raises(RetrieverError, match="refused"):
        HttpRetriever(url, retries=0).search(["x"], 1)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_bad_urls(url):
    with pytest.raises(ValueError, match="url must be"):
        HttpRetriever(url)
