"""The text protocol of Search-R1 (Jin et al., 2025): tags instead of tool calls.

The model writes `<search>query</search>` and reads `<information>...</information>`, until it writes
`<answer>text</answer>`. What counts is the first complete block of a message; what follows it is ignored, as if the
model had been stopped there, which is what Search-R1 does while it samples.

The trap of the published scorer: `qa_em.py` reads the answer from prompt and response together, and because its prompt
shows an example answer, it wants two or more `<answer>` blocks and takes the last. Given the response alone, it scores
0 whatever the answer. Given both, it sees two blocks in the prompt already (the words "inside <answer> and </answer>"
match too), so a response without an answer is scored as if it had said the example, "Beijing". The environment never
meets the trap, since it scores what the model wrote and nothing else. For whole transcripts, `extract_answer` asks how
many blocks belong to the prompt.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, cast

from agentenv.arrays import check_count

from .corpus import Passage
from .scoring import exact_match

__all__ = ["INVALID", "PROMPT", "extract_answer", "format_information", "parse_block", "score_transcript"]

PROMPT = """\
Answer the question below. Think inside <think> and </think> before every step. When you need a fact, write a query \
between <search> and </search>; the best passages come back between <information> and </information>. Search as often \
as you like. As soon as you know the answer, write it, and only it, between <answer> and </answer>, for example \
<answer> Lisbon </answer>.
Question: {question}"""
"""Our wording of the instructions; `SearchQA(prompt=...)` takes another, such as the one a model was trained with."""

INVALID = (
    "\nThat was no valid step. Write a query between <search> and </search>, or the final answer between <answer> and "
    "</answer>.\n"
)

Kind = Literal["search", "answer"]


def parse_block(text: str) -> tuple[Kind, str] | None:
    """Returns what a message does: the kind and content of its first complete block; `None` where it has none."""
    return next(_blocks(text, "search", "answer"), None)


def _blocks(text: str, *kinds: Kind) -> Iterator[tuple[Kind, str]]:
    """Yields complete blocks in order; looks for the end of what is never closed once, however often it is opened."""
    place, closed = 0, set(kinds)
    opening = re.compile(f"<({'|'.join(kinds)})>")
    while closed and (opened := opening.search(text, place)):
        kind, place = cast("Kind", opened[1]), opened.end()
        if kind not in closed:
            continue
        if (end := text.find(f"</{kind}>", place)) < 0:
            closed.remove(kind)
            continue
        yield kind, text[place:end].strip()
        place = end


def format_information(passages: Sequence[Passage]) -> str:
    """Returns passages as Search-R1 shows them: numbered, with quoted titles, between information tags."""
    lines = [f'Doc {n}(Title: "{p.title}") {p.text}' for n, p in enumerate(passages, start=1)]
    return "\n\n<information>" + "\n".join(lines) + "</information>\n\n"


def extract_answer(transcript: str, *, prompt_blocks: int = 0) -> str | None:
    """Returns the last answer of a whole transcript; `None` where the model gave none.

    Args:
        transcript: everything that was said.
        prompt_blocks: how many `<answer>` blocks the prompt holds: 0 for a response alone; 2 for a transcript that
            begins with `PROMPT` or with the published prompt; 1 is what the published `extract_solution` assumes.

    Raises:
        ValueError: a negative number.
    """
    check_count("prompt_blocks", prompt_blocks, least=0)
    found = [content for _, content in _blocks(transcript, "answer")]
    return found[-1] if len(found) > prompt_blocks else None


def score_transcript(
    transcript: str, answers: Sequence[str], *, prompt_blocks: int = 1, format_score: float = 0.0
) -> float:
    """Returns the reward of a whole transcript, with the defaults as Search-R1 computes it.

    1 where the extracted answer is an exact match, `format_score` where there is an answer but a wrong one, else 0. See
    `extract_answer` for `prompt_blocks`.
    """
    answer = extract_answer(transcript, prompt_blocks=prompt_blocks)
    if answer is None:
        return 0.0
    return 1.0 if exact_match(answer, answers) else format_score
