# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false
"""Bad input and greedy commands: a clear error or an honest result each, and the sandbox goes on."""

import errno
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from sandbox_backends import PLACES, WITH_ENGINES, marks, opener, skip_without

from agentenv import Action, ToolCall, ToolEnv, tool
from agentenv.errors import SandboxError, WorkspaceError
from agentenv.sandboxes import LEVELS, Limits, SandboxSpec, docker, open_sandbox
from agentenv.sandboxes.guest.wire import Closed, Wire
from agentenv.sandboxes.guest_sandbox import GuestSandbox

MIB = 1 << 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network": "host"}, "network must be 'none', got 'host'"),
        ({"network": ("example.org",)}, "network must be 'none'"),
        ({"readonly": ("relative",)}, "absolute paths without .* got 'relative'"),
        ({"readonly": ("/tmp/venv",)}, "cannot show '/tmp/venv': the sandbox has a 'tmp' of its own"),
        ({"readonly": ("/",)}, "cannot show '/'"),
        ({"env": {"A=B": "x"}}, "a variable that cannot be: 'A=B'"),
    ],
)
def test_specs_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        SandboxSpec(**fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: open_sandbox({"a.py": "x"}), r"spec must be a SandboxSpec, got dict: for files, open_sandbox\(base="),
        (lambda: SandboxSpec(base=3), "SandboxSpec.base must be a folder, a mapping .* got int"),
        (lambda: SandboxSpec(base={"a": 3}), "SandboxSpec.base must map str to bytes or str, got 'a': 3"),
        (
            lambda: SandboxSpec(limits={"time_s": 1}),
            r"SandboxSpec.limits must be Limits, e.g. Limits\(time_s=1\), got {",
        ),
        (lambda: SandboxSpec(env={"A": 1}), r"SandboxSpec.env must map str to str, got 'A': 1: use str\("),
        (lambda: SandboxSpec(env="A=1"), "SandboxSpec.env must be a mapping from str to str, got str"),
        (lambda: SandboxSpec(readonly="/opt"), "SandboxSpec.readonly must be a tuple of paths, got '/opt'"),
        (lambda: SandboxSpec(image=3), "SandboxSpec.image must be str, got 3"),
        (lambda: Limits(time_s="10"), "Limits.time_s must be a number of seconds, got '10'"),
        (lambda: Limits(memory=1e9), "Limits.memory must be an int, got 1000000000.0"),
    ],
)
def test_specs_of_wrong_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_command_may_run_for_a_week_at_most():
    with pytest.raises(ValueError, match=r"Limits\.time_s must be at most 604800 seconds \(a week\), got 1000000000"):
        Limits(time_s=1e9)


@pytest.mark.parametrize("backend", ["namespace", "gvisor", "process", "subprocess"])
@pytest.mark.parametrize("field", ["image", "runtime", "engine"])
def test_what_only_docker_knows_is_not_ignored(backend, field):
    with pytest.raises(ValueError, match=f"^{field}='x:1' needs backend='docker', got '{backend}'$"):
        open_sandbox(backend=backend, require="none", **{field: "x:1"})


def test_what_only_docker_knows_makes_auto_try_docker_alone():
    with pytest.raises(SandboxError) as found:
        open_sandbox(engine="nowhere://x")
    lines = str(found.value).splitlines()
    assert lines[0] == "no sandbox that promises 'namespace' could be opened:"
    assert lines[1] == "  namespace: engine='nowhere://x' needs backend='docker'"
    assert lines[2].startswith("  docker: ")
    assert "needs backend" not in lines[2]
    with pytest.raises(SandboxError, match=r"^the docker back end cannot open this sandbox: "):
        open_sandbox(backend="docker", engine="nowhere://x")


@pytest.mark.docker
def test_auto_opens_docker_where_only_docker_will_do():
    skip_without("runsc")
    with open_sandbox(runtime="runsc") as box:
        assert repr(box) == "<DockerSandbox open>"


@pytest.mark.parametrize("name", Limits.__slots__)
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be positive, got 0"):
        Limits(**{name: 0})


