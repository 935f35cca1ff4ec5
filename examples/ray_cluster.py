"""Environments on a Ray cluster: few actors with many environments each; the agent stays here.

python examples/ray_cluster.py       # starts a cluster on this machine; call ray.init(address=...) first to use another
"""

import os

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # read when ray is imported: listen on loopback only

from functools import partial

from agentenv import make
from agentenv.agents import RandomAgent
from agentenv.rollout import Rollout
from agentenv.rollout.ray_executor import RayExecutor
from agentenv.tree import Anchor


def main() -> None:
    """Grows the same trees here and in two actors."""
    make_env = partial(make, "agentenv/MathVerifier-v0", max_steps=4)
    tasks = [{"question": f"Compute {n} + 1.", "reference": str(n + 1)} for n in range(8)]
    executor = RayExecutor(actors=2)
    grown = {}
    for name, where in {"here": None, "in 2 actors": executor}.items():
        with Rollout(make_env, RandomAgent(), executor=where, seed=1) as rollout:
            trees = rollout.grow(tasks, 8)
            middle = [(i, min(set(tree.snapshots) - {0})) for i, tree in enumerate(trees)]
            rollout.extend(trees, [Anchor(i, node, 2) for i, node in middle])  # from snapshots, which travel
        grown[name] = [[node.state_signature for node in tree.nodes] for tree in trees]
        print(f"{name}: {sum(len(tree.leaves()) for tree in trees)} episodes, {sum(map(len, trees))} nodes")
    executor.close()
    print("equal trees:", grown["here"] == grown["in 2 actors"])


if __name__ == "__main__":
    main()
