"""The trained loss is the certified loss: gradients of TRL's loss, through the trainer, against exact ones.

The measurement is `benchmarks/trained_loss.py`; here it is small, so that it takes seconds.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentenv.arrays import TreeArrays
from agentenv.credit import dr_grpo_advantages, rtmc_advantages, step_weights

pytestmark = pytest.mark.model


def _load() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "trained_loss.py"
    spec: Any = importlib.util.spec_from_file_location("trained_loss", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["trained_loss"] = module
    spec.loader.exec_module(module)
    return module


trained_loss = _load()

ESTIMATORS = {"Dr.GRPO": dr_grpo_advantages, "RTMC": partial(rtmc_advantages, discount=1.0)}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("problem", ["sparse", "irrecoverable", "tree"])
def test_the_model_is_the_policy_of_the_problem(problem):
    made = trained_loss.PROBLEMS[problem]()
    model, tokenizer = trained_loss.table_model(made)
    states, actions = made.policy.shape
    ids = tokenizer([f"s{s}" for s in range(states)])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits[:, -1].double()
    said = torch.softmax(logits, -1)[:, [tokenizer.convert_tokens_to_ids(f"a{a}") for a in range(actions)]]
    assert np.allclose(said.numpy(), made.policy, atol=1e-6)


@pytest.mark.parametrize("weights", ["occupancy", "counts", "unique"])
@pytest.mark.parametrize("forks", ["random", "TRACE"])
def test_the_gradient_of_the_loss_is_the_certified_update(tmp_path, forks, weights):
    """sum over steps of w A (1_a - pi) / sum of w over tokens, for the very same trees."""
    problem = trained_loss.PROBLEMS["sparse"]()
    allocator = trained_loss.forks_of(problem)[forks]
    harness = trained_loss.Harness(problem, tmp_path, allocator=allocator, groups=6, step_weights=weights)
    harness.estimator = ESTIMATORS["RTMC"]
    trees = harness.sample()
    harness.trainer.close()
    trained = harness.gradient(trees)

    arrays = TreeArrays.from_trees(trees)
    steps = np.flatnonzero(~arrays.is_root)
    assert (np.bincount(arrays.parents[steps]) > 1).sum() > 6  # real forks
    weight = step_weights(arrays, weights)[steps]
    credit = weight * rtmc_advantages(arrays, discount=1.0).advantages[steps]
    nodes = [node for tree in trees for node in tree.nodes]
    left = np.array([int(nodes[i].observation[-1]["content"][1:]) for i in arrays.parents[steps]])
    taken = np.array([int(nodes[i].action.content[1:]) for i in steps])
    certified = np.zeros_like(problem.policy)
    np.add.at(certified, (left, taken), credit)
    certified -= certified.sum(1, keepdims=True) * problem.policy
    tokens = sum(w * len(nodes[i].action.token_ids) for w, i in zip(weight, steps, strict=True))
    assert np.abs(certified).max() > 0.1
    assert np.allclose(trained, certified / tokens, atol=1e-6)


@pytest.mark.parametrize("forks", ["chains", "random", "TRACE unseen"])
def test_training_goes_uphill_on_average_however_forks_are_placed(forks):
    results = trained_loss.measure(
        "sparse", forks=forks, estimators=ESTIMATORS, weights=["occupancy", "unique"], groups=320, batch=40
    )
    for r in results:
        if r.weights == "occupancy" or forks == "chains":
            assert r.cosine > 0.99 - 3 * r.error
            assert r.error < 0.006
        else:  # what was trained before: every step once
            assert r.cosine < 0.975
