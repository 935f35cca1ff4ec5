"""Every attack of the table is refused, and the table bites where there is no isolation."""

import ast
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sandbox_attacks import ATTACKS, PRELUDE
from sandbox_backends import marks, opener, skip_without

from agentenv.sandboxes import Limits
from agentenv.sandboxes.guest.landlock import landlock_version

SECRET = "secret-3141"
LIMITS = Limits(time_s=20, memory=256 << 20, processes=64, disk=64 << 20, files=3000, file_size=64 << 20)
NOT_PROMISED = {  # as `isolation` says
    ("podman", "use up inodes"),
    ("podman", "files in /dev/shm without end"),
    ("podman", "files in /tmp without end"),
    ("gvisor", "use up inodes"),
    ("gvisor", "files in /dev/shm without end"),
    ("gvisor", "files in /tmp without end"),
}
COUNTED_APART = {  # for a user that nobody else is, or by a kernel of its own: it harms nobody, see test_blame.py
    "docker": ("inotify instances", "inotify instances over processes", "watches on everything"),
    "gvisor": (
        "inotify instances",
        "inotify instances over processes",
        "watches on everything",
        "timers",
        "queued signals",
        "terminals",
        "terminals by their device",
        "descriptors in flight",
        "queues of System V",
        "semaphores of System V",
        "lock much memory",
        "lock all memory to come",
    ),
}
COUNTED_APART["podman"] = COUNTED_APART["docker"]
HARMLESS = {  # what gVisor's kernel, which is each sandbox's own, answers where Linux refuses
    # the guest's addresses, its few variables and the numbers of its files; neither its memory nor what they lead to
    "read the memory of PID 1": {f"'/proc/1/{name}'" for name in ("maps", "environ", "auxv", "fd")},
    "real-time priority": {"nice (-5,)"},  # a number that nothing looks at
    "be spared when memory is short": {"spared by oom_score_adj"},  # likewise: that kernel kills nobody for memory
}
CASES = [
    pytest.param(place, attack, id=f"{place}-{attack.name}", marks=marks(place))
    for place in ("namespace", "docker", "podman", "gvisor")
    for attack in ATTACKS
    if (place, attack.name) not in NOT_PROMISED and attack.name not in COUNTED_APART.get(place, ())
]
QUICK = {"never end": 1.0, "ignore every signal": 1.0}


@pytest.fixture(scope="module")
def host():
    """What attacks aim at: a secret file, a listener, sockets, a process, and a variable of the environment."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="agentenv-attack-") as folder:
        canary = Path(folder, "canary.txt")
        canary.write_text(SECRET)
        canary.chmod(0o666)
        Path(folder).chmod(0o777)
        tcp = socket.create_server(("127.0.0.1", 0))
        name, path = f"agentenv-{os.getpid()}", str(Path(folder, "socket"))
        listeners = [tcp]
        for address in (path, "\0" + name):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(address)
            listener.listen()
            listeners.append(listener)
        os.environ["AGENTENV_ATTACK"] = SECRET
        sleeper = subprocess.Popen(["sleep", "271828"])
        yield {
            "CANARY": str(canary),
            "PORT": str(tcp.getsockname()[1]),
            "SOCKET": path,
            "ABSTRACT": name,
            "HOST_PID": str(sleeper.pid),
        }
        del os.environ["AGENTENV_ATTACK"]
        assert sleeper.poll() is None, "an attack killed a process of the host"
        assert canary.read_text() in {SECRET, SECRET + "x\n"}
        sleeper.kill()
        sleeper.wait()
        for listener in listeners:
            listener.close()


@pytest.fixture(scope="module")
def boxes():
    """One sandbox per place, kept for all attacks: what one breaks, the next would show."""
    opened = {}
    yield opened
    for sandbox in opened.values():
        sandbox.close()


def run(sandbox, attack, host):
    argv = ["sh", "-c", attack.code + "\necho TRIED"]
    if attack.language == "py":
        argv = ["/usr/bin/python3", "-c", PRELUDE + attack.code + "\nprint('TRIED')"]
    return sandbox.exec(argv, env=host, timeout_s=QUICK.get(attack.name))


@pytest.mark.kernel
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of system calls in the table are those of x86-64"
)
@pytest.mark.parametrize(("place", "attack"), CASES)
def test_attack_is_refused(place, attack, host, boxes):
    skip_without(place)
    if place not in boxes:
        boxes[place] = opener(place)(limits=LIMITS)
    sandbox = boxes[place]
    for _ in range(2 if place == "namespace" else 1):  # the second time shows what the first left behind
        result = run(sandbox, attack, host)
        breaches = [line for line in (result.stdout + result.stderr).splitlines() if "BREACH" in line]
        harmless = HARMLESS.get(attack.name, ()) if place == "gvisor" else ()
        assert not [line for line in breaches if not any(known in line for known in harmless)]
        died = result.timed_out or result.oom or result.exit_code >= 128
        assert died or "TRIED" in result.stdout + result.stderr, result
    assert sandbox.exec("echo alive; ls late 2>/dev/null").stdout == "alive\n"


@pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")
@pytest.mark.parametrize("attack", [attack for attack in ATTACKS if attack.bites], ids=lambda attack: attack.name)
def test_attack_works_without_isolation(attack, host):
    with opener("subprocess")() as sandbox:
        assert "BREACH" in run(sandbox, attack, host).stdout


REFUSED_BY_THE_FILTER = {  # which the process back end has, too
    "contexts of asynchronous I/O",
    "submit asynchronous I/O",
    "which pages are in memory",
    "statistics of the cache",
    "read only what is in memory",
    "read an own file only where it is in memory",
    "lease on a file of the system",
    "lease on an own file",
    "be told of a folder",
    "fanotify",
    "keyrings",
    "secret memory",
    "queues of System V",
    "message queues",
    "numbers of processes",
    "huge pages of the machine",
    "huge pages of the machine, without a file",
}
WITHOUT_NAMESPACES = [attack for attack in ATTACKS if attack.bites or attack.name in REFUSED_BY_THE_FILTER]


@pytest.mark.parametrize("attack", WITHOUT_NAMESPACES, ids=lambda attack: attack.name)
def test_attack_is_refused_without_namespaces(attack, host):
    """The process back end refuses at least what harms without isolation; not all of the table."""
    with opener("process")() as sandbox:
        result = run(sandbox, attack, host)
        assert "BREACH" not in result.stdout
        assert "TRIED" in result.stdout or result.exit_code == 1, result


COUNTED_WITH_THE_USER = {  # no control group: what no process has is not counted, and `isolation.missing` says so
    "connections full of data",
    "memory files",
    "memory files that are on their way",
    "memory files of a process that is gone, spared by the kernel",
    "socket buffers",
    "great pipes",
}
AS_ANYBODY = """
import json, sys
from agentenv.sandboxes import Limits, open_sandbox
env = dict.fromkeys(("CANARY", "PORT", "SOCKET", "ABSTRACT", "HOST_PID"), "1")
box = open_sandbox(backend=%r, require="process", limits=Limits(**%r))
for name, argv, timeout_s in json.load(open(sys.argv[1])):
    result = box.exec(argv, env=env, timeout_s=timeout_s)
    said = result.stdout + result.stderr
    died = result.timed_out or result.oom or result.exit_code >= 128
    if "BREACH" in said or not (died or "TRIED" in said):
        print(name, result)
    if box.exec("echo alive").stdout != "alive\\n":
        print(name, "broke the sandbox")
