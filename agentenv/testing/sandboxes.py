"""Checks that a sandbox keeps the contract: `check_sandbox` for any back end, bundled or yours.

The contract is a list of laws about what a sandbox does. What it keeps commands from doing is another matter: its
`isolation` says what of that was found to hold, and `tests/sandboxes` attacks it.
"""

import gc
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from agentenv.errors import SandboxError, SandboxLost, SnapshotError, WorkspaceError
from agentenv.protocols import Sandbox
from agentenv.testing.clauses import Broken, Clause, ClauseResult, require_kept, try_clauses

__all__ = ["SANDBOX_CLAUSES", "check_sandbox", "run_sandbox_clauses"]

Make = Callable[[], Sandbox]
_LEVELS = ("none", "process", "namespace", "container", "kernel")
_SECRET = "AGENTENV_CHECK_SECRET"  # noqa: S105  a name, not a password


def _expect(condition: object, seen: str) -> None:
    if not condition:
        raise Broken(None, seen)


# ---------------------------------------------------------------------- commands


def _result(make: Make) -> None:
    with closing(make()) as box:
        result = box.exec(["sh", "-c", 'printf "%s" "$1"; printf err >&2; exit 3', "sh", "a b  *"])
        _expect((result.exit_code, result.stdout, result.stderr) == (3, "a b  *", "err"), repr(result))
        _expect(box.exec(["agentenv-no-such-program"]).exit_code == 127, "a program that does not exist was not 127")
        killed = box.exec("kill -TERM $$")
        _expect(killed.exit_code == 128 + 15, f"a command killed by SIGTERM had exit code {killed.exit_code}, not 143")
        _expect(box.exec("echo text").stdout == "text\n", "text was not given to a shell")


def _stdin(make: Make) -> None:
    with closing(make()) as box:
        _expect(box.exec(["cat"]).stdout == "", "a command without stdin did not find it empty")
        large = b"0123456789" * 100_000
        counted = box.exec(["wc", "-c"], stdin=large).stdout.strip()
        _expect(counted == "1000000", f"of 1000000 bytes of stdin {counted} arrived")
        _expect(box.exec(["cat"], stdin="é").stdout == "é", "text did not arrive as UTF-8")


def _environment(make: Make) -> None:
    os.environ[_SECRET] = "secret"
    try:
        with closing(make()) as box:
            seen = box.exec("env; echo given=$GIVEN", env={"GIVEN": "1"}).stdout
    finally:
        del os.environ[_SECRET]
    _expect(_SECRET not in seen, "a command inherited the environment of the parent")
    _expect("given=1" in seen, "the variables given to exec did not arrive")


def _folder(make: Make) -> None:
    with closing(make()) as box:
        box.write("inner/name", b"")
        _expect(box.exec("ls", cwd="inner").stdout == "name\n", "cwd was ignored")
        for path in ("missing", "../..", "/"):
            _refuses(WorkspaceError, lambda path=path: box.exec("true", cwd=path), f"exec(cwd={path!r})")


def _deadline(make: Make) -> None:
    with closing(make()) as box:
        began = time.monotonic()
        result = box.exec("trap '' TERM INT HUP; echo begun; while true; do sleep 1; done", timeout_s=0.5)
        _expect(result.timed_out and time.monotonic() - began < 10, f"a deadline of 0.5 s was not kept: {result}")
        _expect(result.stdout == "begun\n", "what a command printed before its deadline was lost")
        quick = box.exec("true", timeout_s=30)
        _expect(quick.exit_code == 0 and not quick.timed_out, "the sandbox did not work after a deadline")


def _output(make: Make) -> None:
    with closing(make()) as box:
        result = box.exec("head -c 20000000 /dev/zero; echo end >&2")
        _expect(result.truncated and len(result.stdout) < 20_000_000, "20 MB of output came back, without `truncated`")
        _expect(result.exit_code == 0 and result.stderr == "end\n", "a command that printed too much did not finish")
        _expect(not box.exec("echo short").truncated, "short output was called truncated")


