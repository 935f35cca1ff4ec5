"""Ours and TRL's own trainer on the same chains: the same gradient, where theory says so.

On independent chains from one root, with discount 1 and without a prior, RTMC gives the first step its chain's return
minus the mean, which is Dr. GRPO's credit, and later steps, whose states only one chain visited, nothing.
"""

import importlib.util
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentenv.credit import dr_grpo_advantages, rtmc_advantages
from agentenv.trainers.batches import micro_batches
from agentenv.tree import EpisodeTree

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")]

RTMC = partial(rtmc_advantages, discount=1.0, prior_count=0.0)


def _load() -> Any:
    path = Path(__file__).parents[2] / "benchmarks" / "trainer.py"
    spec: Any = importlib.util.spec_from_file_location("benchmark_trainer", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_trainer"] = module
    spec.loader.exec_module(module)
    return module


benchmark = _load()


def sampled(model, steps):
    """A tree of six chains with the log-probabilities of the model, and signatures by which no two states are equal."""
    shape = benchmark.Shape(1, 6, 0, steps, 7, action=3, answer=2)
    tree = benchmark.random_tree(shape, np.random.default_rng(3))
    new = EpisodeTree(({"role": "user", "content": "q"},), state_signature="root")
    for i, node in enumerate(tree.nodes[1:], 1):
        count, ids = len(node.action.token_ids), torch.tensor([tree.token_ids(i)])
        with torch.no_grad():
            scores = model(ids).logits[0].log_softmax(-1)[-count - 1 : -1]
        known = scores.gather(1, ids[0, -count:, None])[:, 0].tolist()
        action = replace(node.action, logprobs=tuple(known))
        reward = float(node.terminated and node.rollout % 3 == 0)
        filled = replace(node, action=action, reward=reward, state_signature=f"s{i}", action_signature=f"a{i}")
        new.append(filled, prompt=tree.prompt(node.parent))
    return new


def gradient(run, trees):
    run.model.train()
    run.current_gradient_accumulation_steps = 1
    run.model.zero_grad()
    rows = sum(len(tree.leaves()) for tree in trees)
    ours = hasattr(run, "last_trees")
    inputs = [{"prompt": "", "task": i} for i in range(2)] if ours else [{"prompt": "q"} for _ in range(rows)]
    batch = run._generate_and_score_completions(inputs)
    for micro in micro_batches(batch):
        run.compute_loss(run.model, micro).backward()
    return torch.cat([p.grad.flatten().double() for p in run.model.parameters()])


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize(
    ("estimator", "steps", "first_only"),
    [(RTMC, 1, False), (RTMC, 3, True), (dr_grpo_advantages, 3, False)],
    ids=["RTMC, one step", "RTMC, three steps", "Dr. GRPO, three steps"],
)
def test_the_gradient_of_chains_is_that_of_trls_own_trainer(tmp_path, layout, estimator, steps, first_only):
    torch.set_num_threads(1)
    options = {"loss_type": "dr_grpo", "max_completion_length": 512}
    model, tokenizer = benchmark.model_and_tokenizer(hidden=32, layers=1)
    trees = [sampled(model.eval(), steps)]
    ours = benchmark.ours(
        model, tokenizer, trees, tmp_path / "ours", "cpu", estimator=estimator, layout=layout, max_steps=1, **options
    )
    found = gradient(ours, trees)
    stock = benchmark.stock(
        model, tokenizer, trees, tmp_path / "stock", "cpu", first_only=first_only, max_steps=1, **options
    )
    expected = gradient(stock, trees)
    assert expected.abs().max() > 1e-5
    assert torch.allclose(found, expected, atol=1e-6)
    assert (found - expected).norm() < 1e-3 * expected.norm()
