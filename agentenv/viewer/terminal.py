"""Sessions of `agentenv play` behind the page: each restores a node, takes lines, and is read as it answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["Terminals"]

_MOST = 4
"""Sessions at a time; a further one ends the oldest."""

_KEPT = 1_000_000
"""Characters of a session that are kept for a page that reads late."""

_PATIENCE_SECONDS = 5.0
"""What a session gets to close its sandboxes, once its input has ended."""


class Terminals:
    """Starts, feeds, reads and ends sessions, each a process of its own."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()
        self._started = 0

    def start(self, words: Sequence[str]) -> str:
        """Runs a command of `agentenv` (its words, the program's name first); returns the session's name."""
        with self._lock:
            self._started += 1
            name = str(self._started)
            self._sessions[name] = _Session(words[1:])
            oldest = [self._sessions.pop(key) for key in list(self._sessions)[:-_MOST]]
        for session in oldest:
            session.end()
        return name

    def send(self, name: str, line: str) -> None:
        """Gives a session one line.

        Raises:
            KeyError: there is no such session.
            ValueError: it is not one line, or the session has ended.
        """
        if "\n" in line or "\r" in line:
            msg = f"line must be one line, got {line!r}"
            raise ValueError(msg)
        self._sessions[name].send(line)

    def read(self, name: str, since: int, patience: float = 20.0) -> dict[str, Any]:
        """Returns what a session said since a character; waits until there is something, or it has ended.

        Raises:
            KeyError: there is no such session.
        """
        return self._sessions[name].read(since, patience)

    def stop(self, name: str) -> None:
        """Ends a session; one that is not there has ended already."""
        with self._lock:
            session = self._sessions.pop(name, None)
        if session is not None:
            session.end()

    def close(self) -> None:
        """Ends all of them."""
        for name in list(self._sessions):
            self.stop(name)


class _Session:
    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  the server's own command on its own files
            [sys.executable, "-m", "agentenv", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"}, encoding="utf-8", errors="replace", bufsize=1,
            start_new_session=True,
        )  # fmt: skip
        self._said, self._ended = "", False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._news:
                    if len(self._said) < _KEPT:
                        self._said += line
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            msg = "this session has ended: play from a step again"
            raise ValueError(msg) from error

    def read(self, since: int, patience: float) -> dict[str, Any]:
        until = time.monotonic() + patience
        with self._news:
            while len(self._said) <= since and not self._ended and (left := until - time.monotonic()) > 0:
                self._news.wait(left)
            return {"text": self._said[since:], "next": len(self._said), "ended": self._ended}

    def end(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # what was not sent yet has no reader
            self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(_PATIENCE_SECONDS)
