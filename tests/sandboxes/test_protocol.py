"""The bundled sandboxes are what the protocols describe: for type checkers, and to the name of every argument."""

import inspect
from collections.abc import Callable

import pytest

from agentenv.protocols import Sandbox, SandboxSnapshot, Shell
from agentenv.sandboxes import SandboxSpec, WorkspaceSnapshot, open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.guest_shell import GuestShell

OPEN: Callable[[SandboxSpec], Sandbox] = open_sandbox
SANDBOX: type[Sandbox] = GuestSandbox
SNAPSHOT: type[SandboxSnapshot] = WorkspaceSnapshot
SHELL: type[Shell] = GuestShell
MEMBERS = [
    (protocol, ours, name)
    for protocol, ours in ((Sandbox, SANDBOX), (SandboxSnapshot, SNAPSHOT), (Shell, SHELL))
    for name in vars(protocol)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("protocol", "ours", "name"), MEMBERS, ids=lambda part: getattr(part, "__name__", part))
def test_every_member_takes_what_the_protocol_says(protocol, ours, name):
    promised, there = getattr(protocol, name), getattr(ours, name)
    if not callable(promised):
        assert hasattr(there, "__get__") or not callable(there)
        return
    parameters = inspect.signature(there).parameters
    for position, parameter in enumerate(inspect.signature(promised).parameters.values()):
        assert parameters[parameter.name].kind is parameter.kind
        assert list(parameters)[position] == parameter.name or parameter.kind is parameter.KEYWORD_ONLY
        if parameter.default is not parameter.empty:
            assert parameters[parameter.name].default == parameter.default


def test_there_are_members():
    assert len(MEMBERS) >= 15
