"""States of one's own in the trainer: clusters of embeddings instead of the environment's signatures."""

import json
from functools import partial

import numpy as np
import pytest
from tiny_chat import random_model
from trainer_env import trainer

from agentenv.arrays import TreeArrays
from agentenv.credit import rtmc_advantages
from agentenv.credit.embedding import embedding_signatures
from agentenv.errors import TreeError


def test_the_estimator_and_the_weights_see_them(tmp_path):
    seen = []

    def estimator(tree, weights="occupancy"):
        seen.append(tree)
        return rtmc_advantages(tree, weights=weights)

    model, tokenizer = random_model()
    states = partial(embedding_signatures, similarity=1.0)
    run = trainer(model, tokenizer, tmp_path, estimator=estimator, state_ids=states, max_steps=1)
    run.train()
    run.close()
    (tree,) = seen
    exact = TreeArrays.from_trees(run.last_trees)
    np.testing.assert_array_equal(tree.state_ids, states(run.last_trees))
    np.testing.assert_array_equal(tree.parents, exact.parents)
    assert tree.state_ids.tolist() != exact.state_ids.tolist()
    assert "embedding_signatures(similarity=1.0)" in json.loads((tmp_path / "run.json").read_text())["state_ids"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda trees: [0, 1], r"must have shape \[N\]"),
        (lambda trees: np.zeros(sum(map(len, trees))), "must be integers"),
    ],
)
def test_wrong_states_are_named(given, words, tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, state_ids=given, max_steps=1)
    with pytest.raises(TreeError, match=f"state_ids {words}"):
        run.train()
    run.close()
