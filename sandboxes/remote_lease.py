"""Machines that are in use are renewed; where this process ends, however it ends, they end by themselves."""

import contextlib
import os
import threading
import weakref

from agentenv.errors import SandboxError

from .remote_wire import RemoteWire

__all__ = ["LEASE_S", "keep", "let_go"]

LEASE_S = 600.0
"""How long a machine lives without its owner."""

_OFTEN = 5  # renewals in a lease: some may fail


class _Keeper:
    """Renews what is kept, in one thread that runs while there is something."""

    def __init__(self) -> None:
        self._kept: weakref.WeakSet[RemoteWire] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    def add(self, wire: RemoteWire) -> None:
        with self._changed:
            self._kept.add(wire)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentenv-remote-lease", daemon=True)
                self._thread.start()

    def drop(self, wire: RemoteWire) -> None:
        with self._changed:
            self._kept.discard(wire)
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._kept, LEASE_S / _OFTEN)
                if not self._kept:
                    self._thread = None
                    return
                kept = list(self._kept)
            while kept:  # none is held longer than it is used
                with contextlib.suppress(SandboxError):  # whoever uses it hears of it
                    kept.pop().renew(LEASE_S)


_keepers = [_Keeper()]
os.register_at_fork(after_in_child=lambda: _keepers.__setitem__(0, _Keeper()))


def keep(wire: RemoteWire) -> None:
    """Renews the lease of a machine until `let_go`."""
    _keepers[0].add(wire)


def let_go(wire: RemoteWire) -> None:
    """No longer renews it."""
    _keepers[0].drop(wire)
