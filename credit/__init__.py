"""Credit: from episode trees to step advantages, and where to spend the next rollouts.

An estimator is a function `(TreeArrays, *, ...) -> StepAdvantages`, an allocator a function that chooses anchors; any
pair combines. numpy and scipy only. Here is what a user needs; the parts of a method are in the module of its name.
"""

from agentenv.credit.allocation import allocate_uniform
from agentenv.credit.allocators import (
    ALLOCATORS,
    Allocator,
    TraceAllocator,
    check_anchors,
    check_counts,
    make_allocator,
)
from agentenv.credit.arpo import allocate_arpo
from agentenv.credit.certify import certify
from agentenv.credit.crbc import crbc_advantages
from agentenv.credit.dynamic_sampling import allocate_dynamic
from agentenv.credit.estimators import ESTIMATORS, make_estimator
from agentenv.credit.gigpo import gigpo_advantages
from agentenv.credit.grpo import dr_grpo_advantages, grpo_advantages
from agentenv.credit.passk import max_at_k, pass_at_k
from agentenv.credit.passk_adaptive import adaptive_k
from agentenv.credit.passk_groups import passk_training_advantages, pkpo_advantages
from agentenv.credit.passk_tree import passk_advantages
from agentenv.credit.pcl import allocate_pcl
from agentenv.credit.predictor import HashedPredictor, HiddenPredictor
from agentenv.credit.random_expansion import allocate_random
from agentenv.credit.reachability import reachability_advantages, reachable
from agentenv.credit.reinforce import reinforce_advantages
from agentenv.credit.result import StepAdvantages, TokenAdvantages, check_advantages, check_token_credit
from agentenv.credit.rloo import rloo_advantages
from agentenv.credit.rtmc import rtmc_advantages, rtmc_visits
from agentenv.credit.salt import salt_advantages
from agentenv.credit.sr_ppo import sr_ppo_advantages
from agentenv.credit.step_reward import step_reward_advantages
from agentenv.credit.trace import allocate_prefixes, allocate_roots, effective_ratio
from agentenv.credit.tree_grpo import tree_grpo_advantages
from agentenv.credit.tree_rl import tree_rl_advantages
from agentenv.credit.vine_ppo import vine_ppo_advantages
from agentenv.credit.vip import allocate_vip
from agentenv.credit.weights import Weights, step_weights

__all__ = [
    "ALLOCATORS",
    "ESTIMATORS",
    "Allocator",
    "HashedPredictor",
    "HiddenPredictor",
    "StepAdvantages",
    "TokenAdvantages",
    "TraceAllocator",
    "Weights",
    "adaptive_k",
    "allocate_arpo",
    "allocate_dynamic",
    "allocate_pcl",
    "allocate_prefixes",
    "allocate_random",
    "allocate_roots",
    "allocate_uniform",
    "allocate_vip",
    "certify",
    "check_advantages",
    "check_anchors",
    "check_counts",
    "check_token_credit",
    "crbc_advantages",
    "dr_grpo_advantages",
    "effective_ratio",
    "gigpo_advantages",
    "grpo_advantages",
    "make_allocator",
    "make_estimator",
    "max_at_k",
    "pass_at_k",
    "passk_advantages",
    "passk_training_advantages",
    "pkpo_advantages",
    "reachability_advantages",
    "reachable",
    "reinforce_advantages",
    "rloo_advantages",
    "rtmc_advantages",
    "rtmc_visits",
    "salt_advantages",
    "sr_ppo_advantages",
    "step_reward_advantages",
    "step_weights",
    "tree_grpo_advantages",
    "tree_rl_advantages",
    "vine_ppo_advantages",
]
