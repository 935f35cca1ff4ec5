"""Certification: every estimator against exact advantages, at equal sampling cost.

    python benchmarks/estimators.py                      # all tables (about 5 minutes on one core)
    python benchmarks/estimators.py --problem long       # one problem
    python benchmarks/estimators.py --plots docs/images  # also draws the pictures of docs/credit.md

All columns are explained at `agentenv.credit.Score`. Truth is undiscounted; `cos` compares one update of 8 groups
with the exact policy gradient. Rows marked `forks` spend half of the same steps on continuations from prefixes.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    StepAdvantages,
    certify,
    crbc_advantages,
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    passk_advantages,
    passk_training_advantages,
    pkpo_advantages,
    reachability_advantages,
    reinforce_advantages,
    rloo_advantages,
    rtmc_advantages,
    salt_advantages,
    step_reward_advantages,
    tree_grpo_advantages,
    tree_rl_advantages,
    vine_ppo_advantages,
)
from agentenv.credit.certify import Score, sample_forks
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.tabular import TabularMDP

Estimator = Callable[[TreeArrays], StepAdvantages]
SIZES = (4, 8, 16, 32, 64)

CHAINS: dict[str, Estimator] = {
    "GRPO": grpo_advantages,
    "Dr.GRPO": dr_grpo_advantages,
    "RLOO": rloo_advantages,
    "REINFORCE": reinforce_advantages,
    "step reward": partial(step_reward_advantages, scale=False),
    "GiGPO": gigpo_advantages,
    "GiGPO, std": partial(gigpo_advantages, scale=True),
    "SALT": salt_advantages,
    "PKPO, k=4": partial(pkpo_advantages, k=4),
    "Pass@k training, k=4": partial(passk_training_advantages, k=4),
    "RTMC (paper)": rtmc_advantages,
    "RTMC, discounted prior": partial(rtmc_advantages, prior_mean="discounted"),
    "RTMC, discount 1": partial(rtmc_advantages, discount=1.0),
    "RTMC, discount 1, prior 0.5": partial(rtmc_advantages, discount=1.0, prior_count=0.5),
    "RTMC, discount 1, no prior": partial(rtmc_advantages, discount=1.0, prior_count=0.0),
    "RTMC, graph values": partial(rtmc_advantages, discount=1.0, prior_count=0.5, values="graph"),
    "CRBC": crbc_advantages,
    "CRBC, step part alone": partial(crbc_advantages, episode_weight=0.0),
    "reachability": reachability_advantages,
}
FORKS: dict[str, Estimator] = {
    "Dr.GRPO": dr_grpo_advantages,
    "Tree-GRPO": tree_grpo_advantages,
    "TreeRL": tree_rl_advantages,
    "VinePPO": vine_ppo_advantages,
    "VinePPO, against V(parent)": partial(vine_ppo_advantages, baseline="parent"),
    "tree Pass@k, k=4": partial(passk_advantages, k=4),
    "RTMC, discount 1, prior 0.5": partial(rtmc_advantages, discount=1.0, prior_count=0.5),
    "RTMC, graph values": partial(rtmc_advantages, discount=1.0, prior_count=0.5, values="graph"),
    "CRBC": crbc_advantages,
}


def coarse(problem: TabularMDP, estimator: Estimator) -> Estimator:
    """Makes an estimator see the problem's coarse signatures instead of its states."""
    aliases = problem.aliases

    def run(tree: TreeArrays) -> StepAdvantages:
        assert aliases is not None
        return estimator(replace(tree, state_ids=aliases[tree.state_ids]))

    return run


def exact(problem: TabularMDP) -> Estimator:
    """Returns the true advantages: what the gradient would be with perfect credit."""
    truth = problem.advantages()

    def run(tree: TreeArrays) -> StepAdvantages:
        left = tree.state_ids[np.maximum(tree.parents, 0)]
        right = np.where(tree.is_root, 0.0, truth[left, np.maximum(tree.action_ids, 0)])
        return StepAdvantages(right, right, right, np.where(tree.is_root, 0, tree.leaf_counts))

    return run


def rows(problem: TabularMDP, group_size: int, rollouts: int) -> dict[str, Score]:
    """Scores everything on one problem at one group size."""
    out = {"(true advantages)": certify(exact(problem), problem, group_size=group_size, rollouts=rollouts)}
    for name, estimator in CHAINS.items():
        out[name] = certify(estimator, problem, group_size=group_size, rollouts=rollouts)
    name = "RTMC, discount 1, prior 0.5"
    blurred = coarse(problem, CHAINS[name])
    out["RTMC, coarse signatures"] = certify(blurred, problem, group_size=group_size, rollouts=rollouts)
    for name, estimator in FORKS.items():
        out[f"forks: {name}"] = certify(
            estimator, problem, group_size=group_size, rollouts=rollouts, sampler=sample_forks
        )
    return out


