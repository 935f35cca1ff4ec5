"""The pytest plugin under its old name, for installs made before it moved to `agentenv.testing.pytest_plugin`."""

from agentenv.testing.pytest_plugin import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_ignore_collect,
)

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_ignore_collect"]
