"""Our environments as tasksets of verifiers, version 1: a task is an episode, its tools are served over MCP."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportGeneralTypeIssues=false

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field, WithJsonSchema
from typing_extensions import override

from agentenv.distribution import pip_install
from agentenv.env import Env
from agentenv.errors import InfrastructureError, MissingDependencyError
from agentenv.registry import env_class
from agentenv.types import Action, ToolCall, message_text

from .solutions import solution_calls

try:
    import verifiers.v1 as vf
except ModuleNotFoundError as error:
    message = f"tasksets need verifiers, in an environment without our extra mcp: {pip_install('verifiers==0.4.0')}"
    raise MissingDependencyError(message) from error

__all__ = ["EpisodeData", "EpisodeTask", "EpisodeTaskset", "EpisodeTools", "as_taskset"]

_OVER = "The episode has ended; nothing can be done any more."


class EpisodeData(vf.TaskData):
    """Which episode a task is: what makes the environment, and how it is reset."""

    env_id: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    place: int | None = None


class EpisodeState(vf.State):
    """What an episode has come to; `total` is `None` where infrastructure, or a bug, broke it."""

    total: float | None = 0.0
    steps: int = 0
    ended: bool = False


def _begin(data: EpisodeData) -> tuple[Env, Any]:
    env = env_class(data.env_id)(**data.options)
    options = None if data.place is None else {"task": data.place}
    observation, _ = env.reset(seed=data.seed, options=options)
    return env, observation


class EpisodeTools(vf.Toolset[vf.ToolsetConfig, EpisodeState]):
    """The tools of an episode. Every call is a step; calls after the end do nothing."""

    TOOL_PREFIX = None

    _env: Env | None = None
    _lock: ClassVar[Lock] = Lock()

    @override
    async def setup_task(self, task: EpisodeData) -> None:
        self._env, _ = await asyncio.to_thread(_begin, task)

    @override
    def register(self, mcp: Any) -> None:
        for tool in cast("Env", self._env).tools:
            function = tool["function"]
            method = _function(function, self._call)
            mcp.add_tool(self._with_state(method), name=function["name"], description=function.get("description"))

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        if self.state.ended or self._env is None:
            return _OVER
        action = Action(tool_calls=(ToolCall(name, arguments, f"call_{self.state.steps}"),))
        try:
            observation, reward, terminated, truncated, _ = await asyncio.to_thread(self._env.step, action)
        except Exception as error:  # noqa: BLE001  a bug, too: a tool that raises would leave the reward as it was
            self.state.total, self.state.ended = None, True
            return f"{type(error).__name__}: {error}"
        self.state.total = (self.state.total or 0.0) + float(reward)
        self.state.steps += 1
        self.state.ended = terminated or truncated
        return "\n".join(message_text(message) for message in observation)


class EpisodeTaskConfig(vf.TaskConfig):
    """Where the tools run."""

    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class EpisodeTask(vf.Task[EpisodeData, EpisodeState, EpisodeTaskConfig]):
    """One episode."""

    @classmethod
    @override
    def toolsets(cls, config: EpisodeTaskConfig) -> list[Any]:
        return [EpisodeTools(config.tools)]

    @override
    async def validate(self, runtime: Any) -> bool | None:
        """Whether the environment's own demonstration, or the task's solution, succeeds; `None` where there is none."""
        return await asyncio.to_thread(_solves, self.data)

    @vf.reward(weight=1.0)
    async def episode(self, trace: Any) -> float:
        """Returns the sum of the rewards of the episode's steps."""
        if trace.state.total is None:
            msg = "the episode broke: it has no reward"
            raise InfrastructureError(msg)
        return float(trace.state.total)


class EpisodeTasksetConfig(vf.TasksetConfig):
    """How many episodes there are, and where their seeds begin."""

    num_tasks: int = 8
    seed: int = 0
    task: EpisodeTaskConfig = EpisodeTaskConfig()


class EpisodeTaskset(vf.Taskset[EpisodeTask, EpisodeTasksetConfig]):
    """Episodes of one environment; `as_taskset` makes one."""

    ENV_ID: ClassVar[str] = ""
    OPTIONS: ClassVar[Mapping[str, Any]] = {}
    PLACES: ClassVar[Sequence[int] | None] = None

    @override
    def load(self) -> Iterator[EpisodeTask]:
        """Yields one task per episode, with the messages that it begins with as its prompt."""
        places = self.PLACES
        for number in range(self.config.num_tasks if places is None else len(places)):
            place = None if places is None else places[number]
            data = EpisodeData(
                env_id=self.ENV_ID, options=dict(self.OPTIONS), seed=self.config.seed + number, place=place
            )
            env, observation = _begin(data)
            try:
                texts = {
                    role: [message_text(m) for m in observation if m["role"] == role] for role in ("system", "user")
                }
                words = {"prompt": "\n\n".join(texts["user"]), "system_prompt": "\n\n".join(texts["system"]) or None}
                yield EpisodeTask(data.model_copy(update={**words, "name": env.task_id}), self.config.task)
            finally:
                env.close()


def as_taskset(env_id: str, *, places: Sequence[int] | None = None, **options: Any) -> type[EpisodeTaskset]:
    """Returns a taskset class; a module that has it in `__all__` is what `vf-eval` and `vf-validate` take by name.

    Args:
        env_id: a registered id, or `"module:Class"`: the tools run in a process of their own, which imports it.
        places: of tasks among the environment's own; by default every episode draws its task.
        options: arguments of the environment, as JSON.

    Raises:
        ValueError: the environment has no tools, and verifiers' agents act by tools alone.
        AgentEnvError: the environment cannot be made.
    """
    env = env_class(env_id)(**options)
    try:
        if not env.tools:
            msg = f"{env_id} has no tools, and a taskset's agents act by tools alone"
            raise ValueError(msg)
    finally:
        env.close()
    name = f"{env_id.rpartition('/')[2].rpartition(':')[2].partition('-v')[0]}Taskset"
    body = {"ENV_ID": env_id, "OPTIONS": options, "PLACES": places, "__module__": __name__}
    return type(name, (EpisodeTaskset,), body)


def _function(schema: Mapping[str, Any], call: Callable[[str, dict[str, Any]], Any]) -> Callable[..., Any]:
    """Returns an asynchronous function with the parameters of a tool's schema, and exactly their schemas."""
    parameters = schema.get("parameters") or {}
    required = set(parameters.get("required", ()))
    words = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if name in required else part.get("default"),
            annotation=Annotated[Any, WithJsonSchema(part)],
        )
        for name, part in parameters.get("properties", {}).items()
    ]

    async def function(**arguments: Any) -> str:
        return await call(str(schema["name"]), arguments)

    cast("Any", function).__signature__ = inspect.Signature(words, return_annotation=str)
    function.__annotations__ = {word.name: word.annotation for word in words} | {"return": str}
    function.__name__ = str(schema["name"])
    return function


def _solves(data: EpisodeData) -> bool | None:
    env, _ = _begin(data)
    try:
        calls = solution_calls(env)
        if calls is None:
            return None
        total = 0.0
        for call in calls:
            _, reward, terminated, truncated, _ = env.step(Action(tool_calls=(call,)))
            total += float(reward)
            if terminated or truncated:
                break
        return total > env.success_threshold
    finally:
        env.close()


if __name__ == "__main__":  # how verifiers starts a server of tools
    EpisodeTools.run()
