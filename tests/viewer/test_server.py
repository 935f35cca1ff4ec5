"""The local server: what it answers, and what it refuses."""

import gzip
import http.client
import json
import socket
import struct
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


def ask(server, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    text = None if body is None else json.dumps(body)
    connection.request(method, path, text, {"X-Agentenv-Token": server.token, **headers})
    response = connection.getresponse()
    found = response.read()
    connection.close()
    return response.status, gzip.decompress(found) if response.getheader("Content-Encoding") == "gzip" else found


def test_it_answers_what_the_page_asks(server):
    tree = quote("t.jsonl#0", safe="")
    assert json.loads(ask(server, f"/api/tree/{tree}")[1])["parents"] == [-1, 0, 1, 1, 3, 0]
    assert json.loads(ask(server, f"/api/details/{tree}/0", **{"Accept-Encoding": "gzip"})[1])["nodes"][1]["mistakes"]
    assert set(json.loads(ask(server, f"/api/credit/{tree}?name=grpo")[1])) == {"A", "Q", "V", "N"}
    status, page = ask(server, "/")
    assert (status, page[:15]) == (200, b"<!doctype html>")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: 12", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_a_page_that_is_closed_while_it_asks_leaves_no_word(server, capfd, sent):
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends by a reset
    assert ask(server, "/")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


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


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost:1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),  # a page in a sandbox, or from a file
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another server of this machine
        ({"X-Agentenv-Token": ""}, 401),
        ({"X-Agentenv-Token": "wr\xf6ng"}, 401),
    ],
    ids=str,
)
def test_who_is_not_the_page_neither_reads_nor_plays(server, headers, status):
    assert ask(server, "/api/overview", **headers)[0] == status
    assert ask(server, "/api/play/start", "POST", {"tree": "t.jsonl#0", "node": 1}, **headers)[0] == status
    assert ask(server, "/")[0] == 200  # what it refused before has not hurt it


def test_other_methods_and_long_bodies_are_refused(server):
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/api/overview", method)[0] == 501
    assert ask(server, "/api/play/send", "POST", **{"Content-Length": "200000"})[0] == 413
    assert ask(server, "/api/play/start", "POST", **{"Content-Length": "-1"})[0] == 413
    assert server.token not in ask(server, "/")[1].decode()


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("start", {"tree": "t.jsonl#0", "node": 2}, 400, "goes on, got 2"),  # ended there
        ("start", {"tree": "t.jsonl#0", "node": 99}, 400, "goes on, got 99"),
        ("start", {"tree": "../t.jsonl#0", "node": 1}, 404, "../t.jsonl#0"),
        ("start", {"tree": "t.jsonl#0"}, 404, "node"),
        ("start", [1], 400, ""),
        ("send", {"session": "99", "line": "x"}, 404, "99"),
        ("read", {"session": "1", "since": "x"}, 400, "'x'"),
        ("../overview", {}, 404, ""),
        ("write", {"session": "1"}, 404, "write"),
    ],
)
def test_what_cannot_be_played_is_told(server, path, body, status, told):
    found, answer = ask(server, f"/api/play/{path}", "POST", body)
    assert (found, told in json.loads(answer)["problem"]) == (status, True)


def read_until(server, session, words):
    """Reads until a session has said something, or has ended."""
    text, since, ended = "", 0, False
    while words not in text and not ended:
        status, body = ask(server, "/api/play/read", "POST", {"session": session, "since": since})
        assert status == 200, body
        news = json.loads(body)
        text, since, ended = text + news["text"], news["next"], news["ended"]
    return text, ended


def test_a_session_is_agentenv_play_at_the_node_and_ends_with_the_server(tmp_path):
    trees = tmp_path / "math.jsonl"
    run("rollout", "agentenv/MathVerifier-v0", "--agent", "sloppy", "--tasks", 1, "--rollouts", 1, "--out", trees)
    with ViewServer(view_of(trees)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()

        def say(verb, **asked):
            return ask(server, f"/api/play/{verb}", "POST", asked)

        session = json.loads(say("start", tree="math.jsonl#0", node=1)[1])["session"]
        assert "[tool calculate]" in read_until(server, session, "[tool calculate]")[0]  # what led there
        assert say("send", session=session, line="a\nb")[0] == 400
        assert say("send", session=session, line="calculate 2 + 3")[0] == 200
        assert "node 1> calculate 2 + 3" in read_until(server, session, "[tool calculate] 5")[0]
        say("send", session=session, line=":quit")
        assert read_until(server, session, "\0")[1]
        assert say("stop", session=session)[0] == 200
        other = json.loads(say("start", tree="math.jsonl#0", node=1)[1])["session"]
        read_until(server, other, "[tool calculate]")
        process = server._terminals._sessions[other]._process
        server.shutdown()
        thread.join()
    assert process.poll() is not None


def test_the_command_writes_a_page_and_names_what_is_wrong(tmp_path):
    path = write(tmp_path / "t.jsonl", rich_tree())
    out = tmp_path / "page.html"
    assert str(out) in run("view", path, "--out", out).stdout.replace("\n", "")
    assert out.read_text().startswith("<!doctype html>")
    assert run("view", path, "--out", tmp_path / "new" / "folder" / "page.html").exit_code == 0
    for arguments, argument in (
        ((tmp_path / "none",), "FOLDER_OR_FILE"),
        ((path, "--credit", "rtm"), "--credit"),
        ((path, "--tokenizer", tmp_path / "none"), "--tokenizer"),
        ((path, "--out", path / "page.html"), "--out"),
        ((path, "--out", tmp_path), "--out"),
        ((path, "--env", "no_such_module:Env", "--out", out), "--env"),
        ((out, "--out", out), "FOLDER_OR_FILE"),
    ):
        assert argument in one_line_error(run("view", *arguments))


def test_a_port_that_is_taken_is_told(server, tmp_path):
    path = write(tmp_path / "t.jsonl", rich_tree())
    line = one_line_error(run("view", path, "--no-browser", "--port", server.server_port))
    assert f"'--port': must be free on 127.0.0.1, got {server.server_port}: " in line
    assert "0 takes any that is" in line
