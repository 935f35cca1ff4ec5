"""An agent of one's own over HTTP: any service that answers a conversation, asked by all episodes at once.

python examples/http_agent.py        # wants httpx, which the extras openai, mcp and train bring
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

import httpx

from agentenv import make
from agentenv.protocols import AsyncAgent, Context
from agentenv.rollout import Rollout
from agentenv.types import Action, message_text


class HttpAgent(AsyncAgent):
    """Posts the conversation, and acts as the service says; an outage costs one episode, which is tried again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: httpx.AsyncClient | None = None

    async def respond(self, context: Context) -> Action:
        """Asks for one action: the service answers with an assistant message in OpenAI's format."""
        self.client = self.client or httpx.AsyncClient(timeout=30)
        answer = await self.client.post(self.url, json={"messages": context.messages, "tools": context.tools})
        answer.raise_for_status()  # 408, 425, 429 and 5xx are outages; any other status is a bug, and stops the run
        return Action.parse(answer.json())

    async def leave_loop(self) -> None:
        """Closes the connections, which belong to the event loop that ends."""
        if self.client is not None:
            await self.client.aclose()
            self.client = None


class Service(BaseHTTPRequestHandler):
    """Stands for a service of yours: has the question computed, and submits what comes out. Breaks at first."""

    number = count(1)

    def do_POST(self) -> None:
        """Answers a conversation."""
        last = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]
        said = message_text(last)
        call = {"name": "calculate", "arguments": {"expression": said.removeprefix("Compute ").rstrip(".")}}
        if last["role"] == "tool":
            call = {"name": "submit", "arguments": {"answer": said}}
        self.send_response(503 if next(Service.number) <= 3 else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"role": "assistant", "tool_calls": [{"function": call}]}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  a name of http.server
        """Keeps quiet."""


def main() -> None:
    """Plays 16 episodes against a service that refuses the first three requests."""
    tasks = [{"question": f"Compute ({n} - 2) * 3.", "reference": str((n - 2) * 3)} for n in range(4)]
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever).start()
        agent = HttpAgent(f"http://127.0.0.1:{server.server_port}/act")
        with Rollout(lambda: make("agentenv/MathVerifier-v0"), agent) as rollout:
            trees = rollout.grow(tasks, 4)
        server.shutdown()
    solved = sum(tree.succeeded(leaf) is True for tree in trees for leaf in tree.leaves())
    print(f"{solved} of 16 episodes solved; {rollout.failures} attempts met an outage and were tried again")


if __name__ == "__main__":
    main()