print("memory" in box.isolation.missing)
"""


@pytest.mark.kernel
@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of system calls in the table are those of x86-64"
)
@pytest.mark.parametrize("place", ["namespace", "process"])
def test_attacks_are_refused_for_an_ordinary_user(place, ordinary_user):
    aimed = {attack.name for attack in ATTACKS if any(name in attack.code for name in ("CANARY", "HOST_PID", "PORT"))}
    table = []
    for attack in ATTACKS:
        if attack.name in aimed | COUNTED_WITH_THE_USER | {"fill /tmp", "fill the workspace", "300 MB of output"}:
            continue
        if place == "process" and attack.name not in REFUSED_BY_THE_FILTER:
            continue
        argv = ["sh", "-c", attack.code + "\necho TRIED"]
        if attack.language == "py":
            argv = ["/usr/bin/python3", "-c", PRELUDE + attack.code + "\nprint('TRIED')"]
        table.append((attack.name, argv, QUICK.get(attack.name, 20.0)))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(table, file)
        file.flush()
        Path(file.name).chmod(0o644)
        limits = {name: getattr(LIMITS, name) for name in LIMITS.__slots__}
        code = f"import sys; sys.argv[1:] = [{file.name!r}]\n" + AS_ANYBODY % (place, limits)
        result = ordinary_user(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout in {"True\n", "False\n"}, result.stdout


PROBED = """
from agentenv.sandboxes import guest_process, open_sandbox, probing
def found():
    with open_sandbox(backend="process", require="process") as box:
        return {name: probing._ATTACKS[name](box) for name in ("processes", "constant_snapshot", "process_snapshot")}
print(found())
argv = guest_process.guest_argv
def older(module):
    *start, code = argv(module)
    old = "import guest.landlock; guest.landlock.landlock_version = lambda: 5; "
    return [*start, code.replace("from guest.", old + "from guest.", 1)]
guest_process.guest_argv = older
print(found())
"""


@pytest.mark.kernel
@pytest.mark.skipif(landlock_version() < 6, reason="nothing to compare with")
@pytest.mark.parametrize("user", ["this", "ordinary"])
def test_what_is_missing_is_found_by_trying(user, ordinary_user):
    """Signals to others of the same user: refused from Landlock 6 on, and whatever its version to a user apart."""
    if user == "this":
        result = subprocess.run([sys.executable, "-c", PROBED], capture_output=True, text=True, check=False)
    else:
        result = ordinary_user(PROBED)
    assert result.returncode == 0, result.stderr
    now, older = map(ast.literal_eval, result.stdout.splitlines())
    assert "bytes after a change of one" in now["constant_snapshot"]
    assert "cannot take running processes" in now["process_snapshot"]
    assert now["processes"] == ""
    same_user = user == "ordinary" or os.getuid() != 0
    assert ("can be signalled" in older["processes"]) == same_user


def test_table_is_long_enough():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 130
