"""The bare loop of `benchmarks/bare_loop.py` computes what the model computes, on the tokens that were sampled."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import random_model

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bare_loop.py"


@pytest.fixture(scope="module")
def bare_loop():
    spec: Any = importlib.util.spec_from_file_location("benchmark_bare_loop", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_bare_model_is_the_model(bare_loop):
    model, _ = random_model()
    bare, room = bare_loop.BareModel(model), 16
    ids = torch.randint(0, 200, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right = model(ids).logits
        torch.testing.assert_close(bare.logits(ids), right, atol=1e-5, rtol=1e-4)
        cache = bare_loop.Cache(bare, 3, room)
        bare.append(ids[:, :4], torch.tensor([4, 2, 3]), cache)
        cache.select(torch.tensor([2, 0, 0]))
        ids = ids[[2, 0, 0]]
        chunks, counts = bare_loop.padded([ids[0, 3:8].tolist(), ids[1, 4:9].tolist(), ids[2, 4:6].tolist()])
        found = bare.append(chunks, counts, cache)
    torch.testing.assert_close(found, torch.stack([right[2, 7], right[0, 8], right[0, 5]]), atol=1e-5, rtol=1e-4)


def test_it_is_given_every_token_that_was_sampled(bare_loop):
    started = bare_loop.DemoSettings(demonstrations=32, careful_updates=1, noisy_updates=1)
    model, tokenizer = bare_loop.warm_start(started, [], progress=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = bare_loop.train_ours(model, tokenizer, Namespace(small=True, steps=0))
    model.load_state_dict(state)
    bare = bare_loop.BareModel(model)
    (trees,) = steps.trees
    chains = [chain for number, tree in enumerate(trees) for chain in bare_loop.chains_of(number, tree)]
    assert [chain.ids for chain in chains] == [list(tree.token_ids(leaf)) for tree in trees for leaf in tree.leaves()]
    nodes = sum(len(tree) - 1 for tree in trees)
    assert sum(len(chain.actions) for chain in chains) == nodes > 0
    for chain in chains:
        logprobs = torch.log_softmax(bare.logits(torch.tensor([chain.ids]))[0], -1)
        for place, token, recorded in chain.chosen:
            assert logprobs[place - 1, token].item() == pytest.approx(recorded, abs=1e-4)
    seconds = bare_loop.train_bare(model, steps.trees, 1e-3)
    assert all(len(some) == 1 for some in seconds.values())
    assert any(not torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
