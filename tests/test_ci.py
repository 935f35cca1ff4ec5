"""What CI leans on, tried as CI runs it: missing interpreters, tests that skip, the network, fresh seeds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / ".ci"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CI.exists(), reason="needs the repository, not a wheel")]


def run_planted(tmp_path, code, *options, **env):
    """Runs a test file of its own in a pytest of its own, with this suite's conftest."""
    (tmp_path / "test_planted.py").write_text(code)
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        ROOT / "pyproject.toml",
    ]
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "REQUIRE_", "COV"))}
    done = subprocess.run([*words, *options, tmp_path], capture_output=True, text=True, check=False,
                          env=environment | {"PYTHONPATH": paths} | env, cwd=tmp_path)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


SKIPS = """
import pytest
def test_here(): pass
def test_in_the_middle(): pytest.skip("no engine")
def test_import(): pytest.importorskip("no_such_module")
@pytest.mark.skipif(True, reason="not today")
def test_by_condition(): pass
@pytest.mark.gpu
def test_gpu(): pytest.skip("no CUDA")
@pytest.mark.data
def test_data(): pass
@pytest.mark.xfail
def test_expected(): assert False
"""


def test_a_skip_is_a_failure_where_everything_is_required(tmp_path):
    code, output = run_planted(tmp_path, SKIPS, AGENTENV_DATA="")
    assert code == 0 and "1 passed, 5 skipped, 1 xfailed" in output
    code, output = run_planted(tmp_path, SKIPS, AGENTENV_DATA="", REQUIRE_ALL="1")
    assert code == 1
    assert re.search(r"2 failed, 1 passed, 2 skipped, 1 xfailed, 1 error", output), output
    assert "skipped, which is a failure here" in output and "no engine" in output


def test_a_file_that_skips_as_a_whole_is_one_too(tmp_path):
    planted = "import pytest\npytest.importorskip('no_such_module')\ndef test(): pass\n"
    assert run_planted(tmp_path, planted)[0] == 5  # nothing was run
    code, output = run_planted(tmp_path, planted, REQUIRE_ALL="1")
    assert code not in {0, 5} and "is skipped as a whole" in output


NETWORK = """
import socket, urllib.request, asyncio
def test_connect(): socket.socket().connect(("192.0.2.1", 80))
def test_name(): socket.getaddrinfo("example.invalid", 80)
def test_datagram(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("198.51.100.7", 53))
def test_library(): urllib.request.urlopen("http://[2001:db8::1]/", timeout=1)
def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()
def test_pair(): socket.socketpair()
def test_asyncio():
    async def both():
        host = "::1" if socket.has_dualstack_ipv6() else "127.0.0.1"
        server = await asyncio.start_server(lambda r, w: w.close(), host, 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        await reader.read()
        writer.close()
        server.close()
    asyncio.run(both())
"""


def test_a_test_reaches_this_machine_and_no_other(tmp_path):
    code, output = run_planted(tmp_path, NETWORK, "-W", "ignore")
    assert code == 1
    failed = set(re.findall(r"^_+ (test_\w+) _+$", output, re.MULTILINE))
    assert failed == {"test_connect", "test_name", "test_datagram", "test_library"}, output
    assert "socket.connect was called with ('192.0.2.1', 80)" in output, output


def test_an_interpreter_is_found_or_said_to_be_missing():
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = subprocess.run([CI / "interpreter", here], capture_output=True, text=True, check=True).stdout.strip()
    asked = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith(f"Python {here}.")
    missing = subprocess.run([CI / "interpreter", "3.99"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "CI needs Python 3.99" in missing.stderr and "python3.99" in missing.stderr


RARE = """
from hypothesis import given, settings, strategies as st
@settings(max_examples=400, database=None)
@given(st.integers(0, 40))
def test_wrong_somewhere(n): assert n != 17
"""


def fuzz(tmp_path, code, *words):
    (tmp_path / "test_planted.py").write_text(code)
    command = [sys.executable, CI / "fuzz.py", *words, "--workers", "0", tmp_path / "test_planted.py"]
    environment = os.environ | {"PYTEST_ADDOPTS": "-p conftest -p no:cacheprovider", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_what_a_fresh_seed_finds_is_said_with_the_seed_and_found_again(tmp_path):
    code, output = fuzz(tmp_path, RARE)
    assert code == 1, output
    seed = re.search(r"^found with seed (\d+): python \.ci/fuzz\.py --seed \1 ", output, re.MULTILINE)
    assert seed and f"seed {seed[1]}, for 180 seconds at most" in output
    code, output = fuzz(tmp_path, RARE, "--seed", seed[1])
    assert code == 1 and f"found with seed {seed[1]}" in output


def test_when_the_time_is_over_no_further_test_begins(tmp_path):
    slow = "import time\nfrom hypothesis import given, settings, strategies as st\n"
    for number in range(20):
        slow += f"@settings(max_examples=1, database=None)\n@given(st.none())\ndef test_{number}(_): time.sleep(1)\n"
    code, output = fuzz(tmp_path, slow, "--seconds", "4")
    assert code == 0, output
    (passed,) = re.findall(r"(\d+) passed", output)
    assert 1 <= int(passed) < 12


def test_what_needs_vllm_runs_where_its_mark_is_named_and_nowhere_else(tmp_path):
    planted = "import pytest\ndef test_plain(): pass\n@pytest.mark.vllm\ndef test_engine(): import no_such_engine\n"
    code, output = run_planted(tmp_path, planted, REQUIRE_ALL="1")
    assert code == 0 and "1 passed, 1 deselected" in output, output
    code, output = run_planted(tmp_path, planted, "-m", "vllm")
    assert code == 1 and "1 failed, 1 deselected" in output, output
    assert re.search(r"\.ci/vllm python -m pytest .*-m vllm", (CI / "tests").read_text())


def test_what_needs_torch_is_left_out_where_that_is_said_and_nowhere_else(tmp_path):
    for option, count in (("--without-models", 1), ("--strict-markers", 2)):
        planted = "import json\nimport pytest\ndef test_plain(): pass\n@pytest.mark.model\ndef test_model(): pass\n"
        code, output = run_planted(tmp_path, planted, option)
        assert code == 0 and f"{count} passed" in output, output
    code, output = run_planted(tmp_path, "import torch\ndef test_model(): pass\n", "--without-models")
    assert code in {4, 5} and "passed" not in output, output


MAKE = """#!/bin/bash
[[ "$*" == *last-failed* ]] && exit $ALONE
[[ "$*" == *"python3.1"* || "$*" != *" test "* ]] && exit 0
mkdir -p .pytest_cache/v/cache
echo '{"tests/test_a.py::test_b[c d]": true}' > .pytest_cache/v/cache/lastfailed
exit 1
"""


@pytest.mark.parametrize(("alone", "code"), [("0", 0), ("1", 1)])
def test_what_fails_beside_others_is_tried_once_more_alone_and_named(tmp_path, alone, code):
    (tmp_path / "bin").mkdir()
    (tmp_path / ".ci" / "peers.d").mkdir(parents=True)
    shutil.copy(CI / "tests", tmp_path / ".ci")
    for path, text in (("bin/make", MAKE), (".ci/vllm", "#!/bin/bash"), (".ci/peers", "#!/bin/bash")):
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "ALONE": alone}
    words = [tmp_path / ".ci" / "tests", "py11", "py12", "py13"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    named = "passed alone, to be made steady:\ntests/test_a.py::test_b[c d]\n"
    assert (named in done.stdout) == (code == 0)
