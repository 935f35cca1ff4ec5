"""Trainers: TRL's, on episode trees. Names are imported when they are first used, because they need torch and TRL."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentenv.trainers.config import TreeGRPOConfig
    from agentenv.trainers.evaluate import Evaluation, evaluate_agent
    from agentenv.trainers.tree_grpo import TreeGRPOTrainer

__all__ = ["Evaluation", "TreeGRPOConfig", "TreeGRPOTrainer", "evaluate_agent"]

_HOMES = {
    "Evaluation": "evaluate",
    "TreeGRPOConfig": "config",
    "TreeGRPOTrainer": "tree_grpo",
    "evaluate_agent": "evaluate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(msg)
    from importlib import import_module

    return getattr(import_module(f"agentenv.trainers.{_HOMES[name]}"), name)
