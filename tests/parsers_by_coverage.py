# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""Drives the parsers of what a guest or a submission sends by bytes that atheris finds by coverage; a crash ends it.

    pip install atheris==3.0.0
    PYTHONPATH=. python tests/parsers_by_coverage.py -max_total_time=60 [FOLDER ...]

The same promises as in `sandboxes/test_wire.py` and `envs/code_repair/test_hostile_reports.py`, where Hypothesis draws:
one kind of error, and no verdict that nobody gave. The arguments are libFuzzer's; without a folder of inputs it begins
with good ones.
"""

import contextlib
import json
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["agentenv"]):
    from agentenv.envs.code_repair import Case
    from agentenv.envs.code_repair.outcomes import read_outcome
    from agentenv.envs.code_repair.suite_running import read_lines
    from agentenv.envs.code_repair.wire import Graph, encode
    from agentenv.protocols import ExecResult
    from agentenv.sandboxes.base_files import archive_of_files
    from agentenv.sandboxes.docker import _StreamWire
    from agentenv.sandboxes.guest.content import TreeFault
    from agentenv.sandboxes.guest.trees import parse_entries
    from agentenv.sandboxes.guest.wire import Closed, Failed, Late, Lost, Wire
    from agentenv.sandboxes.layers import check_archive

NONCE, KEY = "0123456789abcdef", bytes(range(32))
CASES = (Case(call="f()", expected="1"), Case(call="f()", raises="ValueError"))
COMPARING = Case(call="f() == 1 and f() == 2", expected="True")
REFUSED = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, ImportError, RecursionError)


def guest(data: bytes) -> None:
    """A message of a guest: over a pair of sockets, and in the frames of a container."""
    for make in (lambda link: Wire(link.fileno(), link.fileno()), _StreamWire):
        ours, theirs = socket.socketpair()
        with ours, theirs, contextlib.suppress(Closed, Failed, Late, Lost):
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            while True:
                head, _ = make(ours).receive(1.0, limit=1000)
                for fd in head.get("fds") or ():
                    os.close(fd)


def archive(data: bytes) -> None:
    """What a snapshot holds."""
    for parse in (parse_entries, check_archive, lambda text: check_archive(len(text).to_bytes(8, "little") + text)):
        with contextlib.suppress(TreeFault):
            parse(data)


def answer(data: bytes) -> None:
    """The line of a grading process: with the nonce, which a submission knows; then at most one outcome."""
    text = data.decode(errors="replace")
    for line in (text, f'{{"nonce": "{NONCE}", {text}}}\n', f'{{"nonce": "{NONCE}", "returned": {text}}}\n'):
        outcome = read_outcome(ExecResult(0, line), NONCE)
        assert sum(case.accepts(outcome) for case in CASES) <= 1, line
        assert not COMPARING.accepts(outcome), line
        told = read_outcome(ExecResult(0, line), NONCE, of_program=True)
        assert told.kind == "died" or not told.asks, line
        if outcome.kind == "returned":
            with contextlib.suppress(*REFUSED):
                Graph(fetch=lambda what, number: (what, number)).decode(outcome.value)


def report(data: bytes) -> None:
    """The lines of a test run: without the key there is none."""
    found = read_lines(ExecResult(1, data.decode(errors="replace")), KEY)
    assert found.problem
    assert not found.outcomes


PARSERS = (guest, archive, answer, report)


def one_input(data: bytes) -> None:
    """Gives an input to the parser that its first byte names."""
    if data:
        PARSERS[data[0] % len(PARSERS)](data[1:50_000])


def seeds() -> list[bytes]:
    """Returns good inputs of every parser."""
    head = json.dumps({"exit_code": 0, "duration_s": 0.5, "fds": 0}).encode()
    message = struct.pack("<IQ", len(head), 2) + head + b"ok"
    streamed = struct.pack("<IQ", len(head), 2**64 - 1) + head + struct.pack("<I", 2) + b"ok" + bytes(4)
    frame = b"\1\0\0\0" + len(message).to_bytes(4, "big") + message
    value = json.dumps(encode([1, {2: 3.5}, {4}, (b"x", None)])).encode()
    raised = b'"raised": ["ValueError", "Exception", "BaseException"]'
    lines = b"".join(b"0" * 32 + b" %d passed %s\n" % (number, b"test".hex().encode()) for number in range(3))
    files = archive_of_files({"a/b": "x", "c": b"\0" * 100})
    found = {guest: (message, streamed, frame), archive: (files,), answer: (value, raised), report: (lines,)}
    return [bytes([PARSERS.index(parser)]) + data for parser, inputs in found.items() for data in inputs]


if __name__ == "__main__":
    if all(word.startswith("-") for word in sys.argv[1:]):
        folder = Path(tempfile.mkdtemp(prefix="agentenv-inputs-"))
        for number, data in enumerate(seeds()):
            (folder / str(number)).write_bytes(data)
        sys.argv.append(str(folder))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
