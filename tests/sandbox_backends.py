"""The sandbox back ends that tests run on."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from agentenv.errors import SandboxError
from agentenv.sandboxes import SandboxSpec, open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox

Open = Callable[..., GuestSandbox]
ENGINES = ("docker", "gvisor")


def opener(backend: str) -> Open:
    """Returns a function that opens a sandbox of this back end, given fields of `SandboxSpec`."""

    def make(**fields: Any) -> GuestSandbox:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_sandbox(SandboxSpec(**fields), backend=backend, require="none")

    return make


def skip_without(backend: str) -> None:
    """Skips where the engine of a back end is missing, unless REQUIRE_DOCKER=1, where that is a failure."""
    if backend not in ENGINES or os.environ.get("REQUIRE_DOCKER") == "1":
        return
    try:
        opener(backend)().close()
    except (SandboxError, ImportError) as error:
        pytest.skip(f"no engine for the {backend} back end: {error}")
