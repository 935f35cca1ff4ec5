"""States by clusters of embeddings: how near they are to exact states, and what credit on them is worth.

    python benchmarks/signatures.py                # about 2 minutes on one core
    python benchmarks/signatures.py --small        # seconds
    python benchmarks/signatures.py --embed MODEL  # any folder or name that sentence-transformers reads

Two tables. First the tabular problems: every state has a vector of its own, every visit sees it with noise, and the
cosine of one update of 8 groups with the exact policy gradient is shown for RTMC with graph values (discount 1, prior
0.5) on the clusters. Then the bundled environments, played by scripts that slip: for every least similarity, how many
states there are, which share of the pairs of visits that it merges are the same exact state (precision), which share
of those that are it merges (recall), and how the advantages of RTMC with graph values on them correlate with those
on exact states.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agentenv as ae
from agentenv.agents import ScriptedAgent
from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages, certify, rtmc_advantages
from agentenv.credit.embedding import cluster_states, embedding_signatures, state_text
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.tabular import TabularMDP
from agentenv.envs.math_verifier import demonstrations as math_demonstrations
from agentenv.envs.search_qa import demonstrations as search_demonstrations
from agentenv.protocols import Context
from agentenv.rollout import rollout_trees
from agentenv.tree import EpisodeTree
from agentenv.types import Action, ToolCall

NOISES = (0.0, 0.2, 0.4, 0.6, 0.8)
SIMILARITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DIMENSIONS = 64
rtmc = partial(rtmc_advantages, discount=1.0, prior_count=0.5, values="graph")


def blurred(problem: TabularMDP, noise: float, similarity: float) -> Callable[[TreeArrays], StepAdvantages]:
    """Makes RTMC see clusters of noisy vectors instead of the states of a problem."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((len(problem.rewards), DIMENSIONS))
    base /= np.linalg.norm(base, axis=1, keepdims=True)

    def run(tree: TreeArrays) -> StepAdvantages:
        seen = base[tree.state_ids] + noise * rng.standard_normal((len(tree), DIMENSIONS)) / DIMENSIONS**0.5
        return rtmc(tree, state_ids=cluster_states(seen, tree.tree_ids, similarity=similarity))

    return run


def tabular(names: Sequence[str], rollouts: int) -> dict[str, dict[str, float]]:
    """Scores clusters on tabular problems: cosines by problem and noise."""
    table: dict[str, dict[str, float]] = {}
    for name in names:
        problem = PROBLEMS[name]()
        row = {"exact": certify(rtmc, problem, rollouts=rollouts).cosine}
        for noise in NOISES:
            likeness = 1 / (1 + noise**2)  # of two visits to one state; visits to different states have about 0
            estimator = blurred(problem, noise, 0.5 * likeness)
            row[f"noise {noise}"] = certify(estimator, problem, rollouts=rollouts).cosine
        none = certify(lambda tree: rtmc(tree, state_ids=np.arange(len(tree))), problem, rollouts=rollouts)
        table[name] = row | {"no states": none.cosine}
    return table


def played(env: str, calls: Callable[[Any, np.random.Generator], list[ToolCall]], tasks: int) -> list[EpisodeTree]:
    """Grows trees by scripts that slip, one task each."""
    maker = partial(ae.make, env)
    source = maker()
    given = list(source.tasks[:tasks]) if len(source.tasks) else []
    while len(given) < tasks:
        source.reset(seed=len(given))
        given.append(source.task)
    source.close()

    trees: list[EpisodeTree] = []
    for number, task in enumerate(given):
        agent = ScriptedAgent(remembering(calls, task))
        trees += rollout_trees(maker, agent, [task], 16, seed=number)
    return trees


def remembering(calls: Callable[[Any, np.random.Generator], list[ToolCall]], task: Any) -> Callable[[Context], Action]:
    """Returns what plays one of 12 scripts of a task on, whichever begins like the episode so far."""
    scripts = [calls(task, np.random.default_rng(n)) for n in range(12)]

    def act(context: Context) -> Action:
        made = [ToolCall.parse(call) for message in context.messages for call in message.get("tool_calls", ())]
        key = [(call.name, call.arguments) for call in made]
        going = [s for s in scripts if len(s) > len(key) and [(c.name, c.arguments) for c in s[: len(key)]] == key]
        script = going[int(np.random.default_rng(context.seed).integers(len(going)))]
        return Action(tool_calls=(script[len(key)],))

    return act


