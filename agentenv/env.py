"""Environments that branch: `Env`. Most people subclass `agentenv.ToolEnv`.

An environment is a `gymnasium.Env` whose complete state can be taken (`snapshot`), put back (`restore`) and multiplied
(`fork`) at any step. It gets that for free by keeping everything that changes during an episode in four places, and
nowhere else: `self.state` (a pydantic model), `self.np_random`, `self.sandbox`, and the step count.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from numbers import Integral, Real  # numpy's numbers are
from typing import Any, ClassVar, cast

import pydantic
from typing_extensions import override

from agentenv.arrays import as_number, check_count
from agentenv.branching import Branching
from agentenv.errors import AgentFault, EpisodeError, SandboxError, SandboxLost, SnapshotError, TaskError
from agentenv.protocols import Sandbox, Snapshot, StepResult, Transition
from agentenv.rows import Source, is_mapping, shorten
from agentenv.signatures import canonical, digest
from agentenv.spaces import Actions, Messages
from agentenv.tasks import read_task, read_tasks
from agentenv.types import Action, Message, Observation, ToolSchema, map_text, message_text, to_observation

__all__ = ["Env", "Reply", "choose_task"]

Reply = str | Message | Sequence[Message]
"""What an environment answers: text, a message, or several."""

_OPTIONS = ("task",)

_DECLARED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("max_steps", lambda x: x is None or _is_whole(x, 1), "an integer of at least 1, or None for no limit"),
    ("success_threshold", lambda x: isinstance(x, Real) and math.isfinite(x), "a finite number"),
    (
        "name",
        lambda x: isinstance(x, str) and re.fullmatch(r"([\w:-]+/)?[\w:.-]+", x) is not None,  # gymnasium's rule
        "text such as 'mine/Env': letters, digits and any of _:.- with one / at most",
    ),
    ("version", lambda x: _is_whole(x, 0), "an integer of at least 0"),
)
"""What classes declare, and the rule for each."""


class Env(Branching):
    """A multi-step environment that an agent talks to, and that can be branched at any step.

    A step that loses the sandbox (`SandboxLost`) is taken back: state and files are as they were before it, in a new
    sandbox, and the agent is told. The second time in an episode, it ends with reward 0. Both are in
    `info["breakages"]`. Where no other sandbox can be opened and run a command, nobody is to blame: `SandboxError`.

    Subclasses write `start` and `respond`; most are better off with `ToolEnv`.

    Set these in SOME subclasses:
        name: names the environment; the class name by default. With `version` it makes `env_id`.
        version: raise it whenever results could change.
        max_steps: the step after which an episode is truncated; `None` for no limit.
        State: the pydantic model of `self.state`.
        Task: the pydantic model of a task; where it is set, tasks are validated into it.
        fidelity: `Fidelity.LOCAL` where a snapshot means nothing in another process.
        success_threshold: an episode succeeds when its return exceeds it.

    Attributes:
        state: the episode's own state, an instance of `State`.
        task: the episode's task.
        tasks: the tasks to draw from when `reset` is given none.
        sandbox: where commands run; `None` for environments that run none.

    Args:
        tasks: the tasks to draw from: a sequence of instances of `Task` or of mappings that fit it, which are read when
            they are drawn; or the path of a file, a table of any library, or an iterator (see `agentenv.rows`), which
            is read now.
        max_steps: overrides the class's limit.
        render_mode: `"ansi"` makes `render` return the last observation as text.
    """

    max_steps: int | None = None
    Task: ClassVar[type[pydantic.BaseModel] | None] = None
    success_threshold: float = 0.5
    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012  as gymnasium declares it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        task: object = cls.Task
        if task is not None and not (isinstance(task, type) and issubclass(task, pydantic.BaseModel)):
            msg = f"{cls.__qualname__}.Task must subclass agentenv.Task (a pydantic model), got {task!r:.80}"
            raise TypeError(msg)

    def __init__(
        self,
        *,
        tasks: Source | None = None,
        max_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        super().__init__()
        for name, fits, rule in _DECLARED:
            value = getattr(type(self), name)
            if not (fits(value) or hasattr(value, "__get__")):  # a property is asked when it is needed
                msg = f"{type(self).__qualname__}.{name} must be {rule}, got {shorten(value)}"
                raise ValueError(msg)
        if max_steps is not None:
            check_count("max_steps", max_steps, least=1)
            self.max_steps = max_steps
        if render_mode not in {None, "ansi"}:
            msg = f"render_mode must be None or 'ansi', got {render_mode!r}"
            raise ValueError(msg)
        self.render_mode = render_mode
        self.tasks: Sequence[Any] = () if tasks is None else read_tasks(tasks, self.Task)
        if tasks is not None and self.tasks is not tasks:
            self._replace_argument(tasks, self.tasks)  # a generator has nothing for the next environment
        self.observation_space = Messages()
        self.action_space = Actions(self.tools)

    # ------------------------------------------------------------------ what subclasses write

    def start(self, task: Any, /) -> Reply:  # noqa: ARG002
        """Begins an episode: sets `self.state` and returns the first observation (text is a user message)."""
        raise TypeError(_must_define(type(self), "start(self, task)"))

    def respond(self, action: Action, /) -> Reply:  # noqa: ARG002
        """Answers one action. May call `add_reward` and `finish`."""
        raise TypeError(_must_define(type(self), "respond(self, action)"))

    def draw_task(self) -> Any:
        """Returns the task of an episode that was given none: one of `tasks`, or `sample_task()` where there are none.

        Override it to choose among `self.tasks` in another way, e.g. by a curriculum. What it returns is read as
        `options={"task": ...}` is, but for an index: `self.tasks[index]`.
        """
        count = len(self.tasks)
        return self.tasks[int(self.np_random.integers(count))] if count else self.sample_task()

    def sample_task(self) -> Any:
        """Makes up the task of an episode with `self.np_random`, where none is given and there are no `tasks`."""
        if self.Task is not None:
            try:
                return self.Task()
            except pydantic.ValidationError:
                msg = f"{self.env_id} has no tasks: pass tasks=[...] to it, or options={{'task': ...}} to reset"
                raise TaskError(msg) from None
        return None

    def state_signature(self) -> str:
        """Returns a digest of the fields of `self.state`, and of the sandbox's content where there is one.

        Equal exactly where those are equal. The step count and the random state are left out, so that a state reached
        by another way is the same state.
        """
        lost = [self.sandboxes_lost] if self.sandboxes_lost else []  # the next one ends the episode
        return digest([self._phase == "ended", self.sandbox_content(), self.state, *lost])

    def action_signature(self, action: Action, /) -> str:
        """Returns what the action did, in canonical form: tool names and arguments, or the text, stripped.

        Asked right after the step, so that an environment may add the outcome.
        """
        if action.tool_calls:
            return json.dumps([[call.name, canonical(call.arguments)] for call in action.tool_calls])
        return action.content.strip()

    # ------------------------------------------------------------------ what subclasses call

    def finish(self, reply: str = "", *, reward: float = 0.0) -> str:
        """Ends the episode with this step and returns `reply`.

        Args:
            reply: the last thing that the agent reads.
            reward: added to the step's reward under the name `outcome`.
        """
        self._terminated = True
        self.add_reward(reward, name="outcome")
        return reply

    def add_reward(self, value: float, *, name: str = "reward") -> None:
        """Adds to the step's reward; the components are in `info["rewards"]` by name.

        Raises:
            ValueError: the value is not finite, or no number: text is none.
        """
        number = as_number(value)
        if not math.isfinite(number):
            what = f"{shorten(value)} for {name!r}"
            msg = f"reward must be a finite number, got {what}; where it is unknown raise InfrastructureError"
            raise ValueError(msg)
        self._rewards[name] = self._rewards.get(name, 0.0) + number

    def note_mistake(self, text: str) -> str:
        """Records that the agent's action was invalid (in `info["mistakes"]`) and returns `text`."""
        self._mistakes.append(text)
        return text

    def note_breakage(self, text: str) -> str:
        """Records that the agent broke something of the infrastructure (in `info["breakages"]`) and returns `text`.

        It is the agent's fault where a control does not break: it costs the reward, and is no `InfrastructureError`.
        """
        self._breakages.append(text)
        return text

    # ------------------------------------------------------------------ what users call

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call, in OpenAI's format."""
        return ()

    @property
    def task_id(self) -> str:
        """Names the episode's task: its `id`, or a digest."""
        return str(getattr(self.task, "id", "") or digest(self.task))

    @override
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: makes everything random in it repeatable; without it the random generator goes on.
            options: `{"task": ...}` chooses the task: an instance or a mapping that fits `Task`, or the index or the
                id of one of `tasks`.

        Returns:
            The first observation, and `info` with `task_id` and `step_count`.

        Raises:
            TaskError: the task has the wrong shape.
            ValueError: an unknown option, or no mapping.
        """
        super().reset(seed=seed)
        if options is not None and not is_mapping(options):
            msg = f"options must be a mapping such as {{'task': ...}}, got {shorten(options)}"
            raise ValueError(msg)
        unknown = set(options or {}) - set(_OPTIONS)
        if unknown:
            msg = f"options may hold {', '.join(map(repr, _OPTIONS))}, got {sorted(unknown)!r}"
            raise ValueError(msg)
        given = (options or {}).get("task")
        self._phase = "failed"  # until `start` has succeeded
        self._drop_sandbox()
        self.task = choose_task(self, given)
        self.state = self.State()
        self._step_count = self._lost = 0
        self._begin_step()
        self.sandbox = self.make_sandbox()
        self._last = _readable(to_observation(self.start(self.task)))
        if self._terminated or self._rewards:
            msg = f"{type(self).__name__}.start must only begin the episode: finish and add_reward belong in respond"
            raise EpisodeError(msg)
        self._phase = "running"
        return _copy(self._last), {"task_id": self.task_id, "step_count": 0}

    @override
    def step(self, action: Any) -> StepResult:
        """Takes one action.

        Args:
            action: text, an assistant message in OpenAI's format, or an `Action`.

        Returns:
            The new messages; the reward of this step; whether the task ended the episode; whether a limit did; and
            `info` with `step_count`, `rewards` by component, `mistakes` (what was wrong with the action), and where
            there are any `breakages` (what of the infrastructure it broke).

        Raises:
            EpisodeError: before `reset`, after the end, or after a failure.
            InfrastructureError: something broke that is not the agent: the episode has no reward.
            ValueError: the action is none of the accepted types.
        """
        self._require("running", EpisodeError, "step")
        parsed = Action.parse(action)
        answer = self._answer(parsed)
        self._last = _readable(to_observation(answer))
        self._step_count += 1
        spent = self.max_steps is not None and self._step_count >= self.max_steps
        truncated = not self._terminated and (self._truncated or spent)
        self._phase = "ended" if self._terminated or truncated else "running"
        info = {"step_count": self._step_count, "rewards": self._rewards, "mistakes": self._mistakes}
        if self._breakages:
            info["breakages"] = self._breakages
        return _copy(self._last), float(sum(self._rewards.values())), self._terminated, truncated, info

    # ------------------------------------------------------------------ whose fault

    def _answer(self, action: Action) -> Reply:
        """Answers an action, or says what it broke."""
        before = self._before_step()
        shared, self._shared = self._shared, None
        self._begin_step()
        self._phase = "failed"  # until the answer is complete
        try:
            try:
                answer = self.respond(action)
            finally:
                self._shared = None if shared is None else []
            # What cannot be kept after a step is lost: that step is to blame, and not who asks next.
            self._kept = None if self._terminated or before is None else self._sandbox_snapshot()
        except AgentFault as fault:
            self._rewards.clear()
            told = f"this broke what serves it, twice, and something else did not ({fault!s:.300}): the episode ends"
            return _to_each_call(action, self.finish(self.note_breakage(told), reward=0.0))
        except SandboxError as error:
            if before is None or not self._is_lost(error):
                raise
            return self._recover(action, before, error)
        return answer

    def _before_step(self) -> Snapshot | None:
        """Returns the state before a step; `None` where there is no sandbox, or the state cannot be taken."""
        if self.sandbox is None:
            return None
        try:
            kept = self.sandbox.snapshot() if self._kept is None else self._kept
            return dataclasses.replace(super()._snapshot(with_sandbox=False), sandbox=kept)
        except (SandboxError, SnapshotError):
            return None

    def _is_lost(self, error: SandboxError) -> bool:
        """Whether a step that raised this has lost the sandbox."""
        if isinstance(error, SandboxLost):
            return True
        try:
            cast("Sandbox", self.sandbox).snapshot()
        except SandboxError:
            return True
        return False

    def _recover(self, action: Action, before: Snapshot, error: SandboxError) -> Reply:
        """Goes back to before a step that lost the sandbox, and says so; the second time the episode ends.

        Raises:
            SandboxError: no other sandbox can be opened, or it does not run a command either: nobody's fault.
        """
        self._drop_sandbox()
        self._put_back(before)
        try:
            cast("Sandbox", self.sandbox).exec(["true"], timeout_s=60.0)
        except SandboxError:
            raise error from None
        steps, lost = self._step_count, self._lost
        super()._load(before)
        self._step_count, self._lost, self._kept = steps, lost + 1, before.sandbox
        told = f"the sandbox was lost in this step ({error!s:.200}); its files are as they were before it. "
        again = self._lost > 1
        told += "It was lost before, so the episode ends." if again else "If it is lost again, the episode ends."
        self.note_breakage(told)
        return _to_each_call(action, self.finish(told, reward=0.0) if again else told)

    def begin(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None, snapshot: bool = True
    ) -> Transition:
        """Starts an episode as `reset` does, and returns the state's signature and, where wanted, a snapshot too."""
        observation, info = self.reset(seed=seed, options=options)
        with self.same_state():
            taken = self.snapshot() if snapshot else None
            return Transition(observation, info=info, state_signature=self.state_signature(), snapshot=taken)

    def advance(self, action: Any, /, *, snapshot: bool = False) -> Transition:
        """Takes one action as `step` does, and returns both signatures and, where wanted, a snapshot too.

        Args:
            action: as for `step`.
            snapshot: whether to take a snapshot; none is taken of an episode that has ended.
        """
        parsed = Action.parse(action)
        with self.same_state():
            observation, reward, terminated, truncated, info = self.step(parsed)
            taken = self.snapshot() if snapshot and not (terminated or truncated) else None
            signatures = self.state_signature(), self.action_signature(parsed)
        return Transition(observation, reward, terminated, truncated, info, *signatures, taken)

    @override
    def render(self) -> Any:
        """Returns the last observation as text in mode `"ansi"`."""
        if self.render_mode is None:
            return None
        return "\n".join(f"[{message['role']}] {message_text(message)}" for message in self._last)


