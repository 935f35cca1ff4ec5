"""Credit: from episode trees to step advantages, and where to spend the next rollouts.

An estimator is a function `(TreeArrays, *, ...) -> StepAdvantages`, an allocator a function that returns an
`Allocation`; any pair combines. numpy and scipy only.
"""

from agentenv.credit.graph import graph_values
from agentenv.credit.grpo import dr_grpo_advantages, grpo_advantages
from agentenv.credit.passk import max_at_k, pass_at_k
from agentenv.credit.result import StepAdvantages, TokenAdvantages
from agentenv.credit.rloo import rloo_advantages
from agentenv.credit.rtmc import Visits, rtmc_advantages, rtmc_visits

__all__ = [
    "StepAdvantages",
    "TokenAdvantages",
    "Visits",
    "dr_grpo_advantages",
    "graph_values",
    "grpo_advantages",
    "max_at_k",
    "pass_at_k",
    "rloo_advantages",
    "rtmc_advantages",
    "rtmc_visits",
]
