"""Starting a command: what the command is to blame for has an exit code; everything else says why and has none."""

import errno
import importlib
import os
import sys

import pytest

from agentenv.sandboxes.guest.launch import Command, Launcher, PrepareFault, check_prepared


def import_late():
    importlib.import_module("antigravity")  # a module that nothing else has imported


def nest(depth=0):
    nest(depth + 1)


def raising(error):
    def prepare():
        raise error

    return prepare


def start(prepare, argv=("true",), *, ready=False, **fields):
    """Starts a command as a guest does; returns its exit code and what it wrote."""
    launcher = Launcher(prepare)
    if ready:
        launcher.refill()
    command = Command(list(argv), fields.get("cwd", "/"), fields.get("env", {"PATH": "/usr/bin:/bin"}), b"", 5, 1000)
    started = launcher.start(command)
    code = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
    try:
        check_prepared(started.faults)
        return code, os.read(started.err, 1000).decode()
    finally:
        started.close()


@pytest.mark.parametrize("ready", [False, True], ids=["at once", "kept ready"])
@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (import_late, "the guest needs 'antigravity'"),
        (raising(KeyError("limit")), "KeyError: 'limit'"),
        (raising(OSError(errno.EMFILE, "Too many open files", "/proc/self/uid_map")), "/proc/self/uid_map: Too many"),
        (raising(OSError()), "OSError: "),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (raising(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")), "UnicodeDecodeError: "),
        (raising(MemoryError()), "MemoryError: "),
        (nest, "RecursionError: "),
    ],
)
def test_a_guest_that_raises_before_it_can_execute_says_why(prepare, says, ready):
    with pytest.raises(PrepareFault) as caught:
        start(prepare, ready=ready)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "fields", "code", "says"),
    [
        (["no-such-program"], {}, 127, "no-such-program: not found"),
        (["/etc/passwd"], {}, 126, "/etc/passwd: Permission denied"),
        (["true"], {"cwd": "/nowhere"}, 127, "not found"),
        (["true"], {"env": {"PATH": "/nowhere:/etc/passwd"}}, 127, "not found"),
        (["passwd"], {"env": {"PATH": "/etc:/nowhere"}}, 126, "Permission denied"),
        (["true"], {"env": {}}, 0, ""),
        (["./true"], {"cwd": "/usr/bin", "env": {"PATH": ""}}, 0, ""),
        (["true", "x" * 3_000_000], {}, 126, "Argument list too long"),
        (["tr\0ue"], {}, 126, "cannot be executed"),
    ],
)
def test_what_the_command_is_to_blame_for_has_an_exit_code(argv, fields, code, says):
    found, text = start(lambda: None, argv, **fields)
    assert (found, says in text) == (code, True), text


def test_a_machine_that_cannot_execute_says_so():
    """Execution that fails for a reason of the machine is nobody's exit code."""

    def prepare():
        def refuse(*args):
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        os.execve = refuse

    with pytest.raises(PrepareFault, match="Cannot allocate memory"):
        start(prepare)


def test_commands_run_on_this_interpreter(box):
    """Also where its files are out of a sandbox's reach: the guest has imported what it needs."""
    assert (box.exec("echo $0").stdout, box.exec(["nope"]).exit_code) == ("sh\n", 127), sys.version
    with box.shell() as shell:
        assert shell.run("echo here").stdout == "here\n"
