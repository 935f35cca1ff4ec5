"""Tasks of verifiers, version 1, played by whoever answers: their own rollout, with a loop of tools in this process.

Their interception server stands between the loop and the model, as for any agent of theirs: it keeps the trace, and
asks stops and limits before every turn. The model that it asks is a server on this machine, which asks in turn.
"""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportGeneralTypeIssues=false

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import verifiers.v1 as vf
from aiohttp import web
from typing_extensions import override
from verifiers.v1.clients import EvalClientConfig, ModelContext
from verifiers.v1.configs.agent import AgentConfig
from verifiers.v1.configs.harness import HarnessConfig
from verifiers.v1.harness import Harness
from verifiers.v1.harnesses.utils.mcp import call_mcp, connect_mcp
from verifiers.v1.mcp import serve_shared
from verifiers.v1.rollout import Rollout, RolloutTimeouts
from verifiers.v1.runtimes import ProgramResult, SubprocessConfig
from verifiers.v1.session import RolloutLimits

from .turns import Ask
from .verifiers_messages import from_theirs

__all__ = ["Loop", "play_v1"]

_REFUSED = 400


class Loop(Harness[HarnessConfig]):
    """Asks the model, makes the calls that it wants, and again, until it wants none or a turn is refused."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_MCP = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    @override
    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: dict[str, str], data: Any,
        **_: Any,
    ) -> Any:  # fmt: skip
        system, prompt = self.resolve_prompt(data)
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        parts = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or ()
        messages += [from_theirs(part) for part in parts]
        async with AsyncExitStack() as stack:
            named = {"mcpServers": {name: {"url": url} for name, url in mcp_urls.items()}}
            tools, places, servers = await connect_mcp(named, stack)
            options: dict[str, Any] = {
                "headers": {"Authorization": f"Bearer {secret}"},
                "timeout": None,
                "trust_env": False,
            }
            http = await stack.enter_async_context(httpx.AsyncClient(**options))
            while True:
                asked = {"model": ctx.model, "messages": messages} | ({"tools": tools} if tools else {})
                answer = await http.post(f"{endpoint}/chat/completions", json=asked)
                if answer.status_code >= _REFUSED:
                    return ProgramResult(exit_code=1, stdout="", stderr=answer.text)
                said = from_theirs(answer.json()["choices"][0]["message"])
                messages.append(said)
                if not (calls := said.get("tool_calls")):
                    return ProgramResult(exit_code=0, stdout="", stderr="")
                for call in calls:
                    content = await _answer(call["function"], servers, places)
                    messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})


async def _answer(function: dict[str, Any], servers: Any, places: Any) -> Any:
    """Returns what a tool answers; what is no call of one is told to the agent."""
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError) as problem:
        return f"error: the arguments are no JSON: {problem}"
    if function["name"] not in places:
        return f"error: there is no tool {function['name']!r}; there are {', '.join(places) or 'none'}"
    if not isinstance(arguments, dict):
        return f"error: the arguments must be a JSON object, got {function['arguments']}"
    return await call_mcp(servers, places, function["name"], arguments)


@asynccontextmanager
async def _model(ask: Ask) -> AsyncGenerator[str]:
    """Serves whoever answers as a model, and says where."""
    count = 0

    async def complete(request: web.Request) -> web.Response:
        nonlocal count
        body = await request.json()
        given = await ask({"messages": [from_theirs(part) for part in body["messages"]], "tools": body.get("tools")})
        count += 1
        calls = [
            {**call, "id": call.get("id") or f"call_{count}_{i}"} for i, call in enumerate(given.get("tool_calls", ()))
        ]
        said = {"role": "assistant", "content": given.get("content") or ""} | ({"tool_calls": calls} if calls else {})
        choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if calls else "stop"}
        whole = {"id": f"step-{count}", "object": "chat.completion", "created": 0, "model": "agentenv"}
        return web.json_response({**whole, "choices": [choice]})

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def play_v1(taskset: Any, task: Any, ask: Ask) -> dict[str, Any]:
    """Plays a task, and returns its end: messages, reward, flags, metrics, error."""
    async with _model(ask) as url, serve_shared(taskset.toolsets(taskset.config)) as shared:
        run = Rollout(
            task=task,
            agent_config=AgentConfig(),
            harness=Loop(HarnessConfig()),
            ctx=ModelContext(model="agentenv", client=EvalClientConfig(base_url=url, api_key_var="AGENTENV_NO_KEY")),
            runtime_config=SubprocessConfig(),
            timeouts=RolloutTimeouts(),
            limits=RolloutLimits(),
            shared_tools=shared,
        )
        try:
            if await run.open():
                await run.step()
                if run.ok:
                    run.trace.stop("agent_completed")
            trace = await run.close()
        except BaseException:
            await run.abort()
            raise
    return _ending(trace)


def _ending(trace: vf.Trace) -> dict[str, Any]:
    problem = trace.last_error if not trace.ok else None
    named: dict[str, Any] = {**trace.rewards, **trace.metrics}
    branch = trace.branches[-1].messages if trace.branches else []
    return {
        "messages": [from_theirs(part) for part in branch],
        "reward": 0.0 if problem else float(trace.reward),
        "truncated": bool(trace.is_truncated),
        "metrics": {name: float(getattr(part, "score", part)) for name, part in named.items() if part is not None},
        "stop": str(trace.stop_condition or ""),
        "error": f"{problem.type}: {problem.message}" if problem else "",
    }
