"""Q and V by brute force: every history that was visited is continued from its snapshot, over and over.

Exact forks make this possible: nothing is estimated but the mean of fresh continuations, whose error is known.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from agentenv.arrays import TreeArrays
from agentenv.rollout import Rollout
from agentenv.stats import episodes
from agentenv.tree import Anchor, EpisodeTree

__all__ = ["Truth", "brute_force", "sketches"]

FloatArray = NDArray[np.float64]
DIMENSIONS = 2048
"""Of a sketch: cosines of sketches are those of gradients up to about 1 / sqrt(2048) = 0.02."""


@dataclass(frozen=True)
class Truth:
    """Trees, and what every step of them was worth. `N` nodes, in the order of the arrays.

    Attributes:
        trees: that were grown; they hold the continuations too, after the nodes that count.
        arrays: of the nodes that count.
        values: `[N]` V of the history that the step into node i left.
        advantages: `[N]` Q - V of that step; 0 at roots.
        noise: mean variance of `advantages` that comes from the number of continuations.
        histories: how many different histories were continued.
        tokens: sampled in all.
    """

    trees: list[EpisodeTree]
    arrays: TreeArrays
    values: FloatArray
    advantages: FloatArray
    noise: float
    histories: int
    tokens: int


def brute_force(
    make_env: Callable[[], Any], agent: Any, tasks: Sequence[Any], *, rollouts: int, continuations: int, seed: int
) -> Truth:
    """Grows chains, and finds V of every history on them by fresh continuations; Q of a step is V of what follows.

    Args:
        make_env: makes an environment.
        agent: what acts.
        tasks: one tree each.
        rollouts: chains per tree.
        continuations: of every history.
        seed: of all that is random.
    """
    with Rollout(make_env, agent, seed=seed) as rollout:
        trees = rollout.grow(tasks, rollouts)
        arrays, sizes = TreeArrays.from_trees(trees), [len(tree) for tree in trees]
        starts = np.cumsum([0, *sizes])
        first: dict[tuple[int, str], int] = {}
        nodes = [(t, i) for t, tree in enumerate(trees) for i in range(len(tree))]
        same = np.array([starts[t] + first.setdefault((t, _history(trees[t], i)), i) for t, i in nodes])
        anchors = [Anchor(t, i, continuations) for (t, _), i in first.items() if not trees[t].nodes[i].ended]
        rollout.extend(trees, anchors)
        tokens = rollout.ledger.cost.tokens_sampled
    found = arrays.returns.copy()
    for t, tree in enumerate(trees):
        below: dict[int, list[float]] = {}
        for one in episodes(tree):
            if one.rollout >= rollouts and one.value is not None:
                below.setdefault(one.anchor, []).append(one.value)
        for node, values in below.items():
            found[starts[t] + node] = np.mean(values)
    values = found[same]  # of the history AT a node; of an ended one its return
    spread = np.where(arrays.is_leaf, 0.0, values * (1 - values)) / continuations
    above, step = np.maximum(arrays.parents, 0), ~arrays.is_root
    advantages = np.where(step, values - values[above], 0.0)
    noise = float((spread + spread[above])[step].mean())
    return Truth(trees, arrays, np.where(step, values[above], 0.0), advantages, noise, len(anchors), tokens)


def _history(tree: EpisodeTree, node: int) -> str:
    """Says all that the agent has seen and done up to a node."""
    seen = [(tree.nodes[i].action, tree.nodes[i].observation) for i in tree.path(node)]
    return json.dumps([[repr(action and action.to_message()), list(said)] for action, said in seen], default=str)


def sketches(truth: Truth, model: Any) -> NDArray[np.float32]:
    """Computes the gradient of the log-probability of every step, each sketched to `DIMENSIONS` numbers: `[N, D]`.

    A sketch adds every weight's gradient, with a random sign, to a random one of its numbers (count sketch), so that
    sums of gradients are sums of sketches and inner products stay in expectation.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    places = [torch.randint(DIMENSIONS, (p.numel(),), generator=generator).to(p.device) for p in parameters]
    signs = [torch.randint(2, (p.numel(),), generator=generator).to(p.device).float() * 2 - 1 for p in parameters]
    out, known, row = np.zeros((len(truth.arrays), DIMENSIONS), np.float32), dict[Any, int](), -1
    sizes = np.bincount(truth.arrays.tree_ids)
    for tree, size in zip(truth.trees, sizes, strict=True):
        for node in range(size):
            row += 1
            action = tree.nodes[node].action
            if action is None or not action.token_ids:
                continue
            prompt = tuple(tree.prompt_token_ids(tree.nodes[node].parent) or ())
            key = (prompt, tuple(action.token_ids))
            if key not in known:
                known[key] = row
                out[row] = _sketch(model, parameters, prompt, action.token_ids, places, signs)
            out[row] = out[known[key]]
    return out


def _sketch(
    model: Any, parameters: list[Any], prompt: Sequence[int], said: Sequence[int], places: list[Any], signs: list[Any]
) -> NDArray[np.float32]:
    ids = torch.tensor([[*prompt, *said]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    total = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None]).sum()
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    sketch = torch.zeros(DIMENSIONS, device=model.device)
    for gradient, place, sign in zip(gradients, places, signs, strict=True):
        if cast("Any", gradient) is not None:  # of a weight that is not used
            sketch.index_add_(0, place, gradient.flatten() * sign)
    return sketch.cpu().numpy()
