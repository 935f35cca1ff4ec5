"""`with_control`: whose fault a failure is, found by trying the same without what the agent did."""

from collections.abc import Callable
from typing import TypeVar

from agentenv.errors import AgentFault, InfrastructureError

__all__ = ["with_control"]

_Answer = TypeVar("_Answer")


def with_control(
    ask: Callable[[], _Answer],
    control: Callable[[], object],
    *,
    again: Callable[[], _Answer] | None = None,
    errors: type[Exception] | tuple[type[Exception], ...] = InfrastructureError,
) -> _Answer:
    """Returns what something answers to an agent; where that breaks it, tries a control, and it once more.

    Args:
        ask: does what the agent asks for.
        control: does the same without what the agent did (the untouched code, the reference, a trivial request), in
            fresh processes or connections where there are such.
        again: does what the agent asks for once more; `ask` without it.
        errors: what it is to break.

    Raises:
        AgentFault: what the agent asks for broke it twice, and the control did not.
        Exception: one of `errors`, the first: the control broke, too, so it is nobody's fault.
    """
    try:
        return ask()
    except errors as error:
        first = error
    try:
        control()
    except errors:
        raise first from None
    try:
        return (again or ask)()
    except errors as error:
        raise AgentFault(str(error)) from error
