"""BM25 retrieval: build time, memory, latency and how they grow, beside plain bm25s and rank_bm25; and recall.

    python benchmarks/retrieval.py scale --sizes 10000 100000 1000000
    python benchmarks/retrieval.py recall CORPUS.jsonl QUESTIONS.jsonl

`scale` makes passages of about 100 words whose word frequencies follow Zipf's law with two regimes (1 / (rank + 2.7) up
to rank 7,000, then 1 / rank squared; Ferrer i Cancho and Sole, 2001), the stop words first, so that posting lists are
as long as in real text and the vocabulary keeps growing. Queries are 10 consecutive words of a random passage. Each
measurement is a process of its own; memory is what it holds privately after searching.
rank_bm25 runs where it is installed (pip install rank_bm25), and only up to --slow-limit passages.
"""

import argparse
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from agentenv.envs.search_qa.bm25 import Bm25Retriever
from agentenv.envs.search_qa.corpus import read_corpus
from agentenv.envs.search_qa.index_file import build_index, open_index
from agentenv.envs.search_qa.sources import open_retriever
from agentenv.envs.search_qa.tasks import load_tasks
from agentenv.envs.search_qa.tokenizer import STOPWORDS

VOCABULARY = 1_000_000
KNEE = 7_000
KS = (1, 2, 5, 10, 20)


def write_synthetic_corpus(path: Path, passages: int, *, seed: int = 0) -> None:
    """Writes a corpus with a natural distribution of words and of lengths."""
    rng = np.random.default_rng(seed)
    words = np.array([*STOPWORDS, *(_spell(n) for n in range(VOCABULARY - len(STOPWORDS)))])
    ranks = np.arange(VOCABULARY) + 2.7
    cumulative = np.cumsum(np.where(ranks < KNEE, 1 / ranks, KNEE / ranks**2))
    cumulative /= cumulative[-1]
    with path.open("w") as file:
        for start in range(0, passages, 10_000):
            lengths = np.clip(rng.lognormal(4.55, 0.35, min(10_000, passages - start)), 20, 300).astype(int)
            drawn = words[np.searchsorted(cumulative, rng.random(lengths.sum()))]
            for offset, text in enumerate(np.split(drawn, np.cumsum(lengths)[:-1])):
                row = {"id": str(start + offset), "title": " ".join(text[:3]), "text": " ".join(text[3:])}
                file.write(json.dumps(row) + "\n")


def _spell(number: int) -> str:
    """Returns a pronounceable word of at least four letters, a different one for each number."""
    letters = ""
    number += 70
    while number:
        number, place = divmod(number, 70)
        letters += "bdfgklmnprstvz"[place // 5] + "aeiou"[place % 5]
    return letters


def make_queries(corpus: Path, count: int = 200) -> list[str]:
    """Returns runs of 10 consecutive words of random passages."""
    rng = np.random.default_rng(1)
    texts = [passage.contents.split() for _, passage in zip(range(20_000), read_corpus(corpus), strict=False)]
    queries: list[str] = []
    for place in rng.integers(0, len(texts), count):
        start = int(rng.integers(0, max(1, len(texts[place]) - 10)))
        queries.append(" ".join(texts[place][start : start + 10]))
    return queries


# ---------------------------------------------------------------------- one measurement per process


def measure(what: str, corpus: Path, index: Path) -> dict[str, Any]:
    """Runs one measurement in this process; see `WORKERS`."""
    before = _private_mb()
    start, start_cpu = perf_counter(), process_time()
    search = WORKERS[what](corpus, index)
    result: dict[str, Any] = {"ready_s": perf_counter() - start, "cpu_s": process_time() - start_cpu}
    if search is not None:
        queries = make_queries(corpus)
        for query in queries[:5]:
            search(query)
        seconds: list[float] = []
        for query in queries[: 200 if what != "rank_bm25" else 20]:
            start = perf_counter()
            search(query)
            seconds.append(perf_counter() - start)
        result |= {"p50_ms": 1e3 * np.median(seconds), "p95_ms": 1e3 * np.quantile(seconds, 0.95)}
    result |= {
        "private_mb": _private_mb() - before,
        "peak_mb": _peak_mb(),
    }
    return {key: round(float(value), 3) for key, value in result.items()}


def _build(corpus: Path, index: Path) -> None:
    build_index(read_corpus(corpus), index)


def _ours(corpus: Path, index: Path) -> Callable[[str], object]:
    del corpus
    retriever = open_index(index)
    return lambda query: retriever.search([query], 10)


def _plain_bm25s(corpus: Path, index: Path) -> Callable[[str], object]:
    del index
    bm25s: Any = importlib.import_module("bm25s")
    texts = [passage.contents for passage in read_corpus(corpus)]
    engine = bm25s.BM25()
    engine.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def search(query: str) -> object:
        tokens = bm25s.tokenize([query], return_ids=False, show_progress=False)
        return engine.retrieve(tokens, corpus=texts, k=10, show_progress=False)

    return search


def _rank_bm25(corpus: Path, index: Path) -> Callable[[str], object]:
    del index
    rank_bm25: Any = importlib.import_module("rank_bm25")
    bm25s: Any = importlib.import_module("bm25s")
    texts = [passage.contents for passage in read_corpus(corpus)]
    engine = rank_bm25.BM25Okapi(bm25s.tokenize(texts, return_ids=False, show_progress=False))
    return lambda query: engine.get_top_n(
        bm25s.tokenize([query], return_ids=False, show_progress=False)[0], texts, n=10
    )


WORKERS: dict[str, Callable[[Path, Path], Callable[[str], object] | None]] = {
    "build": _build,
    "ours": _ours,
    "bm25s": _plain_bm25s,
    "rank_bm25": _rank_bm25,
}


def _private_mb() -> float:
    """Returns the memory that only this process holds, without the pages of mapped files."""
    rows = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] == "Anonymous:") / 1024


