"""What a guest is told, and what is expected of it."""

import resource
import secrets
from typing import Any

from .spec import SandboxSpec

__all__ = ["AGENT", "BASE_ENV", "LISTS", "new_agent", "settings_of"]

BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "USER": "agent",
    "LOGNAME": "agent",
}
AGENT = 1000
"""The user that commands are, where the kernel counts it apart from those of the machine."""

_FIRST_AGENT, _AGENTS = 1_910_000_000, 1 << 24
_OPEN_FILES, _FEWEST_FILES = 1024, 64  # of a command: half of what this process may have, which passes some on, too
LISTS = 1 << 30
"""Bytes that names and modes may add to contents."""


def settings_of(spec: SandboxSpec, *, workspace: str = "/workspace", tmp: str = "/tmp") -> dict[str, Any]:
    """Returns what the guest has to know."""
    limits = {name: getattr(spec.limits, name) for name in spec.limits.__slots__}
    env = {**BASE_ENV, "HOME": tmp, "TMPDIR": tmp, **spec.env}
    open_files = min(_OPEN_FILES, max(_FEWEST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
    return {"workspace": workspace, "tmp": tmp, "limits": limits, "env": env, "open_files": open_files}


def new_agent() -> int:
    """Returns the number of a user that nobody else is on the machine: much is counted by user."""
    return _FIRST_AGENT + secrets.randbelow(_AGENTS)
