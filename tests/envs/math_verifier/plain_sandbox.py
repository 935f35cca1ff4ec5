"""A sandbox that every machine has, for code that these tests wrote themselves."""

import warnings
from typing import Any

from agentenv.sandboxes import open_sandbox


def plain_sandbox() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it isolates nothing
        return open_sandbox(backend="subprocess", require="none")