@pytest.mark.parametrize(
    "files", [{"/etc/x": "x"}, {"../x": "x"}, {"a/../b": "x"}, {"": "x"}, {"a": "x", "a/b": "y"}, {"a//b": ""}]
)
def test_bases_that_cannot_be(files):
    with pytest.raises(ValueError, match=r"relative and plain|both a file and a folder"):
        open_sandbox(SandboxSpec(base=files))


def test_a_base_that_is_missing():
    with pytest.raises(SandboxError, match=r"must be a folder that can be read, got '/no/such'"):
        open_sandbox(SandboxSpec(base="/no/such"))


def test_a_base_folder_is_copied_with_modes_and_links(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "d" / "run").chmod(0o755)
    (tmp_path / "l").symlink_to("d/run")
    with open_sandbox(SandboxSpec(base=tmp_path)) as box:
        assert box.exec("./l").stdout == "ran\n"
        box.exec("echo changed > d/run")
    assert "ran" in (tmp_path / "d" / "run").read_text()


def test_unknown_back_end_and_level():
    with pytest.raises(ValueError, match=r"backend must be 'auto' or one of 'namespace'.* got 'vm'"):
        open_sandbox(backend="vm")
    with pytest.raises(ValueError, match=r"require must be one of 'none'.* got 'strong'"):
        open_sandbox(require="strong")


def test_less_than_required_is_refused():
    message = r"the subprocess back end cannot open this sandbox: promises only 'none', less than require='namespace'"
    with pytest.raises(SandboxError, match=message):
        open_sandbox(backend="subprocess")
    with pytest.raises(
        SandboxError, match=r"no sandbox that promises 'kernel' .*\n.*\n  docker: promises only 'container'"
    ):
        open_sandbox(require="kernel", image="x:1")
    assert LEVELS.index("namespace") < LEVELS.index("container")


def test_subprocess_says_so_on_every_use():
    from agentenv.sandboxes.subprocess import NoIsolationWarning

    for _ in range(2):
        with pytest.warns(NoIsolationWarning, match="isolates nothing"):
            open_sandbox(backend="subprocess", require="none").close()


def test_readonly_folders_are_seen_and_not_written():
    with tempfile.TemporaryDirectory(dir=Path.home()) as name:  # /tmp would not do: a sandbox has its own
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "shown.txt").write_text("shown")
        with open_sandbox(SandboxSpec(readonly=(name,)), backend="namespace") as box:
            assert box.exec(["cat", f"{folder}/shown.txt"]).stdout == "shown"
            assert box.exec(f"echo x > {folder}/escape").exit_code != 0
            assert box.exec(f"ls -A {folder.parent}").stdout.split() == [folder.name]
        assert [path.name for path in folder.iterdir()] == ["shown.txt"]


def test_env_of_the_spec():
    with open_sandbox(SandboxSpec(env={"A": "1", "HOME": "/workspace"})) as box:
        assert box.exec("echo $A $HOME", env={"A": "2"}).stdout == "2 /workspace\n"


def test_greedy_commands_are_reported_and_survived():
    limits = Limits(memory=64 * MIB, processes=20, disk=8 * MIB, files=200, file_size=4 * MIB, output=1000)
    with open_sandbox(SandboxSpec(limits=limits)) as box:
        memory = box.exec(["/usr/bin/python3", "-c", "b = []\nwhile True: b.append(bytearray(b'x' * (1 << 20)))"])
        assert memory.oom or "MemoryError" in memory.stderr
        assert box.exec("i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i+1)); done; wait").exit_code != 0
        assert "No space" in box.exec("for i in 1 2 3; do head -c 4000000 /dev/zero > f$i; done").stderr
        assert box.exec("rm -f f*; for i in $(seq 300); do : > n$i; done").exit_code != 0
        assert box.exec("rm -f n*; head -c 5000000 /dev/zero > big").exit_code != 0
        assert box.exec("rm -f big; yes | head -c 100000").truncated
        killed = box.exec("for i in 1 2 3; do (setsid sleep 60 &); done; sleep 0.1")
        assert killed.killed == 3
        assert box.exec("sleep 60", timeout_s=0.1).timed_out
        result = box.exec("echo fine")
    assert (result.stdout, result.oom, result.timed_out, result.truncated, result.killed) == (
        "fine\n",
        False,
        False,
        False,
        0,
    )