def _survivors(make: Make) -> None:
    with closing(make()) as box:
        began = time.monotonic()
        box.exec("(setsid sh -c 'while true; do echo x >> tick; sleep 0.05; done' &) ; sleep 0.2")
        _expect(time.monotonic() - began < 10, "a background process that holds the output kept exec waiting")
        first = box.read("tick")
        time.sleep(0.3)
        _expect(box.read("tick") == first, "a background process lived on after its command")


# ---------------------------------------------------------------------- files


def _files(make: Make) -> None:
    with closing(make()) as box:
        content = bytes(range(256))
        box.write("a/b/c.bin", content)
        _expect(box.read("a/b/c.bin") == content, "a file did not come back as it was written")
        box.write("a/b/c.bin", b"new")
        _expect(box.exec("cat a/b/c.bin").stdout == "new", "a command did not see what was written")
        _expect(box.exec("echo more >> a/b/c.bin").exit_code == 0, "a command cannot change what was written")
        box.exec("echo x > made; ln -s made inside; ln -s ../../../../etc/passwd link; ln -s / root; mkfifo pipe")
        _expect(box.read("inside") == b"x\n", "a link inside the workspace could not be read")
        for path in ("missing", "a", "../x", "/etc/passwd", "link", "root/etc/passwd", "pipe", "a/../../x"):
            _refuses(WorkspaceError, lambda path=path: box.read(path), f"read({path!r})")
        for path in ("../x", "/etc/agentenv-check", "link", "root/tmp/agentenv-check", "pipe", "a"):
            _refuses(WorkspaceError, lambda path=path: box.write(path, b"x"), f"write({path!r})")


def _transfer(make: Make) -> None:
    with closing(make()) as box:
        box.upload({"src/a.py": "a", "src/b.txt": b"\0b", "c.py": "c"})
        box.exec("ln -s a.py src/d.py; mkfifo src/e.py")
        found = box.export(["*.py"])
        _expect(found == {"src/a.py": b"a", "c.py": b"c"}, f"export(['*.py']) returned {found}")
        _refuses(ValueError, lambda: box.upload({"../x": "x"}), "upload of '../x'")


def _changes(make: Make) -> None:
    with closing(make()) as box:
        box.upload({"kept": "1", "changed": "1", "gone": "1"})
        before = box.snapshot()
        _expect(box.changes(before) == [], "changes were reported where nothing changed")
        box.exec("echo 2 > changed; rm gone; mkdir new; echo n > new/file")
        found = [(change.path, change.kind) for change in box.changes(before)]
        right = [("changed", "modified"), ("gone", "deleted"), ("new", "added"), ("new/file", "added")]
        _expect(found == right, f"changes returned {found}")


# ---------------------------------------------------------------------- snapshots

_STATE = "find . | sort | xargs ls -ld --time-style=+ | cut -c1-10; cat $(find . -type f | sort); ls $TMPDIR"
_MESS = (
    "echo one > f; mkdir -p d/e; echo two > d/e/g; ln -s f l; chmod 700 f; echo t > $TMPDIR/t; rm -f old; "
    "rm -rf swap; mkdir swap; echo s > swap/s"
)


def _mess(box: Sandbox) -> Any:
    box.upload({"old": "o", "swap/below": "b"})
    before = box.snapshot()
    _expect(box.exec(_MESS).exit_code == 0, "the commands of the check failed")
    return before


def _equal(make: Make) -> None:
    with closing(make()) as box:
        _mess(box)
        state = box.exec(_STATE).stdout
        snapshot = box.snapshot()
        for _ in range(3):
            box.exec("rm -rf f d l swap; echo x > other; rm -rf $TMPDIR/*")
            box.restore(snapshot)
            _expect(box.exec(_STATE).stdout == state, "the files were different after restore")
            _expect(box.snapshot().content_id == snapshot.content_id, "the content id was different after restore")


