"""What allocation buys: contrast per rollout, exactly computed, with perfect and with noisy predictions.

    python benchmarks/estimators_allocators.py     # seconds

Roots: a pool of 1,000 prompts, success rates from a Beta distribution that is hard (most near 0), easy or even; 4,000
rollouts. Reported is the expected number of groups with both outcomes. Prefixes: 200 groups of 4 chains on
certification problems, 1,600 continuations; reported is the expected number of prefixes whose continuations bring the
other outcome.
"""

import numpy as np
from numpy.typing import NDArray

from agentenv.credit import (
    allocate_pcl,
    allocate_prefixes,
    allocate_random,
    allocate_roots,
    allocate_uniform,
    allocate_vip,
)
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.trace import prefix_contrast, prefixes_of, root_contrast

NOISES = (0.0, 1.0, 2.0)


def blurred(v: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Adds normal noise to success rates, in logits."""
    safe = np.clip(v, 1e-6, 1 - 1e-6)
    return 1 / (1 + np.exp(-(np.log(safe / (1 - safe)) + rng.normal(0, noise, len(v)))))


def roots() -> None:
    """Prints expected mixed groups of every rule."""
    print("Mixed groups expected from 4,000 rollouts on a pool of 1,000 prompts, by noise of the prediction (logits)")
    print(f"{'pool':8s}{'rule':44s}" + "".join(f"{noise:>9g}" for noise in NOISES))
    for name, (a, b) in {"hard": (0.3, 2.0), "even": (1.0, 1.0), "easy": (2.0, 0.3)}.items():
        rng = np.random.default_rng(0)
        v = rng.beta(a, b, 1000)
        table: dict[str, list[float]] = {}
        for noise in NOISES:
            guess = blurred(v, noise, rng)
            rules = {
                "uniform, 4 each": allocate_uniform(1000, budget=4000).counts,
                "groups of 8 until spent (dynamic sampling)": np.where(np.arange(1000) < 500, 8, 0),
                "PCL, 500 prompts of 8": allocate_pcl(guess, prompts=500, group_size=8).counts,
                "VIP": allocate_vip(guess, budget=4000).counts,
                "TRACE": allocate_roots(guess, budget=4000).counts,
                "TRACE, at most 8 each": allocate_roots(guess, budget=4000, maximum=8).counts,
            }
            for rule, counts in rules.items():
                table.setdefault(rule, []).append(float(root_contrast(v, counts).sum()))
        for rule, values in table.items():
            print(f"{name:8s}{rule:44s}" + "".join(f"{value:9.0f}" for value in values))


def prefixes() -> None:
    """Prints expected new contrasts of every rule."""
    print("\nPrefixes with a new contrast expected from 1,600 continuations after 200 groups of 4 chains")
    print(f"{'problem':15s}{'rule':37s}" + "".join(f"{noise:>9g}" for noise in NOISES))
    for name in ("sparse", "decisive", "long", "irrecoverable", "tree"):
        problem, rng = PROBLEMS[name](), np.random.default_rng(0)
        sampled = problem.sample(rng, groups=200, group_size=4)
        found = prefixes_of(sampled.tree)
        truth = np.clip(problem.values()[sampled.states[found.nodes]], 0, 1)
        place = {int(node): i for i, node in enumerate(found.nodes)}
        drawn = allocate_random(sampled.tree, rng, nodes=2).anchors
        chosen = np.zeros(len(truth), dtype=np.int64)
        chosen[[place[int(node)] for node in drawn if int(node) in place]] = 1
        table: dict[str, list[float]] = {}
        for noise in NOISES:
            guess = blurred(truth, noise, rng)
            rules = {
                "2 random nodes of every chain": chosen,
                "TRACE": allocate_prefixes(guess, found.outcomes, budget=1600).counts,
                "TRACE, at most 8 per group": allocate_prefixes(
                    guess, found.outcomes, budget=1600, groups=found.trees, group_maximum=8
                ).counts,
            }
            for rule, counts in rules.items():
                table.setdefault(rule, []).append(float(prefix_contrast(truth, found.outcomes, counts).sum()))
        for rule, values in table.items():
            print(f"{name:15s}{rule:37s}" + "".join(f"{value:9.0f}" for value in values))


if __name__ == "__main__":
    roots()
    prefixes()
