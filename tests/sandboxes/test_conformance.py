# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false, reportAssignmentType=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""`check_sandbox` passes on every back end, and finds out one broken sandbox per clause."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest
from sandbox_backends import PLACES, marks, opener, skip_without

from agentenv.errors import CheckError, SandboxError, WorkspaceError
from agentenv.protocols import Capabilities
from agentenv.sandboxes import SandboxSpec
from agentenv.sandboxes.opening import origin_of
from agentenv.sandboxes.snapshots import WorkspaceSnapshot
from agentenv.sandboxes.subprocess import SubprocessSandbox
from agentenv.testing import SANDBOX_CLAUSES, check_sandbox, run_sandbox_clauses

pytestmark = pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")

CASES = [
    pytest.param(place, clause, id=f"{place}-{clause.name}", marks=marks(place))
    for place in PLACES
    for clause in SANDBOX_CLAUSES
]


@pytest.mark.parametrize(("place", "clause"), CASES)
def test_back_end_keeps_the_law(place, clause):
    skip_without(place)
    (verdict,) = run_sandbox_clauses(opener(place), clauses=[clause])
    assert verdict.outcome == "passed", verdict.detail


class Result(SubprocessSandbox):
    def exec(self, argv, **kw):
        return replace(super().exec(argv, **kw), stderr="")


class Stdin(SubprocessSandbox):
    def exec(self, argv, *, stdin=b"", **kw):
        return super().exec(argv, stdin=stdin[:65536], **kw)


class Environment(SubprocessSandbox):
    def exec(self, argv, *, env=None, **kw):
        return super().exec(argv, env={**os.environ, **(env or {})}, **kw)


class Folder(SubprocessSandbox):
    def exec(self, argv, *, cwd=".", **kw):
        try:
            return super().exec(argv, cwd=cwd, **kw)
        except WorkspaceError:
            return super().exec(argv, **kw)


class Deadline(SubprocessSandbox):
    def exec(self, argv, **kw):
        return replace(super().exec(argv, **kw), timed_out=False)


class Output(SubprocessSandbox):
    def exec(self, argv, **kw):
        return replace(super().exec(argv, **kw), truncated=False)