def _valid(make: Make) -> None:
    box = make()
    _mess(box)
    state, first = box.exec(_STATE).stdout, box.snapshot()
    for number in range(3):
        box.exec(f"echo {number} > f; rm -rf d")
        box.snapshot()
    box.restore(first)
    _expect(box.exec(_STATE).stdout == state, "a snapshot changed while the sandbox moved on")
    box.exec("echo again > f")
    box.close()
    with closing(make()) as other:
        other.restore(first)
        _expect(other.exec(_STATE).stdout == state, "a snapshot did not outlive its sandbox")


def _pure(make: Make) -> None:
    with closing(make()) as box:
        _mess(box)
        state = box.exec(_STATE).stdout
        first = box.snapshot()
        _expect(box.exec(_STATE).stdout == state, "snapshot changed the files")
        _expect(box.snapshot().content_id == first.content_id, "two snapshots of one state have different content ids")
        _expect(box.exec("echo more >> d/e/g && rm f && mkdir f").exit_code == 0, "commands fail after a snapshot")


def _undo(make: Make) -> None:
    with closing(make()) as box:
        before = _mess(box)
        shell = box.shell()
        shell.run("(while true; do echo x >> tick; sleep 0.05; done) > /dev/null 2>&1 &")
        time.sleep(0.1)
        box.restore(before)
        time.sleep(0.2)
        left = box.exec("ls; cat old swap/below; ls $TMPDIR").stdout
        _expect(left == "old\nswap\nob", f"after restore the workspace and tmp held {left!r}")
        _refuses(SandboxError, lambda: shell.run("true"), "a shell from before restore")


def _siblings(make: Make) -> None:
    with closing(make()) as box:
        box.write("shared", "0")
        children = box.fork(3)
        try:
            for number, child in enumerate(children):
                child.exec(f"echo {number} > own; echo {number} >> shared; echo {number} > $TMPDIR/own")
            box.exec("echo parent > own")
            for number, child in enumerate(children):
                seen = child.exec("cat own shared $TMPDIR/own; ls").stdout
                right = f"{number}\n0{number}\n{number}\nown\nshared\n"
                _expect(seen == right, f"fork {number} saw {seen!r}, not {right!r}")
            _expect(box.exec("cat own shared").stdout == "parent\n0", "the original saw what a fork did")
            _expect(box.fork(0) == [], "fork(0) returned something")
        finally:
            for child in children:
                child.close()


def _travels(make: Make) -> None:
    with closing(make()) as box:
        _mess(box)
        state, snapshot = box.exec(_STATE).stdout, box.snapshot()
        identity = snapshot.content_id
        data = pickle.dumps(snapshot)
    del snapshot, box
    gc.collect()
    with closing(make()) as other:
        copy = pickle.loads(data)  # noqa: S301  our own bytes
        other.restore(copy)
        _expect(other.exec(_STATE).stdout == state, "a pickled snapshot restored to other files")
        _expect(copy.content_id == identity, "a pickled snapshot has another content id")


def _content(make: Make) -> None:
    with closing(make()) as left, closing(make()) as right:
        left.exec("mkdir d; echo 1 > d/a; echo 2 > d/b")
        right.exec("mkdir d; echo 2 > d/b; echo x > d/c; echo 0 > d/a")
        right.snapshot()
        right.exec("rm d/c; echo 1 > d/a")
        same = left.snapshot().content_id
        _expect(right.snapshot().content_id == same, "equal files, reached in two ways, have different content ids")
        for command in ("chmod 600 d/a", "chmod 644 d/a; echo 3 > d/b", "echo 2 > d/b; mkdir e", "rmdir e; ln -s d e"):
            right.exec(command)
            _expect(right.snapshot().content_id != same, f"the content id did not change after: {command}")


# ---------------------------------------------------------------------- the rest