def repairs(task: Any, rng: np.random.Generator) -> list[ToolCall]:
    """Looks around, repairs (or breaks something else), and submits."""
    path, text = next(iter(task.solution.items()))
    looks = [ToolCall("read_file", {"path": path}), ToolCall("run", {"command": "ls"})]
    edit = text if rng.random() < 0.5 else f"# {text}"
    middle = [ToolCall("write_file", {"path": path, "content": edit})] if rng.random() < 0.8 else []
    order = [looks[i] for i in rng.permutation(2)][: int(rng.integers(3))]
    return [*order, *middle, ToolCall("run", {"command": "git status --short; ls"}), ToolCall("submit", {})]


ENVIRONMENTS: dict[str, Callable[[Any, np.random.Generator], list[ToolCall]]] = {
    "agentenv/MathVerifier-v0": math_demonstrations.noisy_calls,
    "agentenv/SearchQA-v0": search_demonstrations.noisy_calls,
    "agentenv/CodeRepair-v0": repairs,
}


def pairs_of(ids: NDArray[np.int64]) -> int:
    """Counts the pairs of equal entries."""
    counts = np.unique(ids, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def compare(trees: list[EpisodeTree], embed: Any, similarity: float, describe: Any) -> dict[str, float]:
    """Compares clusters with exact states."""
    arrays = TreeArrays.from_trees(trees)
    ids = embedding_signatures(trees, embed=embed, similarity=similarity, describe=describe)
    exact = arrays.tree_ids * (int(arrays.state_ids.max()) + 1) + arrays.state_ids
    both = pairs_of(ids * (int(exact.max()) + 1) + exact)
    left, right = rtmc(arrays).advantages, rtmc(arrays, state_ids=ids).advantages
    moving = left.std() > 0 and right.std() > 0
    return {
        "states": len(np.unique(ids)) / len(np.unique(exact)),
        "precision": both / max(1, pairs_of(ids)),
        "recall": both / max(1, pairs_of(exact)),
        "r": float(np.corrcoef(left, right)[0, 1]) if moving else float("nan"),
    }


def whole_text(tree: EpisodeTree, node: int) -> str:
    """Describes a state by everything that was observed on the way to it, in alphabetical order."""
    return "\n".join(sorted({state_text(tree, step) for step in tree.path(node)}))


DESCRIPTIONS = {"newest observation": state_text, "all observations": whole_text}


def bundled(names: Sequence[str], tasks: int, embed: Any) -> Iterator[tuple[str, str, float, dict[str, float]]]:
    """Yields environment, description, similarity and comparison."""
    for name in names:
        trees = played(name, ENVIRONMENTS[name], tasks)
        for words, describe in DESCRIPTIONS.items():
            for similarity in SIMILARITIES:
                yield name, words, similarity, compare(trees, embed, similarity, describe)


def load(model: str | None) -> Any:
    """Loads a model of sentence-transformers; `None` for the hashed default."""
    if model is None:
        return None
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one problem, one environment, few rollouts")
    parser.add_argument("--embed", metavar="MODEL", help="of sentence-transformers; default: hashed words")
    parser.add_argument("--skip-tabular", action="store_true", help="the second table only")
    parser.add_argument("--json", type=Path, help="also write every number here")
    args = parser.parse_args()
    problems = ["decisive"] if args.small else ["sparse", "decisive", "long", "irrecoverable", "tree"]
    table = {} if args.skip_tabular else tabular(problems, 1024 if args.small else 8192)
    for number, (name, row) in enumerate(table.items()):
        if number == 0:
            print(f"{'cosine of an update':24s}" + "".join(f"{column:>11s}" for column in row))
        print(f"{name:24s}" + "".join(f"{value:11.3f}" for value in row.values()))
    names = list(ENVIRONMENTS)[: 1 if args.small else None]
    print(
        f"\n{'environment':28s}{'description':22s}{'similarity':>10s}{'states':>9s}{'precision':>11s}{'recall':>9s}{'r':>7s}"
    )
    found: list[dict[str, Any]] = []
    for name, words, similarity, scores in bundled(names, 2 if args.small else 12, load(args.embed)):
        found.append({"env": name, "description": words, "similarity": similarity, **scores})
        numbers = f"{scores['states']:9.2f}{scores['precision']:11.2f}{scores['recall']:9.2f}{scores['r']:7.2f}"
        print(f"{name:28s}{words:22s}{similarity:10.2f}{numbers}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"tabular": table, "bundled": found}, indent=1))


if __name__ == "__main__":
    main()
