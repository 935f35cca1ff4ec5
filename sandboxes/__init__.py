"""Where an agent's commands run: sandboxes that are branched in milliseconds.

`open_sandbox()` returns one; what it promises, and what not, is in `docs/sandboxes.md`.
"""

from agentenv.sandboxes.opening import Report, open_sandbox, probe_backends
from agentenv.sandboxes.remote_machines import Ran, RemoteMachine, RemoteService
from agentenv.sandboxes.snapshots import WorkspaceSnapshot
from agentenv.sandboxes.spec import LEVELS, Limits, SandboxSpec
from agentenv.sandboxes.sweeping import collect_garbage

__all__ = [
    "LEVELS",
    "Limits",
    "Ran",
    "RemoteMachine",
    "RemoteService",
    "Report",
    "SandboxSpec",
    "WorkspaceSnapshot",
    "collect_garbage",
    "open_sandbox",
    "probe_backends",
]
