import math
from collections import Counter
from typing import Any
from unittest import mock

import bm25s as untyped_bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agentenv.envs.search_qa import retrieval
from agentenv.envs.search_qa.bm25 import Bm25Retriever, Bm25Settings
from agentenv.envs.search_qa.corpus import Passage
from agentenv.envs.search_qa.retrieval import MAX_QUERY_CHARS, Retriever, rank
from agentenv.envs.search_qa.tokenizer import STOPWORDS, WORD_PATTERN, Tokenizer
from agentenv.errors import CorpusError

bm25s: Any = untyped_bm25s

TEXTS = [
    "The quick brown fox jumps over the lazy dog near the river bank",
    "A lazy dog sleeps; the dog dreams of another dog",
    "River banks flood when the snow melts in spring",
    "Naïve café owners in Zürich pay 1,000 francs",
    "The fox, the fox, the FOX!",
    "",
    "quick quick quick quick quick quick quick quick",
    "Spring snow on the river: a quick thaw",
]
QUERIES = ["quick fox", "the lazy dog dog", "river in spring", "Zürich café 000", "unknown words", "", "snow quick"]


def passages(texts=TEXTS):
    return [Passage(str(i), f"t{i}", text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("method", ["lucene", "robertson", "atire"])
@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)])
def test_scores_equal_plain_bm25s(method, k1, b):
    ours = Bm25Retriever.build(passages(), Bm25Settings(method, k1, b))
    plain = bm25s.BM25(method=method, k1=k1, b=b)
    plain.index(bm25s.tokenize([p.contents for p in passages()], show_progress=False), show_progress=False)
    for query in QUERIES:
        (tokens,) = bm25s.tokenize([query], return_ids=False, show_progress=False)
        expected = plain.get_scores(tokens) if tokens else np.zeros(len(TEXTS))
        np.testing.assert_allclose(ours.scores(query), expected, rtol=0, atol=1e-6)


def test_scores_equal_the_formula():
    """Lucene's variant from the paper, in float64, by hand."""
    ours = Bm25Retriever.build(passages())
    documents = [Counter(Tokenizer(frozenset(STOPWORDS)).terms(p.contents)) for p in passages()]
    n, mean = len(documents), sum(map(Counter.total, documents)) / len(documents)
    for query in QUERIES:
        expected = np.zeros(n)
        for term in Tokenizer(frozenset(STOPWORDS)).terms(query):
            df = sum(term in d for d in documents)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            for i, d in enumerate(documents):
                expected[i] += idf * d[term] / (d[term] + 1.5 * (0.25 + 0.75 * d.total() / mean))
        np.testing.assert_allclose(ours.scores(query), expected, rtol=0, atol=1e-6)


def test_tokens_equal_those_of_bm25s():
    for text in [*TEXTS, "x y zz 1 22 don't co-op __a__ ΑΒΓ 北京 a\u0301b"]:
        (expected,) = bm25s.tokenize([text], return_ids=False, show_progress=False)
        assert Tokenizer(frozenset(STOPWORDS)).terms(text) == expected
    assert tuple(bm25s.stopwords.STOPWORDS_EN) == STOPWORDS
    assert WORD_PATTERN in bm25s.tokenize.__defaults__


def test_a_term_counts_as_often_as_the_query_says_it():
    ours = Bm25Retriever.build(passages())
    np.testing.assert_allclose(ours.scores("dog dog"), 2 * ours.scores("dog"), rtol=1e-6)


def test_ranking_is_stable_under_ties():
    texts = ["alpha beta", "gamma delta"] * 50
    ours = Bm25Retriever.build([Passage(str(i), "", text) for i, text in enumerate(texts)])
    for k in (1, 3, 49, 50, 100):
        found = [hit.passage.id for hit in ours.search(["alpha"], k)[0]]
        assert found == [str(i) for i in range(0, 100, 2)][:k]


@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=st.integers(-2, 4).map(float)),
    st.integers(1, 70),
    st.sampled_from([1, 3, 512]),
    st.sampled_from([-np.inf, 0.0, 3.0]),
)
def test_rank_equals_a_full_stable_sort(scores, k, block, above):
    """Whatever the size of the blocks: only few distinct values, so that ties are everywhere."""
    order = sorted((i for i in range(len(scores)) if scores[i] > above), key=lambda i: (-scores[i], i))
    with mock.patch.object(retrieval, "_BLOCK", block):
        assert rank(scores, k, above=above).tolist() == order[:k]


def test_only_passages_with_a_term_of_the_query_are_found():
    ours = Bm25Retriever.build(passages())
    assert [hit.passage.id for hit in ours.search(["café"], 10)[0]] == ["3"]
    assert ours.search(["", "the of and", "nowhere", "?!"], 5) == [[], [], [], []]
    assert ours.search([], 5) == []


def test_is_a_retriever_and_finds_by_id_and_title():
    ours = Bm25Retriever.build([Passage("7", "Alû", "x"), Passage("8", "Twin", "y"), Passage("9", "TWIN ", "z")])
    assert isinstance(ours, Retriever)
    assert [p.id for p in ours.find("7")] == ["7"]
    assert [p.id for p in ours.find("alû")] == ["7"]
    assert [p.id for p in ours.find(" twin")] == ["8", "9"]
    assert ours.find("Alu") == ours.find("") == ours.find("nobody") == ()


def test_an_id_goes_before_a_title():
    ours = Bm25Retriever.build([Passage("a", "b", "x"), Passage("b", "c", "y")])
    assert [p.id for p in ours.find("b")] == ["b"]


def test_a_corpus_without_words():
    ours = Bm25Retriever.build([Passage("a", "?", "!"), Passage("b", "x", "")])
    assert ours.search(["x", "word"], 3) == [[], []]
    assert len(ours) == 2


@pytest.mark.parametrize("bad", [[], [Passage("1", "a", "b"), Passage("1", "c", "d")]])
def test_empty_corpus_and_duplicate_ids(bad):
    with pytest.raises(CorpusError, match=r"empty|occurs twice"):
        Bm25Retriever.build(bad)


def test_bad_arguments():
    ours = Bm25Retriever.build(passages())
    with pytest.raises(ValueError, match="at most 10,000 characters, got 1,000,000"):
        ours.search(["x" * 1_000_000], 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        ours.search(["x"], 0)
    with pytest.raises(ValueError, match=r"write \[query\]"):
        ours.search("quick fox", 3)
    assert ours.search(["fox " * (MAX_QUERY_CHARS // 4)], 1)[0][0].passage.id == "4"
    bad: list[dict[str, Any]] = [{"method": "bm25+"}, {"k1": -1.0}, {"b": 1.5}, {"k1": math.nan}]
    for settings in bad:
        with pytest.raises(ValueError, match=r"method|k1"):
            Bm25Settings(**settings)


def test_lone_surrogates_in_a_query_find_nothing():
    assert Bm25Retriever.build(passages()).search(["\ud800\ud801 zz\udfff"], 3) == [[]]
