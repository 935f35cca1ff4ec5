"""Our environments as those of verifiers, version 0: what `load_environment` returns, and what plays theirs."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any

from typing_extensions import override

from agentenv.distribution import pip_install
from agentenv.env import Env
from agentenv.errors import MissingDependencyError
from agentenv.registry import env_class
from agentenv.types import Message, Observation, message_text

from .turns import Ask
from .verifiers_messages import from_theirs

try:
    import verifiers as vf
    from datasets import Dataset
    from verifiers.clients import Client
    from verifiers.types import Response, ResponseMessage, ToolCall
except ImportError as error:
    message = f"load_environment needs version 0 of verifiers: {pip_install('verifiers==0.2.0')}"
    raise MissingDependencyError(message) from error

__all__ = ["Asking", "EpisodeEnv", "as_v0_environment", "play_v0"]


class EpisodeEnv(vf.MultiTurnEnv):
    """Episodes of an environment of ours; every assistant message is a step, and the reward is their sum.

    A step's own reward stands in `trajectory[i]["reward"]`. Where infrastructure breaks an episode, `state["error"]` is
    an `InfraError`: what the rubric says beside it is no reward.

    Args:
        env_id: a registered id, or `"module:Class"`.
        episodes: seed and, where it is not drawn, place of the task of each.
        options: arguments of the environment.
        settings: of `MultiTurnEnv`.
    """

    def __init__(
        self, env_id: str, episodes: Sequence[tuple[int, int | None]], options: Mapping[str, Any], **settings: Any
    ) -> None:
        self._make = lambda: env_class(env_id)(**options)
        rows: list[dict[str, Any]] = []
        env = self._make()
        try:
            tools = [vf.types.Tool(**_plain(tool["function"])) for tool in env.tools]
            for seed, place in episodes:
                observation = _begin(env, seed, place)
                prompt = [{"role": m["role"], "content": message_text(m)} for m in observation]
                info = {"seed": seed, "place": place, "task_id": env.task_id}
                rows.append({"prompt": prompt, "info": info, "answer": ""})
            threshold = env.success_threshold
        finally:
            env.close()
        about = {"dataset": Dataset.from_list(rows), "tool_defs": tools or None, "pass_threshold": threshold}
        super().__init__(rubric=vf.Rubric(funcs=[episode]), **about, **settings)

    @override
    async def setup_state(self, state: Any) -> Any:
        info = state["info"]
        state["total"] = 0.0
        state["episode"] = env = await asyncio.to_thread(self._make)
        await _guarded(_begin, env, int(info["seed"]), info["place"])
        return state

    @override
    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        action = from_theirs(messages[-1])
        observation, reward, terminated, truncated, _ = await _guarded(state["episode"].step, action)
        state["total"] += float(reward)
        state["trajectory"][-1]["reward"] = float(reward)
        shown = [_answered(part) for part in observation]
        if terminated or truncated:
            state["is_truncated"] = state["is_truncated"] or not terminated
            state["final_env_response"] = shown
        return shown

    @vf.cleanup
    async def close_episode(self, state: Any) -> None:
        """Closes the episode's environment."""
        if (env := state.pop("episode", None)) is not None:
            await asyncio.to_thread(env.close)


async def episode(state: Any) -> float:
    """Returns the sum of the rewards of the episode's steps."""
    return float(state["total"])


def as_v0_environment(
    env_id: str, *, num_episodes: int = 8, seed: int = 0, places: Sequence[int] | None = None, **options: Any
) -> EpisodeEnv:
    """Returns an environment of verifiers, version 0: for `load_environment` of a module that `vf-eval` takes by name.

    Args:
        env_id: a registered id, or `"module:Class"`.
        num_episodes: rows of its data set, without `places`.
        seed: of the first row; row `i` has `seed + i`.
        places: of tasks among the environment's own; by default every episode draws its task.
        options: arguments of the environment.

    Raises:
        ValueError: there would be no row.
        AgentEnvError: the environment, or an episode of it, cannot be made.
    """
    chosen: Sequence[int | None] = [None] * num_episodes if places is None else places
    if not chosen:
        msg = f"num_episodes must be at least 1, or places of tasks, got {num_episodes!r} and {places!r}"
        raise ValueError(msg)
    return EpisodeEnv(env_id, [(seed + number, place) for number, place in enumerate(chosen)], options)


