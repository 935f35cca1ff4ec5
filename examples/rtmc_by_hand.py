"""RTMC by hand on a saved tree: the formulas in plain Python, and the same numbers from `rtmc_advantages`.

python examples/rtmc_by_hand.py [TREES.jsonl]     # of full episodes; without a file, eight are played and saved first
"""

import sys
from collections import defaultdict

from agentenv import Context, ToolCall, make
from agentenv.agents import ScriptedAgent
from agentenv.credit import rtmc_advantages
from agentenv.rollout import rollout_trees
from agentenv.serialize import read_trees, write_trees
from agentenv.tree import EpisodeTree
from agentenv.types import Action

DISCOUNT, PRIOR_COUNT = 0.99, 2.0  # the paper's setting, as public ports have it
Pair = tuple[str, str]


def rtmc(tree: EpisodeTree) -> dict[int, float]:
    """Computes A = Q(s, a) - V'(s) of every step of a tree without forks."""
    returns = defaultdict[Pair, list[float]](list)  # of (s, a): G at its first visit, in every rollout that visits it
    pairs: dict[int, Pair] = {}
    for leaf in tree.leaves():
        path, seen = tree.path(leaf), set[Pair]()
        for t, node in enumerate(path[1:], 1):
            pair = pairs[node] = (tree.nodes[path[t - 1]].state_signature, tree.nodes[node].action_signature)
            if pair not in seen:
                returns[pair].append(sum((tree.nodes[n].reward or 0) * DISCOUNT**k for k, n in enumerate(path[t:])))
                seen.add(pair)
    prior = sum(tree.episode_return(leaf) or 0 for leaf in tree.leaves()) / len(tree.leaves())
    action_value = {pair: sum(found) / len(found) for pair, found in returns.items()}
    visits, total = defaultdict[str, int](int), defaultdict[str, float](float)  # N(s) and N(s) V(s)
    for (state, _), found in returns.items():
        visits[state] += len(found)
        total[state] += sum(found)
    smoothed = {s: (total[s] + PRIOR_COUNT * prior) / (visits[s] + PRIOR_COUNT) for s in visits}  # Eq. 11
    return {node: action_value[pair] - smoothed[pair[0]] for node, pair in pairs.items()}


def slips(context: Context) -> Action:
    """Computes something, then submits what came out; which, is drawn."""
    if context.messages[-1]["role"] == "tool":
        return Action(tool_calls=(ToolCall("submit", {"answer": str((3, 6, 21)[context.seed % 3])}),))
    return Action(tool_calls=(ToolCall("calculate", {"expression": ("9 - 2", "2 * 3")[context.seed % 2]}),))


def main() -> None:
    """Prints every step of the first tree, by hand and by the library."""
    file = sys.argv[1] if len(sys.argv) > 1 else "eight.jsonl"
    if len(sys.argv) == 1:
        task = {"question": "Compute 9 - 2 * 3.", "reference": "3"}
        write_trees(file, rollout_trees(lambda: make("agentenv/MathVerifier-v0"), ScriptedAgent(slips), [task], 8))
    tree = read_trees(file)[0]
    mine, theirs = rtmc(tree), rtmc_advantages(tree.arrays(), discount=DISCOUNT, prior_count=PRIOR_COUNT).advantages
    for node, advantage in mine.items():
        print(f"{node:3} {tree.nodes[node].action_signature:20} by hand {advantage:+.4f}  library {theirs[node]:+.4f}")
    print("largest difference:", max(abs(advantage - theirs[node]) for node, advantage in mine.items()))


if __name__ == "__main__":
    main()