def test_many_small_processes_cannot_have_the_sandbox_itself_killed():
    """Each holds less than PID 1 and asks the kernel to be spared, so that PID 1 would be the first to go."""
    code = (
        "import os, time\n"
        "for _ in range(100):\n"
        "    if os.fork() == 0:\n"
        "        try: open('/proc/self/oom_score_adj', 'w').write('0')\n"
        "        except OSError: pass\n"
        "        block = bytearray(os.urandom(4096) * 1000)\n"
        "        time.sleep(5); os._exit(0)\n"
        "time.sleep(5); print('unlimited')\n"
    )
    with open_sandbox(SandboxSpec(limits=Limits(memory=200 * MIB, disk=8 * MIB))) as box:
        result = box.exec(["/usr/bin/python3", "-c", code])
        assert result.oom
        assert result.exit_code == 137
        assert box.exec("echo fine").stdout == "fine\n"


def test_a_full_workspace_can_be_branched_and_undone():
    with open_sandbox(SandboxSpec(limits=Limits(disk=4 * MIB, files=100))) as box:
        empty = box.snapshot()
        box.exec("for i in $(seq 200); do : > n$i; done; head -c 5000000 /dev/zero > big")
        full = box.snapshot()
        (child,) = box.fork(1)
        with child:
            assert child.exec("ls | wc -l").stdout == box.exec("ls | wc -l").stdout
            assert child.exec("rm n1; echo x > n2; rm big; ls | grep -c big").stdout == "0\n"
        box.restore(empty)
        assert box.exec("echo room > f; cat f").stdout == "room\n"
        box.restore(full)
        assert box.snapshot().content_id == full.content_id


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=marks(place)) for place in PLACES if place != "subprocess"]
)
def test_a_write_beyond_a_limit_sends_nothing(place):
    skip_without(place)
    with opener(place)(limits=Limits(transfer=2 * MIB, file_size=MIB)) as box:
        with pytest.raises(
            WorkspaceError, match=r"big: 1048577 bytes are more than Limits\.file_size of 1048576"
        ) as found:
            box.write("big", bytes(MIB + 1))
        assert found.value.errno == errno.EFBIG
        with pytest.raises(WorkspaceError, match=r"Limits\.transfer of 2097152"):
            box.write("big", bytes(1000 * MIB))
        with pytest.raises(WorkspaceError, match=r"3 files: 3145728 bytes are more than Limits\.transfer of 2097152"):
            box.upload({"a": bytes(MIB), "b": bytes(MIB), "c": bytes(MIB)})
        with pytest.raises(ValueError, match=r"stdin has 2097153 bytes, more than Limits\.transfer of 2097152"):
            box.exec("cat", stdin=bytes(2 * MIB + 1))
        assert box.exec("ls -A; wc -c", stdin=bytes(2 * MIB)).stdout.strip() == str(2 * MIB)
        box.write("full", bytes(MIB))
        assert len(box.read("full")) == MIB


@pytest.mark.parametrize("place", [pytest.param(place, marks=marks(place)) for place in ("namespace", *WITH_ENGINES)])
def test_writing_more_than_there_is_room_for(place):
    skip_without(place)
    with opener(place)(limits=Limits(disk=4 * MIB)) as box:
        box.write("kept", "old")
        for path in ("big", "kept"):
            with pytest.raises(WorkspaceError, match="No space"):
                box.write(path, bytes(5 * MIB))
        assert box.exec("ls -A; cat kept").stdout == "kept\nold"
        box.write("kept", bytes(3 * MIB))
        box.write("kept", "new")
        assert box.read("kept") == b"new"


