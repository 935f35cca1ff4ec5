"""`agentenv sandbox probe` and `agentenv sandbox gc`."""

import json

from typer.testing import CliRunner

from agentenv.sandboxes import probe_backends
from agentenv.sandboxes.opening import BACKENDS
from agentenv.sandboxes.probing import PROMISES
from agentenv.sandboxes.sandbox_cli import app


def test_probe_shows_every_promise_of_every_back_end():
    result = CliRunner().invoke(app, ["probe"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["promise", "namespace"]
    assert [line.split()[0] for line in lines[1 : 1 + len(PROMISES)]] == list(PROMISES)
    assert "cannot take running processes into a snapshot; the gvisor back end can" in result.stdout


def test_probe_as_json_is_what_was_found():
    result = CliRunner().invoke(app, ["probe", "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["backend"] for row in rows] == list(BACKENDS)
    for row, report in zip(rows, probe_backends(), strict=True):
        assert row["works"] == (report.capabilities is not None)
        if report.capabilities:
            assert set(row["enforced"]) == report.capabilities.enforced
            assert all(row["missing"].values())


def test_gc_says_what_it_removed():
    result = CliRunner().invoke(app, ["gc"])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].endswith(" removed")


def test_every_promise_is_known():
    for report in probe_backends():
        if report.capabilities:
            assert report.capabilities.enforced | report.capabilities.missing.keys() == PROMISES.keys()
