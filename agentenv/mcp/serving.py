"""An environment's tools over MCP: for a host that starts servers, or at an address with one path per episode."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from threading import RLock
from typing import Any, Protocol

import anyio.to_thread
import mcp
from mcp import types
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route

from agentenv.errors import InfrastructureError
from agentenv.protocols import BranchingEnv
from agentenv.recording import begin_tree, failed_node, node_after
from agentenv.serialize import TreeWriter
from agentenv.tree import EpisodeTree
from agentenv.types import Action, Content, Message, ToolCall, ToolSchema, message_text
from agentenv.web_server import WebServer

__all__ = ["McpEndpoint", "ServedEpisode", "make_app", "serve_http", "serve_stdio", "start_http"]

_ENDED = "The episode has ended."
_INTERNAL_ERROR = -32603


class Served(Protocol):
    """An episode whose tools are served."""

    @property
    def tools(self) -> Sequence[ToolSchema]:
        """In OpenAI's format."""
        ...

    @property
    def first(self) -> Sequence[Message]:
        """What the episode begins with."""
        ...

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[Content, bool]:
        """Calls a tool; returns what it answers, and whether that is a mistake of the agent."""
        ...


class ServedEpisode:
    """An episode of an environment that is stepped by the calls of its tools.

    Args:
        env: the environment; closed with the episode.
        task: passed to its `reset`.
        seed: of the episode.

    Attributes:
        tree: what was done, one step per call.
        first: what the episode begins with.
    """

    def __init__(self, env: BranchingEnv, *, task: Any = None, seed: int | None = None) -> None:
        self.env = env
        start = env.begin(seed=seed, options=None if task is None else {"task": task}, snapshot=False)
        self.first = start.observation
        self.tree = begin_tree(env, start, {} if seed is None else {"seed": seed})
        self._node = 0
        self._lock = RLock()

    @property
    def tools(self) -> tuple[ToolSchema, ...]:
        """The environment's tools."""
        return self.env.tools

    @property
    def ended(self) -> bool:
        """Whether the episode is over."""
        return self.tree.nodes[self._node].ended

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[Content, bool]:
        """Takes one step; after the end of the episode nothing happens any more.

        Raises:
            InfrastructureError: the environment broke.
        """
        with self._lock:
            if self.ended:
                return _ENDED, True
            action = Action(tool_calls=(ToolCall(name, dict(arguments)),))
            try:
                after = self.env.advance(action)
            except InfrastructureError as problem:
                self._node = self.tree.append(failed_node(action, problem, parent=self._node))
                raise
            self._node = self.tree.append(node_after(action, after, parent=self._node))
            text = "\n".join(message_text(message) for message in after.observation)
            return text, bool(after.info.get("mistakes"))

    def close(self) -> None:
        """Closes the environment. May be called twice."""
        self.env.close()