def choose_task(env: Env, given: Any) -> Any:
    """Returns the task that `reset` begins an episode with: the one that was given, else one that is drawn.

    Raises:
        TaskError: it has the wrong shape; the message says where it came from.
    """
    if given is not None:
        return read_task(given, env.Task, env.tasks)
    own = type(env).draw_task is not Env.draw_task
    name = "what draw_task returned" if own else "one of tasks" if len(env.tasks) else "what sample_task returned"
    remedy = f"it must be a Task or a mapping of its fields{', such as self.tasks[index]' * own}"
    return read_task(env.draw_task(), env.Task, name=name, remedy=remedy)  # no index: a task may be a whole number


def _readable(observation: Observation) -> Observation:
    """Returns messages that UTF-8 can hold: a lone surrogate, as in the name of a file, becomes its escape."""
    return tuple(
        map_text(message, lambda text: text.encode("utf-8", "backslashreplace").decode()) for message in observation
    )


def _to_each_call(action: Action, text: str) -> Reply:
    """Returns a text as the answer to every call of an action; to the action, where it calls nothing."""
    reply: list[Message] = []
    for call in action.tool_calls:
        message: Message = {"role": "tool", "content": text, "name": call.name}
        reply.append({**message, "tool_call_id": call.id} if call.id else message)
    return reply or text


def _copy(observation: Observation) -> Observation:
    return tuple(map_text(message, str) for message in observation)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _must_define(cls: type, what: str) -> str:
    return f"{cls.__qualname__} must define {what}"
