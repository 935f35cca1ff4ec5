"""The class of a resources server of NeMo Gym, apart because it is made of that package's own."""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, cast

import gymnasium

from agentenv.env import Env
from agentenv.errors import TaskError
from agentenv.rows import shorten
from agentenv.types import message_text

__all__ = ["Session", "Sessions", "last_text", "server_class"]

_OVER = "The episode has ended; nothing can be done any more."


class Session:
    """One episode, played by calls of tools. Calls of one session wait for each other.

    Args:
        env: the environment; the session closes it.
        seed: of the reset.
        task: the place of the task among the environment's own; `None` draws one.
    """

    def __init__(self, env: Env, *, seed: int | None = None, task: int | None = None) -> None:
        self._env = env
        self._lock = Lock()
        self._over = False
        self._reward = 0.0
        self._broken: Exception | None = None
        env.reset(seed=seed, options=None if task is None else {"task": task})

    def call(self, name: str, arguments: Any) -> str:
        """Takes a step that calls one tool, and returns what it answers."""
        call = {"type": "function", "id": "call_0", "function": {"name": name, "arguments": arguments}}
        return self._step({"role": "assistant", "content": "", "tool_calls": [call]})

    def finish(self, text: str) -> float:
        """Takes a last step where the agent ended with a message, closes the episode, and returns its reward.

        Raises:
            Exception: what broke the episode, now or before, infrastructure or a bug: there is no reward.
        """
        try:
            if text:
                self._step({"role": "assistant", "content": text})
        finally:
            self.close()
        if self._broken is not None:
            raise self._broken
        return self._reward

    def close(self) -> None:
        """Closes the environment."""
        with self._lock:
            self._env.close()

    def _step(self, message: dict[str, Any]) -> str:
        with self._lock:
            if self._over:
                return _OVER
            if self._broken is not None:
                raise self._broken
            try:
                observation, reward, terminated, truncated, _ = self._env.step(message)
            except Exception as error:
                self._broken = error
                raise
            self._reward += float(reward)
            self._over = terminated or truncated
            return "\n".join(message_text(answer) for answer in observation)


def last_text(output: Sequence[Any]) -> str:
    """Returns what an agent said in the last of its outputs, empty where that is no message."""
    last = output[-1] if output else None
    if last is None or getattr(last, "type", "") != "message":
        return ""
    return "".join(str(getattr(part, "text", "")) for part in last.content)


class Sessions:
    """The episodes of a server, by session; what they answer, and with which status they do not.

    Args:
        make: makes an environment.
    """

    def __init__(self, make: Callable[[], Env]) -> None:
        self._make = make
        self._sessions: dict[str, Session] = {}

    async def start(self, key: str, episode: Any) -> None:
        """Begins an episode, as `episode` of a row says; one that the session plays already is given up."""
        from fastapi import HTTPException

        if (before := self._sessions.pop(key, None)) is not None:
            before.close()
        start: Any = {} if episode is None else episode
        if not isinstance(start, dict) or set(cast("dict[Any, Any]", start)) - {"seed", "task"}:
            raise HTTPException(422, f"episode must have seed and task, or less, got {shorten(cast('Any', start))}")
        begun = await self._run(self._begin, start)
        if isinstance(begun, str):
            raise HTTPException(422, f"there is no such episode: {begun}")
        self._sessions[key] = begun

    def _begin(self, start: dict[str, Any]) -> Session | str:
        """Returns an episode, or why there is none of that name."""
        env = self._make()
        try:
            return Session(env, **start)
        except (TaskError, TypeError, ValueError, gymnasium.error.Error) as error:
            env.close()
            return str(error)
        except BaseException:
            env.close()
            raise

    async def call(self, key: str, name: str, arguments: Any) -> str:
        """Calls a tool."""
        return await self._run(self._of(key).call, name, arguments)

    async def finish(self, key: str, output: Sequence[Any]) -> float:
        """Ends an episode, and returns its reward."""
        session = self._of(key)
        del self._sessions[key]
        return await self._run(session.finish, last_text(output))

    def _of(self, key: str) -> Session:
        from fastapi import HTTPException

        if key not in self._sessions:
            raise HTTPException(409, "this session plays no episode: POST /seed_session first, and /verify once")
        return self._sessions[key]

    async def _run(self, work: Callable[..., Any], *words: Any) -> Any:
        from fastapi import HTTPException
        from fastapi.concurrency import run_in_threadpool

        try:
            return await run_in_threadpool(work, *words)
        except Exception as error:
            msg = f"the episode broke, and has no reward: {type(error).__name__}: {error}"
            raise HTTPException(503, msg) from error


def server_class(gym: Any, session_key: str, make: Callable[[], Env], tools: Sequence[str]) -> type[Any]:
    """Returns the class.

    Args:
        gym: the module `nemo_gym.base_resources_server`.
        session_key: under which a request has its session's id.
        make: makes an environment.
        tools: names of its tools, each of which gets a path.
    """
    import pydantic
    from fastapi import Request
    from fastapi.responses import PlainTextResponse

    sessions = Sessions(make)
    loose = pydantic.ConfigDict(extra="allow")
    seed = type("Seed", (gym.BaseSeedSessionRequest,), {"model_config": loose, "__module__": __name__})
    asked = type("Verify", (gym.BaseVerifyRequest,), {"model_config": loose, "__module__": __name__})
    answer: Any = type("Verified", (gym.BaseVerifyResponse,), {"model_config": loose, "__module__": __name__})

    async def seed_session(self: Any, request: Any, body: Any) -> Any:  # noqa: ARG001
        await sessions.start(request.session[session_key], getattr(body, "episode", None))
        return gym.BaseSeedSessionResponse()

    async def verify(self: Any, request: Any, body: Any) -> Any:  # noqa: ARG001
        reward = await sessions.finish(request.session[session_key], body.response.output)
        return answer(**body.model_dump(), reward=reward)

    def route(name: str) -> Any:
        async def call(request: Any) -> str:
            given = (await request.body()).decode("utf-8", "replace")  # what is no JSON is a mistake of the agent's
            return await sessions.call(request.session[session_key], name, given)

        call.__annotations__["request"] = Request
        return call

    def setup_webserver(self: Any) -> Any:
        app: Any = gym.SimpleResourcesServer.setup_webserver(self)
        for name in tools:
            app.post(f"/{name}", response_class=PlainTextResponse)(route(name))
        return app

    seed_session.__annotations__ |= {"request": Request, "body": seed}
    verify.__annotations__ |= {"request": Request, "body": asked, "return": answer}
    members = {"seed_session": seed_session, "verify": verify, "setup_webserver": setup_webserver}
    about = {"__annotations__": {"config": gym.BaseResourcesServerConfig}, "__module__": __name__}
    return type("AgentEnvServer", (gym.SimpleResourcesServer,), {**members, **about})
