"""A cell that measures credit: every estimator's advantages, and the updates that they make, against the truth.

Where the problem is a table the truth is exact (`agentenv.credit.certify`). Elsewhere it is brute force from snapshots
(`truth`), and the true gradient is that of the true advantages on all chains that are not in the update: `(true)` shows
how near to it an update of so many chains can come.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentenv.agents import TransformersAgent
from agentenv.arrays import TreeArrays
from agentenv.credit import certify
from agentenv.credit.certify import sample_chains, sample_forks
from agentenv.credit.embedding import embedding_signatures, state_text
from agentenv.tree import EpisodeTree
from benchmarks.estimators import coarse, exact

from .cells import Cell
from .methods import CHAIN_NAMES, FORKED, POOLING, estimator_of
from .settings import setting_of
from .starts import start_of, weights_of
from .truth import Truth, brute_force, sketches

__all__ = ["credit_cell", "score_groups", "states_by"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Row = dict[str, Any]
TRUE = "(true)"
BATCH = 1024
"""Contexts in one forward: brute force continues tens of thousands at once, whose keys and values would take 20 GB."""
LARGE = 0.1
"""Advantages beyond this have a sign that counts."""
ROUNDING = 1e-6
"""Of the weight of what is summed in float32: a sum of gradients that should be 0 is off by less."""


def credit_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Measures, and returns a row per estimator, signature and group size.

    Args:
        cell: `config` has `sizes`, and for brute force `tasks`, `rollouts` and `continuations`; for exact truth the
            number of `rollouts`.
        folder: of the starting models.
    """
    torch.set_num_threads(1)
    setting = setting_of(cell.setting, quick=cell.quick)
    if setting.problem is not None:
        return {"panel": setting.panel, "rows": _certified(cell, setting.problem())}
    model, tokenizer = start_of(setting, folder, size=cell.size, device=cell.device)
    config = cell.config
    order = np.random.default_rng(cell.seed).permutation(len(setting.tasks[1]))[: config["tasks"]]
    truth = brute_force(
        setting.make_env,
        TransformersAgent(model, tokenizer, max_new_tokens=setting.max_action_tokens, batch_size=BATCH),
        [setting.tasks[1][i] for i in order],
        rollouts=config["rollouts"],
        continuations=config["continuations"],
        seed=cell.seed,
    )
    gradients = sketches(truth, model)
    rows: list[Row] = []
    for signature, ids in states_by(truth).items():
        for size in config["sizes"]:
            rows += score_groups(truth, gradients, size, signature, ids)
    about = {"histories": truth.histories, "noise": truth.noise, "success": float(np.mean(truth.values))}
    spread = float(np.sqrt(np.mean(truth.advantages[~truth.arrays.is_root] ** 2)))
    return {
        "panel": setting.panel,
        "weights": weights_of(model),
        "rows": rows,
        "metrics": about | {"spread": spread},
        "ledger": {"tokens_sampled": truth.tokens},
    }


def states_by(truth: Truth) -> dict[str, IntArray]:
    """Numbers the states in four ways: the environment's signature, the newest observation, clusters, none."""
    count, sizes = len(truth.arrays), np.bincount(truth.arrays.tree_ids)
    cut = [_first_nodes(tree, int(size)) for tree, size in zip(truth.trees, sizes, strict=True)]
    texts: dict[tuple[int, str, bool], int] = {}
    newest = [
        texts.setdefault((t, state_text(tree, i), tree.nodes[i].ended), len(texts))
        for t, tree in enumerate(cut)
        for i in range(len(tree))
    ]
    return {
        "exact": truth.arrays.state_ids,
        "coarse": np.array(newest, dtype=np.int64),
        "learned": np.asarray(embedding_signatures(cut), dtype=np.int64),
        "none": np.where(truth.arrays.is_root, -1 - truth.arrays.tree_ids, np.arange(count)) + len(sizes),
    }


def _first_nodes(tree: EpisodeTree, count: int) -> EpisodeTree:
    """Returns a tree of the first nodes alone, without the continuations of brute force."""
    cut = EpisodeTree(tree.nodes[0].observation, metadata=tree.metadata)
    for node in tree.nodes[1:count]:
        cut.append(node)
    return cut


