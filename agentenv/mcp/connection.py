"""A connection to an MCP server, used from code that does not await."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Self, TextIO, cast

import mcp
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT, ImageContent, TextContent

from agentenv.errors import ToolServerError
from agentenv.jsonable import json_text
from agentenv.types import Content, Part, ToolSchema

__all__ = ["McpAnswer", "McpConnection", "McpServer"]

_TAIL = 1000
_LOST = {CONNECTION_CLOSED, REQUEST_TIMEOUT}


@dataclass(frozen=True, slots=True)
class McpServer:
    """Where a server is: a command that speaks over its standard input and output, or a URL.

    Attributes:
        command: the program and its arguments; each connection starts its own.
        url: of the endpoint, e.g. `http://127.0.0.1:8000/mcp`.
        prefix: put before the names of its tools.
        variables: further environment variables of the command.
        cwd: its folder.
        timeout_s: seconds to wait for an answer, and for the begin.
        headers: of every request to the URL.

    Raises:
        ValueError: there is neither a command nor a URL, or both; the command does not exist.
    """

    command: Sequence[str] = ()
    url: str = ""
    prefix: str = ""
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    timeout_s: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or bool(self.command) == bool(self.url):
            msg = f"McpServer needs a command (a list of words) or a url, got {self.command!r} and {self.url!r}"
            raise ValueError(msg)
        if self.command and shutil.which(self.command[0]) is None:
            msg = f"command must name a program, got {self.command[0]!r}, which is not found"
            raise ValueError(msg)
        if not self.timeout_s > 0:
            msg = f"timeout_s must be above 0, got {self.timeout_s!r}"
            raise ValueError(msg)

    def __str__(self) -> str:
        return self.url or " ".join(self.command)


@dataclass(frozen=True, slots=True)
class McpAnswer:
    """What a tool answered.

    Attributes:
        content: text, or parts where there is an image.
        is_error: whether the server says that it is an error: the agent's to read.
    """

    content: Content
    is_error: bool = False


class McpConnection:
    """A connection, in a thread of its own.

    Args:
        server: what to connect to.

    Attributes:
        server: as given.
        tools: the server's, in OpenAI's format, with its prefix.

    Raises:
        ToolServerError: it does not start, or does not answer.
    """

    def __init__(self, server: McpServer) -> None:
        self.server = server
        self.tools: tuple[ToolSchema, ...] = ()
        self._ready = Event()
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._client: mcp.Client | None = None
        self._errors: TextIO | None = None
        self._last_said = ""
        self._thread = Thread(target=self._run, name="agentenv-mcp", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._problem is not None:
            self._thread.join()
            raise self._lost(self._problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, name: str, arguments: Mapping[str, Any]) -> McpAnswer:
        """Calls a tool. What the server answers is an answer, errors too.

        Args:
            name: with the prefix.
            arguments: by name.

        Raises:
            ToolServerError: the server is gone, or does not answer.
        """
        client, loop = self._client, self._loop
        if client is None or loop is None:
            raise self._lost(self._problem)
        question = client.call_tool(name.removeprefix(self.server.prefix), dict(arguments))
        try:
            asked = asyncio.run_coroutine_threadsafe(question, loop)
        except RuntimeError as problem:  # the loop was closed since
            question.close()
            raise self._lost(self._problem or problem) from problem
        try:
            result = asked.result(self.server.timeout_s + 5.0)
        except mcp.MCPError as problem:
            if problem.error.code in _LOST:
                raise self._lost(problem) from problem
            return McpAnswer(problem.error.message, is_error=True)
        except (CancelledError, TimeoutError, OSError, RuntimeError) as problem:
            asked.cancel()
            raise self._lost(self._problem or problem) from problem
        return McpAnswer(_content(result), result.is_error)

    def close(self) -> None:
        """Ends the connection, and the server where it was started for it. May be called twice."""
        if (loop := self._loop) is not None and (stop := self._stop) is not None:
            with suppress(RuntimeError):  # the loop is closed: the thread ends by itself
                loop.call_soon_threadsafe(stop.set)
        self._thread.join()
        self._client = None

    def _lost(self, problem: BaseException | None) -> ToolServerError:
        said = self._said()
        told = f"; it said: {said}" if said else ""
        return ToolServerError(f"the MCP server {self.server} does not answer: {_reason(problem)}{told}")

    def _run(self) -> None:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
            errors = self._errors = cast("TextIO", file)
            try:
                asyncio.run(self._live(errors))
            except BaseException as problem:  # noqa: BLE001  whoever calls is told
                self._problem = problem
            finally:
                self._last_said, self._errors, self._client = self._said(), None, None
                self._ready.set()

    async def _live(self, errors: TextIO) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            options: dict[str, Any] = {"read_timeout_seconds": self.server.timeout_s, "cache": None}
            client = mcp.Client(await self._transport(stack, errors), **options)
            async with asyncio.timeout(self.server.timeout_s):
                await stack.enter_async_context(client)
                self.tools = await _listed(client, self.server.prefix)
            self._client = client
            self._ready.set()
            await self._stop.wait()
            self._client = None

    async def _transport(self, stack: AsyncExitStack, errors: TextIO) -> Any:
        server = self.server
        if server.url:
            http = await stack.enter_async_context(create_mcp_http_client(headers=dict(server.headers)))
            return streamable_http_client(server.url, http_client=http)
        command, *args = server.command
        variables = os.environ | dict(server.variables)
        parameters = mcp.StdioServerParameters(command=command, args=args, env=variables, cwd=server.cwd)
        return mcp.stdio_client(parameters, errlog=errors)

    def _said(self) -> str:
        """What the server wrote to its standard error last."""
        if (errors := self._errors) is None:
            return self._last_said
        try:
            end = errors.seek(0, os.SEEK_END)
            errors.seek(max(0, end - _TAIL))
            return errors.read().strip()
        except ValueError:  # closed meanwhile
            return self._last_said


async def _listed(client: mcp.Client, prefix: str) -> tuple[ToolSchema, ...]:
    tools: list[ToolSchema] = []
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += [_schema(tool, prefix) for tool in page.tools]
        if (cursor := page.next_cursor) is None:
            return tuple(tools)


def _schema(tool: mcp.Tool, prefix: str) -> ToolSchema:
    inner = {"name": prefix + tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": inner}


def _content(result: Any) -> Content:
    """Returns an answer as text, or as parts where there is an image among it."""
    parts: list[Part] = []
    for block in result.content:
        if isinstance(block, TextContent):
            parts.append({"type": "text", "text": block.text})
        elif isinstance(block, ImageContent):
            url = f"data:{block.mime_type};base64,{block.data}"
            parts.append({"type": "image_url", "image_url": {"url": url}})
        else:
            resource = getattr(block, "resource", None)
            text = getattr(resource, "text", None)
            told = text if isinstance(text, str) else json_text(block.model_dump(mode="json", exclude_none=True))
            parts.append({"type": "text", "text": told})
    if not parts and result.structured_content is not None:
        return json_text(result.structured_content)
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return "\n".join(part["text"] for part in parts)


def _reason(problem: BaseException | None) -> str:
    """Returns what an exception, or the first of a group, says."""
    while isinstance(problem, BaseExceptionGroup):
        problem = cast("BaseExceptionGroup[BaseException]", problem).exceptions[0]
    return "the connection is closed" if problem is None else f"{type(problem).__name__}: {problem}"