class Survivors(SubprocessSandbox):
    def exec(self, argv, **kw):
        if "setsid" not in argv:
            return super().exec(argv, **kw)
        code = argv.replace("setsid ", "")  # one session, so that this test can end it all
        folder = self._folder / "workspace"
        self._left = subprocess.Popen(["sh", "-c", code], cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(0.3)
        return super().exec("true")

    def _free(self):
        os.killpg(self._left.pid, signal.SIGKILL)
        self._left.wait()
        super()._free()


class Files(SubprocessSandbox):
    def read(self, path):
        return (self._folder / "workspace" / path).read_bytes()


class Transfer(SubprocessSandbox):
    def export(self, allow=("*",)):
        return {**super().export(allow), "src/d.py": b"a"}


class Changes(SubprocessSandbox):
    def changes(self, since=None):
        return [change for change in super().changes(since) if change.kind != "deleted"]


class Equal(SubprocessSandbox):
    def restore(self, snapshot):
        super().restore(snapshot)
        self.exec("rm -f l")


class Valid(SubprocessSandbox):
    """Its snapshots are only references to what it holds."""

    held: dict[int, object] = {}

    def snapshot(self, **kw):
        taken = super().snapshot(**kw)
        self.held[id(self)] = taken
        return taken

    def restore(self, snapshot):
        super().restore(self.held.get(id(self), snapshot))


class Pure(SubprocessSandbox):
    def snapshot(self, **kw):
        self.exec("chmod 644 f")
        return super().snapshot(**kw)


class Undo(SubprocessSandbox):
    def restore(self, snapshot):
        leftover = self.exec("cat tick").stdout if self._shell is None else self.read("tick")
        super().restore(snapshot)
        self.write("tick", leftover)


class Siblings(SubprocessSandbox):
    def fork(self, n):
        return super().fork(1) * n


class Travels(SubprocessSandbox):
    class Lossy(WorkspaceSnapshot):
        def __reduce__(self):
            return origin_of, (SandboxSpec(base={"f": "one"}),)

    def snapshot(self, **kw):
        return self.Lossy(super().snapshot(**kw).layers)


class Content(SubprocessSandbox):
    class ByTime(WorkspaceSnapshot):
        content_id = property(lambda self: self.layers[0].digest)

    def snapshot(self, **kw):
        return self.ByTime(super().snapshot(**kw).layers)


class Shell(SubprocessSandbox):
    def _run_in_shell(self, command, timeout_s):
        return self.exec(["bash", "-c", command], timeout_s=timeout_s), True

    def shell(self):
        shell = super().shell()
        self._ask({"op": "shell_close"})
        return shell


class Honest(SubprocessSandbox):
    def snapshot(self, *, processes=False):
        return super().snapshot()


class Threads(SubprocessSandbox):
    def exec(self, argv, **kw):
        if argv[0] == "cat" and len(argv) == 2:
            self._last = argv
            time.sleep(0.02)
            argv = self._last
        return super().exec(argv, **kw)


class Blame(SubprocessSandbox):
    """All of them go down with one."""

    down: list[str] = []

    def exec(self, argv, **kw):
        if "kill" in argv:
            self.down.append(argv)
        if self.down:
            msg = "the keeper is gone"
            raise SandboxError(msg)
        return super().exec(argv, **kw)


class Lost(SubprocessSandbox):
    def _put_or_begin(self, snapshot):
        self._require_open()
        self._put(snapshot)


class Leaks(SubprocessSandbox):
    def close(self):
        self._leak = os.open(os.devnull, os.O_RDONLY)
        super().close()


@pytest.mark.parametrize("clause", SANDBOX_CLAUSES, ids=lambda clause: clause.name)
def test_checker_finds_the_broken_sandbox(clause):
    broken = globals()[clause.name.capitalize()]
    (verdict,) = run_sandbox_clauses(lambda: broken(SandboxSpec(), origin_of(SandboxSpec())), clauses=[clause])
    assert verdict.outcome == "failed"
    assert verdict.detail


def test_check_sandbox_quotes_the_law():
    class Liar(SubprocessSandbox):
        isolation = Capabilities("fortress", frozenset(), {})

    with pytest.raises(CheckError, match=r"law 'honest' is broken.*\n.*fortress"):
        check_sandbox(
            lambda: Liar(SandboxSpec(), origin_of(SandboxSpec())),
            clauses=[clause for clause in SANDBOX_CLAUSES if clause.name == "honest"],
        )


def test_ordinary_user_keeps_every_law(ordinary_user):
    code = (
        "from agentenv.sandboxes import open_sandbox\n"
        "from agentenv.testing import check_sandbox\n"
        "check_sandbox(lambda: open_sandbox(backend='namespace'))\n"
        "box = open_sandbox(backend='namespace')\n"
        "print(sorted(box.isolation.missing))\n"
    )
    result = ordinary_user(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['counted_by_user', 'memory', 'process_snapshot']"


def test_without_namespaces_it_fails_closed(ordinary_user):
    code = (
        "import subprocess, sys\n"
        "from agentenv.sandboxes import open_sandbox\n"
        "try: open_sandbox()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    result = ordinary_user(
        code, before=("unshare", "-Urm", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh")
    )
    assert result.stdout.startswith("SandboxError no sandbox that promises 'namespace' could be opened"), result
    assert "namespaces cannot be used here" in result.stdout


@pytest.mark.parametrize("place", ["namespace", "process"])
def test_variables_lead_to_workspace_and_tmp_wherever_they_are(place):
    """What only begins alike stays as it is."""
    with opener(place)(base={"src/mine.py": "X = 7\n"}, env={"PYTHONPATH": "/workspace/src:/tmp"}) as box:
        box.exec("echo 'Y = 8' > $TMPDIR/other.py")
        result = box.exec(["python3", "-c", "import mine, other; print(mine.X, other.Y)"])
        assert result.stdout == "7 8\n", result
        own = box.exec("pwd").stdout.strip()
        result = box.exec("echo $A:$TMPDIR", env={"A": "/workspaces:x/workspace:/workspace"})
        tmp = box.exec("cd $TMPDIR; pwd").stdout
        assert result.stdout == f"/workspaces:x/workspace:{own}:{tmp}"