BAD_CALLS: Mapping[str, tuple[Callable[[GuestSandbox], object], type[Exception], str]] = {
    "read a number": (lambda box: box.read(3), TypeError, "path must be str, got 3"),
    "read a Path": (lambda box: box.read(Path("a")), TypeError, r"path must be str, .*use str\("),
    "read a lone surrogate": (lambda box: box.read("\ud800"), WorkspaceError, "lone surrogate"),
    "write zeros": (lambda box: box.write("a", 3), TypeError, "content must be bytes or str, got int"),
    "write a list": (lambda box: box.write("a", [1]), TypeError, "content must be bytes or str, got list"),
    "write to a number": (lambda box: box.write(3, "a"), TypeError, "path must be str, got 3"),
    "write a lone surrogate": (lambda box: box.write("a", "x\ud800"), ValueError, "content has a lone surrogate at 1"),
    "mode of text": (
        lambda box: box.write("a", "", mode="755"),
        TypeError,
        "mode must be an int like 0o755, got '755'",
    ),
    "mode out of range": (
        lambda box: box.write("a", "", mode=0o100644),
        ValueError,
        "between 0 and 0o7777, got 0o100644",
    ),
    "upload a path": (lambda box: box.upload("/x"), TypeError, "files must be a mapping .* got str"),
    "upload a number": (lambda box: box.upload({"a": 3}), TypeError, r"files\['a'\] must be bytes or str, got int"),
    "export a text": (lambda box: box.export("*.py"), TypeError, r"allow must be a sequence .* got '\*\.py'"),
    "export a number": (lambda box: box.export([3]), TypeError, "allow must be a sequence"),
    "exec nothing": (lambda box: box.exec([]), ValueError, "argv needs at least a program"),
    "exec a number": (lambda box: box.exec(3), TypeError, "argv must be a list of str, or str for sh, got int"),
    "exec bytes": (lambda box: box.exec(b"ls"), TypeError, "argv must be a list of str, or str for sh, got bytes"),
    "a word that is a number": (lambda box: box.exec(["echo", 3]), TypeError, r"argv\[1\] must be str, got 3 \(int\)"),
    "a word with NUL": (lambda box: box.exec("a\0b"), ValueError, "no NUL or lone surrogate"),
    "a word with a lone surrogate": (lambda box: box.exec(["echo", "\ud800"]), ValueError, "no NUL or lone surrogate"),
    "env of numbers": (lambda box: box.exec("true", env={"A": 1}), TypeError, "env must map str to str, got 'A': 1"),
    "env of names": (lambda box: box.exec("true", env=["A"]), TypeError, "env must be a mapping .* got list"),
    "env name with =": (lambda box: box.exec("true", env={"A=B": ""}), ValueError, "a variable that cannot be: 'A=B'"),
    "env name with NUL": (lambda box: box.exec("true", env={"A\0": ""}), ValueError, "a variable that cannot be"),
    "env value with NUL": (lambda box: box.exec("true", env={"A": "\0"}), ValueError, "a variable that cannot be: 'A'"),
    "cwd of a number": (lambda box: box.exec("true", cwd=3), TypeError, "cwd must be str, got 3"),
    "cwd with NUL": (lambda box: box.exec("true", cwd="\0"), WorkspaceError, "NUL"),
    "stdin of a number": (lambda box: box.exec("cat", stdin=3), TypeError, "stdin must be bytes or str, got int"),
    "timeout of text": (
        lambda box: box.exec("true", timeout_s="1"),
        TypeError,
        "timeout_s must be a number .* got '1'",
    ),
    "no timeout": (lambda box: box.exec("true", timeout_s=0), ValueError, "timeout_s must be positive, got 0"),
    "timeout of no number": (
        lambda box: box.exec("true", timeout_s=float("nan")),
        ValueError,
        "must be positive, got nan",
    ),
    "timeout of years": (
        lambda box: box.exec("true", timeout_s=1e9),
        ValueError,
        "at most 604800 seconds .* got 1000000000",
    ),
}


def test_arguments_that_cannot_be_leave_the_sandbox_alive(box):
    for name, (call, kind, message) in BAD_CALLS.items():
        with pytest.raises(kind, match=message):
            call(box)
        assert box.exec("echo alive; ls -A").stdout == "alive\n", name


def test_the_longest_timeout_and_bytes_that_are_no_text(box):
    assert box.exec(["printf", "\udcff"], timeout_s=7 * 86_400, env={"A": "\udcfe"}).stdout == "\ufffd"
    with box.shell() as shell, pytest.raises(TypeError, match="command must be str, got 3"):
        shell.run(3)
    assert box.exec("echo fine").stdout == "fine\n"


