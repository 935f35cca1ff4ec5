"""An MCP server as people write them, with the official package: notes that it keeps, and some ways to fail."""

import base64
import os
import sys
import time

from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("notes")
notes: list[str] = []


@server.tool()
def write(text: str) -> str:
    """Writes a note."""
    notes.append(text)
    return f"note {len(notes)}"


@server.tool()
def read(number: int) -> str:
    """Reads a note."""
    return notes[number - 1]


@server.tool()
def clock() -> str:
    """Tells the time, which is never the same."""
    return str(time.monotonic_ns())


@server.tool()
def draw() -> Image:
    """Draws."""
    return Image(data=base64.b64decode("iVBORw0KGgo="), format="png")


@server.tool()
def crash(message: str) -> str:
    """Ends the server."""
    sys.stderr.write(message)
    sys.stderr.flush()
    os._exit(3)


@server.tool()
def pid() -> int:
    """Names the process."""
    return os.getpid()


if len(sys.argv) > 1:  # the number of a socket that listens
    import uvicorn

    uvicorn.run(server.streamable_http_app(), fd=int(sys.argv[1]), log_config=None)
else:
    server.run("stdio")
