"""What a command leaves or holds harms itself alone for an ordinary user, too; see `test_blame.py`."""

import json
import platform
import tempfile
from pathlib import Path

import pytest
from sandbox_attacks import PRELUDE

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of system calls are those of x86-64"
)
HERE = Path(__file__).parent
AS_ANYBODY = """
import ctypes, fcntl, json, os, sys, threading, time
from pathlib import Path
from agentenv.sandboxes import Limits, open_sandbox
place, scripts, sibling_script, host_works, shown = json.load(open(%r))
exec(host_works)
limits = Limits(time_s=20, memory=128 << 20, processes=64, disk=16 << 20, files=2000, file_size=64 << 20)
def make(): return open_sandbox(backend=place, require="process", limits=limits, base={"kept": "k"})
env = dict.fromkeys(("CANARY", "PORT", "SOCKET", "ABSTRACT", "HOST_PID"), "")
def python(box, code, *words): return box.exec(["/usr/bin/python3", "-c", code, *words], env=env)
with make() as box, make() as sibling:
    before = box.snapshot()
    for name, code, holds in scripts:
        if holds:
            thread = threading.Thread(target=python, args=(box, code + "\\nopen('held', 'w').close(); time.sleep(1.5)"))
            thread.start()
            time.sleep(0.7)
            _host_works()
            result = python(sibling, sibling_script, *(shown if "locks" in name else ()))
            if (result.exit_code, result.stdout) != (0, "fine\\n"): print(name, "is felt by a sibling:", result)
            sibling.restore(sibling.snapshot())
            thread.join()
            if box.exec("ls held").stdout != "held\\n": print(name, "did not hold")
        elif "Traceback" in python(box, code).stderr: print(name, "did not run")
        with box.fork(1)[0] as child:
            if child.exec("cat kept").stdout != "k": print(name, "is felt by a fork")
        box.restore(before)
        if box.changes(before) or box.exec("ls; cat kept").stdout != "kept\\nk": print(name, "outlives a restore")
        shm = box.exec("stat -c %%a /dev/shm; ls -A /dev/shm").stdout
        if place == "namespace" and shm != "1777\\n": print(name, "outlives a restore in /dev/shm:", shm)
    if place == "namespace":  # elsewhere an ordinary user's commands change no modes
        look = "stat -c %%a d f s"
        box.exec("mkdir d s; touch f; chmod 2775 d; chmod 6711 f; chmod 1777 s")
        state = box.snapshot()
        box.restore(before)
        box.restore(state)
        if box.exec(look).stdout != "2775\\n6711\\n1777\\n": print("modes do not survive", box.exec(look))
print("done")
"""


def texts(name):
    """Returns a table of `test_blame.py`, which is a module of tests: it is read, not imported."""
    names = {}
    for wanted, last in {"CYCLE": '"""', "PINNED": "}", "LEFT": "}", "HELD": "}", "SIBLING": '"""'}.items():
        exec(part(f"{wanted} = ", f"\n{last}\n") + last, names)
    exec(part("LOCKED = ", "\n"), names)
    return names[name]


def part(begin, end):
    """Returns what of `test_blame.py` begins a line so, up to the end."""
    source = (HERE / "test_blame.py").read_text(encoding="utf-8")
    start = source.index(f"\n{begin}")
    return source[start : source.index(end, start + 1) + 1]


@pytest.mark.kernel
@pytest.mark.parametrize("place", ["namespace", "process"])
def test_what_a_command_leaves_or_holds_harms_itself_alone(place, ordinary_user):
    head = PRELUDE + texts("CYCLE")
    tables = texts("PINNED") | (texts("LEFT") if place == "namespace" else {})
    left = {name: code for name, code in tables.items() if place == "namespace" or "/" not in code}
    held = {name: code for name, code in texts("HELD").items() if place == "namespace" or "locks" not in name}
    scripts = [(name, head + code, False) for name, code in left.items() if place == "namespace" or "full" not in name]
    scripts += [(name, head + code, True) for name, code in held.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        host_works = part("def _host_works", "\n@pytest")
        json.dump([place, scripts, head + texts("SIBLING"), host_works, texts("LOCKED")], file)
        file.flush()
        Path(file.name).chmod(0o644)
        result = ordinary_user(AS_ANYBODY % file.name)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "done\n", result.stdout
