"""Where an environment's commands run, as an option: `--option sandbox=docker`, or a JSON object with more."""

import functools
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from agentenv.protocols import Sandbox

__all__ = ["opens_sandboxes", "read_sandbox"]


def opens_sandboxes(annotation: Any) -> bool:
    """Whether a parameter takes a function that opens sandboxes: `Callable[..., Sandbox]`."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is not None and parts and parts[-1] is Sandbox:
        return True
    return any(map(opens_sandboxes, parts))


def read_sandbox(text: str) -> Callable[..., Any]:
    """Returns `open_sandbox` with a back end, or with the arguments of a JSON object, filled in.

    `docker`; `{"backend": "docker", "image": "python:3.12"}`; `{"backend": "process", "require": "process"}`.

    Raises:
        ValueError: no such back end or argument; the message lists those that there are.
        TypeError: a value of another type.
    """
    from agentenv.sandboxes import Limits, SandboxSpec, open_sandbox
    from agentenv.sandboxes.opening import BACKENDS
    from agentenv.sandboxes.spec import LEVELS

    arguments: dict[str, Any] = json.loads(text) if text.lstrip().startswith("{") else {"backend": text}
    choices = {"backend": ("auto", *BACKENDS), "require": LEVELS}
    known = (*choices, *(field.name for field in fields(SandboxSpec) if field.name != "base"))
    for name, value in arguments.items():
        if name not in known:
            msg = f"must name arguments of open_sandbox, {', '.join(known)}; got {name!r}"
            raise ValueError(msg)
        if name in choices and value not in choices[name]:
            what = "back end" if name == "backend" else "level"
            msg = f"must name a {what}, one of {', '.join(choices[name])}, or be a JSON object with more, got {value!r}"
            raise ValueError(msg)
    if isinstance(limits := arguments.get("limits"), Mapping):
        arguments["limits"] = Limits(**typing.cast("dict[str, Any]", limits))
    SandboxSpec(**{name: value for name, value in arguments.items() if name not in choices})  # checks them
    return functools.partial(open_sandbox, **arguments)
