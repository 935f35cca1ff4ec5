# pyright: reportMissingImports=false
"""Adapters of services that cannot be run here: every call they make is one that the service's own package takes.

No service answers: what the packages return is put in their place, in the types that they declare.
"""

import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentenv.errors import MissingDependencyError, SandboxError, SandboxLost
from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.remote_e2b import E2B
from agentenv.sandboxes.remote_modal import Modal
from agentenv.sandboxes.remote_morph import Morph

pytestmark = [
    pytest.mark.model,  # their packages come with the extra `dev` alone, as torch does
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def bound(function, result, calls, *, of_class=False):
    """Returns what takes the arguments that `function` takes, notes its name, and returns or raises `result`."""
    signature = inspect.signature(function)
    takes_self = "self" in signature.parameters and not of_class

    def call(*args, **kwargs):
        signature.bind(*([None] if takes_self else []), *args, **kwargs)
        calls.append(function.__name__)
        if isinstance(result, Exception):
            raise result
        return result

    return call


def e2b_machine(monkeypatch, calls, ran=None):
    e2b = pytest.importorskip("e2b")
    commands = importlib.import_module("e2b.sandbox_sync.commands.command").Commands
    files = importlib.import_module("e2b.sandbox_sync.filesystem.filesystem").Filesystem
    result = importlib.import_module("e2b.sandbox.commands.command_handle").CommandResult
    ended = result(stderr="err", stdout="out", exit_code=0, error=None)
    box = SimpleNamespace(
        commands=SimpleNamespace(run=bound(commands.run, ran or ended, calls)),
        files=SimpleNamespace(write=bound(files.write, None, calls), read=bound(files.read, bytearray(b"x"), calls)),
        set_timeout=bound(e2b.Sandbox.set_timeout, None, calls),
        kill=bound(e2b.Sandbox.kill, True, calls),
    )
    monkeypatch.setattr(e2b.Sandbox, "create", bound(e2b.Sandbox.create, box, calls, of_class=True))
    return E2B("template").start(10.5)


def modal_machine(monkeypatch, calls, ran=None):
    modal = pytest.importorskip("modal")
    process = SimpleNamespace(
        stdout=SimpleNamespace(read=lambda: "out"),
        stderr=SimpleNamespace(read=lambda: "err"),
        wait=bound(importlib.import_module("modal.container_process").ContainerProcess.wait, 0, calls),
    )
    system = importlib.import_module("modal.sandbox._filesystem")._SandboxFilesystem
    box = SimpleNamespace(
        exec=bound(modal.Sandbox.exec, ran or process, calls),
        filesystem=SimpleNamespace(
            write_bytes=bound(system.write_bytes, None, calls), read_bytes=bound(system.read_bytes, b"x", calls)
        ),
        terminate=bound(modal.Sandbox.terminate, None, calls),
    )
    assert isinstance(modal.Sandbox.filesystem, property)
    monkeypatch.setattr(modal.App, "lookup", bound(modal.App.lookup, None, calls))
    monkeypatch.setattr(modal.Sandbox, "create", bound(modal.Sandbox.create, box, calls))
    monkeypatch.setattr(modal.Image, "from_registry", bound(modal.Image.from_registry, None, calls))
    return Modal("python:3.12").start(10.5)


def morph_machine(monkeypatch, calls, ran=None):
    api = pytest.importorskip("morphcloud.api")
    monkeypatch.setenv("MORPH_API_KEY", "none")
    down = bound(api.Instance.download, None, calls)

    def download(remote_path, local_path):
        down(remote_path, local_path)
        Path(local_path).write_bytes(b"x")

    box = SimpleNamespace(
        exec=bound(api.Instance.exec, ran or api.InstanceExecResponse(exit_code=0, stdout="out", stderr="err"), calls),
        upload=bound(api.Instance.upload, None, calls),
        download=download,
        set_ttl=bound(api.Instance.set_ttl, None, calls),
        stop=bound(api.Instance.stop, None, calls),
    )
    monkeypatch.setattr(api.InstanceAPI, "start", lambda self, *a, **k: bound(start, box, calls)(*a, **k))
    start = inspect.unwrap(api.InstanceAPI.start)
    return Morph("snapshot_1").start(10.5)


MAKERS = {"e2b": e2b_machine, "modal": modal_machine, "morph": morph_machine}


@pytest.mark.parametrize("name", MAKERS)
def test_every_call_is_one_that_the_package_takes(name, monkeypatch):
    calls = []
    machine = MAKERS[name](monkeypatch, calls)
    ran = machine.run(["sh", "-c", "echo 'a b'"], 5.5)
    assert dataclasses.astuple(ran) == (0, "out", "err")
    machine.put("/tmp/f", b"\0content", 5.5)
    assert machine.get("/tmp/f", 5.5) == b"x"
    machine.renew(10.5)
    machine.delete()
    assert len(calls) >= 6
    assert machine.patience_s > 0


def ended_errors():
    e2b, errors = pytest.importorskip("e2b"), pytest.importorskip("modal").exception
    api = pytest.importorskip("morphcloud.api")
    yield "e2b", e2b.SandboxNotFoundException("gone"), e2b.RateLimitException("slower")
    yield "modal", errors.NotFoundError("gone"), errors.ServiceError("later")
    yield "morph", api.ApiError("gone", 404, "{}"), api.ApiError("later", 503, "{}")


def test_a_machine_that_ended_is_told_from_a_service_that_fails(monkeypatch):
    for name, ended, failed in ended_errors():
        with pytest.raises(SandboxLost, match="gone"):
            MAKERS[name](monkeypatch, [], ended).run(["true"], 5)
        with pytest.raises(SandboxError, match="failed: ") as caught:
            MAKERS[name](monkeypatch, [], failed).run(["true"], 5)
        assert not isinstance(caught.value, SandboxLost), name


def test_a_command_that_fails_is_no_failure_of_the_service(monkeypatch):
    error = pytest.importorskip("e2b").CommandExitException(stderr="err", stdout="out", exit_code=3, error="exit 3")
    assert dataclasses.astuple(e2b_machine(monkeypatch, [], error).run(["false"], 5)) == (3, "out", "err")


@pytest.mark.parametrize(("remote", "module"), [("e2b", "e2b"), ("modal", "modal"), ("morph:s", "morphcloud")])
def test_a_missing_package_is_named(remote, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"{module}.api", raising=False)
    with pytest.raises(SandboxError, match=f"pip install .*{module}") as caught:
        open_sandbox(backend="remote", require="none", remote=remote)
    assert isinstance(caught.value.__cause__, MissingDependencyError)
