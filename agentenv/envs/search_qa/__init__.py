"""Search QA: multi-hop questions over a corpus, answered by searching it."""

from agentenv.envs.search_qa.bm25 import Bm25Retriever, Bm25Settings
from agentenv.envs.search_qa.corpus import Passage, read_corpus, write_corpus
from agentenv.envs.search_qa.dense import DenseRetriever, build_dense_index, open_dense_index
from agentenv.envs.search_qa.env import SearchQA
from agentenv.envs.search_qa.http_retriever import HttpRetriever
from agentenv.envs.search_qa.index_file import build_index, open_index
from agentenv.envs.search_qa.questions import Fiction
from agentenv.envs.search_qa.retrieval import Hit, Retriever
from agentenv.envs.search_qa.scoring import exact_match, f1_score, normalize_answer, score_answer, sub_match
from agentenv.envs.search_qa.server import RetrievalServer
from agentenv.envs.search_qa.sources import open_retriever
from agentenv.envs.search_qa.tasks import QaTask, load_tasks, row_passages
from agentenv.envs.search_qa.world import make_world

__all__ = [
    "Bm25Retriever",
    "Bm25Settings",
    "DenseRetriever",
    "Fiction",
    "Hit",
    "HttpRetriever",
    "Passage",
    "QaTask",
    "RetrievalServer",
    "Retriever",
    "SearchQA",
    "build_dense_index",
    "build_index",
    "exact_match",
    "f1_score",
    "load_tasks",
    "make_world",
    "normalize_answer",
    "open_dense_index",
    "open_index",
    "open_retriever",
    "read_corpus",
    "row_passages",
    "score_answer",
    "sub_match",
    "write_corpus",
]
