"""The local server: what it answers, and what it refuses."""

import gzip
import http.client
import json
import threading
from urllib.parse import quote

import pytest
from cli_runs import one_line_error, run
from viewer_trees import rich_tree, view_of, write

from agentenv.viewer import ViewServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("served") / "t.jsonl", rich_tree())
    with ViewServer(view_of(path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, gzip.decompress(body) if response.getheader("Content-Encoding") == "gzip" else body


def test_it_answers_what_the_page_asks(server):
    tree = quote("t.jsonl#0", safe="")
    assert json.loads(ask(server, f"/api/tree/{tree}")[1])["parents"] == [-1, 0, 1, 1, 3, 0]
    assert json.loads(ask(server, f"/api/details/{tree}/0", **{"Accept-Encoding": "gzip"})[1])["nodes"][1]["mistakes"]
    assert set(json.loads(ask(server, f"/api/credit/{tree}?name=grpo")[1])) == {"A", "Q", "V", "N"}
    status, page = ask(server, "/")
    assert (status, page[:15]) == (200, b"<!doctype html>")


@pytest.mark.parametrize(
    "path", ["/api/tree/none%230", "/api/nothing", "/../../etc/passwd", "/api/tree/..%2Ft.jsonl%230", "/favicon.ico"]
)
def test_what_is_not_there_is_not_found(server, path):
    status, body = ask(server, path)
    assert status == 404
    assert "problem" in json.loads(body)


@pytest.mark.parametrize(("query", "told"), [("name=none", "no estimator"), ("name=rtmc&option=x%3D1", "x")])
def test_a_wrong_estimator_is_told(server, query, told):
    status, body = ask(server, f"/api/credit/t.jsonl%230?{query}")
    assert (status, told in json.loads(body)["problem"]) == (400, True)


def test_a_page_from_elsewhere_and_other_methods_are_refused(server):
    assert ask(server, "/api/overview", Host="evil.example:80")[0] == 403
    assert ask(server, "/api/overview", Host="127.0.0.1.evil.example")[0] == 403
    assert ask(server, "/api/overview", method="POST")[0] == 501


def test_the_command_writes_a_page_and_names_what_is_wrong(tmp_path):
    path = write(tmp_path / "t.jsonl", rich_tree())
    out = tmp_path / "page.html"
    assert str(out) in run("view", path, "--out", out).stdout.replace("\n", "")
    assert out.read_text().startswith("<!doctype html>")
    for arguments, argument in (
        ((tmp_path / "none",), "FOLDER_OR_FILE"),
        ((path, "--credit", "rtm"), "--credit"),
        ((path, "--tokenizer", tmp_path / "none"), "--tokenizer"),
        ((path, "--out", tmp_path / "none" / "page.html"), "--out"),
    ):
        assert argument in one_line_error(run("view", *arguments))
