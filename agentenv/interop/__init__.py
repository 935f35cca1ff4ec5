"""Other people's environments as ours, and ours as theirs: OpenEnv and verifiers. One file per peer and direction.

`OpenEnvServer` serves any environment to OpenEnv's clients, and `OpenEnvEnv` is an environment behind any OpenEnv
server; both need the extra `openenv` and no package of OpenEnv. `verifiers_tasks.as_taskset` makes a
taskset of verifiers, in an environment that has that package. The names load on first use.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.interop.openenv_env import OpenEnvEnv
    from agentenv.interop.openenv_package import write_openenv_folder
    from agentenv.interop.openenv_server import OpenEnvServer

__all__ = ["OpenEnvEnv", "OpenEnvServer", "write_openenv_folder"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "OpenEnvEnv": "openenv_env",
        "OpenEnvServer": "openenv_server",
        "write_openenv_folder": "openenv_package",
    },
)
