"""Speed of the credit library, with ratios against the dictionary-and-loop way measured in the same run.

    python benchmarks/credit_speed.py                # about 2 minutes on one core
    python benchmarks/credit_speed.py --largest      # also 10^7 steps (16 GB of memory)

CPU seconds of one process (`time.process_time`), best of the repeats. Every timing starts from fresh TreeArrays, so
the cached views (depths, levels, leaf counts) are computed anew and counted; building TreeArrays and numbering
signatures are not. Memory is the peak of numpy's allocations over what the input holds, by tracemalloc, result
included.
"""

import argparse
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
from estimators_loops import LOOPS, SCALARS, Rows

from agentenv.arrays import TreeArrays
from agentenv.credit import (
    StepAdvantages,
    allocate_prefixes,
    allocate_roots,
    crbc_advantages,
    dr_grpo_advantages,
    gigpo_advantages,
    grpo_advantages,
    passk_advantages,
    passk_training_advantages,
    pkpo_advantages,
    reachability_advantages,
    reachable,
    reinforce_advantages,
    rloo_advantages,
    rtmc_advantages,
    salt_advantages,
    sr_ppo_advantages,
    step_reward_advantages,
    tree_grpo_advantages,
    tree_rl_advantages,
    vine_ppo_advantages,
)

Estimator = Callable[[TreeArrays], StepAdvantages]

ESTIMATORS: dict[str, Estimator] = {
    "GRPO": grpo_advantages,
    "Dr.GRPO": dr_grpo_advantages,
    "RLOO": rloo_advantages,
    "REINFORCE": reinforce_advantages,
    "step reward": step_reward_advantages,
    "GiGPO": gigpo_advantages,
    "GiGPO, std": lambda tree: gigpo_advantages(tree, scale=True),
    "SALT": salt_advantages,
    "RTMC": rtmc_advantages,
    "RTMC, discounted prior, scaled": lambda tree: rtmc_advantages(tree, prior_mean="discounted", normalize=True),
    "RTMC, graph values": lambda tree: rtmc_advantages(tree, values="graph"),
    "CRBC": crbc_advantages,
    "Pass@k training": passk_training_advantages,
    "PKPO": pkpo_advantages,
    "tree Pass@k": passk_advantages,
    "tree Pass@k, merged, unbiased": lambda tree: passk_advantages(tree, merge=True, unbiased=True),
    "reachability": reachability_advantages,
    "Tree-GRPO": tree_grpo_advantages,
    "TreeRL": tree_rl_advantages,
    "VinePPO": vine_ppo_advantages,
    "VinePPO, against V(parent)": lambda tree: vine_ppo_advantages(tree, baseline="parent"),
}


def make_trees(trajectories: int, *, steps: int = 8, group: int = 8, seed: int = 0) -> TreeArrays:
    """Makes groups of chains with shared states, a tenth of them revisited, and rewards 0 or 1 at the end."""
    rng = np.random.default_rng(seed)
    trees = trajectories // group
    size = 1 + group * steps
    base = (np.arange(trees) * size)[:, None, None]
    nodes = base + 1 + np.arange(group)[None, :, None] * steps + np.arange(steps)
    above = nodes - 1
    above[:, :, 0] = base[:, :, 0]
    parents, rewards = np.full(trees * size, -1), np.zeros(trees * size)
    depths = np.zeros(trees * size, dtype=np.int64)
    parents[nodes.ravel()] = above.ravel()
    rewards[nodes[:, :, -1].ravel()] = rng.integers(0, 2, trees * group)
    depths[nodes.ravel()] = np.tile(np.arange(1, steps + 1), trees * group)
    back = (rng.random(trees * size) < 0.1) & (depths > 2)
    states = np.where(depths == 0, 0, (depths - 2 * back) * 4 + rng.integers(0, 4, trees * size))
    actions = rng.integers(0, 3, trees * size)
    return TreeArrays.build(
        parents, rewards, tree_ids=np.repeat(np.arange(trees), size), state_ids=states, action_ids=actions
    )


def fresh(tree: TreeArrays) -> TreeArrays:
    """Copies trees without their cached views."""
    return TreeArrays(**{field.name: getattr(tree, field.name) for field in fields(tree)})


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def best(estimator: Estimator, tree: TreeArrays, repeats: int) -> float:
    """CPU seconds of an estimator on trees without cached views, best of the repeats."""
    return min(seconds(partial(estimator, fresh(tree))) for _ in range(repeats))


