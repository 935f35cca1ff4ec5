"""What a problem is: a question, and the reference answer that the agent never sees."""

import pydantic

from agentenv.tasks import Task

__all__ = ["MathTask"]


class MathTask(Task):
    """One problem.

    Attributes:
        question: what the agent reads.
        reference: the right answer: a number, LaTeX, or what else math-verify understands. An answer alone, without
            words around it.
        numbers: where not empty, the answer is not a value but an expression of these numbers, each used once, that
            has the value `reference`.
        kind: where the problem comes from: a generator's name, or a data set's.
        difficulty: the generator's dial; 0 where unknown.
    """

    question: str = pydantic.Field(min_length=1)
    reference: str = pydantic.Field(min_length=1)
    numbers: tuple[int, ...] = ()
    kind: str = ""
    difficulty: int = 0
