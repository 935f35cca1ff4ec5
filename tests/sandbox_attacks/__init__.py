"""Attacks on a sandbox, as a table. Each tries what must not work, prints BREACH where it does, and TRIED at its end.

The variables that a script may use name what the test prepared on the host: `CANARY` (a readable file with a secret),
`PORT` (a TCP listener on the host's loopback), `SOCKET` and `ABSTRACT` (Unix sockets), `HOST_PID` (a process).
`secret-3141` is what nobody inside may ever read.
"""

from textwrap import dedent

from .attack import PRELUDE, Attack
from .counted import COUNTED
from .files import FILES
from .kernel import KERNEL
from .network import NETWORK
from .processes import PROCESSES
from .resources import RESOURCES
from .state import STATE

__all__ = ["ATTACKS", "PRELUDE", "Attack"]

ATTACKS: tuple[Attack, ...] = tuple(
    attack._replace(code=dedent(attack.code).strip())
    for attack in (*FILES, *PROCESSES, *NETWORK, *KERNEL, *RESOURCES, *COUNTED, *STATE)
)
