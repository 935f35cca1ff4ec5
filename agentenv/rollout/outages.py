"""Which exceptions of an agent mean that its server is away."""

from typing import cast

from agentenv.errors import AgentError, InfrastructureError

__all__ = ["failure_of"]

_CLIENTS = ("openai", "anthropic")
_OUTAGES = {
    ("builtins", "ConnectionError"),
    ("builtins", "TimeoutError"),
    ("http", "IncompleteRead"),
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("requests", "ChunkedEncodingError"),
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    *(
        (client, name)
        for client in _CLIENTS
        for name in ("APIConnectionError", "InternalServerError", "RateLimitError")
    ),
}
"""Package and name of exceptions, without importing the package."""

_HTTP = {"httpx", "httpx2", "requests", "aiohttp", "urllib", *_CLIENTS}
"""Packages whose exceptions tell the status of an answer."""

_BUSY = {408, 425, 429}


def failure_of(error: Exception, agent: object = None) -> InfrastructureError | None:
    """Returns the failure that an exception of an agent stands for; `None` where it is a bug.

    An infrastructure failure stands for itself. What the usual client libraries raise when a server does not answer, is
    overloaded (408, 425, 429), broken (5xx) or hangs up is an `AgentError`, and so is what the agent itself declares as
    `retryable`: whoever writes an agent need not translate it.

    Raises:
        TypeError: `agent.retryable` is no exception class and no tuple of them.
    """
    if isinstance(error, InfrastructureError):
        return error
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    if not (kinds & _OUTAGES or _is_busy(error, {package for package, _ in kinds}) or _is_declared(error, agent)):
        return None
    failure = AgentError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _is_busy(error: Exception, packages: set[str]) -> bool:
    """Whether an HTTP client says that the server is overloaded or broken."""
    if not packages & _HTTP:
        return False
    response = getattr(error, "response", None)
    found = [getattr(error, name, None) for name in ("status_code", "status", "code")]
    status = next((value for value in (*found, getattr(response, "status_code", None)) if isinstance(value, int)), 0)
    return status in _BUSY or 500 <= status < 600


def _is_declared(error: Exception, agent: object) -> bool:
    declared: object = getattr(agent, "retryable", ())
    kinds = cast("tuple[object, ...]", declared if isinstance(declared, tuple) else (declared,))
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        msg = f"{type(agent).__name__}.retryable must be a tuple of exception classes, got {declared!r}"
        raise TypeError(msg)
    return isinstance(error, cast("tuple[type[Exception], ...]", kinds))
