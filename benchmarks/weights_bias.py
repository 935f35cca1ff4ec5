"""Weights of steps: which way the mean update points, and how much one update scatters, at equal sampling cost.

    python benchmarks/weights_bias.py                  # all tables (3 minutes on one core)
    python benchmarks/weights_bias.py --groups 1600    # a quick look, with wider bounds
    python benchmarks/weights_bias.py --problem long --json out.json
    python benchmarks/weights_bias.py --problem rare   # the same problems, made so hard that 2 to 4 % succeed

First table: cosine of the *mean* update with the exact policy gradient, corrected for sampling noise; 1 is no bias in
direction. Second: the mean cosine of *single* updates of 8 groups; what is below 1 here and not there is variance.
Estimators pool with the weights that their steps are trained with. `(true)` are the exact advantages: what is wrong
there is the weights' own doing. Groups cost as much as 8 chains; forks spend a half (or a quarter) of it.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    StepAdvantages,
    certify,
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    rloo_advantages,
    rtmc_advantages,
    step_reward_advantages,
    vine_ppo_advantages,
)
from agentenv.credit.certify import Sampler, sample_chains, sample_forks, sample_random_forks
from agentenv.credit.problems import PROBLEMS, bush, corridor, lattice, traps
from agentenv.credit.tabular import SampledTrees, TabularMDP

WEIGHTS = ("unique", "counts", "occupancy", "graph")
USUAL = ("sparse", "long", "irrecoverable", "tree")
RARE: dict[str, Callable[[], TabularMDP]] = {
    "rare sparse": partial(lattice, needed=7, skill=0.5),
    "rare long": partial(corridor, quit_rate=0.08),
    "rare irrecoverable": partial(traps, slip=0.38),
    "rare tree": partial(bush, logit=-6.0),
}
MAKERS: dict[str, Callable[[], TabularMDP]] = PROBLEMS | RARE
SAMPLERS: dict[str, Sampler] = {
    "chains": sample_chains,
    "random forks": sample_random_forks,
    "TRACE forks": sample_forks,
    "TRACE, outcomes unseen": partial(sample_forks, outcomes="unseen"),
    "TRACE forks, one each": partial(sample_forks, maximum=1),
    "random forks, a quarter": partial(sample_random_forks, share=0.25),
    "TRACE forks, a quarter": partial(sample_forks, share=0.25),
    "TRACE, unseen, a quarter": partial(sample_forks, share=0.25, outcomes="unseen"),
}
ESTIMATORS: dict[str, Callable[..., StepAdvantages]] = {
    "GRPO": grpo_advantages,
    "Dr.GRPO": dr_grpo_advantages,
    "RLOO": rloo_advantages,
    "step": partial(step_reward_advantages, scale=False),
    "VinePPO": vine_ppo_advantages,
    "GiGPO": partial(gigpo_advantages, discount=1.0),
    "RTMC": partial(rtmc_advantages, discount=1.0),
    "RTMC oth.": partial(rtmc_advantages, discount=1.0, baseline="others"),
    "RTMC graph": partial(rtmc_advantages, discount=1.0, values="graph"),
}
Table = dict[str, dict[str, dict[str, tuple[float, float, float]]]]


def exact(problem: TabularMDP) -> Callable[..., StepAdvantages]:
    """Returns the true advantages, whatever the weights."""
    truth = problem.advantages()

    def run(tree: TreeArrays, *, weights: str) -> StepAdvantages:
        del weights
        left = tree.state_ids[np.maximum(tree.parents, 0)]
        right = np.where(tree.is_root, 0.0, truth[left, np.maximum(tree.action_ids, 0)])
        return StepAdvantages(right, right, right, np.where(tree.is_root, 0, tree.leaf_counts))

    return run


def once(sampler: Sampler) -> Sampler:
    """Keeps the trees of a sampler, so that all estimators see the same at the price of one."""
    kept: dict[tuple[str, int], SampledTrees] = {}

    def run(problem: TabularMDP, rng: np.random.Generator, groups: int, group_size: int) -> SampledTrees:
        key = problem.name, int(rng.bit_generator.state["state"]["state"])
        if key not in kept:
            kept[key] = sampler(problem, rng, groups, group_size)
        return kept[key]

    return run


def table_of(problem: TabularMDP, groups: int) -> Table:
    """Scores every estimator by sampler and weights: direction of the mean, its bound, cosine of single updates."""
    out: Table = {}
    for sampler_name, sampler in SAMPLERS.items():
        grown = once(sampler)
        for weights in WEIGHTS if sampler is not sample_chains else WEIGHTS[-1:]:
            row = out.setdefault(sampler_name, {}).setdefault(weights, {})
            for name, estimator in (ESTIMATORS | {"(true)": exact(problem)}).items():
                score = certify(
                    partial(estimator, weights=weights),
                    problem,
                    rollouts=8 * groups,
                    sampler=grown,
                    weights=weights,
                    seed=7,
                )
                row[name] = score.direction, score.direction_bound, score.cosine
    return out


def show(name: str, table: Table) -> None:
    """Prints both tables of one problem."""
    print(f"\n{name}: success {MAKERS[name]().values()[0]:.3f}")
    columns = [*ESTIMATORS, "(true)"]
    for field, title in ((0, "direction of the mean update"), (2, "cosine of one update of 8 groups")):
        print(f"\n{name}: {title}")
        print(f"{'':26s}{'weights':11s}" + "".join(f"{column:>11s}" for column in columns))
        for sampler, rows in table.items():
            for weights, row in rows.items():
                cells = "".join(f"{row[column][field]:11.3f}" for column in columns)
                print(f"{sampler:26s}{weights:11s}{cells}", flush=True)
    widest = max(score[1] for rows in table.values() for row in rows.values() for score in row.values())
    print(f"95 % bounds of the directions: at most +-{widest:.3f}")


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=[*MAKERS, "all", "rare"], default="all")
    parser.add_argument("--groups", type=int, default=8000, help="of the cost of 8 chains, for each number")
    parser.add_argument("--json", type=Path, help="also write every number here")
    args = parser.parse_args()
    names = {"all": USUAL, "rare": tuple(RARE)}.get(args.problem, (args.problem,))
    start, results = time.perf_counter(), dict[str, Table]()
    for name in names:
        results[name] = table_of(MAKERS[name](), args.groups)
        show(name, results[name])
    print(f"\n{time.perf_counter() - start:.0f} s, {args.groups} groups for each number")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