def _peak_mb() -> float:
    """Returns the most memory that this process ever held, mapped files included (getrusage inherits its parent's)."""
    rows = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return next(int(row[1]) for row in rows if row[0] == "VmHWM:") / 1024


# ---------------------------------------------------------------------- commands


def scale(sizes: list[int], slow_limit: int, folder: Path) -> None:
    """Prints a table of all measurements."""
    print("| passages | engine | ready s | CPU s | p50 ms | p95 ms | private MB | peak MB | index MB |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for size in sizes:
        corpus, index = folder / f"{size}.jsonl", folder / f"{size}.index"
        write_synthetic_corpus(corpus, size)
        for what in WORKERS:
            if what == "rank_bm25" and (size > slow_limit or importlib.util.find_spec("rank_bm25") is None):
                continue
            command = [sys.executable, __file__, "worker", what, str(corpus), str(index)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"| {size:,} | {what} | failed: {done.stderr.strip().splitlines()[-1]} |", flush=True)
                continue
            row = json.loads(done.stdout)
            disk = sum(file.stat().st_size for file in index.iterdir()) / 1e6 if what in {"build", "ours"} else None
            found = [row.get(key) for key in ("ready_s", "cpu_s", "p50_ms", "p95_ms", "private_mb", "peak_mb")]
            print(f"| {size:,} | {what} | {' | '.join(map(_cell, [*found, disk]))} |", flush=True)
        shutil.rmtree(index)
        corpus.unlink()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def recall(corpus: str, questions: str) -> None:
    """Prints how many supporting documents are among the first k when the question is the query."""
    source = Path(corpus)
    retriever = Bm25Retriever.build(read_corpus(source)) if source.is_file() else open_retriever(corpus)
    tasks = [task for task in load_tasks(questions) if task.supporting]
    found = retriever.search([task.question for task in tasks], max(KS))
    print(f"{retriever}, {len(tasks)} questions")
    print("| k | recall@k | all found |\n|---:|---:|---:|")
    for k in KS:
        shares = [
            len({hit.passage.title for hit in hits[:k]} & set(task.supporting)) / len(set(task.supporting))
            for hits, task in zip(found, tasks, strict=True)
        ]
        print(f"| {k} | {np.mean(shares):.3f} | {np.mean(np.equal(shares, 1)):.3f} |")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    grow = commands.add_parser("scale")
    grow.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    grow.add_argument("--slow-limit", type=int, default=100_000, help="largest corpus for rank_bm25")
    grow.add_argument("--folder", type=Path, help="where corpora and indexes are written (about 1.5 GB per million)")
    rate = commands.add_parser("recall")
    rate.add_argument("corpus", help="JSONL file, index folder or URL")
    rate.add_argument("questions", help="a file that load_tasks reads")
    worker = commands.add_parser("worker", help="one measurement; used by scale")
    worker.add_argument("what", choices=list(WORKERS))
    worker.add_argument("corpus", type=Path)
    worker.add_argument("index", type=Path)
    options = parser.parse_args()
    if options.command == "recall":
        recall(options.corpus, options.questions)
    elif options.command == "worker":
        print(json.dumps(measure(options.what, options.corpus, options.index)))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            scale(options.sizes, options.slow_limit, Path(folder))


if __name__ == "__main__":
    main()
