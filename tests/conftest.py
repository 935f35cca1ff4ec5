"""What all tests share: marks, what may be left out and when, no network, settings of Hypothesis, an ordinary user.

Nothing is left out silently: `--without-models` leaves out what needs torch, tests marked `vllm` run where `-m` names
that mark (.ci/vllm), those marked `peers` where `--peer` names their package (.ci/peers), and with `REQUIRE_ALL=1`, as
in CI, a test that skips for another reason than those of `MAY_SKIP` has failed.
"""

import functools
import gc
import ipaddress
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from ordinary_user import NoPython, as_ordinary_user

settings.register_profile("agentenv", deadline=None, max_examples=50, print_blob=True)
settings.register_profile("repeatable", settings.get_profile("agentenv"), derandomize=True)
settings.load_profile("agentenv")

HERE = Path(__file__).parent
NEEDS_TORCH = re.compile(
    r"^(?:from|import) (?:accelerate|benchmarks\.study\.(?:__main__|cells|figures|questions|report|tabular)|"
    r"chat_families|peft|tiny_chat|torch|trainer_env|transformers|trl|vllm_models)\b",
    re.MULTILINE,
)
"""What a file that cannot even be imported without torch has in a line of its own. Such files get the mark `model`."""

FOLDER_MARKS = {"sandboxes": "sandbox", "envs": "environment", "trainers": "model"}
_STARTED = pytest.StashKey[float]()
MAY_SKIP = ("gpu", "data", "kernel")
"""Marks of tests that need what not every machine of CI has."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-models", action="store_true", help="leave out what needs torch: the mark `model`")
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")
    parser.addoption(
        "--peer", metavar="NAME", help="run the tests marked peers(NAME), which need .ci/peers, and no others"
    )
    parser.addoption("--stop-after", type=float, metavar="SECONDS", help="begin no test later than that")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    limit = item.config.getoption("--stop-after")
    return True if limit is not None and time.monotonic() - item.config.stash[_STARTED] > limit else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--without-models"):
        return None
    return True if collection_path == HERE / "trainers" or _needs_torch(collection_path) else None


@functools.cache
def _needs_torch(path: Path) -> bool:
    return path.is_file() and path.suffix == ".py" and bool(NEEDS_TORCH.search(path.read_text(encoding="utf-8")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for place, mark in FOLDER_MARKS.items():
            if item.path.is_relative_to(HERE / place):
                item.add_marker(mark)
        if _needs_torch(item.path):
            item.add_marker("model")
        if item.get_closest_marker("data") and not os.environ.get("AGENTENV_DATA"):
            item.add_marker(pytest.mark.skip(reason="AGENTENV_DATA does not name the folder with published tasks"))
    if "vllm" not in config.option.markexpr:
        elsewhere = [item for item in items if item.get_closest_marker("vllm")]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if not item.get_closest_marker("vllm")]
    peer = config.getoption("--peer")
    if elsewhere := {item for item in items if not _runs_beside(item, peer)}:
        config.hook.pytest_deselected(items=list(elsewhere))
        items[:] = [item for item in items if item not in elsewhere]
    if config.getoption("--without-models"):
        models = [item for item in items if item.get_closest_marker("model")]
        config.hook.pytest_deselected(items=models)
        items[:] = [item for item in items if not item.get_closest_marker("model")]
    if (seed := config.getoption("--shuffle")) is not None:
        random.Random(seed).shuffle(items)


def pytest_collection_finish() -> None:
    """Spares the garbage collector the tests and all that they import: to go through that takes seconds each time."""
    gc.collect()
    gc.freeze()


def _runs_beside(item: pytest.Item, peer: str | None) -> bool:
    """Whether a test is for the environment of .ci/peers that `--peer` names, or, without it, for none of them."""
    names = {str(name) for mark in item.iter_markers("peers") for name in mark.args}
    return peer in names if peer else not names


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: Any = yield
    allowed = hasattr(report, "wasxfail") or any(item.get_closest_marker(mark) for mark in MAY_SKIP)
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1" and not allowed:
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report: Any = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} is skipped as a whole, which is a failure here: {report.longrepr}"
    return report


class NetworkUsedError(RuntimeError):
    """A test wanted something from another machine."""


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: sees every way to connect, send or look up a name, whichever library does it."""
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = arguments[1]
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        address = arguments
    else:
        return
    if isinstance(address, tuple) and not _is_loopback(address[0]):
        message = f"tests use no network, but {event} was called with {address!r}"
        raise NetworkUsedError(message)


def _is_loopback(host: Any) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in {None, "", "localhost", "0.0.0.0", "::"}:  # the last two: listening, or this machine itself
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name == os.uname().nodename


sys.addaudithook(_refuse_network)


@pytest.fixture(scope="session")
def ordinary_user() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs Python code as a user without privileges: this one, or, for root, one that is made and removed."""
    try:
        with as_ordinary_user() as run:
            yield run
    except NoPython as error:
        pytest.skip(str(error))


@pytest.fixture
def nothing_stays_open() -> Iterator[None]:
    """Environments that fail do so as often as this test says, and all are closed in the end."""
    from envs_for_tests import Counted, Flaky, MemorySandbox

    Counted.opened.clear()
    Flaky.failing_resets = Flaky.failing_restores = 0
    yield
    assert not Counted.opened
    assert not MemorySandbox.opened
