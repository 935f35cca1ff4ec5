"""The command line: `agentenv envs`, `play`, `rollout`, `train`, `check`, `doctor`, `trees`, `demo`.

Modules here import what is heavy inside the commands, so that help comes at once.
"""

from agentenv.cli.app import app, main

__all__ = ["app", "main"]
