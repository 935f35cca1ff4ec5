"""The commands `agentenv index build`, `search` and `serve`."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agentenv.errors import AgentEnvError

from .bm25 import Bm25Settings
from .corpus import Passage, read_corpus
from .index_file import build_index
from .server import RetrievalServer
from .sources import open_retriever
from .tokenizer import STOPWORDS

__all__ = ["app"]

app = typer.Typer(help="Build, search and serve the index of a corpus.", no_args_is_help=True)


class Method(StrEnum):
    """Variants of BM25."""

    LUCENE = "lucene"
    ROBERTSON = "robertson"
    ATIRE = "atire"


class Stopwords(StrEnum):
    """Lists of stop words."""

    ENGLISH = "english"
    NONE = "none"


Source = Annotated[str, typer.Argument(help="An index folder, a JSONL corpus, or the URL of a retrieval server.")]


@app.command()
def build(
    corpus: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV or parquet, one passage a row: id, title, text.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to make; by default the corpus's name plus .index.")
    ] = None,
    method: Annotated[Method, typer.Option(help="Variant of BM25, as bm25s names it.")] = Method.LUCENE,
    k1: Annotated[float, typer.Option(min=0.0, help="How slowly repeated words saturate.")] = 1.5,
    b: Annotated[float, typer.Option(min=0.0, max=1.0, help="How much long passages are discounted.")] = 0.75,
    stopwords: Annotated[Stopwords, typer.Option(help="Words to leave out.")] = Stopwords.ENGLISH,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that is there.")] = False,
) -> None:
    """Index a corpus for BM25 search.

    For example: agentenv index build wiki.jsonl --out wiki.index
    """
    words = STOPWORDS if stopwords is Stopwords.ENGLISH else ()
    settings = Bm25Settings(method.value, k1, b, words)
    folder = out or corpus.with_suffix(".index")
    start = perf_counter()
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with _errors(), Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("reading", total=_count_lines(corpus))

        def passages() -> Iterator[Passage]:
            for passage in read_corpus(corpus):
                yield passage
                progress.advance(task)

        def show(stage: str) -> None:
            progress.update(task, description=stage)

        retriever = build_index(passages(), folder, settings=settings, overwrite=overwrite, on_stage=show)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    typer.echo(f"{folder}: {retriever}, k1={k1}, b={b}, {size:.1f} MB, {perf_counter() - start:.1f} s")


@app.command()
def search(
    source: Source,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 5,
    full: Annotated[bool, typer.Option("--full", help="Show whole passages.")] = False,
) -> None:
    """Search a corpus once and print the best passages.

    For example: agentenv index search wiki.index "capital of Peru" -k 3
    """
    with _errors():
        hits = open_retriever(source).search([query], k)[0]
    for place, hit in enumerate(hits, start=1):
        text = " ".join(hit.passage.text.split())
        if not full and len(text) > 160:
            text = text[:160] + " ..."
        typer.echo(f"{place:3}  {hit.score:8.4f}  [{hit.passage.id}] {hit.passage.title}\n     {text}")
    if not hits:
        typer.echo("no passage contains these words", err=True)


@app.command()
def serve(
    source: Source,
    host: Annotated[str, typer.Option(help="Address to listen on; there is no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8000,
    topk: Annotated[int, typer.Option(min=1, help="Hits per query where a request names no number.")] = 3,
) -> None:
    """Serve a corpus in Search-R1's retrieval protocol, until interrupted.

    For example: agentenv index serve wiki.index --port 8001
    """
    with _errors(), RetrievalServer(open_retriever(source), host=host, port=port, topk=topk) as server:
        typer.echo(f"{server.retriever} at {server.url}/retrieve")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)


@contextmanager
def _errors() -> Generator[None]:
    """Turns what a user can cause into one line and exit code 2."""
    try:
        yield
    except (AgentEnvError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _count_lines(path: Path) -> int | None:
    """Returns the number of lines for the progress bar; None where lines are not passages."""
    if not path.is_file() or path.suffix not in {".jsonl", ".csv", ".tsv"}:
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
