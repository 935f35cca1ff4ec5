"""Trainers: TRL's, on episode trees. Names are imported when they are first used, because they need torch and TRL."""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.trainers.config import TreeConfig
    from agentenv.trainers.demonstrations import Play, warm_start
    from agentenv.trainers.evaluate import Evaluation, evaluate_agent
    from agentenv.trainers.sr_ppo_config import SRPPOConfig
    from agentenv.trainers.sr_ppo_trainer import SRPPOTrainer
    from agentenv.trainers.tree_trainer import TreeTrainer
    from agentenv.trainers.trl_environment import as_trl_environment, trl_rows

__all__ = [
    "Evaluation",
    "Play",
    "SRPPOConfig",
    "SRPPOTrainer",
    "TreeConfig",
    "TreeTrainer",
    "as_trl_environment",
    "evaluate_agent",
    "trl_rows",
    "warm_start",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Evaluation": "evaluate",
        "SRPPOConfig": "sr_ppo_config",
        "SRPPOTrainer": "sr_ppo_trainer",
        "TreeConfig": "config",
        "TreeTrainer": "tree_trainer",
        "as_trl_environment": "trl_environment",
        "evaluate_agent": "evaluate",
        "trl_rows": "trl_environment",
        "Play": "demonstrations",
        "warm_start": "demonstrations",
    },
)