def _shell(make: Make) -> None:
    with closing(make()) as box:
        box.write("d/f", "in d")
        shell = box.shell()
        first = shell.run("cd d; X=5; f() { echo $X; }; false")
        _expect(first.exit_code == 1, f"a shell's command had exit code {first.exit_code}, not 1")
        second = shell.run("cat f; f; echo err >&2")
        _expect((second.stdout, second.stderr) == ("in d5\n", "err\n"), f"a shell forgot its state: {second}")
        frozen = box.snapshot()
        _expect(shell.run("echo $X").stdout == "5\n", "a snapshot ended the shell")
        _refuses(SandboxError, box.shell, "a second shell")
        late = shell.run("sleep 30", timeout_s=0.3)
        _expect(late.timed_out, "a shell's deadline was not kept")
        _refuses(SandboxError, lambda: shell.run("true"), "a shell after its deadline")
        _expect(box.exec("cat d/f").stdout == "in d", "exec does not work after a shell")
        box.restore(frozen)
        with closing(box.shell()) as other:
            _expect(other.run("echo [$X]").stdout == "[]\n", "a new shell remembers an old one")


def _honest(make: Make) -> None:
    box = make()
    with closing(box):
        isolation = box.isolation
        _expect(isolation.level in _LEVELS, f"isolation.level is {isolation.level!r}, none of {_LEVELS}")
        _expect(all(isolation.missing.values()), "a missing promise has no reason")
        _expect(not isolation.enforced & isolation.missing.keys(), "a promise is both enforced and missing")
        if "process_snapshot" not in isolation.enforced:
            _refuses(SandboxError, lambda: box.snapshot(processes=True), "snapshot(processes=True)")
        _refuses(SnapshotError, lambda: box.restore(object()), "restore(object())")
        _refuses(ValueError, lambda: box.exec([]), "exec([])")
        _refuses(ValueError, lambda: box.exec("true", timeout_s=0), "exec(timeout_s=0)")
        _refuses(ValueError, lambda: box.fork(-1), "fork(-1)")
    box.close()
    _refuses(SandboxError, lambda: box.exec("true"), "exec after close")
    _refuses(SandboxError, box.snapshot, "snapshot after close")


def _threads(make: Make) -> None:
    with closing(make()) as box:
        wrong: list[str] = []

        def work(number: int) -> None:
            for turn in range(5):
                text = f"{number}.{turn}"
                box.write(f"t{number}", text)
                seen = box.exec(["cat", f"t{number}"]).stdout
                if seen != text:
                    wrong.append(f"{seen!r} instead of {text!r}")

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        _expect(not wrong, f"threads got each other's answers: {wrong[:3]}")


def _blame(make: Make) -> None:
    with closing(make()) as other:
        isolated = "processes" in other.isolation.enforced  # where it is not, these would end the caller's processes
        for command in ("kill -9 $$", *(("kill -9 -1", "kill -9 1", "kill -STOP -1") if isolated else ())):
            box = make()
            try:
                box.write("kept", "before")
                snapshot = box.snapshot()
                with suppress(SandboxError):  # what it did may cost it its sandbox
                    box.exec(command, timeout_s=3)
                box = _back_at(box, snapshot, make)
                found = box.exec("cat kept").stdout
                _expect(found == "before", f"after {command!r} and restore, a file held {found!r}, not what it did")
            finally:
                box.close()
            _expect(other.exec("echo on").stdout == "on\n", f"{command!r} in one sandbox harmed another")


def _back_at(box: Sandbox, snapshot: Any, make: Make) -> Sandbox:
    """Restores here, or, where the sandbox is lost, in another one."""
    try:
        box.restore(snapshot)
    except SandboxError:
        box.close()
        box = make()
        box.restore(snapshot)
    return box


def _lost(make: Make) -> None:
    with closing(make()) as box:
        box.write("kept", "before")
        snapshot = box.snapshot()
        try:
            box.exec("kill -9 $PPID; sleep 0.2", timeout_s=5)  # whoever runs it, where it can be reached at all
        except SandboxLost:
            pass
        except SandboxError as error:
            seen = f"a command that ended its sandbox raised {type(error).__name__}, not SandboxLost: {error}"
            raise Broken(None, seen) from error
        try:
            box.restore(snapshot)
        except SandboxError as error:
            raise Broken(None, f"a sandbox that was lost could not be restored: {error}") from error
        _expect(box.exec("cat kept").stdout == "before", "a sandbox that was lost and restored has other files")


