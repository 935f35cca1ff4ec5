"""Credit: from episode trees to step advantages, and where to spend the next rollouts.

An estimator is a function `(TreeArrays, *, ...) -> StepAdvantages`, an allocator a function that returns an
`Allocation`; any pair combines. numpy and scipy only.
"""

from agentenv.credit.allocation import Allocation, allocate_uniform
from agentenv.credit.arpo import allocate_arpo
from agentenv.credit.calibration import Calibration, calibration_by_depth, calibration_of
from agentenv.credit.certify import Score, certify, sample_chains, sample_forks
from agentenv.credit.drawing import explain, explain_svg
from agentenv.credit.dynamic_sampling import allocate_dynamic
from agentenv.credit.gigpo import gigpo_advantages
from agentenv.credit.graph import graph_values
from agentenv.credit.grpo import dr_grpo_advantages, grpo_advantages
from agentenv.credit.passes import occupancy_weights
from agentenv.credit.passk import max_at_k, pass_at_k
from agentenv.credit.passk_groups import passk_training_advantages, pkpo_advantages
from agentenv.credit.passk_tree import passk_advantages, passk_values
from agentenv.credit.pcl import allocate_pcl
from agentenv.credit.predictor import HashedPredictor, Prefix, SuccessPredictor, predictor_targets, prefix_at
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.random_expansion import allocate_random
from agentenv.credit.reachability import reachability_advantages, reachable
from agentenv.credit.reinforce import reinforce_advantages
from agentenv.credit.result import StepAdvantages, TokenAdvantages
from agentenv.credit.rloo import rloo_advantages
from agentenv.credit.rtmc import Visits, rtmc_advantages, rtmc_visits
from agentenv.credit.salt import salt_advantages
from agentenv.credit.signatures import FileStep, action_signature, signature_arrays, state_signatures
from agentenv.credit.sr_ppo import prompt_weights, sr_ppo_advantages
from agentenv.credit.step_reward import step_reward_advantages
from agentenv.credit.tabular import SampledTrees, TabularMDP
from agentenv.credit.trace import (
    Prefixes,
    allocate_prefixes,
    allocate_roots,
    effective_ratio,
    prefix_contrast,
    prefixes_of,
    root_contrast,
    success_shares,
)
from agentenv.credit.tree_grpo import tree_grpo_advantages
from agentenv.credit.tree_rl import tree_rl_advantages
from agentenv.credit.vine_ppo import vine_ppo_advantages
from agentenv.credit.vip import allocate_vip

__all__ = [
    "PROBLEMS",
    "Allocation",
    "Calibration",
    "FileStep",
    "HashedPredictor",
    "Prefix",
    "Prefixes",
    "SampledTrees",
    "Score",
    "StepAdvantages",
    "SuccessPredictor",
    "TabularMDP",
    "TokenAdvantages",
    "Visits",
    "action_signature",
    "allocate_arpo",
    "allocate_dynamic",
    "allocate_pcl",
    "allocate_prefixes",
    "allocate_random",
    "allocate_roots",
    "allocate_uniform",
    "allocate_vip",
    "calibration_by_depth",
    "calibration_of",
    "certify",
    "dr_grpo_advantages",
    "effective_ratio",
    "explain",
    "explain_svg",
    "gigpo_advantages",
    "graph_values",
    "grpo_advantages",
    "max_at_k",
    "occupancy_weights",
    "pass_at_k",
    "passk_advantages",
    "passk_training_advantages",
    "passk_values",
    "pkpo_advantages",
    "predictor_targets",
    "prefix_at",
    "prefix_contrast",
    "prefixes_of",
    "prompt_weights",
    "reachability_advantages",
    "reachable",
    "reinforce_advantages",
    "rloo_advantages",
    "root_contrast",
    "rtmc_advantages",
    "rtmc_visits",
    "salt_advantages",
    "sample_chains",
    "sample_forks",
    "signature_arrays",
    "sr_ppo_advantages",
    "state_signatures",
    "step_reward_advantages",
    "success_shares",
    "tree_grpo_advantages",
    "tree_rl_advantages",
    "vine_ppo_advantages",
]
