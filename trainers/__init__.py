"""Trainers: TRL's, on episode trees. Names are imported when they are first used, because they need torch and TRL."""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.trainers.config import TreeGRPOConfig
    from agentenv.trainers.evaluate import Evaluation, evaluate_agent
    from agentenv.trainers.tree_grpo import TreeGRPOTrainer

__all__ = ["Evaluation", "TreeGRPOConfig", "TreeGRPOTrainer", "evaluate_agent"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Evaluation": "evaluate",
        "TreeGRPOConfig": "config",
        "TreeGRPOTrainer": "tree_grpo",
        "evaluate_agent": "evaluate",
    },
)