def test_waiting_longer_than_poll_can():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        Wire(ours.fileno(), ours.fileno()).wait(time.monotonic() + 1e9)


def test_an_engine_that_takes_nothing_does_not_keep_us_for_ever(monkeypatch):
    monkeypatch.setattr(docker, "_STALL_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = docker._StreamWire(ours)
        with pytest.raises(Closed, match="timed out"):
            wire.send({"op": "write"}, bytes(64 * MIB))
        with pytest.raises(Closed, match="takes nothing: timed out"):  # so that who starts a guest says what it needs
            wire.write(bytes(64 * MIB))
        assert ours.gettimeout() is None


def test_repr_says_whether_it_can_be_used():
    box = open_sandbox(backend="namespace")
    assert repr(box) == "<NamespaceSandbox open>"
    box.close()
    assert repr(box) == "<NamespaceSandbox closed>"


def test_reading_more_than_may_be_transferred():
    with open_sandbox(SandboxSpec(limits=Limits(transfer=1000))) as box:
        box.exec("truncate -s 100M sparse; head -c 2000 /dev/zero > f; head -c 600 /dev/zero > g; cp g h")
        for path in ("sparse", "f"):
            with pytest.raises(WorkspaceError, match="more than the limit of 1000"):
                box.read(path)
        assert len(box.read("g")) == 600
        with pytest.raises(WorkspaceError, match="1200 bytes, more than the limit of 1000"):
            box.export(["g", "h"])


def test_binary_and_strange_names(box):
    box.write("caf\u00e9 \n*", b"\xff\0")
    assert box.read("caf\u00e9 \n*") == b"\xff\0"
    box.exec(["/usr/bin/python3", "-c", "open(b'\\xff\\xfe', 'w').write('x')"])
    assert set(box.export()) == {"caf\u00e9 \n*", "\udcff\udcfe"}
    (child,) = box.fork(1)
    with child:
        assert child.snapshot().content_id == box.snapshot().content_id
    assert box.exec("printf '\\377'").stdout == "\ufffd"


class Desk(ToolEnv):
    """Hands what the agent says to its sandbox, and checks nothing."""

    def make_sandbox(self):
        return open_sandbox(base={"a": "text"})

    def start(self, task):
        return "Go."

    @tool
    def run(self, command: str) -> str:
        """Run words."""
        return self.sandbox.exec(command.split(" ") if command else []).stdout

    @tool
    def copy(self, source: str, target: str, suffix: str = "") -> str:
        """Copy a file."""
        self.sandbox.write(target, self.sandbox.read(source).decode() + suffix)
        return "copied"

    @tool
    def list(self, folder: str) -> str:
        """List a folder."""
        return self.sandbox.exec("ls", cwd=folder).stdout


def test_what_no_sandbox_can_do_is_the_agents_mistake_though_the_tool_does_not_check():
    with closing(Desk()) as env:
        env.reset(seed=0)
        for name, arguments, told in (
            ("run", {"command": ""}, "at least a program"),
            ("run", {"command": "echo \0"}, "no NUL"),
            ("run", {"command": "echo \ud800"}, "lone surrogate"),
            ("copy", {"source": "none", "target": "b"}, "No such file"),
            ("copy", {"source": "../../etc/passwd", "target": "b"}, "leads out of the workspace"),
            ("copy", {"source": "a", "target": "/b"}, "leads out of the workspace"),
            ("copy", {"source": "a", "target": "b", "suffix": "\ud800"}, "lone surrogate"),
            ("copy", {"source": "a\0", "target": "b"}, "NUL"),
            ("list", {"folder": "none"}, "No such file"),
        ):
            observation, *_, info = env.step(Action(tool_calls=(ToolCall(name, arguments),)))
            assert told in observation[0]["content"], arguments
            assert info["mistakes"], arguments
        assert env.step(Action(tool_calls=(ToolCall("list", {"folder": "."}),)))[0][0]["content"] == "a\n"


def test_an_interrupted_request_leaves_the_sandbox_broken_not_confused(box, monkeypatch):
    monkeypatch.setattr(box._wire, "receive", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        box.exec("echo first")
    with pytest.raises(SandboxError, match="'exec' was interrupted"):
        box.exec("echo second")
