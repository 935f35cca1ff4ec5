import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentenv.envs.search_qa.corpus import write_corpus
from agentenv.envs.search_qa.index_cli import app
from agentenv.envs.search_qa.index_file import open_index
from agentenv.envs.search_qa.world import make_world

runner = CliRunner()


@pytest.fixture
def corpus(tmp_path):
    write_corpus(make_world(5, people=20).passages, tmp_path / "corpus.jsonl")
    return tmp_path / "corpus.jsonl"


def test_build_and_search(corpus):
    result = runner.invoke(app, ["build", str(corpus), "--k1", "0.9", "--b", "0.4", "--method", "atire"])
    assert result.exit_code == 0, result.output
    folder = corpus.with_suffix(".index")
    retriever = open_index(folder)
    assert f"{len(retriever)} passages" in result.stdout
    assert (retriever.settings.method, retriever.settings.k1, retriever.settings.b) == ("atire", 0.9, 0.4)
    result = runner.invoke(app, ["search", str(folder), "the river city", "-k", "2"])
    assert result.exit_code == 0
    best = retriever.search(["the river city"], 2)[0]
    assert f"[{best[0].passage.id}] {best[0].passage.title}" in result.stdout
    assert f"{best[1].score:8.4f}" in result.stdout
    result = runner.invoke(app, ["search", str(corpus), "zzzz"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no passage" in result.stderr


def test_overwriting_is_asked_for(corpus):
    assert runner.invoke(app, ["build", str(corpus)]).exit_code == 0
    result = runner.invoke(app, ["build", str(corpus)])
    assert result.exit_code == 2
    assert "--overwrite" in result.stderr
    assert runner.invoke(app, ["build", str(corpus), "--overwrite", "--stopwords", "none"]).exit_code == 0
    assert open_index(corpus.with_suffix(".index")).settings.stopwords == ()


def test_errors_are_one_line(tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b'{"id": 1, "text": "caf\xe9"}\n')
    for arguments, message in [
        (["build", str(bad)], "line 1: not UTF-8"),
        (["build", str(tmp_path / "absent.jsonl")], "is not a file"),
        (["search", str(tmp_path), "x"], "neither a JSONL file"),
        (["search", str(bad), "x" * 20_000], "line 1"),
        (["serve", str(tmp_path / "absent")], "neither a JSONL file"),
    ]:
        result = runner.invoke(app, arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
        assert "Traceback" not in result.output


def test_serve(corpus):
    script = "from agentenv.envs.search_qa.index_cli import app; app()"
    command = [sys.executable, "-c", script, "serve", str(corpus), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split(" at ")[1].strip()
            body = json.dumps({"queries": ["capital"], "topk": 2}).encode()
            request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=10) as response:
                assert len(json.load(response)["result"][0]) == 2
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
