"""Train LLM agents with reinforcement learning in environments that branch in mid-episode.

Layers, top to bottom: `cli`; `trainers`; `agents` and `envs`; `credit` and `sandboxes`; `testing`, `rollout`,
`serialize`; `registry`; `wrappers`; `env`; `tools`; `protocols`; `tree`; `spaces`; `types`; `errors`. Importing this
package loads gymnasium, numpy and pydantic, and nothing heavier.
"""

from agentenv.arrays import TreeArrays
from agentenv.env import Env
from agentenv.errors import AgentEnvError, InfrastructureError, SnapshotError, TaskError, ToolError
from agentenv.protocols import Agent, Context, Sandbox, Snapshot
from agentenv.registry import env_ids, make, register
from agentenv.replay import ReplayEnv
from agentenv.tasks import State, Task
from agentenv.tool_env import ToolEnv
from agentenv.tools import tool
from agentenv.tree import EpisodeTree
from agentenv.types import Action, Message, ToolCall

__all__ = [
    "Action",
    "Agent",
    "AgentEnvError",
    "Context",
    "Env",
    "EpisodeTree",
    "InfrastructureError",
    "Message",
    "ReplayEnv",
    "Sandbox",
    "Snapshot",
    "SnapshotError",
    "State",
    "Task",
    "TaskError",
    "ToolCall",
    "ToolEnv",
    "ToolError",
    "TreeArrays",
    "env_ids",
    "make",
    "register",
    "tool",
]
__version__ = "0.1.0"
