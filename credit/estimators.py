"""Estimators by name."""

import difflib
from collections.abc import Callable

from agentenv.arrays import TreeArrays

from .crbc import crbc_advantages
from .gigpo import gigpo_advantages
from .grpo import dr_grpo_advantages, grpo_advantages
from .passk_groups import passk_training_advantages, pkpo_advantages
from .passk_tree import passk_advantages
from .reachability import reachability_advantages
from .reinforce import reinforce_advantages
from .result import StepAdvantages
from .rloo import rloo_advantages
from .rtmc import rtmc_advantages
from .salt import salt_advantages
from .step_reward import step_reward_advantages
from .tree_grpo import tree_grpo_advantages
from .tree_rl import tree_rl_advantages
from .vine_ppo import vine_ppo_advantages

__all__ = ["ESTIMATORS", "make_estimator", "plain_name"]

_ENDING = "_advantages"

ESTIMATORS: dict[str, Callable[..., StepAdvantages]] = {
    estimator.__name__.removesuffix(_ENDING): estimator
    for estimator in (
        crbc_advantages, dr_grpo_advantages, gigpo_advantages, grpo_advantages, passk_advantages,
        passk_training_advantages, pkpo_advantages, reachability_advantages, reinforce_advantages, rloo_advantages,
        rtmc_advantages, salt_advantages, step_reward_advantages, tree_grpo_advantages, tree_rl_advantages,
        vine_ppo_advantages,
    )
}  # fmt: skip
"""The estimators that need nothing but trees, by name: `ESTIMATORS["rtmc"]` is `rtmc_advantages`."""


def plain_name(name: str) -> str:
    """Returns a name as `ESTIMATORS` has it: `rtmc` for `RTMC` and `rtmc_advantages`, `tree_grpo` for `tree-grpo`."""
    return name.removesuffix(_ENDING).replace("-", "_").lower()


def make_estimator(rule: str | Callable[[TreeArrays], StepAdvantages]) -> Callable[[TreeArrays], StepAdvantages]:
    """Returns the estimator of a name, with its default options; a function itself is returned as it is.

    Args:
        rule: a name of `ESTIMATORS`, with or without the ending `_advantages`, or a function.

    Raises:
        ValueError: no estimator has this name; the message lists the names.
        TypeError: it is neither a name nor a function.
    """
    if not isinstance(rule, str):
        if isinstance(rule, type) or not callable(rule):
            msg = f"estimator must be a name or a function of trees, got {rule!r}"
            raise TypeError(msg)
        return rule
    name = plain_name(rule)
    if name not in ESTIMATORS:
        close = difflib.get_close_matches(name, ESTIMATORS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        msg = f"estimator must be a function or one of {', '.join(map(repr, ESTIMATORS))}, got {rule!r}{hint}"
        raise ValueError(msg)
    return ESTIMATORS[name]
