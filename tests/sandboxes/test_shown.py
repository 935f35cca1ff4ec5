"""What a sandbox is shown of the host leads to nothing that is behind it: sockets, pipes, devices."""

import os
import select
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from sandbox_attacks import PRELUDE
from sandbox_backends import marks, opener, skip_without

from agentenv.errors import SandboxError

PLACES = [pytest.param(place, marks=marks(place)) for place in ("namespace", "docker", "podman", "gvisor")]
HOST = dict.fromkeys(("CANARY", "PORT", "SOCKET", "ABSTRACT", "HOST_PID"), "")


@pytest.fixture
def shown():
    """A folder of the host with a file, and one with a socket and a pipe that somebody is behind, and a link."""
    with tempfile.TemporaryDirectory(dir="/srv", prefix="agentenv-shown-") as top:
        Path(top).chmod(0o755)
        plain, other = Path(top, "plain"), Path(top, "other", "inner")
        plain.mkdir()
        other.mkdir(parents=True)
        (plain / "f").write_text("shown")
        (plain / "link").symlink_to("f")
        os.mkfifo(other / "pipe")
        (other / "pipe").chmod(0o666)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(other / "socket"))
        (other / "socket").chmod(0o777)
        listener.listen()
        reader = os.open(other / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        yield plain, other, reader
        os.close(reader)
        listener.close()


TALK = """
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    attempt(socket.socket(socket.AF_UNIX, kind).connect, sys.argv[1] + '/socket')
try: os.write(os.open(sys.argv[1] + '/pipe', os.O_WRONLY | os.O_NONBLOCK), b'x')
except OSError: pass
print('TRIED')
"""


@pytest.mark.kernel
@pytest.mark.skipif(os.getuid() != 0, reason="needs a folder outside of /tmp")
@pytest.mark.parametrize("place", [*PLACES, "process"])
def test_sockets_and_pipes_in_a_shown_folder_lead_nowhere(place, shown):
    skip_without(place)
    plain, other, reader = shown
    with opener(place)(readonly=(str(plain),)) as box:
        assert box.exec(f"cat {plain}/f {plain}/link").stdout == "shownshown"
    if place not in {"namespace", "gvisor"}:
        with pytest.raises(SandboxError, match=r"readonly cannot show .*inner.*is a socket or a pipe"):
            opener(place)(readonly=(str(other.parent),))
        return
    with opener(place)(readonly=(str(other.parent),)) as box:
        result = box.exec(["/usr/bin/python3", "-c", PRELUDE + TALK, str(other)], env={**HOST})
        assert result.stdout == "TRIED\n", result
    assert not select.select([reader], (), (), 0)[0] or os.read(reader, 1) == b""


@pytest.mark.kernel
@pytest.mark.skipif(os.getuid() != 0, reason="makes a device")
@pytest.mark.parametrize("place", [*PLACES, "process"])
def test_a_device_in_a_shown_folder_leads_nowhere(place, shown):
    skip_without(place)
    plain, _, _ = shown
    device = plain / "zero"
    device.mkdir()
    os.mknod(device / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    (device / "zero").chmod(0o666)
    if place not in {"namespace", "gvisor"}:
        with pytest.raises(SandboxError, match=r"readonly cannot show .*zero/zero' is a device by which"):
            opener(place)(readonly=(str(device),))
        return
    with opener(place)(readonly=(str(device),)) as box:
        assert "Permission denied" in box.exec(f"head -c 1 {device}/zero").stderr


TALK_AS_ANYBODY = """
import socket
import stat
import subprocess
import sys
from agentenv.sandboxes import open_sandbox
folder, code, env = %r
socket.socket(socket.AF_UNIX).connect(folder + "/socket")  # this user may
with open_sandbox(backend="namespace", readonly=(folder,)) as box:
    result = box.exec(["/usr/bin/python3", "-c", code, folder], env=env)
    print(result.stdout, result.stderr, box.exec(["ls", folder]).stdout)
try: open_sandbox(backend="process", require="process", readonly=(folder,))
except Exception as error: print(type(error).__name__, "is a socket or a pipe" in str(error))
"""


@pytest.mark.kernel
@pytest.mark.skipif(os.getuid() != 0, reason="needs a folder outside of /tmp")
def test_sockets_and_pipes_in_a_shown_folder_lead_nowhere_for_an_ordinary_user(shown, ordinary_user):
    _, other, reader = shown
    result = ordinary_user(TALK_AS_ANYBODY % ((str(other), PRELUDE + TALK, HOST),))
    assert result.stdout == "TRIED\n  pipe\nsocket\n\nSandboxError True\n", result
    assert not select.select([reader], (), (), 0)[0] or os.read(reader, 1) == b""
