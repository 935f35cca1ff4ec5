"""What a service of machines must offer to have sandboxes on them, and how one is named."""

import contextlib
import importlib
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError, SandboxError, SandboxLost

__all__ = ["DEFAULT", "SERVICES", "Ran", "RemoteMachine", "RemoteService", "blamed_on", "package_of", "service_of"]

DEFAULT = "AGENTENV_REMOTE"
"""The environment variable that names the service where `SandboxSpec.remote` does not."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command on a machine ended.

    Attributes:
        exit_code: as a shell shows it.
        stdout: what it printed, in whole.
        stderr: likewise, or its beginning.
    """

    exit_code: int
    stdout: str
    stderr: str = ""


class RemoteMachine(Protocol):
    """A machine of a service, with Linux, `python3` (3.8 or later) and a folder `/tmp`.

    Every method may be called from any thread, while others of the same machine run. They raise `SandboxError` where
    the service fails, and `SandboxLost` where it says that the machine has ended: what ran on it may be the reason.

    Attributes:
        patience_s: seconds that a command may take without being in the way of others; what takes longer is asked for
            again and again.
    """

    @property
    def patience_s(self) -> float:
        """See above."""
        ...

    def run(self, argv: Sequence[str], timeout_s: float) -> Ran:
        """Runs a command, as root or whoever a command of the service is, and waits for it."""
        ...

    def put(self, path: str, content: bytes, timeout_s: float) -> None:
        """Writes a file."""
        ...

    def get(self, path: str, timeout_s: float) -> bytes:
        """Returns what is in a file."""
        ...

    def renew(self, lease_s: float) -> None:
        """Has the service keep the machine for so many seconds from now, and no longer unless it is renewed again."""
        ...

    def delete(self) -> None:
        """Gives the machine back, with all that is on it."""
        ...


@runtime_checkable
class RemoteService(Protocol):
    """Starts machines. Hashable, and pickled with what needs it."""

    def start(self, lease_s: float) -> RemoteMachine:
        """Starts a machine that ends by itself after `lease_s` unless it is renewed.

        Raises:
            SandboxError: the service does not, with the reason.
            MissingDependencyError: its package is not installed.
        """
        ...


SERVICES: Mapping[str, tuple[str, str, str]] = {
    "swe-rex": ("remote_swerex", "SweRex", "swe-rex:http://HOST:PORT"),
    "e2b": ("remote_e2b", "E2B", "e2b or e2b:TEMPLATE"),
    "modal": ("remote_modal", "Modal", "modal or modal:IMAGE"),
    "morph": ("remote_morph", "Morph", "morph:SNAPSHOT"),
}
"""Where a service is found: module of `agentenv.sandboxes`, type, how it is named."""


def service_of(remote: "str | RemoteService | None") -> RemoteService:
    """Returns a service.

    Args:
        remote: itself; or its name of `SERVICES`, after a colon what it needs to know; `DEFAULT` of the environment for
            `None`.

    Raises:
        SandboxError: none is named.
        ValueError: there is none of that name, or it needs to know something else.
    """
    if remote is not None and not isinstance(remote, str):
        return remote
    text = remote or os.environ.get(DEFAULT, "")
    forms = ", ".join(form for _, _, form in SERVICES.values())
    if not text:
        msg = f"no service of machines is named: give remote= or set {DEFAULT}, one of {forms}"
        raise SandboxError(msg)
    name, _, rest = text.partition(":")
    if name not in SERVICES:
        msg = f"remote must name a service, one of {forms}, got {text!r}"
        raise ValueError(msg)
    module, kind, form = SERVICES[name]
    service = getattr(importlib.import_module(f"agentenv.sandboxes.{module}"), kind)
    if not rest and " or " not in form:
        msg = f"remote={text!r} needs to know more: {form}"
        raise ValueError(msg)
    return service(*([rest] if rest else []))


def package_of(module: str) -> Any:
    """Returns the module of a service's own package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        msg = f"sandboxes of this service need its package: {install_module(module)}"
        raise MissingDependencyError(msg) from error


@contextlib.contextmanager
def blamed_on(service: str, *ended: type[Exception]) -> Generator[None]:
    """Turns whatever a service's package raises into `SandboxError`: these packages have no common error.

    Args:
        service: its name.
        ended: the errors that say that the machine has ended, which become `SandboxLost`.
    """
    try:
        yield
    except (SandboxError, ImportError):  # ImportError: a package of the service's, with the remedy
        raise
    except Exception as error:
        msg = f"{service} failed: {type(error).__name__}: {error!s:.500}"
        raise (SandboxLost if isinstance(error, ended) else SandboxError)(msg) from error
