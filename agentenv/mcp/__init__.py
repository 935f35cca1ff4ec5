"""Environments and the Model Context Protocol: their tools for any client, and any server's tools in them.

`McpToolEnv` has the tools of MCP servers beside its own; `serve_stdio` and `serve_http` offer an environment's tools to
MCP clients. Needs the extra `mcp`; the names load on first use.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.mcp.connection import McpConnection, McpServer
    from agentenv.mcp.env import McpToolEnv
    from agentenv.mcp.serving import McpEndpoint, ServedEpisode, serve_http, serve_stdio

__all__ = ["McpConnection", "McpEndpoint", "McpServer", "McpToolEnv", "ServedEpisode", "serve_http", "serve_stdio"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "McpConnection": "connection",
        "McpEndpoint": "serving",
        "McpServer": "connection",
        "McpToolEnv": "env",
        "ServedEpisode": "serving",
        "serve_http": "serving",
        "serve_stdio": "serving",
    },
)
