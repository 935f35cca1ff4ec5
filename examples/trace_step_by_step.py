"""TRACE step by step: predict, spend on prompts, roll out, spend on prefixes, learn; every arrow a call of its own.

python examples/trace_step_by_step.py
"""

import numpy as np

from agentenv import Context, ToolCall, make
from agentenv.agents import ScriptedAgent
from agentenv.arrays import TreeArrays
from agentenv.credit import allocate_prefixes, allocate_roots, effective_ratio
from agentenv.credit.predictor import HashedPredictor, predictor_targets, prefix_at
from agentenv.credit.trace import prefixes_of
from agentenv.rollout import Rollout
from agentenv.tree import Anchor
from agentenv.types import Action, message_text


def policy(context: Context) -> Action:
    """Is always right about sums, never about powers, and about products by chance."""
    question = message_text(context.messages[0]).removeprefix("Compute ").rstrip(".")
    rng = np.random.default_rng(context.seed)
    if context.messages[-1]["role"] == "user" and rng.random() < 0.7:
        return Action(tool_calls=(ToolCall("calculate", {"expression": question}),))
    right = rng.random() < (1.0 if "+" in question else 0.0 if "^" in question else 0.5)
    return Action(tool_calls=(ToolCall("submit", {"answer": question if right else "0"}),))


def main() -> None:
    """Spends the same number of episodes in every generation; the predictor begins with nothing."""
    tasks = [{"question": f"Compute {n} {op} 3.", "reference": f"{n} {op} 3"} for op in "+*^" for n in range(2, 10)]
    predictor = HashedPredictor()
    with Rollout(lambda: make("agentenv/MathVerifier-v0"), ScriptedAgent(policy)) as rollout:
        for generation in range(4):
            rollout.seed = generation
            # 1. How likely is success on each prompt? A tree that has only a root is one.
            trees = rollout.begin(tasks)
            success = predictor.predict([prefix_at(tree, 0) for tree in trees])
            # 2. Episodes from the roots: most expected groups with both outcomes, sum of 1 - v^m - (1 - v)^m.
            roots = allocate_roots(success, budget=48, maximum=8)
            rollout.extend(trees, [Anchor(tree, 0, count) for tree, count in roots.items()])
            grown = [tree for tree in trees if len(tree) > 1]
            # 3. Continuations from prefixes: most expected outcomes that differ from the one seen there.
            arrays = TreeArrays.from_trees(grown)
            prefixes = prefixes_of(arrays)
            places = zip(prefixes.trees, prefixes.local, strict=True)
            likely = predictor.predict([prefix_at(grown[tree], node) for tree, node in places])
            chosen = allocate_prefixes(likely, prefixes.outcomes, budget=16, maximum=2, anchors=prefixes.nodes)
            rollout.extend(grown, [Anchor(*place) for place in chosen.in_trees(arrays)])
            # 4. What came of it is what the predictor learns; it never enters an advantage.
            predictor.update(*predictor_targets(grown))
            sums, products, powers = (int(sum(roots.counts[first : first + 8])) for first in (0, 8, 16))
            print(
                f"generation {generation}: {sums} episodes of sums, {products} of products, {powers} of powers;",
                end=" ",
            )
            mixed = effective_ratio(TreeArrays.from_trees(grown))
            print(f"{chosen.total} continuations; {mixed:.0%} of {len(grown)} trees with both outcomes")


if __name__ == "__main__":
    main()
