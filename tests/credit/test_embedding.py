"""States by clusters of embeddings: what is merged, what never is, and what credit makes of it."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agentenv.arrays import TreeArrays
from agentenv.credit import certify, rtmc_advantages
from agentenv.credit.embedding import cluster_states, embedding_signatures, hashed_embedding
from agentenv.credit.problems import PROBLEMS
from agentenv.tree import EpisodeTree
from agentenv.types import Action, to_observation

VECTORS = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(3)), elements=st.sampled_from([-1.0, 0.0, 0.5, 2.0])
)


def partition(ids):
    return {frozenset(np.flatnonzero(ids == number).tolist()) for number in np.unique(ids)}


@given(vectors=VECTORS, similarity=st.sampled_from([0.3, 0.9, 1.0]), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_clusters(vectors, similarity, seed):
    groups = np.random.default_rng(seed).integers(0, 2, len(vectors))
    ids = cluster_states(vectors, groups, similarity=similarity)
    for members in map(sorted, partition(ids)):
        assert len(set(groups[members])) == 1
    for i in range(len(vectors)):  # the same direction is the same state, in whatever length
        for j in range(i):
            if groups[i] == groups[j] and vectors[i].any() and np.allclose(vectors[i] * 2, vectors[j]):
                assert ids[i] == ids[j]
    scaled = cluster_states(vectors * 7, groups, similarity=similarity)
    assert partition(scaled) == partition(ids)


def test_the_mean_similarity_decides():
    def at(*degrees):
        return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)

    chain = at(0, 20, 40, 60)  # neighbors have 0.94, the ends 0.5; the two halves 0.75 on average
    assert len(partition(cluster_states(chain, [0] * 4, similarity=0.9))) == 2
    assert len(partition(cluster_states(chain, [0] * 4, similarity=0.76))) == 2
    assert len(partition(cluster_states(chain, [0] * 4, similarity=0.74))) == 1
    assert len(partition(cluster_states(chain, [0] * 4, similarity=0.95))) == 4
    assert len(partition(cluster_states(np.zeros((3, 2)), [0] * 3, similarity=0.5))) == 1


def test_words_and_not_their_meaning_decide_for_the_hashed_default():
    vectors = hashed_embedding(["the file a.py has 12 lines", "The file a.py has 13 lines", "permission denied", ""])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    assert 0.6 < likeness[0, 1] < 0.95
    assert abs(likeness[0, 2]) < 0.2
    assert not vectors[3].any()
    np.testing.assert_array_equal(vectors[:1], hashed_embedding(["the file a.py has 12 lines"]))


def grown(*endings):
    tree = EpisodeTree(to_observation("open the door"), state_signature="root")
    for number, (said, ended) in enumerate(endings):
        seen, key = to_observation(f"you see {said}"), to_observation("you see a red key")
        middle = tree.add(0, Action("look"), seen, reward=0.0, state_signature=f"s{number}")
        tree.add(middle, Action("go"), key, reward=float(ended), terminated=ended, state_signature=f"end{number}")
    return tree


def test_states_of_trees():
    trees = [grown(("a red key", False), ("a red key!", True)), grown(("a red key", True))]
    ids = embedding_signatures(trees, similarity=0.8)
    # "a red key" and "a red key!" are one state; the same words at the end of an episode are another.
    assert ids[1] == ids[2] == ids[3] != ids[4]
    assert ids[0] != ids[1]
    assert not set(ids[:5].tolist()) & set(ids[5:].tolist()), "states of different trees"
    arrays_of = TreeArrays.from_trees(trees)
    assert len(rtmc_advantages(arrays_of, state_ids=ids).advantages) == len(arrays_of)
    depth = embedding_signatures(trees, describe=lambda tree, node: str(len(tree.path(node))), similarity=1.0)
    assert len(set(depth[:5].tolist())) == 4  # root, middle, and both kinds of ends


class Model:
    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked.append(list(texts))
        return np.eye(8, dtype=np.float32)[[len(text) % 8 for text in texts]]


def test_a_model_is_asked_once_for_every_different_text():
    model = Model()
    trees = [grown(("a red key", True), ("a cat", True))]
    ids = embedding_signatures(trees, embed=model)
    assert model.asked == [["open the door", "you see a red key", "you see a cat"]]
    np.testing.assert_array_equal(ids, embedding_signatures(trees, embed=model.encode))


@pytest.mark.model
@pytest.mark.slow
def test_a_model_of_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    model = SentenceTransformer(modules=[BoW(vocab=["red", "key", "cat", "door"])], device="cpu")
    ids = embedding_signatures([grown(("a red key", False), ("the cat", True))], embed=model)
    assert ids[1] == ids[2] != ids[3]


@pytest.mark.parametrize("name", ["sparse", "decisive"])
def test_credit_on_clusters_is_the_credit_on_states_where_the_noise_is_small(name):
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "signatures.py"))
    problem = PROBLEMS[name]()
    exact = certify(benchmark["rtmc"], problem, rollouts=1024)
    near = certify(benchmark["blurred"](problem, 0.2, 0.5), problem, rollouts=1024)
    far = certify(benchmark["blurred"](problem, 5.0, 0.5), problem, rollouts=1024)
    assert near.cosine == pytest.approx(exact.cosine, abs=1e-9)
    assert far.cosine < exact.cosine - 0.05


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: cluster_states([[1.0]], [0], similarity=0), ValueError, r"similarity must be in \(0, 1\], got 0"),
        (lambda: cluster_states([1.0], [0]), ValueError, r"vectors must be \[N, D\]"),
        (lambda: cluster_states([[1.0]], [0.5]), ValueError, r"groups \[N\] integers"),
        (lambda: cluster_states([[1.0], [np.nan]], [0, 0]), ValueError, "vectors must be finite; row 1 is not"),
        (lambda: embedding_signatures([grown()], embed=3), TypeError, "embed must be a function of texts"),
        (
            lambda: embedding_signatures([grown()], embed=lambda _: [1.0]),
            ValueError,
            r"must return \[n, D\] = \[1, D\]",
        ),
    ],
)
def test_wrong_arguments(call, error, words):
    with pytest.raises(error, match=words):
        call()
