"""`agentenv doctor`: what it says is what is there."""

import json
import os
import socket
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path

import pytest
from cli_runs import one_line_error, run

import agentenv
from agentenv.cli import machine
from agentenv.distribution import pip_install

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def findings():
    return {(finding.area, finding.name): finding for finding in machine.find_everything()}


def test_versions_are_those_of_the_installed_packages(findings):
    for name in ("torch", "transformers", "trl", "accelerate"):
        finding = findings["Packages for train", name]
        try:
            assert metadata.version(name) in finding.value
        except metadata.PackageNotFoundError:
            assert finding.status == "missing"
            assert "pip install" in finding.remedy and "[train]" in finding.remedy


def test_hardware_is_measured(findings):
    assert findings["Hardware", "cores"].value.startswith(str(len(os.sched_getaffinity(0))))
    total = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    assert 0 < float(findings["Hardware", "memory"].value.split()[0]) <= total + 0.1


def test_isolation_is_tried(findings):
    tried = findings["Isolation", "user namespaces"]
    works = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, check=False)
    assert (tried.status == "ok") == (works.returncode == 0)
    assert tried.status == "ok" or tried.remedy
    assert findings["Isolation", "overlayfs"].status in {"ok", "missing"}
    engine = findings["Isolation", "Docker engine"]
    assert engine.status == "ok" or "not reachable" in engine.value
    assert any(area == "Sandboxes" for area, _ in findings)


def test_a_docker_engine_is_asked_for_its_version(tmp_path, monkeypatch):
    """A socket that answers as the engine does."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def answer():
            connection, _ = server.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /version ")
                connection.sendall(b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"Version": "27.1"}')

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        (finding,) = machine._docker()
        thread.join()
    assert finding.status == "ok" and finding.value.startswith("version 27.1")


def test_the_report_and_its_json():
    text = run("doctor").stdout
    as_json = run("doctor", "--json")
    report = json.loads(as_json.stdout)
    assert as_json.exit_code == (0 if report["ok"] else 1)
    assert {"Python", "Hardware", "Isolation"} <= {finding["area"] for finding in report["findings"]}
    names = {finding["name"] for finding in report["findings"]}
    assert all(name in text for name in names)
    assert set(report["findings"][0]) == {"area", "name", "status", "value", "remedy"}


@pytest.mark.parametrize(
    ("found", "wanted", "status"),
    [("1.16.0", ">=1.14,!=1.15.0,<2", "ok"), ("1.15.0", ">=1.14,!=1.15.0,<2", "problem"), ("2.0", "<2", "problem"),
     ("1.16.1", "<2", "note"), ("1.16.0+cpu", "<2", "ok"), (None, "<2", "missing")],
)  # fmt: skip
def test_a_version_outside_the_range_is_a_problem_and_an_untested_one_a_note(monkeypatch, found, wanted, status):
    monkeypatch.setattr(machine, "_version", lambda name: found)
    finding = machine._package("train", "trl", wanted, "1.16.0")
    assert finding.status == status
    assert (status == "ok") == (finding.remedy == "")
    if status == "problem":
        assert finding.remedy == pip_install(f"trl{wanted}") and found in finding.value


def test_a_second_agentenv_is_a_problem_and_a_foreign_agents_is_harmless(tmp_path):
    for name in ("agentenv", "agents"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('never imported')")
    code = "import json\nfrom agentenv.cli.machine import _python\nfrom dataclasses import asdict\n"
    code += f"import sys; sys.path.append({str(tmp_path)!r})\n"
    code += "print(json.dumps([asdict(finding) for finding in _python()]))"
    root = Path(agentenv.__file__).resolve().parent.parent
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    found = json.loads(done.stdout)
    (problem,) = [finding for finding in found if finding["status"] == "problem"]
    assert problem["name"] == "agentenv" and str(tmp_path / "agentenv") in problem["value"]
    notes = [finding for finding in found if finding["status"] == "note"]
    assert all("harmless" in note["remedy"] for note in notes)


def test_openai_agents_beside_us_is_noted_as_harmless(tmp_path, monkeypatch):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "agents", raising=False)
    (finding,) = machine._foreign_module("Python", "agents")
    assert finding.status == "note" and "agentenv.agents" in finding.remedy and str(tmp_path) in finding.value


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "all_in_all", "calls"),
    [("qwen3", "rewrites history", "tool_call"), ("llama3_1", "refuses some turns", "bare"),
     ("hermes", "appends only", "tool_call")],
)  # fmt: skip
def test_of_a_model_it_tells_what_its_template_does(tmp_path, name, all_in_all, calls):
    from chat_families import tokenizer_of
    from transformers import Qwen3Config

    tokenizer_of(name).save_pretrained(tmp_path)
    Qwen3Config(max_position_embeddings=77).save_pretrained(tmp_path)
    result = run("doctor", "--model", tmp_path, "--json")
    assert result.exit_code == 0, result.output
    found = {finding["name"]: finding["value"] for finding in json.loads(result.stdout)["findings"]}
    assert found["folder"].endswith("window 77")
    assert found["in all"].startswith(all_in_all)
    assert found["tool calls"] == f"read by {calls}"


@pytest.mark.model
def test_what_is_wrong_with_a_model_is_named(tmp_path):
    from chat_families import tokenizer_of
    from transformers import Qwen3Config

    def problem():
        result = run("doctor", "--model", tmp_path, "--json")
        assert result.exit_code == 1
        (found,) = [one for one in json.loads(result.stdout)["findings"] if one["status"] == "problem"]
        return found["name"], found["value"]

    assert one_line_error(run("doctor", "--model", tmp_path / "nowhere")).count("no such folder") == 1
    assert problem()[0] == "folder"
    Qwen3Config().save_pretrained(tmp_path)
    name, told = problem()
    assert name == "folder" and "tokenizer" in told
    tokenizer = tokenizer_of("hermes")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    assert problem()[0] == "chat template"
