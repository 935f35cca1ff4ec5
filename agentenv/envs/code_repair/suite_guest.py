"""What runs inside grading sandboxes for a hidden test suite: pytest, and a recorder that reports to the outside.

It is run as text, see `interpreter.guest_argv`, and gets one request on standard input. The code under test
shares this interpreter, so nothing in here is a secret from code that looks for it; that some of the tests it runs must
fail, and which, only the outside knows (see `twins.py`).

Each line of the answer is `seal number word name`: `seal` is a keyed digest of the rest, `number` counts lines, `name`
is hexadecimal. A test is reported once, after its teardown.
"""

import hashlib
import json
import os
import sys
from collections.abc import Generator
from typing import Any

__all__ = ["main"]

_BROKEN = 70


def sealed_writer(out: int, key: bytes) -> Any:
    """Returns a function that writes sealed lines; only the process that made it can use it.

    It uses nothing that can be replaced from outside: no attribute of a module, no global name.
    """
    keyed = hashlib.blake2b(key=key, digest_size=16)
    write, pid, getpid, number = os.write, os.getpid(), os.getpid, 0

    def send(word: str, name: str = "") -> None:
        nonlocal number
        if getpid() != pid:  # a process that the code under test forked
            return
        text = f"{number} {word} {name.encode('utf-8', 'surrogatepass').hex()}"
        seal = keyed.copy()
        seal.update(text.encode())
        number += 1
        data = f"{seal.hexdigest()} {text}\n".encode()
        while data:
            data = data[write(out, data) :]

    return send


def make_recorder(send: Any, enter: Any, wanted: set[str], extra: str) -> Any:
    """Returns the pytest plugin that runs the wanted functions and reports what became of every test.

    `extra` is a file with tests that is not the agent's to see: it is gone before any test runs.
    """
    import pytest

    class Recorder:
        def __init__(self) -> None:
            self.phases: dict[str, list[tuple[str, str]]] = {}

        @pytest.hookimpl(tryfirst=True)
        def pytest_load_initial_conftests(self) -> None:
            enter()  # pytest and its plugins are loaded by now

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: Any) -> None:
            items[:] = [item for item in items if item.nodeid.partition("[")[0] in wanted]

        @pytest.hookimpl(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, item: Any, call: Any) -> Generator[None, Any, None]:
            result: Any = yield
            report: Any = result.get_result()
            phases = self.phases.setdefault(item.nodeid, [])
            phases.append((call.when, word_for(report, call)))
            if call.when == "teardown":
                send(verdict(phases), item.nodeid)

        def pytest_collectreport(self, report: Any) -> None:
            if report.outcome != "passed":
                send("uncollected", f"{report.nodeid}\n{str(report.longrepr)[-400:]}")

        def pytest_collection_finish(self, session: Any) -> None:
            os.unlink(extra)  # noqa: PTH108
            send("collected", str(len(session.items)))

        def pytest_sessionfinish(self, exitstatus: Any) -> None:
            send("finished", str(int(exitstatus)))

    return Recorder()


def word_for(report: Any, call: Any) -> str:
    """Returns what became of one phase, as the report and what was raised agree on."""
    if call.excinfo is None and report.outcome == "passed" and not hasattr(report, "wasxfail"):
        return "passed"
    return "failed" if report.outcome == "failed" else "skipped"


def verdict(phases: list[tuple[str, str]]) -> str:
    """Returns `passed` where setup, call and teardown all did; `failed` where the call failed; else what failed."""
    words = [word for _, word in phases]
    if {when for when, _ in phases} == {"setup", "call", "teardown"} and set(words) == {"passed"}:
        return "passed"
    if ("call", "failed") in phases:
        return "failed"
    return "error" if "failed" in words else "skipped"


def run_suite(request: dict[str, Any], send: Any) -> int:
    """Runs pytest in the current folder; returns its exit status."""
    here = os.getcwd()  # noqa: PTH109
    places = os.environ.pop("AGENTENV_PYTHONPATH")
    home = f"{os.environ['TMPDIR']}/{request['folder']}"
    os.makedirs(home, exist_ok=True)  # noqa: PTH103
    ini = f"{home}/pytest.ini"
    with open(ini, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(request["ini"])
    sys.path.insert(0, home)
    import pytest

    def enter() -> None:
        """Makes `sys.path`, `sys.argv` and the variables those of `python3 -m pytest` in the workspace."""
        sources = [here if folder == "." else f"{here}/{folder}" for folder in request["source"]]
        sys.path[:1] = [here, home, *sources]
        sys.argv[:] = [f"{home}/pytest/__main__.py", "-q"]
        os.environ["PYTHONPATH"] = places

    arguments = [
        *("-c", ini, "--rootdir", here, "--confcutdir", here),
        *("--assert=plain", "-q", "--tb=no", "--color=no"),
        *(word for plugin in request["plugins"] for word in ("-p", plugin)),
        *dict.fromkeys(name.partition("::")[0] for name in request["functions"]),
    ]
    return int(
        pytest.main(
            arguments, plugins=[make_recorder(send, enter, set(request["functions"]), f"{here}/{request['extra']}")]
        )
    )


def main() -> None:
    """Reads the request, runs the suite, and ends the process before any code of the submission can run again."""
    end = os._exit
    request = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    send = sealed_writer(out, bytes.fromhex(request.pop("key")))
    send("begun")
    try:
        status = run_suite(request, send)
    except BaseException as error:  # noqa: BLE001  whatever it is, it is said
        send("broken", f"{type(error).__name__}: {error}"[:400])
        end(_BROKEN)
    send("ended", str(status))
    end(status)


if __name__ == "__main__":
    main()
