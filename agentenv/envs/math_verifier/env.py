r"""`MathVerifier`: math problems, tools to compute with, and a verifier that decides."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import pydantic
from typing_extensions import override

from agentenv.arrays import check_count
from agentenv.env import Reply
from agentenv.errors import ToolError
from agentenv.malformed import call_problem
from agentenv.protocols import Sandbox
from agentenv.signatures import digest
from agentenv.tasks import State
from agentenv.tool_env import ToolEnv
from agentenv.tools import tool
from agentenv.types import Action, Message, ToolCall

from .answers import canonical_answer, last_boxed, plain_value
from .exact import evaluate, fold, is_symbolic
from .expressions import (
    Expression,
    ExpressionError,
    count_operations,
    parse_expression,
    show,
    show_number,
    to_lists,
)
from .pool import RequestError
from .problems import GENERATORS, Generator, reaches
from .reading import UnreadableError, read
from .tasks import MathTask, read_tasks
from .verifier import MAX_ANSWER, Verifier, shared_verifier

__all__ = ["MathState", "MathVerifier"]

_MAX_OUTPUT = 2_000
_MAX_CODE = 20_000


class MathState(State):
    """What an episode has come to.

    Attributes:
        values: what was computed so far, in canonical spelling, sorted.
        answers: the answers submitted so far, in canonical spelling, in order.
    """

    values: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


class MathVerifier(ToolEnv):
    r"""Math problems: compute with tools, then `submit` an answer, or write it in `\boxed{}`.

    The reward is 1 when the answer is right, otherwise 0; see `Verifier`.

    Args:
        kind: the generator of problems, or several to draw from; without effect where `tasks` is given.
        difficulty: its dial, or the lowest and the highest to draw from.
        tasks: problems to draw from instead: a file or table of rows of GSM8K, MATH or AIME, or `MathTask`s (see
            `read_tasks`).
        on_bad_row: what to do with rows of `tasks` that cannot be used, such as those whose reference cannot be read:
            `"raise"` a report, or `"skip"` them with a warning.
        operations_per_call: operations that one `calculate` may hold; `None` for any number.
        attempts: answers that an episode may submit. After a wrong one before the last, the episode goes on.
        feedback: what the agent is told of such an answer: `"verdict"` that it is wrong, `"direction"` also whether a
            plain number is too small or too large.
        sandbox: opens the sandbox where the tool `python` runs; without it there is no such tool.
        python_timeout_s: seconds on the clock for one run of it.
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

    def __init__(  # noqa: PLR0913  keyword arguments, each by its name
        self,
        *,
        kind: str | Sequence[str] = "arithmetic",
        difficulty: int | tuple[int, int] = 2,
        tasks: Any = None,
        on_bad_row: Literal["raise", "skip"] = "raise",
        operations_per_call: int | None = None,
        attempts: int = 1,
        feedback: Literal["verdict", "direction"] = "verdict",
        sandbox: Callable[[], Sandbox] | None = None,
        python_timeout_s: float = 10.0,
        instructions: str = "",
        verifier: Verifier | None = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (("operations_per_call", operations_per_call), ("attempts", attempts)):
            if value is not None:
                check_count(name, value, least=1)
        if feedback not in {"verdict", "direction"}:
            msg = f"feedback must be 'verdict' or 'direction', got {feedback!r}"
            raise ValueError(msg)
        self._verifier = shared_verifier() if verifier is None else verifier
        if tasks is not None:
            source, tasks = tasks, read_tasks(tasks, on_bad_row=on_bad_row, verifier=self._verifier)
            if not isinstance(source, str | os.PathLike):
                self._arguments[1]["tasks"] = tasks  # what is spawned need not read them again, or cannot
        if sandbox is None:
            tools = {name: entry for name, entry in self._tools.items() if name != "python"}
            self._tools = tools
        super().__init__(tasks=tasks, **kwargs)
        self._generators = _generators(kind)
        low, high = self._difficulty = (difficulty, difficulty) if isinstance(difficulty, int) else difficulty
        if low > high:
            msg = f"difficulty must be a level or (lowest, highest), got {difficulty!r}"
            raise ValueError(msg)
        if tasks is None:
            for generator in self._generators:
                generator.check_difficulty(low)
                generator.check_difficulty(high)
        self._operations_per_call = operations_per_call
        self._attempts = attempts
        self._feedback = feedback
        self._open_sandbox = sandbox
        self._python_timeout_s = python_timeout_s
        self._instructions = instructions

    @override
    def sample_task(self) -> MathTask:
        draw, (low, high) = self.np_random.integers, self._difficulty
        generator = self._generators[int(draw(len(self._generators))) if len(self._generators) > 1 else 0]
        return generator(self.np_random, low if low == high else int(draw(low, high + 1)))

    @override
    def make_sandbox(self) -> Sandbox | None:
        return None if self._open_sandbox is None else self._open_sandbox()

    @override
    def start(self, task: MathTask) -> Reply:
        self._verifier.check_reference(task.reference)
        question: Message = {"role": "user", "content": task.question}
        return [{"role": "system", "content": self._instructions}, question] if self._instructions else question

    @tool
    def calculate(self, expression: str) -> str:
        """Compute an expression exactly, for example (3 + 4) * 2.

        Args:
            expression: numbers with + - * / ^ ! and parentheses, sqrt, and other functions; x and y are unknowns.
        """
        try:
            tree = parse_expression(expression)
            limit = self._operations_per_call
            if limit is not None and count_operations(tree) > limit:
                msg = f"only {limit} operation{'s' if limit > 1 else ''} per call"
                raise ToolError(msg)
            value = self._compute_symbolic(tree) if is_symbolic(tree) else show_number(evaluate(tree))
        except ExpressionError as error:
            raise ToolError(str(error)) from None
        self._remember(value)
        return value

    @tool
    def python(self, code: str) -> str:
        """Run a Python program and return what it prints.

        Args:
            code: the program; print the results.
        """
        if self.sandbox is None:
            msg = "there is no Python here"
            raise ToolError(msg)
        if len(code) > _MAX_CODE:
            msg = f"program too long: {len(code)} characters, at most {_MAX_CODE}"
            raise ToolError(msg)
        stdin = code.encode("utf-8", "replace")
        result = self.sandbox.exec(["python3", "-"], stdin=stdin, timeout_s=self._python_timeout_s)
        output = _shorten(result.stdout.rstrip())
        if result.timed_out:
            msg = f"{output}\ntimed out after {self._python_timeout_s:g} s".lstrip()
            raise ToolError(msg)
        if result.exit_code != 0:
            msg = f"{output}\n{_shorten(result.stderr.rstrip())}".strip() or f"exit code {result.exit_code}"
            raise ToolError(msg)
        if output:
            self._remember(canonical_answer(output.splitlines()[-1]))
        return output

    @tool
    def submit(self, answer: str | int | float) -> str:
        """Submit the final answer.

        Args:
            answer: a number, an expression or LaTeX, without words.
        """
        return self._submit(_text(answer))

    @override
    def on_text(self, text: str) -> Reply:
        answer = last_boxed(text)
        if answer is not None:
            return self._submit(answer)
        hint = "call a tool, or write the answer in \\boxed{}"
        return self.note_mistake(f"{problem}. So {hint}" if (problem := call_problem(text)) else hint)

    def _compute_symbolic(self, tree: Expression) -> str:
        try:
            reply = self._verifier.pool.call({"op": "evaluate", "tree": to_lists(fold(tree))})
        except RequestError as error:
            msg = self.note_breakage(f"cannot compute this: {error}")
            raise ToolError(msg) from None
        if "error" in reply:
            raise ToolError(reply["error"])
        try:
            read(reply["value"])
        except UnreadableError:
            msg = "the result has no closed form that could be submitted"
            raise ToolError(msg) from None
        return reply["value"]

    def _remember(self, value: str) -> None:
        if value not in self.state.values:
            self.state.values = tuple(sorted((*self.state.values, value)))

    def _submit(self, answer: str) -> str:
        right = self._is_right(answer)
        self.state.answers = (*self.state.answers, _bounded(answer))
        if right:
            return self.finish("correct", reward=1.0)
        left = self._attempts - len(self.state.answers)
        if left <= 0:
            return self.finish("wrong", reward=0.0)
        return f"{self._verdict(answer)}, {left} attempt{'s' if left > 1 else ''} left"

    def _is_right(self, answer: str) -> bool:
        task = self.task
        if not task.numbers:
            verdict = self._verifier.judge(task.reference, answer, value_only=task.value_only)
            if verdict.broke:
                self.note_breakage(f"the answer was not compared: {verdict.reason}")
            return verdict.right
        target = plain_value(task.reference)
        return target is not None and reaches(last_boxed(answer) or answer, task.numbers, target)

    def _verdict(self, answer: str) -> str:
        if self._feedback == "direction" and not self.task.numbers:
            expected, given = plain_value(self.task.reference), plain_value(answer)
            if expected is not None and given is not None:
                return "too small" if given < expected else "too large"
        return "wrong"

    @override
    def state_signature(self) -> str:
        """Returns the values computed so far, sorted, the answers submitted, in order, and the sandbox's content.

        How many sandboxes were lost counts too; which expressions gave the values, and in which order, does not.
        """
        known = self.state.values, self.state.answers, self.sandboxes_lost
        return json.dumps([self._phase == "ended", self.sandbox_content(), *known])

    @override
    def action_signature(self, action: Action, /) -> str:
        """Returns the calls with their arguments in canonical spelling: `4*2`, whatever the spaces."""
        if action.tool_calls:
            return "; ".join(map(_call_signature, action.tool_calls))
        answer = last_boxed(action.content)
        return action.content.strip() if answer is None else f"submit({_bounded(answer)})"


def _generators(kind: str | Sequence[str]) -> list[Generator]:
    kinds = [kind] if isinstance(kind, str) else list(kind)
    unknown = [name for name in kinds if name not in GENERATORS]
    if unknown or not kinds:
        msg = f"kind must be one or several of {', '.join(map(repr, GENERATORS))}, got {kind!r}"
        raise ValueError(msg)
    return [GENERATORS[name] for name in kinds]


def _text(value: object) -> str:
    """Returns an argument as text; a whole number of more digits than Python prints, in hexadecimal."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else type(value).__name__


def _bounded(answer: str) -> str:
    """Returns the answer in canonical spelling; a digest in place of a very long one."""
    return canonical_answer(answer) if len(answer) <= MAX_ANSWER else f"#{digest(answer)}"


def _shorten(text: str) -> str:
    half = _MAX_OUTPUT // 2
    return text if len(text) <= _MAX_OUTPUT else f"{text[:half]}\n... {len(text)} characters ...\n{text[-half:]}"


def _call_signature(call: ToolCall) -> str:
    arguments = call.arguments
    if isinstance(arguments, dict) and len(arguments) == 1:
        text = _text(next(iter(arguments.values())))
        if call.name == "submit" and "answer" in arguments:
            return f"submit({_bounded(text)})"
        if call.name == "calculate" and "expression" in arguments:
            try:
                return f"calculate({show(parse_expression(text))})"
            except ExpressionError:
                return f"calculate({text.strip()})"
    return json.dumps([call.name, arguments], sort_keys=True, default=repr)
