"""Other people's environments as ours, and ours as theirs: OpenEnv and verifiers. One file per peer and direction.

`OpenEnvServer` serves any environment to OpenEnv's clients, and `OpenEnvEnv` is an environment behind any OpenEnv
server; both need the extra `openenv` and no package of OpenEnv. `verifiers_tasks.as_taskset` makes a taskset of
verifiers (version 1), `verifiers_v0.as_v0_environment` what its `load_environment` returns (version 0), and
`VerifiersEnv` is an environment of theirs, of either version; these need that package. The names load
on first use.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.interop.openenv_env import OpenEnvEnv
    from agentenv.interop.openenv_package import write_openenv_folder
    from agentenv.interop.openenv_server import OpenEnvServer
    from agentenv.interop.verifiers_env import VerifiersEnv
    from agentenv.interop.verifiers_package import write_verifiers_folder

__all__ = ["OpenEnvEnv", "OpenEnvServer", "VerifiersEnv", "write_openenv_folder", "write_verifiers_folder"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "OpenEnvEnv": "openenv_env",
        "OpenEnvServer": "openenv_server",
        "VerifiersEnv": "verifiers_env",
        "write_openenv_folder": "openenv_package",
        "write_verifiers_folder": "verifiers_package",
    },
)
