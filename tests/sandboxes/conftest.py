"""A sandbox to play with."""

from collections.abc import Iterator

import pytest

from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox


@pytest.fixture
def box() -> Iterator[GuestSandbox]:
    """An empty namespace sandbox."""
    with open_sandbox(backend="namespace") as sandbox:
        yield sandbox