def extra_bytes(estimator: Estimator, tree: TreeArrays) -> float:
    """Peak bytes per step beyond the input."""
    copy = fresh(tree)
    tracemalloc.start()
    estimator(copy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / len(tree)


def to_rows(tree: TreeArrays) -> Rows:
    """Turns trees of chains into rows with text ids, as trainers hold them."""
    steps = np.flatnonzero(~tree.is_root)
    trajectory = np.cumsum(tree.depths[steps] == 1)
    return Rows(
        [f"prompt-{g}" for g in tree.tree_ids[steps]],
        [f"trajectory-{t}" for t in trajectory],
        [f"src/core.py:M,V[1-2]|tests=1|state-{s}" for s in tree.state_ids[tree.parents[steps]]],
        [f"modify:replace:{a}@src/core.py" for a in tree.action_ids[steps]],
        tree.rewards[steps].tolist(),
    )


def show_estimators(trajectories: int, repeats: int) -> None:
    """Prints time and memory of every estimator."""
    tree = make_trees(trajectories)
    print(f"\nEstimators on {len(tree):,} nodes ({trajectories:,} trajectories of 8 steps, groups of 8)")
    print(f"{'':34s}{'seconds':>10s}{'bytes a step':>14s}")
    for name, estimator in ESTIMATORS.items():
        print(f"{name:34s}{best(estimator, tree, repeats):10.3f}{extra_bytes(estimator, tree):14.0f}")


def show_ratios(trajectories: int, loops: dict[str, Callable[[Rows], object]], title: str, repeats: int) -> None:
    """Prints how much faster the library is than loops on the same batch, after comparing the numbers."""
    tree = make_trees(trajectories)
    rows, steps = to_rows(tree), np.flatnonzero(~tree.is_root)
    print(f"\nAgainst {title}, {len(steps):,} steps")
    print(f"{'':34s}{'loop':>10s}{'here':>10s}{'ratio':>8s}")
    for name, loop in loops.items():
        loop(to_rows(make_trees(16)))  # imports, and first calls of torch
        answer: list[object] = []
        slow = seconds(lambda loop=loop, answer=answer: answer.append(loop(rows)))
        quick = best(ESTIMATORS[name], tree, repeats)
        if name != "SALT":  # its loop calls every last state "end", the trees name them
            given = np.asarray(answer[0], dtype=np.float64)
            # float32, and GRPO's epsilon is 1e-6 in verl, 1e-4 here
            np.testing.assert_allclose(given, ESTIMATORS[name](tree).advantages[steps], rtol=1e-3, atol=1e-4)
        print(f"{name:34s}{slow:10.3f}{quick:10.4f}{slow / quick:8.0f}")


def show_scaling(largest: bool) -> None:
    """Prints nanoseconds a step from 10^4 to 10^6 (or 10^7) steps."""
    sizes = [1_250, 12_500, 125_000] + ([1_250_000] if largest else [])
    names = ("GRPO", "GiGPO", "RTMC", "RTMC, graph values", "tree Pass@k", "reachability")
    print("\nNanoseconds a step, by number of steps")
    print(f"{'':34s}" + "".join(f"{size * 8:>12,}" for size in sizes))
    times = {name: list[float]() for name in names}
    for size in sizes:
        tree = make_trees(size)
        for name in names:
            times[name].append(best(ESTIMATORS[name], tree, 5 if size < 10**5 else 2) / len(tree) * 1e9)
    for name in names:
        print(f"{name:34s}" + "".join(f"{t:12.0f}" for t in times[name]))


def show_rest(repeats: int) -> None:
    """Prints reachability on explicit graphs, SR-PPO on tokens, and the allocators."""
    rng = np.random.default_rng(0)
    print("\nOther functions")
    print(f"{'':60s}{'seconds':>10s}")
    edges, goals = rng.integers(0, 2_000_000, (10_000_000, 2)), np.arange(100)
    p, y, mask = rng.random((64, 4096)), rng.integers(0, 2, 64), rng.random((64, 4096)) < 0.7
    calls = {
        "reachable, 10^7 edges, 2 x 10^6 states": lambda: reachable(edges, goals),
        "SR-PPO, 64 x 4096 tokens, decay 0": lambda: sr_ppo_advantages(p, y, mask),
        "SR-PPO, 64 x 4096 tokens, decay 0.95": lambda: sr_ppo_advantages(p, y, mask, decay=0.95),
    }
    v, r, groups = rng.random(100_000), rng.integers(0, 2, 100_000), np.arange(100_000) // 20
    prices = rng.random(100_000) + 0.5
    calls |= {
        "allocate_roots, 10^6 over 10^5 prompts": lambda: allocate_roots(v, budget=10**6),
        "allocate_prefixes, 10^6 over 10^5 anchors": lambda: allocate_prefixes(v, r, budget=10**6),
        "allocate_prefixes, caps per prefix and prompt": lambda: allocate_prefixes(
            v, r, budget=10**6, maximum=64, groups=groups, group_maximum=300
        ),
        "allocate_prefixes, with prices": lambda: allocate_prefixes(v, r, budget=10**6, costs=prices),
    }
    for name, call in calls.items():
        print(f"{name:60s}{min(seconds(call) for _ in range(repeats)):10.2f}")


def main() -> None:
    """Runs everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=125_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", action="store_true")
    args = parser.parse_args()
    print(f"numpy {np.__version__}, {os.cpu_count()} cores (one used)")
    show_estimators(args.trajectories, args.repeats)
    show_ratios(args.trajectories, LOOPS, "one pass of plain floats and dictionaries", args.repeats)
    show_ratios(1_024, SCALARS, "rows of 0-dimensional tensors, as in verl and verl-agent", args.repeats)
    show_scaling(args.largest)
    show_rest(args.repeats)


if __name__ == "__main__":
    main()
