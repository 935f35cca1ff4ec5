"""`agentenv/SearchQA-v0`: answer multi-hop questions by searching a corpus."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, cast

import pydantic
from typing_extensions import override

from agentenv.control import with_control
from agentenv.env import Reply
from agentenv.errors import AgentFault, RetrieverError, ToolError
from agentenv.protocols import StepResult
from agentenv.rows import Source
from agentenv.signatures import digest
from agentenv.tasks import State
from agentenv.tool_env import ToolEnv
from agentenv.tools import tool
from agentenv.types import Action, ToolSchema

from . import search_r1
from .corpus import Passage
from .questions import Fiction
from .retrieval import MAX_QUERY_CHARS, Retriever
from .scoring import normalize_answer, score_answer, supporting_recall
from .sources import Corpus, open_retriever, world_retriever
from .string_table import fold
from .tasks import QaTask, load_tasks
from .tokenizer import STOPWORDS, Tokenizer

__all__ = ["SearchQA"]

_Answer = TypeVar("_Answer")

MAX_DOCUMENT_CHARS = 20_000
"""What `read` shows of a document at most."""

MAX_HITS = 20
"""The most passages that an agent may ask for at once."""

MAX_ANSWER_CHARS = 1_000
"""A longer answer is a mistake: it would be a list of guesses."""

_SCORES = ("em", "f1", "sub_em")

PROMPT = """\
Answer the question from the documents of a private library. Search as often as you need, read the documents that look \
useful, and then call answer once, with the shortest text that answers the question.