def show(problem: TabularMDP, group_size: int, scores: dict[str, Score]) -> None:
    """Prints one table."""
    states, actions = problem.policy.shape
    print(
        f"\n{problem.name}: {states} states, {actions} actions, success rate {problem.values()[0]:.2f}, "
        f"{problem.remaining[0]:.1f} steps; groups of {group_size}"
    )
    head = f"{'':34s}{'bias':>7s}{'  [95 % CI]      ':17s}{'var':>7s}{'mse':>7s}{'r':>7s}{'sign':>6s}{'active':>7s}"
    print(head + f"{'cos':>7s}{'mean':>7s}{'steps':>8s}")
    for name, s in scores.items():
        bounds = f"  [{s.bias_low:.3f}, {s.bias_high:.3f}]"
        print(
            f"{name:34s}{s.bias:7.3f}{bounds:17s}{s.variance:7.3f}{s.mse:7.3f}{s.correlation:7.2f}{s.sign:6.2f}"
            f"{s.active:7.2f}{s.cosine:7.3f}{s.direction:7.3f}{s.cost:8.1f}"
        )


def main() -> None:
    """Runs the certification."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=[*PROBLEMS, "all"], default="all")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rollouts", type=int, default=8192, help="per estimator and group size")
    parser.add_argument("--plots", type=Path, help="folder for PNG files")
    parser.add_argument("--json", type=Path, help="also write every number here")
    args = parser.parse_args()
    start = time.perf_counter()
    results: dict[str, dict[int, dict[str, Score]]] = {}
    for name in PROBLEMS if args.problem == "all" else [args.problem]:
        problem = PROBLEMS[name]()
        results[name] = {}
        for size in args.sizes:
            results[name][size] = rows(problem, size, args.rollouts)
            show(problem, size, results[name][size])
    print(f"\n{time.perf_counter() - start:.0f} s, {args.rollouts} rollouts for each number")
    if args.json:
        plain = {p: {s: {n: asdict(x) for n, x in r.items()} for s, r in t.items()} for p, t in results.items()}
        args.json.write_text(json.dumps(plain, indent=1))
    if args.plots:
        draw(results, args.plots)


def draw(results: dict[str, dict[int, dict[str, Score]]], folder: Path) -> None:
    """Draws mean squared error and gradient cosine by group size, a panel per problem."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = {
        "Dr.GRPO": ("#8c8c8c", "-"),
        "GiGPO": ("#b07aa1", "-"),
        "RTMC (paper)": ("#1f77b4", "-"),
        "RTMC, discount 1, no prior": ("#76b7f2", "--"),
        "RTMC, discount 1, prior 0.5": ("#0b4a8f", "-"),
        "RTMC, coarse signatures": ("#e15759", ":"),
        "RTMC, graph values": ("#2ca02c", "-"),
        "forks: VinePPO": ("#f2a541", "--"),
        "forks: RTMC, graph values": ("#2ca02c", "--"),
        "(true advantages)": ("black", ":"),
    }
    for field, title in (("mse", "mean squared error of step advantages"), ("cosine", "cosine with the true gradient")):
        columns = 4 if len(results) > 3 else len(results)
        lines = -(-len(results) // columns)
        figure, panels = plt.subplots(lines, columns, figsize=(3.6 * columns, 3.0 * lines), squeeze=False)
        for panel, (name, table) in zip(panels.flat, results.items(), strict=False):
            for label, (color, style) in shown.items():
                if field == "mse" and label.startswith("(true"):
                    continue
                values = [getattr(scores[label], field) for scores in table.values()]
                panel.plot(list(table), values, style, color=color, marker="o", markersize=3, label=label)
            panel.set_xscale("log", base=2)
            if field == "mse":
                panel.set_yscale("log")
            panel.set_xticks(list(table), [str(size) for size in table])
            panel.set_title(name, fontsize=10)
            panel.grid(alpha=0.25)
        for panel in panels.flat[len(results) :]:
            panel.axis("off")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        place = panels.flat[-1] if len(results) < lines * columns else figure
        place.legend(handles, labels, loc="center", fontsize=8, frameon=False)
        figure.suptitle(f"{title}, by group size (equal sampling cost)", fontsize=11)
        figure.tight_layout()
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"credit_{field}.png", dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    main()
