"""Credit: from episode trees to step advantages, and where to spend the next rollouts.

An estimator is a function `(TreeArrays, *, ...) -> StepAdvantages`, an allocator a function that returns an
`Allocation`; any pair combines. numpy and scipy only.
"""

from agentenv.credit.allocation import Allocation, allocate_uniform
from agentenv.credit.graph import graph_values
from agentenv.credit.grpo import dr_grpo_advantages, grpo_advantages
from agentenv.credit.passk import max_at_k, pass_at_k
from agentenv.credit.result import StepAdvantages, TokenAdvantages
from agentenv.credit.rloo import rloo_advantages
from agentenv.credit.rtmc import Visits, rtmc_advantages, rtmc_visits
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

__all__ = [
    "Allocation",
    "Prefixes",
    "StepAdvantages",
    "TokenAdvantages",
    "Visits",
    "allocate_prefixes",
    "allocate_roots",
    "allocate_uniform",
    "dr_grpo_advantages",
    "effective_ratio",
    "graph_values",
    "grpo_advantages",
    "max_at_k",
    "pass_at_k",
    "prefix_contrast",
    "prefixes_of",
    "rloo_advantages",
    "root_contrast",
    "rtmc_advantages",
    "rtmc_visits",
    "success_shares",
]