Question: {question}"""


class SearchState(State):
    """What an episode has found.

    Attributes:
        retrieved: ids of the passages that searches returned, in order of appearance.
        read: ids of the documents read, likewise.
        titles: titles of both.
        queries: the queries, normalized, in order.
        answer: the final answer; None while there is none.
    """

    retrieved: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    answer: str | None = None


class SearchQA(ToolEnv):
    """Questions that take one or more documents to answer.

    Without arguments the documents are those of a small fictional world, made on the spot.

    Args:
        tasks: questions: `QaTask`, rows of a known data set as a list or a table of any library, or the path of a file
            with such rows. They need a corpus.
        corpus: a retriever, the URL of a retrieval server, an index folder, or a JSONL file of passages.
        world: where there is no corpus, the fictional world to make: a `Fiction` or its fields.
        protocol: `tools` (`search`, `read`, `answer`) or `search_r1` (tags in plain text).
        reward: the score that an answer earns, `em`, `f1` or `sub_em`; or weights by name, in which
            `supporting_recall` (added with the answer) and `mistake` (added at each invalid action; negative) may also
            occur. The weighted scores of the answer are the component `outcome`.
        signature: what makes states and actions the same, `exact` or `coarse`.
        prompt: the first message, with `{question}` in it.
        top_k: passages per search in the `search_r1` protocol; with tools the agent chooses.
        snippet_chars: how much of each passage `search` shows; 0 for all of it.
        options: `max_steps` and `render_mode`, as in every environment.

    Raises:
        ValueError: an option out of range.
        CorpusError: the corpus cannot be used.
        TaskError: the tasks cannot be read.
    """

    name = "agentenv/SearchQA"
    version = 0
    max_steps = 12
    Task = QaTask
    State = SearchState

    def __init__(
        self,
        *,
        tasks: Source | None = None,
        corpus: Corpus | None = None,
        world: Fiction | Mapping[str, Any] | None = None,
        protocol: Literal["tools", "search_r1"] = "tools",
        reward: str | Mapping[str, float] = "em",
        signature: Literal["exact", "coarse"] = "exact",
        prompt: str | None = None,
        top_k: int = 3,
        snippet_chars: int = 200,
        **options: Any,
    ) -> None:
        _check_choice("protocol", protocol, ("tools", "search_r1"))
        _check_choice("signature", signature, ("exact", "coarse"))
        _check_range("top_k", top_k, 1, MAX_HITS)
        _check_range("snippet_chars", snippet_chars, 0, MAX_DOCUMENT_CHARS)
        self._weights = {reward: 1.0} if isinstance(reward, str) else dict(reward)
        for component in self._weights:
            _check_choice("reward", component, (*_SCORES, "supporting_recall", "mistake"))
        self._prompt = prompt or (PROMPT if protocol == "tools" else search_r1.PROMPT)
        if "{question}" not in self._prompt:
            msg = f"prompt must contain '{{question}}', got {self._prompt[:80]!r}"
            raise ValueError(msg)
        self._protocol, self._signature = protocol, signature
        self._top_k, self._snippet_chars = top_k, snippet_chars
        self._terms = Tokenizer(frozenset(STOPWORDS)).terms
        self.retriever, kept = _open(tasks, corpus, world)
        super().__init__(tasks=kept if kept or tasks is not None else None, **options)
        if tasks is not None:  # forks need not read the rows again
            self._replace_argument(tasks, kept)

    @property
    @override
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call; none in the `search_r1` protocol."""
        return super().tools if self._protocol == "tools" else ()

    @override
    def start(self, task: QaTask) -> str:
        return self._prompt.replace("{question}", task.question)

    @override
    def step(self, action: Any) -> StepResult:
        """Takes one action; `info["metrics"]` holds what is known so far, see `metrics`."""
        observation, reward, terminated, truncated, info = super().step(action)
        info["metrics"] = self.metrics()
        return observation, reward, terminated, truncated, info

    @override
    def respond(self, action: Action) -> Reply:
        reply = super().respond(action) if self._protocol == "tools" else self._respond_to_tags(action)
        if self._mistakes and "mistake" in self._weights:
            self.add_reward(self._weights["mistake"], name="mistake")
        return reply

    def metrics(self) -> dict[str, float]:
        """Returns the supporting-document recall so far, where the task names any, and the answer's scores."""
        found = [fold(title) for title in self.state.titles]
        recall = supporting_recall(found, [fold(title) for title in self.task.supporting])
        metrics = {} if recall is None else {"supporting_recall": recall}
        if self.state.answer is not None:
            metrics |= score_answer(self.state.answer, self.task.answers)
        return metrics

    # ------------------------------------------------------------------ tools

    @tool
    def search(self, query: str, k: Annotated[int, pydantic.Field(ge=1, le=MAX_HITS)] = 5) -> str:
        """Search the documents. Returns the best matches with their ids, titles and first words.

        Args:
            query: What to look for, in a few words.
            k: How many documents to return.
        """
        passages = self._find(query, k)
        if not passages:
            return "No document contains these words."
        return "\n".join(f"[{p.id}] {p.title}: {self._snippet(p.text)}" for p in passages)

    @tool
    def read(self, document: str) -> str:
        """Read one document in full.

        Args:
            document: Its id, as shown by search in brackets, or its title.
        """
        name = document.strip().removeprefix("[").removesuffix("]")
        found = self._ask(lambda: self.retriever.find(name))
        if len(found) > 1:
            ids = ", ".join(passage.id for passage in found[:10])
            msg = f"{len(found)} documents have the title {document!r}; read one of them by its id: {ids}"
            raise ToolError(msg)
        if not found:
            msg = f"there is no document {document[:80]!r}; use an id or a title that a search returned"
            raise ToolError(msg)
        passage = found[0]
        self.state.read = _with(self.state.read, passage.id)
        self.state.titles = _with(self.state.titles, passage.title)
        text = passage.text
        if len(text) > MAX_DOCUMENT_CHARS:
            text = f"{text[:MAX_DOCUMENT_CHARS]} [cut here; the document has {len(text):,} characters]"
        return f"{passage.title}\n{text}"

    @tool
    def answer(self, text: str) -> str:
        """Give the final answer. This ends the episode.

        Args:
            text: The answer and nothing else.
        """
        if not text.strip():
            msg = "the answer is empty"
            raise ToolError(msg)
        if len(text) > MAX_ANSWER_CHARS:
            msg = f"an answer may have at most {MAX_ANSWER_CHARS:,} characters, got {len(text):,}"
            raise ToolError(msg)
        self.state.answer = text.strip()
        metrics = self.metrics()
        if "supporting_recall" in self._weights and "supporting_recall" in metrics:
            bonus = self._weights["supporting_recall"] * metrics["supporting_recall"]
            self.add_reward(bonus, name="supporting_recall")
        outcome = sum(weight * metrics[name] for name, weight in self._weights.items() if name in _SCORES)
        return self.finish("The answer was recorded.", reward=outcome)

    # ------------------------------------------------------------------ signatures

    @override
    def state_signature(self) -> str:
        """Returns what the agent has found, regardless of the order.

        Exact: the sets of documents retrieved and read, of normalized queries, and the answer. Coarse: the set of
        documents seen, and the answer.
        """
        state, answered = self.state, self.state.answer is not None
        answer = normalize_answer(state.answer) if answered else ""
        if self._signature == "coarse":
            return digest([sorted({*state.retrieved, *state.read}), answered, answer])
        return digest([sorted(state.retrieved), sorted(state.read), sorted(state.queries), answered, answer])

    @override
    def action_signature(self, action: Action, /) -> str:
        """Returns tool and normalized arguments.

        Exact: queries without differences of case and white space, with `k`; answers normalized. Coarse: queries as
        sets of index terms, without `k`. What the agent thinks is left out.
        """
        if self._protocol == "tools":
            calls = [(call.name, call.arguments) for call in action.tool_calls]
        else:
            block = search_r1.parse_block(action.content)
            field = {"search": "query", "answer": "text"}
            calls = [(block[0], {field[block[0]]: block[1]})] if block else []
        if not calls:
            return "invalid" if self._signature == "coarse" else action.content.strip()
        return json.dumps([[name, self._normal_arguments(name, arguments)] for name, arguments in calls])

    def _normal_arguments(self, name: str, arguments: dict[str, Any] | str) -> Any:
        if isinstance(arguments, str):
            return arguments
        values = {key: fold(value) if isinstance(value, str) else value for key, value in arguments.items()}
        if name == "answer" and isinstance(arguments.get("text"), str):
            values["text"] = normalize_answer(arguments["text"])
        if name == "search" and self._signature == "coarse":
            return sorted(set(self._terms(str(arguments.get("query", "")))))
        return sorted(values.items(), key=lambda item: item[0])

    # ------------------------------------------------------------------ inside

    def _respond_to_tags(self, action: Action) -> str:
        block = search_r1.parse_block(action.content)
        try:
            if block is None:
                return self.note_mistake(search_r1.INVALID)
            kind, content = block
            if kind == "answer":
                return self.answer(content)
            return search_r1.format_information(self._find(content, self._top_k))
        except ToolError as error:
            return self.note_mistake(f"\n{error}\n")

    def _find(self, query: str, k: int) -> list[Passage]:
        if not query.strip():
            msg = "the query is empty"
            raise ToolError(msg)
        if len(query) > MAX_QUERY_CHARS:
            msg = f"a query may have at most {MAX_QUERY_CHARS:,} characters, got {len(query):,}"
            raise ToolError(msg)
        passages = [hit.passage for hit in self._ask(lambda: self.retriever.search([query], k)[0])]
        self.state.queries = _with(self.state.queries, fold(query))
        self.state.retrieved = _with(self.state.retrieved, *(passage.id for passage in passages))
        self.state.titles = _with(self.state.titles, *(passage.title for passage in passages))
        return passages

    def _ask(self, ask: Callable[[], _Answer]) -> _Answer:
        """Returns what the retriever answers; a request that it fails twice, but not the question itself, is a mistake.

        Raises:
            ToolError: the request is what breaks the retriever.
            RetrieverError: it does not answer the task's question either: nobody's fault.
        """
        question = self.task.question[:MAX_QUERY_CHARS]
        try:
            return with_control(ask, lambda: self.retriever.search([question], 1), errors=RetrieverError)
        except AgentFault as fault:
            msg = f"the retriever fails at this request, and not at another: {fault!s:.200}"
            raise ToolError(self.note_breakage(msg)) from None

    def _snippet(self, text: str) -> str:
        text = " ".join(text.split())
        if not self._snippet_chars or len(text) <= self._snippet_chars:
            return text
        return text[: self._snippet_chars].rstrip() + " ..."