def _leaks(make: Make) -> None:
    make().close()  # what the first one starts may stay
    gc.collect()
    before = _open_files(), _children()
    rounds = 3
    for _ in range(rounds):
        with closing(make()) as box:
            box.exec("echo x > f")
            for child in box.fork(2):
                child.close()
    gc.collect()
    time.sleep(0.1)
    after = _open_files(), _children()
    grown = after[0] - before[0] >= rounds or after[1] - before[1] >= rounds  # a pool of connections may grow by one
    _expect(not grown, f"open files and child processes went from {before} to {after} in {rounds} rounds")


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def _children() -> int:
    file = Path(f"/proc/self/task/{os.getpid()}/children")
    return len(file.read_text().split()) if file.exists() else 0


def _refuses(error: type[Exception], call: Callable[[], object], what: str) -> None:
    try:
        value = call()
    except error:
        return
    except Exception as other:
        seen = f"{what} raised {type(other).__name__}: {other}; it should raise {error.__name__}"
        raise Broken(None, seen) from other
    raise Broken(None, f"{what} returned {value!r:.80}; it should raise {error.__name__}")


# ---------------------------------------------------------------------- the laws


SANDBOX_CLAUSES: tuple[Clause[Make], ...] = (
    Clause("result", "exec returns exit code, stdout and stderr as the command left them", _result),
    Clause("stdin", "a command reads exactly what stdin holds, and nothing without it", _stdin),
    Clause("environment", "nothing of the parent's environment is inherited; what is given arrives", _environment),
    Clause("folder", "cwd is a folder of the workspace, or WorkspaceError", _folder),
    Clause("deadline", "a command is killed at its deadline, whatever it ignores, and says so", _deadline),
    Clause("output", "output beyond the limit is dropped, and says so; the command goes on", _output),
    Clause("survivors", "nothing of a command survives it", _survivors),
    Clause("files", "read and write reach regular files of the workspace and nothing else", _files),
    Clause("transfer", "upload writes many files; export returns the regular files that match", _transfer),
    Clause("changes", "changes lists what differs from a snapshot", _changes),
    Clause("equal", "restore brings back the same files, on every restore", _equal),
    Clause("valid", "a snapshot stays valid while the sandbox moves on, and after close", _valid),
    Clause("pure", "snapshot changes nothing", _pure),
    Clause("undo", "restore undoes everything: files, tmp, processes, shells", _undo),
    Clause("siblings", "siblings of a fork never see each other", _siblings),
    Clause("travels", "a pickled snapshot restores to the same files", _travels),
    Clause("content", "content ids are equal exactly where paths, modes and contents are", _content),
    Clause("shell", "a shell keeps its state until it is closed, killed or undone", _shell),
    Clause("honest", "what cannot be done raises, and isolation gives a reason for what is missing", _honest),
    Clause("threads", "any thread may call any method", _threads),
    Clause("blame", "a command that brings its sandbox down harms no other, and restore undoes it", _blame),
    Clause("lost", "a command that ends its sandbox raises SandboxLost; restore brings the same sandbox back", _lost),
    Clause("leaks", "nothing is left after close: no process, no open file", _leaks),
)
"""The laws that `check_sandbox` tries."""


def run_sandbox_clauses(make: Make, *, clauses: Sequence[Clause[Make]] = SANDBOX_CLAUSES) -> list[ClauseResult]:
    """Tries every law and returns the verdicts; see `check_sandbox`."""
    return try_clauses(make, clauses)


def check_sandbox(make: Make, *, clauses: Sequence[Clause[Make]] = SANDBOX_CLAUSES) -> None:
    """Raises unless sandboxes keep every law of the contract (`SANDBOX_CLAUSES`).

    Args:
        make: opens a sandbox with an empty workspace and limits of at least 1 MB of files and 8 processes; called
            several times per law.
        clauses: the laws to try.

    Raises:
        CheckError: laws are broken; the message quotes each and says what was seen.
    """
    require_kept(run_sandbox_clauses(make, clauses=clauses))
