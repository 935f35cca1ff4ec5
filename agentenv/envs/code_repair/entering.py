"""How a grading process becomes the interpreter of `interpreter.py`. Runs inside sandboxes; stdlib only."""

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["call_as_tests_do", "enter", "read_request", "send", "take_path"]

_OWN = ("json", "json.decoder", "json.encoder", "json.scanner")


def read_request() -> tuple[dict[str, Any], int]:
    """Returns the request on standard input, and the descriptor for the answer; nothing else is written there."""
    request = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    os.dup2(2, 1)  # what the code under test prints is no answer
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return request, out


def send(out: int, answer: dict[str, Any]) -> None:
    """Writes the answer and ends the process: no code of the submission runs after it."""
    data = (json.dumps(answer) + "\n").encode()
    while data:
        data = data[os.write(out, data) :]
    os._exit(0)


def enter(contract: dict[str, Any]) -> None:
    """Sets what code under test can see of the process, and lets the workspace be imported from."""
    import runpy
    import unittest.main

    assert runpy
    assert unittest.main
    for name in _OWN:  # where the tests are run, nothing has loaded them
        del sys.modules[name]
    here = os.getcwd()  # noqa: PTH109
    sys.argv[:] = contract["argv"]
    found = take_path()
    places = [here if place == "." else os.path.join(here, place) for place in (*contract["path"], *found)]  # noqa: PTH118
    sys.path[:0] = [place for place in places if os.path.isdir(place)]  # noqa: PTH112


def take_path() -> list[str]:
    """Sets `PYTHONPATH` to what it is where the tests are run, and returns its folders.

    It comes in another variable, in which the sandbox has put its own paths.
    """
    os.environ.pop("PYTHONPATH", None)
    places = os.environ.pop("AGENTENV_PYTHONPATH", None)
    if places is None:
        return []
    os.environ["PYTHONPATH"] = places
    return places.split(":")


def call_as_tests_do(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function with warnings filtered as `unittest` does while tests run."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.filterwarnings("module", category=DeprecationWarning, message=r"Please use assert\w+ instead.")
        return function(*args, **kwargs)
