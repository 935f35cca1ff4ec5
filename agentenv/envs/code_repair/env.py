"""`CodeRepair`: a workspace with broken code, tools to repair it, and hidden cases that decide."""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, cast

import pydantic
from typing_extensions import override

from agentenv.arrays import check_count
from agentenv.credit.file_signatures import FileStep, action_signature, state_signatures
from agentenv.env import Reply
from agentenv.errors import SandboxError, TaskError, ToolError, WorkspaceError
from agentenv.protocols import ExecResult, Sandbox, Snapshot, StepResult
from agentenv.rows import Source
from agentenv.sandboxes import open_sandbox
from agentenv.signatures import digest
from agentenv.tasks import State
from agentenv.tool_env import ToolEnv
from agentenv.tools import tool
from agentenv.types import Action, Message

from .commands import describe_call
from .grading import Grade, Grader
from .library import bundled_tasks
from .pytest_files import install_pytest, pytest_archive
from .reading import read_tasks
from .references import check_task, check_untouched
from .searching import search_lines
from .submissions import OpenSandbox, Submission, collect_submission, spec_of
from .tasks import RepairTask
from .texts import MOST_PLACES, NotText, Text, find_all, near, split_lines
from .visible_tests import is_test_file, ran_none

__all__ = ["CodeRepair", "RepairState"]

_MAX_OUTPUT = 6_000
_MAX_ARGUMENT = 100_000
_MAX_LISTED = 200
_DURATION = re.compile(r"\bin \d+(?:\.\d+)?s\b")
_SYSTEM = (
    "You repair code. The files are in the current folder. Find out what is wrong, change the code, run the tests, and "
    "call submit. Hidden tests decide. Changes to tests and to configuration are ignored."
)


class RepairState(State):
    """What an episode has come to, besides the files.

    Attributes:
        steps: what was done so far, each thing once, for signatures.
        outcomes: of the calls of the last step: `"ok"` or `"error"`.
        progress: the largest share of visible cases that was right so far.
        graded: digest of the submission that was graded; empty before.
        broke_grading: a submission broke what graded it, which the task's own code does not.
    """

    steps: tuple[FileStep, ...] = ()
    outcomes: tuple[str, ...] = ()
    progress: float = 0.0
    graded: str = ""
    broke_grading: bool = False


