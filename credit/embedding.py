"""States as clusters of embeddings: signatures for environments whose states have no exact one that recurs.

RTMC (arXiv 2604.11037) names learned or embedded signatures as future work; what is here is ours. Letters: `N` nodes,
`n` different texts, `D` dimensions.
"""
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# scipy.cluster is typed in part.

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from agentenv.tree import EpisodeTree
from agentenv.types import message_text

from .matching import renumber
from .words import hash_code, words_of

__all__ = ["cluster_states", "embedding_signatures", "hashed_embedding", "state_text"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def embedding_signatures(
    trees: Sequence[EpisodeTree],
    *,
    embed: Any = None,
    similarity: float = 0.9,
    describe: Callable[[EpisodeTree, int], str] | None = None,
) -> IntArray:
    """Numbers the states of episode trees so that those with similar descriptions are the same state.

    Pass the result as `state_ids=` of an estimator. Every different description is embedded once. States of different
    trees are never the same, nor is one that ended an episode the same as one that did not.

    Args:
        trees: in the order of `TreeArrays.from_trees`.
        embed: a function of `n` texts to vectors `[n, D]`, or an object with such a method `encode`, as models of
            sentence-transformers have; default: `hashed_embedding`.
        similarity: least mean cosine of two clusters that are merged, see `cluster_states`. What is right depends on
            the model: `benchmarks/signatures.py` shows how to find out.
        describe: says in words what matters about the state at a node; default: `state_text`.

    Returns:
        `[N]` numbers, all trees together.

    Raises:
        ValueError: `similarity` out of range, or vectors of a wrong shape or that are not finite.
        TypeError: `embed` is neither a function nor has `encode`.
    """
    describe = describe or state_text
    texts = [describe(tree, node) for tree in trees for node in range(len(tree))]
    ended = np.array([node.terminated or node.truncated for tree in trees for node in tree.nodes], dtype=np.int64)
    owner = np.repeat(np.arange(len(trees)), [len(tree) for tree in trees])
    distinct = list(dict.fromkeys(texts))
    place = {text: number for number, text in enumerate(distinct)}
    vectors = _embed(embed, distinct)[[place[text] for text in texts]]
    return cluster_states(vectors, 2 * owner + ended, similarity=similarity)


def cluster_states(vectors: ArrayLike, groups: ArrayLike, *, similarity: float = 0.9) -> IntArray:
    """Numbers vectors so that those near each other have the same number: average linkage by cosine.

    Within a group, the two clusters whose members have the highest mean cosine are merged as long as that is at least
    `similarity`. Equal vectors are always together. Costs `n^2` memory in the number of different vectors of a group.

    Args:
        vectors: `[N, D]`, of any length; a vector of zeros is like itself alone.
        groups: `[N]` integers; only entries of equal group are compared, e.g. `TreeArrays.tree_ids`.
        similarity: in (0, 1]; 1 keeps all different directions apart.

    Returns:
        `[N]` numbers from 0.

    Raises:
        ValueError: an argument out of range, of the wrong shape, or not finite.
    """
    given, ids = np.asarray(vectors, dtype=np.float64), np.asarray(groups)
    if not 0.0 < similarity <= 1.0:
        msg = f"similarity must be in (0, 1], got {similarity!r}"
        raise ValueError(msg)
    if given.ndim != 2 or ids.shape != (len(given),) or ids.dtype.kind not in "iu":
        msg = (
            f"vectors must be [N, D] and groups [N] integers, got {list(given.shape)} and {list(ids.shape)} {ids.dtype}"
        )
        raise ValueError(msg)
    if not np.isfinite(given).all():
        msg = f"vectors must be finite; row {int(np.argmin(np.isfinite(given).all(axis=1)))} is not"
        raise ValueError(msg)
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    units = np.divide(given, lengths, out=np.zeros_like(given), where=lengths > 0)
    numbers = np.zeros(len(given), dtype=np.int64)
    for group in np.unique(ids):
        own = np.flatnonzero(ids == group)
        numbers[own] = _cluster(units[own], similarity)
    return renumber(renumber(ids.astype(np.int64))[0] * (len(given) + 1) + numbers)[0]


def _cluster(units: FloatArray, similarity: float) -> IntArray:
    """Numbers the unit vectors of one group."""
    distinct, back = np.unique(np.round(units, 9), axis=0, return_inverse=True)
    back = back.reshape(-1).astype(np.int64)
    if len(distinct) < 2 or similarity == 1.0:
        return back
    merged = linkage(np.maximum(_distances(distinct), 0.0), method="average")
    return np.asarray(fcluster(merged, 1.0 - similarity + 1e-9, criterion="distance"), dtype=np.int64)[back]


def _distances(units: FloatArray) -> FloatArray:
    """Computes `1 - cosine` of every pair, as scipy's condensed form has them."""
    return 1.0 - (units @ units.T)[np.triu_indices(len(units), 1)]


def state_text(tree: EpisodeTree, node: int) -> str:
    """Describes the state at a node by the newest observation."""
    return "\n".join(message_text(message) for message in tree.nodes[node].observation)


def hashed_embedding(texts: Sequence[str], *, size: int = 1024) -> FloatArray:
    """Embeds texts by the words and word pairs in them, hashed with signs, as roots of their counts: `[n, size]`.

    Texts that share most words are near each other, whatever they mean. The same in every process.
    """
    vectors = np.zeros((len(texts), size))
    for row, text in enumerate(texts):
        words = words_of(text)
        terms, counts = np.unique([*words, *(" ".join(pair) for pair in pairwise(words))], return_counts=True)
        for term, count in zip(terms.tolist(), counts.tolist(), strict=True):
            code = hash_code(str(term))
            vectors[row, (code >> 1) % size] += (1 if code & 1 else -1) * count**0.5
    return vectors


def _embed(embed: Any, texts: Sequence[str]) -> FloatArray:
    encode = hashed_embedding if embed is None else getattr(embed, "encode", embed)
    if not callable(encode):
        msg = f"embed must be a function of texts, or have a method encode, got {embed!r:.80}"
        raise TypeError(msg)
    vectors = np.asarray(cast("Any", encode)(texts), dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        msg = f"embed must return [n, D] = [{len(texts)}, D] for {len(texts)} texts, got {list(vectors.shape)}"
        raise ValueError(msg)
    return vectors
