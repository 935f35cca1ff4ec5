"""Which exceptions of an agent mean that its server is away."""

from agentenv.errors import AgentError, InfrastructureError

__all__ = ["failure_of"]

_OUTAGES = {
    ("builtins", "ConnectionError"),
    ("builtins", "TimeoutError"),
    ("httpx", "TransportError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("aiohttp", "ClientConnectionError"),
    *((client, name) for client in ("openai", "anthropic") for name in ("APIConnectionError", "InternalServerError")),
    *((client, "RateLimitError") for client in ("openai", "anthropic")),
}
"""Package and name of exceptions, without importing the package."""


def failure_of(error: Exception) -> InfrastructureError | None:
    """Returns the failure that an exception of an agent stands for; `None` where it is a bug.

    An infrastructure failure stands for itself. What the usual client libraries raise when a server does not answer, is
    overloaded or hangs up is an `AgentError`, so that whoever writes an agent need not translate it.
    """
    if isinstance(error, InfrastructureError):
        return error
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    if not kinds & _OUTAGES:
        return None
    failure = AgentError(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