class _Parsed(tuple[QaTask, ...]):
    """Tasks that were read and checked before."""

    __slots__ = ()


def _open(
    tasks: Source | None, corpus: Corpus | None, world: Fiction | Mapping[str, Any] | None
) -> tuple[Retriever, _Parsed]:
    if corpus is not None:
        if world is not None:
            msg = "corpus and world exclude each other: pass one of them"
            raise ValueError(msg)
        return open_retriever(corpus), _read_tasks(() if tasks is None else tasks)
    fiction = Fiction.model_validate(world or {})
    if tasks is not None and world is None:
        msg = "tasks need a corpus: pass corpus=... (a JSONL file, an index folder, a URL or a retriever)"
        raise ValueError(msg)
    retriever = world_retriever(fiction.seed, fiction.people, fiction.distractors)
    return retriever, _fiction_tasks(fiction) if tasks is None else _read_tasks(tasks)


@lru_cache(maxsize=8)
def _fiction_tasks(fiction: Fiction) -> _Parsed:
    return _Parsed(fiction.tasks())


def _read_tasks(tasks: Source) -> _Parsed:
    if isinstance(tasks, _Parsed):
        return tasks
    if isinstance(tasks, list | tuple) and all(isinstance(task, QaTask) for task in cast("list[Any]", tasks)):
        return _Parsed(cast("list[QaTask]", tasks))
    return _Parsed(load_tasks(tasks))


def _with(kept: tuple[str, ...], *more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*kept, *more)))


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise ValueError(msg)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"{name} must be from {least} to {most:,}, got {value}"
        raise ValueError(msg)
