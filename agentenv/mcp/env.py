"""`McpToolEnv`: an environment that has the tools of MCP servers beside its own."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from typing_extensions import override

from agentenv.control import with_control
from agentenv.errors import AgentFault, SnapshotError, ToolServerError
from agentenv.protocols import Snapshot
from agentenv.rows import shorten
from agentenv.tool_env import ToolEnv
from agentenv.types import Content, Observation, ToolCall, ToolSchema

from .connection import McpAnswer, McpConnection, McpServer

__all__ = ["McpToolEnv"]


class McpToolEnv(ToolEnv):
    """A `ToolEnv` with further tools: those of MCP servers.

    Subclasses write `start`, and tools of their own that end the episode. Every episode gets connections of its own,
    and so a fresh process of every server that is given as a command.

    **Branching.** What a server keeps cannot be taken or put back. So a snapshot can be taken only before an episode's
    first call of a server; afterwards `snapshot` raises. There are two ways out: `ReplayEnv(MyEnv())` branches by
    replay, which calls the servers again and compares every answer; and `stateless = True` says that the servers keep
    nothing between calls (search, calculators), so that there is nothing to put back.

    What a server answers, errors included, is an observation. A server that is gone or does not answer in time is a
    `ToolServerError`: the episode has failed and has no reward. Where a fresh process of it (with a URL: another
    session) answers, and breaks at the same call, too, the call is to blame: the episode ends, with the reward so far.

    Set these in SOME subclasses:
        servers: the servers.
        stateless: whether they keep nothing between calls.

    Args:
        servers: overrides the class's.
        stateless: overrides the class's.
        options: of `Env`.

    Raises:
        ToolServerError: a server does not start or answer.
        ValueError: two tools have the same name.
    """

    servers: Sequence[McpServer] = ()
    stateless: bool = False

    def __init__(
        self, *, servers: Sequence[McpServer] | None = None, stateless: bool | None = None, **options: Any
    ) -> None:
        if servers is not None:
            self.servers = tuple(servers)
        if stateless is not None:
            self.stateless = stateless
        self._connections: list[McpConnection] = []
        self._remote: dict[str, McpConnection] = {}
        self._schemas: tuple[ToolSchema, ...] = ()
        self._called = False
        self._connect()
        try:
            super().__init__(**options)
        except BaseException:
            self._disconnect()
            raise

    @property
    @override
    def tools(self) -> tuple[ToolSchema, ...]:
        """The tools an agent may call: its own, then those of the servers."""
        return (*super().tools, *self._schemas)

    @override
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode, with fresh connections."""
        self._refresh()
        return super().reset(seed=seed, options=options)

    @override
    def close(self) -> None:
        """Ends the connections, and the servers that were started for them."""
        super().close()
        self._disconnect()

    def call_server(self, name: str, **arguments: Any) -> Content:
        """Calls a server's tool for the environment itself, e.g. in `start` or to grade; returns what it answers.

        Raises:
            ToolServerError: the server is gone, does not answer, or answers with an error.
        """
        answer = self._connection(name).call(name, arguments)
        self._called = True
        if answer.is_error:
            msg = f"{name} with {shorten(arguments)} answered with an error: {shorten(answer.content)}"
            raise ToolServerError(msg)
        return answer.content

    @override
    def _call(self, call: ToolCall) -> str:
        if call.name not in self._remote:
            return super()._call(call)
        if isinstance(call.arguments, str):
            return self.note_mistake(f"arguments of {call.name} must be a JSON object, got {shorten(call.arguments)}")
        try:
            answer = self._controlled(call.name, call.arguments)
        except AgentFault as fault:
            return self.finish(self.note_breakage(f"the server of {call.name} ended during this call: {fault}"))
        finally:
            self._called = True
        if answer.is_error:
            self.note_mistake(str(answer.content))
        return cast("str", answer.content)

    def _controlled(self, name: str, arguments: Mapping[str, Any]) -> McpAnswer:
        """Returns a server's answer to the agent.

        Raises:
            AgentFault: the call is what breaks it: a fresh process, or session, answers, and breaks at the same call.
            ToolServerError: it does not answer, and the call is not why.
        """
        server = self._remote[name].server
        problems: list[ToolServerError] = []

        def ask() -> McpAnswer | None:
            try:
                return self._connection(name).call(name, arguments)
            except ToolServerError as problem:
                problems.append(problem)
                raise

        def connect() -> None:
            McpConnection(server).close()  # which lists the tools

        def again() -> None:  # the answer is not the one that the lost server would have given
            with McpConnection(server) as fresh:
                fresh.call(name, arguments)

        answer = with_control(ask, connect, again=again, errors=ToolServerError)
        if answer is None:
            raise problems[0]
        return answer

    # ------------------------------------------------------------------ branching

    @override
    def _snapshot(self, *, with_sandbox: bool) -> Snapshot:
        if self._called and not self.stateless:
            msg = (
                f"{self.env_id}: what MCP servers keep cannot be taken, so there is no snapshot after their first "
                "call: branch by replay with agentenv.ReplayEnv(env), set stateless=True where they keep nothing, or "
                "roll out with keep_snapshots=False"
            )
            raise SnapshotError(msg)
        return super()._snapshot(with_sandbox=with_sandbox)

    @override
    def _load(self, snapshot: Snapshot) -> None:
        self._refresh()
        super()._load(snapshot)

    # ------------------------------------------------------------------ connections

    def _connection(self, name: str) -> McpConnection:
        if not self._connections:
            self._connect()
        return self._remote[name]

    def _connect(self) -> None:
        try:
            for server in self.servers:
                self._connections.append(McpConnection(server))
            self._remote = {}
            for connection in self._connections:
                for schema in connection.tools:
                    name = schema["function"]["name"]
                    if name in self._remote or name in self._tools:
                        msg = f"two tools are called {name!r}: give McpServer({str(connection.server)!r}) a prefix"
                        raise ValueError(msg)  # noqa: TRY301
                    self._remote[name] = connection
        except BaseException:
            self._disconnect()
            raise
        self._schemas = tuple(schema for connection in self._connections for schema in connection.tools)
        self._called = False

    def _refresh(self) -> None:
        """Gives an episode servers that nobody has called; stateless ones are kept."""
        if not self._connections or (self._called and not self.stateless):
            self._disconnect()
            self._connect()

    def _disconnect(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