class McpEndpoint:
    """MCP over streamable HTTP for many episodes; `run` must be entered while it serves.

    Args:
        find: returns the episode that a path's parameters name.
        name: of the server.
        security: which hosts and origins may connect; all by default.
    """

    def __init__(
        self,
        find: Callable[[Mapping[str, Any]], Served],
        *,
        name: str = "agentenv",
        security: TransportSecuritySettings | None = None,
    ) -> None:
        server = _make_server(lambda context: find(context.request.path_params), name)
        options: dict[str, Any] = {"json_response": True, "stateless": True, "security_settings": security}
        self._manager = StreamableHTTPSessionManager(server, **options)

    def run(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Serves until it is left."""
        return self._manager.run()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request, as an ASGI application."""
        await self._manager.handle_request(scope, receive, send)


def _make_server(find: Callable[[Any], Served], name: str, instructions: str | None = None) -> Server[Any]:
    """Returns a server whose tools are those of the episode that a request belongs to."""

    async def list_tools(context: Any, _: Any) -> types.ListToolsResult:
        episode = await anyio.to_thread.run_sync(find, context)
        return types.ListToolsResult(tools=[_tool(schema["function"]) for schema in episode.tools])

    async def call_tool(context: Any, asked: types.CallToolRequestParams) -> types.CallToolResult:
        episode = await anyio.to_thread.run_sync(find, context)
        try:
            content, mistake = await anyio.to_thread.run_sync(episode.call, asked.name, asked.arguments or {})
        except InfrastructureError as problem:
            raise mcp.MCPError(_INTERNAL_ERROR, f"{type(problem).__name__}: {problem}") from problem
        return types.CallToolResult(content=_blocks(content), is_error=mistake)

    async def list_prompts(_: Any, __: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(name="task", description="What is to be done.")])

    async def get_prompt(context: Any, _: types.GetPromptRequestParams) -> types.GetPromptResult:
        episode = await anyio.to_thread.run_sync(find, context)
        messages = [
            types.PromptMessage(role="user", content=types.TextContent(type="text", text=message_text(message)))
            for message in episode.first
        ]
        return types.GetPromptResult(messages=messages)

    return Server(
        name,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


def _tool(function: Mapping[str, Any]) -> types.Tool:
    return types.Tool(
        name=function["name"], description=function.get("description", ""), input_schema=function["parameters"]
    )


def _blocks(content: Content) -> list[Any]:
    if isinstance(content, str):
        return [types.TextContent(type="text", text=content)]
    blocks: list[Any] = []
    for part in content:
        if part["type"] == "image_url":
            kind, _, data = str(part["image_url"]["url"]).removeprefix("data:").partition(";base64,")
            blocks.append(types.ImageContent(type="image", data=data, mime_type=kind))
        else:
            blocks.append(types.TextContent(type="text", text=part["text"]))
    return blocks


class Episodes:
    """Episodes by name, each begun when it is first asked for.

    Args:
        make_env: returns a new environment.
        task: of every episode.
        seed: of every episode.
        writer: a file that they are written to at the end.
    """

    def __init__(
        self, make_env: Callable[[], BranchingEnv], *, task: Any = None, seed: int = 0, writer: TreeWriter | None = None
    ) -> None:
        self._begin = lambda: ServedEpisode(make_env(), task=task, seed=seed)
        self._writer = writer
        self._episodes: dict[str, ServedEpisode] = {}
        self._lock = RLock()

    def find(self, name: str = "") -> ServedEpisode:
        """Returns an episode."""
        with self._lock:
            if name not in self._episodes:
                self._episodes[name] = self._begin()
            return self._episodes[name]

    @property
    def trees(self) -> dict[str, EpisodeTree]:
        """What was done, by episode."""
        return {name: episode.tree for name, episode in self._episodes.items()}

    def close(self) -> None:
        """Writes and closes the episodes."""
        for episode in self._episodes.values():
            if self._writer is not None:
                self._writer.add_tree(episode.tree)
            episode.close()
        if self._writer is not None:
            self._writer.close()


def make_app(episodes: Episodes, *, name: str = "agentenv", local: bool = True) -> Starlette:
    """Returns an application that serves every episode at a path of its own: `/NAME/mcp`, and one at `/mcp`.

    Args:
        episodes: the episodes.
        name: of the server.
        local: refuses requests that do not name this machine as their host, as a browser elsewhere might.
    """
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=local,
        allowed_hosts=["127.0.0.1:*", "localhost:*", "[::1]:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*"],
    )
    endpoint = McpEndpoint(lambda found: episodes.find(found.get("episode", "")), name=name, security=security)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with endpoint.run():
            yield

    return Starlette(routes=[Route("/mcp", endpoint), Route("/{episode}/mcp", endpoint)], lifespan=lifespan)


def start_http(episodes: Episodes, *, host: str, port: int, name: str) -> WebServer:
    """Begins to serve episodes in a thread of its own; see `make_app` for the paths.

    Raises:
        OSError: the port is taken, or the host is no address of this machine.
    """
    app = make_app(episodes, name=name, local=host in {"127.0.0.1", "localhost", "::1"})
    return WebServer(app, host=host, port=port, name="agentenv-mcp", ws="none")


def serve_http(episodes: Episodes, *, host: str = "127.0.0.1", port: int = 8000, name: str = "agentenv") -> None:
    """Serves episodes until Ctrl-C; see `make_app` for the paths."""
    with contextlib.closing(episodes), contextlib.closing(start_http(episodes, host=host, port=port, name=name)) as web:
        web.wait()


def serve_stdio(episodes: Episodes, *, name: str = "agentenv") -> None:
    """Serves one episode over standard input and output, until the client hangs up. What it prints goes to stderr."""

    async def serve() -> None:
        episode = episodes.find()
        instructions = "\n\n".join(message_text(message) for message in episode.first)
        server = _make_server(lambda _: episode, name, instructions)
        async with mcp.stdio_server() as (read, write):
            with contextlib.redirect_stdout(sys.stderr):
                await server.run(read, write, server.create_initialization_options())

    try:
        asyncio.run(serve())
    finally:
        episodes.close()