class CodeRepair(ToolEnv):
    """Broken code in a sandbox, tools to repair it, and hidden cases that decide on `submit`.

    The reward is 1 where every hidden case is right, otherwise 0. What is hidden never enters the agent's sandbox; see
    `Grader`. An episode that ends without `submit` has no outcome reward.

    Args:
        tasks: tasks to draw from: whatever `read_tasks` takes (`RepairTask`s, rows of any library, a file of rows, a
            folder), or a sequence that makes them when asked; the bundled ones without. Rows of SWE-bench come from
            `read_tasks(..., repositories=...)`.
        check: when a task's own solution is graded, once; one that does not score 1 is a `TaskError`. `"loading"`: now,
            but suites, which take longer, at the first `reset` with the task; `"use"`: all at the first `reset`;
            `"never"`. The bundled tasks are known to be right.
        sandbox: opens sandboxes, for the agent and for grading; `agentenv.sandboxes.open_sandbox` by default.
        reward: `"all"`: 1 for all hidden cases; `"fraction"`: the share of hidden cases that are right.
        progress_reward: what `run_tests` adds in total as more visible cases get right: this times the gain of the
            share over the largest so far. They run as the hidden ones do: changing the tests gains nothing.
        signatures: what makes states and actions the same: `"exact"` (the content of all files), `"paper"` (RTMC's) or
            `"coarse"` (RTMC's without line ranges and hashes).
        command_timeout_s: seconds on the clock for one command of the agent, and for the visible tests.
        case_timeout_s: the same for one hidden case.
        max_output: characters of output that the agent is shown; what is cut is said.
        **kwargs: `max_steps`, `render_mode`.
    """

    name = "agentenv/CodeRepair"
    version = 0
    max_steps: int | None = 30
    State: ClassVar[type[pydantic.BaseModel]] = RepairState
    Task: ClassVar[type[pydantic.BaseModel] | None] = RepairTask

    state: RepairState
    task: RepairTask

    def __init__(
        self,
        *,
        tasks: Source | None = None,
        sandbox: OpenSandbox = open_sandbox,
        reward: Literal["all", "fraction"] = "all",
        progress_reward: float = 0.0,
        signatures: Literal["exact", "paper", "coarse"] = "exact",
        command_timeout_s: float = 30.0,
        case_timeout_s: float = 10.0,
        max_output: int = _MAX_OUTPUT,
        check: Literal["loading", "use", "never"] = "loading",
        **kwargs: Any,
    ) -> None:
        for name, value, choices in (
            ("reward", reward, ("all", "fraction")),
            ("signatures", signatures, ("exact", "paper", "coarse")),
            ("check", check, ("loading", "use", "never")),
        ):
            if value not in choices:
                msg = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
                raise ValueError(msg)
        for name, value in (("command_timeout_s", command_timeout_s), ("case_timeout_s", case_timeout_s)):
            if not value > 0:
                msg = f"{name} must be positive, got {value!r}"
                raise ValueError(msg)
        check_count("max_output", max_output, least=200)
        is_lazy = isinstance(tasks, Sequence) and not isinstance(tasks, str | bytes | list | tuple)
        lazy = cast("Sequence[Any]", tasks)
        kept: Sequence[Any] = bundled_tasks() if tasks is None else lazy if is_lazy else read_tasks(tasks)
        super().__init__(tasks=kept, **kwargs)
        if tasks is not None:  # forks need not read the rows again
            self._replace_argument(tasks, kept)
        self._check = "never" if tasks is None else check
        self._open = sandbox
        self._grader = Grader(sandbox, case_timeout_s)
        self._reward = reward
        self._progress_reward = progress_reward
        self._style: Literal["exact", "paper", "coarse"] = signatures
        self._timeout_s = command_timeout_s
        self._max_output = max_output
        self._is_restoring = False
        self._not_blamed: SandboxError | None = None
        if self._check == "loading" and not is_lazy:
            for task in self.tasks:
                if task.suite is None:
                    check_task(task, sandbox, case_timeout_s=case_timeout_s)

    def check_tasks(self) -> None:
        """Grades the own solutions of all tasks, and their untouched code, unless that was done before.

        Raises:
            TaskError: a solution does not score 1, or untouched code does; the message names task, case and reason.
        """
        for task in self.tasks:
            check_task(task, self._open, case_timeout_s=self._grader.case_timeout_s)
            check_untouched(task, self._open, case_timeout_s=self._grader.case_timeout_s)

    @override
    def make_sandbox(self) -> Sandbox:
        sandbox = self._open(spec_of(self.task))
        if not self.task.uses_pytest or self._is_restoring:  # a snapshot brings it
            return sandbox
        python = self.task.suite.python if self.task.suite else "python3"
        try:
            install_pytest(sandbox, pytest_archive(self._open, self.task.image, python), python)
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    @override
    def _put_back(self, snapshot: Snapshot) -> None:
        other = snapshot.task
        if self.sandbox is not None and isinstance(other, RepairTask) and _setting(other) != _setting(self.task):
            self._drop_sandbox()  # it has another image, or other variables
        self._is_restoring = True
        try:
            super()._put_back(snapshot)
        finally:
            self._is_restoring = False

    @override
    def start(self, task: RepairTask) -> Reply:
        if self._check != "never":
            check_task(task, self._open, case_timeout_s=self._grader.case_timeout_s)
        if self._progress_reward and not task.visible:
            msg = f"task {self.task_id!r} has no visible cases, which progress_reward needs"
            raise TaskError(msg)
        if self._progress_reward:
            self.state.progress = self._visible_share()
        paths = task.paths()
        files = "\n".join(paths[:_MAX_LISTED])
        if len(paths) > _MAX_LISTED:
            files += f"\n[... and {len(paths) - _MAX_LISTED} more]"
        system: Message = {"role": "system", "content": _SYSTEM}
        question: Message = {"role": "user", "content": f"{task.instruction.strip()}\n\nFiles:\n{files}"}
        return [system, question]

    @override
    def step(self, action: Any) -> StepResult:
        """Takes one action; `info["metrics"]` counts what the agent broke: sandboxes of its own, and its grading."""
        observation, reward, terminated, truncated, info = super().step(action)
        info["metrics"] = {
            "sandboxes_lost": float(self.sandboxes_lost),
            "gradings_broken": float(self.state.broke_grading),
        }
        return observation, reward, terminated, truncated, info

    @override
    def respond(self, action: Action) -> Reply:
        self.state.outcomes, self._not_blamed = (), None
        answer = super().respond(action)
        self._note_steps(action)
        return answer

    def _note_steps(self, action: Action) -> None:
        for call, outcome in zip(action.tool_calls, self.state.outcomes, strict=False):
            step = describe_call(call, outcome)
            if step not in self.state.steps:
                self.state.steps = (*self.state.steps, step)

    @override
    def _is_lost(self, error: SandboxError) -> bool:
        return error is not self._not_blamed

    @override
    def _recover(self, action: Action, before: Snapshot, error: SandboxError) -> Reply:
        reply = super()._recover(action, before, error)
        self.state.outcomes = ("error",) * len(action.tool_calls)
        return reply

    # ------------------------------------------------------------------ tools

    @tool
    def run(self, command: str) -> str:
        """Run a shell command in the workspace. Nothing keeps running after it; there is no network.

        Args:
            command: for sh, e.g. `python3 -c "import shop; print(shop.total([1]))"`.
        """
        result = self._files.exec(_text(command, "command"), timeout_s=self._timeout_s)
        return self._show(result, result.stdout + result.stderr)

    @tool
    def read_file(self, path: str, start: int = 1, end: int | None = None) -> str:
        """Read a text file, with line numbers.

        Args:
            path: relative to the workspace.
            start: first line, from 1.
            end: last line; the last of the file by default.
        """
        text = self._read(path)
        lines = split_lines(text.content)
        last = len(lines) if end is None else min(end, len(lines))
        if lines and not 1 <= start <= len(lines):
            msg = f"start must be in 1 to {len(lines)}, the lines of {path}, got {start}"
            raise ToolError(msg)
        if end is not None and end < start:
            msg = f"end must be at least start, got {start} to {end}"
            raise ToolError(msg)
        shown = "\n".join(f"{number:5d}  {lines[number - 1]}" for number in range(start, last + 1))
        self._note("ok")
        return "\n".join(filter(None, (self._cut(shown) or "(empty file)", text.note and f"[{text.note}]")))

    @tool
    def search(self, pattern: str, path: str = ".") -> str:
        """Search files for lines that match an extended regular expression.

        Args:
            pattern: as for grep -E.
            path: a file or folder, relative to the workspace.
        """
        found = search_lines(self._files, _text(pattern, "pattern"), _text(path, "path"), self._timeout_s)
        self._note("ok")
        return self._cut("\n".join(found))

    @tool
    def edit_file(self, path: str, old: str, new: str) -> str:
        """Replace a text that occurs exactly once in a file.

        Args:
            path: relative to the workspace.
            old: the text to replace, with its exact white space; enough of it to be unique.
            new: what takes its place.
        """
        text = self._read(path)
        if not old:
            msg = "old must not be empty; use write_file for a new file"
            raise ToolError(msg)
        places = find_all(text.content, old)
        if not places:
            msg = f"old does not occur in {path}; it must match exactly, white space included"
            raise ToolError(msg + near(text.content, old))
        if len(places) > 1:
            where = ", ".join(str(text.content.count("\n", 0, start) + 1) for start, _ in places[:8])
            count = f"{len(places)}{' or more' if len(places) == MOST_PLACES else ''}"
            msg = f"old occurs {count} times in {path} (at lines {where}); include more of its surroundings"
            raise ToolError(msg)
        if old == new:
            msg = "old and new are the same"
            raise ToolError(msg)
        try:
            data = text.replace(places[0], new).write()
        except NotText as error:
            msg = f"{path} {error}"
            raise ToolError(msg) from None
        self._write(path, data)
        return f"replaced 1 occurrence in {path}"

    @tool
    def write_file(self, path: str, content: str) -> str:
        """Write a file, making its folders; replaces what was there.

        Args:
            path: relative to the workspace.
            content: the whole content.
        """
        if not _is_unicode(content):
            msg = "the content is not valid Unicode: it has lone surrogates"
            raise ToolError(msg)
        self._write(path, content.encode())
        return f"wrote {path}"

    @tool
    def run_tests(self) -> str:
        """Run the visible tests."""
        if not self.task.test_command and not any(map(is_test_file, self.task.paths())):
            msg = "this task has no visible tests; write some and run them with `run`"
            raise ToolError(msg)
        result = self._files.exec(self.task.command, timeout_s=self._timeout_s)
        if self._progress_reward:
            share = self._visible_share()
            if share > self.state.progress:
                self.add_reward(self._progress_reward * (share - self.state.progress), name="progress")
                self.state.progress = share
        output = result.stdout + result.stderr
        failed = ran_none(output)
        answer = self._show(result, _DURATION.sub("", output), failed=failed)
        return f"{answer}\nNo test was run." if failed else answer

    @tool
    def submit(self) -> str:
        """Hand in the files as they are. This ends the episode."""
        submission = collect_submission(self._files, self.task)
        grade = self._judged(self._grader.grade, submission, stop_early=self._reward == "all")
        self.state.graded = submission.digest
        self._note("ok")
        value = float(grade.solved) if self._reward == "all" else grade.fraction
        return self.finish("all hidden tests pass" if grade.solved else "hidden tests fail", reward=value)

    # ------------------------------------------------------------------ signatures

    @override
    def state_signature(self) -> str:
        """Names the state, as `signatures` says.

        `"exact"`: a digest of all files with their modes, and whether the episode has ended. `"paper"` and `"coarse"`:
        what was done to which file so far, blind to order and repetition.
        """
        if self._style != "exact":
            ended = "|ended" if self._phase == "ended" else ""
            return state_signatures(self.state.steps, style=self._style)[-1] + ended
        return digest([self._phase == "ended", self.sandbox_content(), self.state.progress])

    @override
    def action_signature(self, action: Action, /) -> str:
        """Names the action, as `signatures` says; with the outcomes of its tests and commands in RTMC's styles."""
        if self._style == "exact":
            return super().action_signature(action)
        if not action.tool_calls:
            return "think"
        outcomes = [*self.state.outcomes, *[""] * len(action.tool_calls)]
        steps = [describe_call(call, outcome) for call, outcome in zip(action.tool_calls, outcomes, strict=False)]
        return ";".join(action_signature(step, style=self._style) for step in steps)

    # ------------------------------------------------------------------ inside

    @property
    def _files(self) -> Sandbox:
        if self.sandbox is None:
            msg = "CodeRepair has no sandbox before reset"
            raise RuntimeError(msg)
        return self.sandbox

    @override
    def note_mistake(self, text: str) -> str:
        self._note("error")
        return super().note_mistake(text)

    def _note(self, outcome: str) -> None:
        self.state.outcomes = (*self.state.outcomes, outcome)

    def _visible_share(self) -> float:
        return self._judged(self._grader.grade_visible, collect_submission(self._files, self.task)).fraction

    def _judged(self, judge: Callable[..., Grade], submission: Submission, **how: bool) -> Grade:
        """Returns a verdict and notes what the submission broke; where there is none, a control broke, too."""
        try:
            grade = judge(self.task, submission, **how)
        except SandboxError as error:
            self._not_blamed = error
            raise
        if grade.blamed:
            self.state.broke_grading = True
            self.note_breakage(grade.reasons[0])
        return grade

    def _read(self, path: str) -> Text:
        try:
            return Text.read(self._files.read(_text(path, "path")))
        except WorkspaceError as error:
            raise ToolError(_why(error, path)) from None
        except NotText as error:
            msg = f"{path} {error}"
            raise ToolError(msg) from None

    def _write(self, path: str, content: bytes) -> None:
        try:
            self._files.write(_text(path, "path"), content)
        except WorkspaceError as error:
            raise ToolError(_why(error, path)) from None
        self._note("ok")

    def _show(self, result: ExecResult, output: str, *, failed: bool = False) -> str:
        """Returns a command's output as the agent sees it, with how it ended."""
        notes = [f"exit code {result.exit_code}"]
        if result.timed_out:
            notes = [f"timed out after {self._timeout_s:g} s"]
        if result.oom:
            notes.append("out of memory")
        if result.truncated:
            notes.append("output beyond the limit was dropped")
        if result.killed and not result.timed_out:
            notes.append(f"{result.killed} processes outlived it and were killed")
        self._note("error" if failed or result.exit_code or result.timed_out else "ok")
        return f"{self._cut(output.rstrip())}\n[{', '.join(notes)}]".lstrip()

    def _cut(self, text: str) -> str:
        if len(text) <= self._max_output:
            return text
        half = self._max_output // 2
        cut = len(text) - 2 * half
        return f"{text[:half]}\n[... {cut} of {len(text)} characters cut ...]\n{text[-half:]}"


def _setting(task: RepairTask) -> tuple[object, ...]:
    """What of a task's sandbox is no file, and so in no snapshot of it."""
    return task.image, task.uses_pytest, task.suite and task.suite.source


def _text(value: str, name: str) -> str:
    """Returns an argument that can be given to a program.

    Raises:
        ToolError: it cannot.
    """
    if not value or "\0" in value or not _is_unicode(value) or len(value.encode()) > _MAX_ARGUMENT:
        msg = f"{name} must be text of 1 to {_MAX_ARGUMENT} bytes without NUL"
        raise ToolError(msg)
    return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why(error: WorkspaceError, path: str) -> str:
    return f"{path}: {(error.strerror or str(error)).removeprefix(f'{path}: ')}"
