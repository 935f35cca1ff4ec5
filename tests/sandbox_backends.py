"""Where sandboxes are tried: the back ends, and the docker back end on podman and on gVisor's runtime."""

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentenv.errors import SandboxError
from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.opening import BACKENDS

Open = Callable[..., GuestSandbox]

PLACES: Mapping[str, tuple[str, dict[str, Any]]] = {
    **{backend: (backend, {}) for backend in BACKENDS if backend != "remote"},  # test_remote.py starts what it needs
    "podman": ("docker", {"engine": os.environ.get("CONTAINER_HOST", "unix:///run/podman/podman.sock")}),
    "runsc": ("docker", {"runtime": "runsc"}),
}
"""Back end and fields of `SandboxSpec`, by name."""

WITH_ENGINES = ("docker", "podman", "runsc", "gvisor")
"""Those that need a program which the SDK does not bring."""


def open_at(place: str) -> Open:
    """Returns what opens sandboxes there, given a spec; it can be pickled."""
    backend, settings = PLACES[place]
    return functools.partial(open_sandbox, backend=backend, require="none", **settings)


def opener(place: str) -> Open:
    """Returns what opens sandboxes there without a warning, given fields of `SandboxSpec`."""
    open_there = open_at(place)

    def make(**fields: Any) -> GuestSandbox:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_there(**fields)

    return make


def marks(place: str) -> list[pytest.MarkDecorator]:
    """Returns the marks of a test there."""
    return [pytest.mark.docker] if place in WITH_ENGINES else []


def skip_without(place: str) -> None:
    """Skips where an engine is missing, unless REQUIRE_DOCKER=1, where that is a failure."""
    if place not in WITH_ENGINES or os.environ.get("REQUIRE_DOCKER") == "1":
        return
    try:
        opener(place)().close()
    except (SandboxError, ImportError) as error:
        pytest.skip(f"{place} does not answer: {error}")
