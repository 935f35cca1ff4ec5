r"""Math problems with a calculator, and a verifier that decides."""

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import pydantic
from typing_extensions import override

from agentenv.env import Reply, ToolEnv
from agentenv.errors import ToolError
from agentenv.tasks import State
from agentenv.tools import tool
from agentenv.types import Action, Message, ToolCall

from .answers import canonical_answer, last_boxed, plain_value
from .exact import evaluate
from .expressions import (
    ExpressionError,
    count_operations,
    parse_expression,
    show,
    show_number,
)
from .problems import GENERATORS
from .tasks import MathTask
from .verifier import Verifier, shared_verifier

__all__ = ["MathVerifier"]


class MathState(State):
    """What an episode has come to.

    Attributes:
        values: what was computed so far, in canonical spelling, sorted.
        answers: the answers submitted so far, in canonical spelling, in order.
    """

    values: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


class MathVerifier(ToolEnv):
    r"""Math problems: compute with tools, then submit an answer, or write it in `\boxed{}`.

    The reward is 1 when math-verify finds the answer equal to the reference, otherwise 0.

    Args:
        kind: the generator of problems, where `tasks` is not given.
        difficulty: its dial.
        tasks: problems to draw from instead.
        operations_per_call: operations that one `calculate` may hold; `None` for any number.
        attempts: answers an episode may submit. A wrong one before the last is told, and the episode goes on.
        feedback: what a wrong answer before the last is told: `"verdict"` that it is wrong, `"direction"` also whether
            a number is too small or too large.
        instructions: a system message that precedes the question.
        verifier: decides; by default one that all environments of the process share.
        **kwargs: `max_steps`, `render_mode`.
    """

    name = "agentenv/MathVerifier"
    version = 0
    max_steps: int | None = 16
    State: ClassVar[type[pydantic.BaseModel]] = MathState
    Task: ClassVar[type[pydantic.BaseModel] | None] = MathTask

    state: MathState
    task: MathTask

    def __init__(
        self,
        *,
        kind: str = "arithmetic",
        difficulty: int = 2,
        tasks: Sequence[Any] | None = None,
        operations_per_call: int | None = None,
        attempts: int = 1,
        feedback: Literal["verdict", "direction"] = "verdict",
        instructions: str = "",
        verifier: Verifier | None = None,
        **kwargs: Any,
    ) -> None:
        if kind not in GENERATORS:
            msg = f"kind must be one of {', '.join(map(repr, GENERATORS))}, got {kind!r}"
            raise ValueError(msg)
        for name, value in (("operations_per_call", operations_per_call), ("attempts", attempts)):
            if value is not None and value < 1:
                msg = f"{name} must be at least 1, got {value}"
                raise ValueError(msg)
        if feedback not in {"verdict", "direction"}:
            msg = f"feedback must be 'verdict' or 'direction', got {feedback!r}"
            raise ValueError(msg)
        super().__init__(tasks=tasks, **kwargs)
        self._generate = GENERATORS[kind]
        self._difficulty = difficulty
        self._operations_per_call = operations_per_call
        self._attempts = attempts
        self._feedback = feedback
        self._instructions = instructions
        self._verifier = shared_verifier() if verifier is None else verifier

    @override
    def sample_task(self) -> MathTask:
        if self.tasks:
            return super().sample_task()
        return self._generate(self.np_random, self._difficulty)

    @override
    def start(self, task: MathTask) -> Reply:
        self._verifier.check_reference(task.reference)
        question: Message = {"role": "user", "content": task.question}
        return [{"role": "system", "content": self._instructions}, question] if self._instructions else question

    @tool
    def calculate(self, expression: str) -> str:
        """Compute an expression exactly, for example (3 + 4) * 2.

        Args:
            expression: numbers with + - * / ^ and parentheses.
        """
        try:
            tree = parse_expression(expression)
            limit = self._operations_per_call
            if limit is not None and count_operations(tree) > limit:
                msg = f"only {limit} operation{'s' if limit > 1 else ''} per call"
                raise ToolError(msg)
            value = show_number(evaluate(tree))
        except ExpressionError as error:
            raise ToolError(str(error)) from None
        self.state.values = tuple(sorted({*self.state.values, value}))
        return value

    @tool
    def submit(self, answer: str | int | float) -> str:
        """Submit the final answer.

        Args:
            answer: a number, an expression or LaTeX, without words.
        """
        return self._submit(str(answer))

    @override
    def on_text(self, text: str) -> Reply:
        answer = last_boxed(text)
        if answer is not None:
            return self._submit(answer)
        return self.note_mistake("call a tool, or write the answer in \\boxed{}")

    def _submit(self, answer: str) -> str:
        right = self._verifier.check(self.task.reference, answer)
        self.state.answers = (*self.state.answers, canonical_answer(answer))
        if right:
            return self.finish("correct", reward=1.0)
        left = self._attempts - len(self.state.answers)
        if left <= 0:
            return self.finish("wrong", reward=0.0)
        return f"{self._verdict(answer)}, {left} attempt{'s' if left > 1 else ''} left"

    def _verdict(self, answer: str) -> str:
        if self._feedback == "direction":
            expected, given = plain_value(self.task.reference), plain_value(answer)
            if expected is not None and given is not None:
                return "too small" if given < expected else "too large"
        return "wrong"

    @override
    def state_signature(self) -> str:
        """Returns the values computed so far, sorted, and the answers submitted, in order.

        Which expressions gave the values, and in which order, makes no difference.
        """
        return json.dumps([self._phase == "ended", self.state.values, self.state.answers])

    @override
    def action_signature(self, action: Action, /) -> str:
        """Returns the calls with their arguments in canonical spelling: `4*2`, whatever the spaces."""
        if not action.tool_calls:
            answer = last_boxed(action.content)
            return action.content.strip() if answer is None else f"submit({canonical_answer(answer)})"
        return "; ".join(map(_call_signature, action.tool_calls))


def _call_signature(call: ToolCall) -> str:
    arguments = call.arguments
    if isinstance(arguments, dict) and len(arguments) == 1:
        text = str(next(iter(arguments.values())))
        if call.name == "submit" and "answer" in arguments:
            return f"submit({canonical_answer(text)})"
        if call.name == "calculate" and "expression" in arguments:
            try:
                return f"calculate({show(parse_expression(text))})"
            except ExpressionError:
                return f"calculate({text.strip()})"
    return json.dumps([call.name, arguments], sort_keys=True, default=repr)