def _begin(env: Env, seed: int, place: int | None) -> Observation:
    return env.reset(seed=seed, options=None if place is None else {"task": int(place)})[0]


async def _guarded(function: Any, *arguments: Any) -> Any:
    """Calls a function in a thread; what breaks an episode is an error of theirs, which ends it."""
    try:
        return await asyncio.to_thread(function, *arguments)
    except Exception as problem:  # a bug, too: what is no error of theirs would end the whole evaluation
        msg = f"{type(problem).__name__}: {problem}"
        raise vf.InfraError(msg) from problem


def _answered(message: Message) -> dict[str, Any]:
    """A message as theirs: their answers to calls have an id, where the model gave the call none, too."""
    return ({"tool_call_id": ""} if message["role"] == "tool" else {}) | dict(message)


def _plain(function: Mapping[str, Any]) -> dict[str, Any]:
    empty = {"type": "object", "properties": {}}
    return {"name": function["name"], "description": function.get("description") or "",
            "parameters": function.get("parameters") or empty}  # fmt: skip


# ---------------------------------------------------------------------- theirs


class Asking(Client):
    """A client whose model is whoever answers."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(None)
        self._ask, self._count = ask, 0

    @override
    async def get_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **_: Any
    ) -> Response:  # fmt: skip
        given = await self._ask([from_theirs(part) for part in prompt])
        self._count += 1
        calls = [
            ToolCall(id=call.get("id") or f"call_{self._count}_{i}", **call["function"])
            for i, call in enumerate(given.get("tool_calls", ()))
        ]
        answer = ResponseMessage(
            content=given.get("content") or "", reasoning_content=given.get("reasoning"), tool_calls=calls or None,
            finish_reason="tool_calls" if calls else "stop", is_truncated=False,
        )  # fmt: skip
        return Response(id=f"step-{self._count}", created=0, model=model, message=answer)

    def _never(self, *_: Any, **__: Any) -> Any:
        msg = "whoever answers has no native form: `get_response` is all that is asked"
        raise TypeError(msg)

    setup_client = to_native_tool = to_native_prompt = get_native_response = _never
    raise_from_native_response = from_native_response = _never

    @override
    async def close(self) -> None:
        """Has nothing to close."""


_broken: ContextVar[list[str]] = ContextVar("broken")
"""What reward functions raised in the episode that this context plays."""


def _watched(function: Any) -> Any:
    """A reward function that says what it raised: their rubrics make that a 0."""

    @wraps(function)
    async def watched(*given: Any, **named: Any) -> float:
        try:
            found = function(*given, **named)
            return float(await found if inspect.isawaitable(found) else found)
        except Exception as problem:
            _broken.get([]).append(f"{watched.__name__}: {type(problem).__name__}: {problem}")
            raise

    watched.__dict__["watched"] = True
    return watched


def _watch(rubric: Any) -> None:
    """Has a rubric, and those in it, say what their reward functions raise; those of weight 0 may."""
    for inner in getattr(rubric, "rubrics", ()):
        _watch(inner)
    for place, (function, weight) in enumerate(zip(rubric.funcs, rubric.weights, strict=False)):
        if weight and not getattr(function, "watched", False):
            rubric.funcs[place] = _watched(function)


async def play_v0(env: Any, row: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """Plays a row of one of their environments, and returns its end: messages, reward, flags, metrics, error."""
    _watch(env.rubric)
    _broken.set([])
    done = await env.run_rollout(dict(row), Asking(ask), "agentenv", {}, state_columns=[])
    stop, problem = str(done.get("stop_condition") or ""), done.get("error")
    limits = {"max_total_completion_tokens_reached", "timeout_reached", "prompt_too_long"}
    limits |= set() if isinstance(env, vf.SingleTurnEnv) else {"max_turns_reached"}
    problems = [f"{problem.get('error')}: {problem.get('message')}"] if problem else _broken.get()
    return {
        "messages": [from_theirs(part) for part in (*(done.get("prompt") or ()), *(done.get("completion") or ()))],
        "reward": float(done.get("reward") or 0.0),
        "truncated": bool(done.get("is_truncated")) or stop in limits,
        "metrics": dict(done.get("metrics") or {}),
        "stop": stop,
        "error": "; ".join(problems),
    }
