import hashlib
import importlib
import json
import sys

import numpy as np
import pytest

from agentenv.envs.search_qa import SearchQA, open_retriever
from agentenv.envs.search_qa.corpus import Passage
from agentenv.envs.search_qa.dense import (
    DenseRetriever,
    build_dense_index,
    is_dense_index,
    load_encoder,
    open_dense_index,
)
from agentenv.envs.search_qa.retrieval import Retriever
from agentenv.envs.search_qa.world import make_world
from agentenv.errors import CorpusError, MissingDependencyError
from agentenv.types import message_text


def encode(texts):
    """Bags of hashed words, of length 1: a real, if modest, embedding that needs no model."""
    rows = np.zeros((len(texts), 64), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            digest = hashlib.blake2b(word.encode(), digest_size=2).digest()
            row[digest[0] % 64] += 1 if digest[1] % 2 else -1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@pytest.fixture(scope="module")
def passages():
    return list(make_world(5, people=20).passages)


def test_equals_brute_force(passages):
    dense = DenseRetriever.build(passages, encode)
    assert isinstance(dense, Retriever)
    vectors = encode([p.contents for p in passages])
    queries = [passages[3].text, "capital of the country", ""]
    for query, hits in zip(queries, dense.search(queries, 9), strict=True):
        scores = [float(encode([query])[0] @ vector) for vector in vectors]
        expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:9]
        np.testing.assert_allclose([h.score for h in hits], [scores[i] for i in expected], atol=1e-6)
    best = dense.search([passages[3].contents], 1)[0][0]
    assert best.passage == passages[3]
    assert dense.find(passages[3].title) == (passages[3],)
    assert dense.search([], 3) == []


def test_ties_come_in_corpus_order():
    dense = DenseRetriever.build([Passage(str(n), "", "same words") for n in range(30)], encode)
    assert [h.passage.id for h in dense.search(["words"], 5)[0]] == ["0", "1", "2", "3", "4"]


def test_queries_may_have_their_own_encoder():
    dense = DenseRetriever.build([Passage("1", "", "b"), Passage("2", "", "a")], encode, encode_query=lambda t: encode(["a"] * len(t)))  # fmt: skip  # noqa: E501
    assert dense.search(["b"], 1)[0][0].passage.id == "2"


def test_many_queries_at_once(passages):
    dense = DenseRetriever.build(passages, encode)
    queries = [passage.title for passage in passages]
    assert len(queries) > 64
    one_by_one = [[h.passage for h in dense.search([query], 3)[0]] for query in queries]
    assert [[h.passage for h in hits] for hits in dense.search(queries, 3)] == one_by_one


def test_bad_arguments(passages, tmp_path):
    with pytest.raises(ValueError, match="one per passage"):
        DenseRetriever(np.zeros((3, 2)), DenseRetriever.build(passages, encode).passages, encode)
    with pytest.raises(ValueError, match="k must be"):
        DenseRetriever.build(passages, encode).search(["x"], 0)
    with pytest.raises(CorpusError, match="empty"):
        DenseRetriever.build([], encode)
    with pytest.raises(CorpusError, match="must be a folder"):
        load_encoder(tmp_path / "absent")
    with pytest.raises(CorpusError, match="not a readable dense index"):
        open_dense_index(tmp_path)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*\[dense\]'$"):
        load_encoder(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A sentence-transformers model made on the spot: one layer, random weights."""
    library = importlib.import_module("sentence_transformers")
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    words = sorted({w for p in make_world(5, people=20).passages for w in p.contents.lower().split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words) + 5, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(folder / "bert")
    library.SentenceTransformer(str(folder / "bert"), device="cpu", local_files_only=True).save(str(folder / "model"))
    return folder / "model"


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
def test_a_sentence_transformers_index(model, passages, tmp_path):
    out = tmp_path / "dense"
    built = build_dense_index(passages, out, model=model, query_prefix="")
    assert is_dense_index(out)
    again = open_retriever(out)
    assert isinstance(again, DenseRetriever)
    found = again.search([passages[7].contents, passages[9].contents], 3)
    assert [hits[0].passage for hits in found] == [passages[7], passages[9]]
    assert found[0][0].score == pytest.approx(1, abs=2e-3)
    assert built.search(["a city"], 5) == again.search(["a city"], 5)
    with pytest.raises(CorpusError, match="exists already"):
        build_dense_index(passages, out, model=model)
    env = SearchQA(corpus=again, tasks=[{"question": "Q?", "answer": "x"}])
    env.reset(seed=0)
    observation, *_ = env.step("<tool_call>" + json.dumps({"name": "search", "arguments": {"query": "city"}}) + "</tool_call>")  # fmt: skip  # noqa: E501
    assert message_text(observation[0]).count("\n") == 4


@pytest.mark.model
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", ["version", "passages", "vectors"])
def test_a_damaged_index(model, passages, tmp_path, damage):
    out = tmp_path / "dense"
    build_dense_index(passages[:5], out, model=model)
    if damage == "vectors":
        (out / "vectors.npy").write_bytes(b"")
    elif damage == "passages":
        lines = (out / "passages.jsonl").read_text().splitlines()
        (out / "passages.jsonl").write_text("\n".join(lines[:-1]))
    else:
        manifest = json.loads((out / "dense.json").read_text())
        (out / "dense.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(CorpusError, match=r"version 99|is damaged|not a readable"):
        open_dense_index(out)