def score_groups(
    truth: Truth, gradients: NDArray[np.float32], size: int, signature: str, state_ids: IntArray
) -> list[Row]:
    """Scores every estimator on groups of `size` chains; an update is a group of every task.

    Args:
        truth: with at least `size` chains per tree.
        gradients: `[N, D]` of the steps.
        size: chains per group.
        signature: the name of the states; estimators that pool are scored with each, others with `exact` alone.
        state_ids: `[N]` the states.
    """
    arrays, origin, update = groups_of(truth, size, state_ids)
    step, true = ~arrays.is_root, truth.advantages[origin]
    everything = truth.advantages @ gradients
    names = CHAIN_NAMES if signature == "exact" else POOLING
    rows: list[Row] = []
    for name in [*names, TRUE] if signature == "exact" else names:
        found = true if name == TRUE else estimator_of(name)(arrays).advantages
        cosines: list[float] = []
        for one in range(int(update.max()) + 1):
            chosen = step & (update == one)
            elsewhere = everything - true[chosen] @ gradients[origin[chosen]]
            taken = gradients[origin[chosen]]
            weight = float(np.abs(found[chosen]) @ np.linalg.norm(taken, axis=1))
            cosines.append(_cosine(found[chosen] @ taken, elsewhere, weight))
        cosine = float(np.mean(cosines)) if update.max() > 0 else float("nan")  # nothing is left to compare with
        scores = _scores(true[step], found[step], truth.noise)
        rows.append({"estimator": name, "signature": signature, "size": size, "cosine": cosine} | scores)
    return rows


def groups_of(truth: Truth, size: int, state_ids: IntArray) -> tuple[TreeArrays, IntArray, IntArray]:
    """Splits the chains of every tree into groups of `size`, each a tree of its own.

    Returns:
        The groups; `[M]` the node of the whole that each of their nodes is; `[M]` the number of its update.
    """
    whole, sizes = truth.arrays, np.bincount(truth.arrays.tree_ids)
    starts = np.cumsum(sizes) - sizes
    parents: list[int] = []
    origin: list[int] = []
    group: list[int] = []
    updates: list[int] = []
    groups = 0
    for start, tree, count in zip(starts, truth.trees, sizes, strict=True):
        rollouts = np.array([node.rollout for node in tree.nodes[1:count]])
        for number in range(int(rollouts.max() + 1) // size):
            place = {int(start): len(parents)}
            parents.append(-1)
            origin.append(int(start))
            for node in np.flatnonzero(rollouts // size == number) + 1 + start:
                place[int(node)] = len(parents)
                parents.append(place[int(whole.parents[node])])
                origin.append(int(node))
            added = len(place)
            group += [groups] * added
            updates += [number] * added
            groups += 1
    index = np.array(origin)
    arrays = TreeArrays.build(
        parents=parents,
        rewards=whole.rewards[index],
        terminated=whole.terminated[index],
        truncated=whole.truncated[index],
        tree_ids=group,
        state_ids=state_ids[index],
        action_ids=whole.action_ids[index],
        valid=whole.valid[index],
        thresholds=whole.thresholds[index],
    )
    return arrays, index, np.array(updates)


def _scores(true: FloatArray, found: FloatArray, noise: float) -> dict[str, float]:
    """Correlation, squared error (less what the truth's own noise adds to it), and how often a large sign is right."""
    large = np.abs(true) > LARGE
    moving = found.std() > 0 and true.std() > 0
    return {
        "r": float(np.corrcoef(true, found)[0, 1]) if moving else 0.0,
        "mse": max(0.0, float(np.mean((true - found) ** 2)) - noise),
        "sign": float(np.mean(np.sign(found[large]) == np.sign(true[large]))) if large.any() else float("nan"),
        "active": float(np.mean(np.abs(found) > 1e-6)),
    }


def _cosine(left: FloatArray, right: FloatArray, weight: float) -> float:
    """Returns a cosine; 0 where the left cancels but for rounding, beside the weight of what was summed."""
    own, length = float(np.linalg.norm(left)), float(np.linalg.norm(right))
    return float(left @ right) / (own * length) if own > ROUNDING * weight and length > 0 else 0.0


def _certified(cell: Cell, problem: Any) -> list[Row]:
    """Scores every estimator against the exact truth of a table, on chains, and with part of their steps in forks."""
    rows: list[Row] = []
    tried = [(name, "exact", estimator_of(name), sample_chains) for name in CHAIN_NAMES]
    if problem.aliases is not None:
        tried += [(name, "coarse", coarse(problem, estimator_of(name)), sample_chains) for name in POOLING]
    tried += [
        (name, f"exact, {said} in forks", estimator_of(name), partial(sample_forks, share=share))
        for said, share in (("a quarter", 0.25), ("half", 0.5))
        for name in FORKED
    ]
    for name, signature, estimator, sampler in [*tried, (TRUE, "exact", exact(problem), sample_chains)]:
        for size in cell.config["sizes"]:
            score = certify(
                estimator, problem, group_size=size, rollouts=cell.config["rollouts"], seed=cell.seed, sampler=sampler
            )
            row: Row = {"estimator": name, "signature": signature, "size": size, "cosine": score.cosine}
            rows.append(row | {"r": score.correlation, "mse": score.mse, "sign": score.sign, "active": score.active})
    return rows
