"""What is compared: an estimator, and how the budget of a group is spent; as plain data, so that a cell can hold it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages, rtmc_advantages
from benchmarks.estimators import CHAINS, FORKS

from .allocators import CANDIDATES
from .names import named

__all__ = [
    "CHAIN_NAMES",
    "ENTROPY",
    "ESTIMATORS",
    "FORKED",
    "METHODS",
    "POOLING",
    "estimator_of",
    "forked",
    "method_of",
    "smoothed",
]

Estimator = Callable[[TreeArrays], StepAdvantages]
Method = dict[str, Any]
"""`estimator`, `rollouts` and `continuations` per tree, `allocator`, `options` of the trainer's configuration, and
`trainer`: `tree`, `sr_ppo` or `closed_loop`."""

SMOOTHING = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def smoothed(count: float) -> str:
    """Returns the name of RTMC (discount 1) with so many pseudo-counts of smoothing."""
    return f"RTMC, prior {count:g}"


ESTIMATORS: dict[str, Estimator] = {
    **{f"{name}, on forks": one for name, one in FORKS.items() if name not in CHAINS},
    **CHAINS,
    **{smoothed(n): partial(rtmc_advantages, discount=1.0, prior_count=n) for n in SMOOTHING},
}
"""Every estimator, by the name that it has in the certification (`benchmarks/estimators.py`)."""

GRAPH = "RTMC, graph values"
ENTROPY = "RTMC, entropy bonus"

CHAIN_NAMES = (
    "GRPO", "Dr.GRPO", "RLOO", "step reward", "GiGPO", "SALT", "RTMC (paper)", *map(smoothed, SMOOTHING), GRAPH, "CRBC",
)  # fmt: skip
"""Whose credit is measured on independent chains."""

POOLING = ("GiGPO", "RTMC (paper)", smoothed(0.5), GRAPH, "CRBC")
"""Those of them that ask which states are the same: they are also measured with other signatures."""

FORKED = ("Dr.GRPO", "RTMC (paper)", smoothed(0.5), GRAPH, "CRBC")
"""Those that are also measured where part of the steps are spent on forks."""


def method_of(estimator: str, rollouts: int = 8, continuations: int = 0, **more: Any) -> Method:
    """Describes a method of `TreeTrainer`.

    Args:
        estimator: its name.
        rollouts: full episodes per tree.
        continuations: further episodes per tree.
        more: `allocator`, `options`, `trainer`.
    """
    base: Method = {"trainer": "tree", "allocator": "even", "options": {}}
    return base | {"estimator": estimator, "rollouts": rollouts, "continuations": continuations} | more


def forked(estimator: str, continuations: int, allocator: str, **options: Any) -> Method:
    """Describes a method that spends `continuations` of 8 episodes per tree on forks."""
    return method_of(estimator, 8 - continuations, continuations, allocator=allocator, options=options)


def _sr_ppo(**options: Any) -> Method:
    base = {"critic_warmup": 128, "k": 1.0}
    return method_of("", 1, 0, trainer="sr_ppo", options=base | options)


METHODS: dict[str, Method] = {
    # 2: who reads the group
    "GRPO": method_of("GRPO"),
    "RLOO": method_of("RLOO"),
    "step reward": method_of("step reward"),
    "GiGPO": method_of("GiGPO"),
    "CRBC": method_of("CRBC"),
    "RTMC": method_of("RTMC (paper)"),
    "graph values": method_of(GRAPH),
    **{smoothed(n): method_of(smoothed(n)) for n in SMOOTHING},
    ENTROPY: method_of("RTMC (paper)", options={"entropy_coef": 0.003}),
    **{f"RTMC, groups of {n}": method_of("RTMC (paper)", n) for n in (4, 16)},
    **{f"GRPO, groups of {n}": method_of("GRPO", n) for n in (4, 16)},
    # 3: a critic in place of a group
    "SR-PPO, k = 1": _sr_ppo(),
    **{f"SR-PPO, k = {k}": _sr_ppo(k=float(k), k_schedule="constant") for k in (4, 16, 64)},
    "SR-PPO, k adaptive": _sr_ppo(k=64.0),
    **{f"SR-PPO, lambda {decay:g}": _sr_ppo(decay=decay) for decay in (0.0, 0.5, 1.0)},
    "SR-PPO, no warm-up": _sr_ppo(critic_warmup=0),
    "SR-PPO, the default": method_of("", 1, 0, trainer="sr_ppo"),
    "SR-PPO, lambda 0, no guard": _sr_ppo(decay=0.0, critic_guard=False),
    "SR-PPO, lambda 0, no guard, no warm-up": _sr_ppo(decay=0.0, critic_guard=False, critic_warmup=0),
    # 4 and 5: where the budget goes
    "random, a quarter": forked(GRAPH, 2, "random"),
    "TRACE, a quarter": forked(GRAPH, 2, "trace"),
    "TRACE, half": forked(GRAPH, 4, "trace"),
    "TRACE unseen, a quarter": forked(GRAPH, 2, "trace_unseen"),
    "TRACE, a quarter, occupancy": forked(GRAPH, 2, "trace", step_weights="occupancy"),
    "TRACE, a quarter, counts": forked(GRAPH, 2, "trace", step_weights="counts"),
    "TRACE, a quarter, unique": forked(GRAPH, 2, "trace", step_weights="unique"),
    "TRACE, a pool of 4": forked(GRAPH, 2, "trace", candidates=CANDIDATES),
    "shallow, a quarter": forked(GRAPH, 2, "shallow"),
    "deep, a quarter": forked(GRAPH, 2, "deep"),
    "Dr.GRPO, TRACE, a quarter": forked("Dr.GRPO", 2, "trace"),
    "RTMC, TRACE, a quarter": forked("RTMC (paper)", 2, "trace"),
    # 4: both stages of TRACE, each against its uniform form
    "uniform/uniform": forked(GRAPH, 4, "random"),
    "active/uniform": forked(GRAPH, 4, "trace_roots", candidates=CANDIDATES),
    "uniform/active": forked(GRAPH, 4, "trace_prefixes"),
    "active/active": forked(GRAPH, 4, "trace", candidates=CANDIDATES),
    "active roots by VIP": forked(GRAPH, 4, "vip_roots", candidates=CANDIDATES),
    "active roots by PCL": forked(GRAPH, 4, "pcl_roots", candidates=CANDIDATES),
    "dynamic sampling": method_of(GRAPH, allocator="dynamic", options={"candidates": CANDIDATES}),
    # 6: the closed loop, whose parts are above
    "closed loop": method_of("", 4, 4, trainer="closed_loop", options={"critic_warmup": 128}),
    "closed loop, no warm-up": method_of("", 4, 4, trainer="closed_loop", options={"critic_warmup": 0}),
    "closed loop, a quarter": method_of("", 6, 2, trainer="closed_loop", options={"critic_warmup": 128}),
}
"""What is trained, by name."""


def estimator_of(name: str) -> Estimator:
    """Returns an estimator by its name.

    Raises:
        ValueError: there is none of that name.
    """
    return named("estimator", ESTIMATORS, name)
