"""Export to OpenEnv: an environment of yours as a server, stepped, and branched, by whatever speaks its protocol.

python examples/openenv_server.py    # wants the extra openenv; as a command: `agentenv serve ENV_ID --openenv`
"""

import json
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

import agentenv as ae
from agentenv.interop import OpenEnvServer


class Guess(ae.ToolEnv):
    """Guess a number from 1 to 100."""

    max_steps = 7

    class State(ae.State):
        """What is to be guessed."""

        target: int = 0

    def start(self, task: object) -> str:  # noqa: ARG002  every episode has the same task
        """Draws the number."""
        self.state.target = int(self.np_random.integers(1, 101))
        return "I am thinking of a number from 1 to 100."

    @ae.tool
    def guess(self, number: int) -> str:
        """Submit one guess."""
        if number == self.state.target:
            return self.finish("correct", reward=1.0)
        return "higher" if number < self.state.target else "lower"


def ask(socket: Connection, kind: str, **data: Any) -> dict[str, Any]:
    """Sends a message of OpenEnv's WebSocket protocol, and returns what the answer holds."""
    socket.send(json.dumps({"type": kind, "data": data}))
    answer = json.loads(socket.recv())
    if answer["type"] == "error":
        raise RuntimeError(answer["data"]["message"])
    return answer["data"]


def guess(socket: Connection, number: int) -> str:
    """Calls the tool as OpenEnv's clients do."""
    said = ask(socket, "step", type="call_tool", tool_name="guess", arguments={"number": number})
    return f"{number}: {said['observation']['result']}, reward {said['reward']:g}, done {said['done']}"


def main() -> None:
    """Steps an episode from outside, goes back, and chooses differently."""
    with OpenEnvServer(Guess, port=0) as server, connect(server.url.replace("http", "ws") + "/ws") as socket:
        print(ask(socket, "reset", seed=0)["observation"]["messages"][0]["content"])
        print(guess(socket, 50))
        kept = ask(socket, "snapshot")["snapshot_id"]  # our extension; docs/interop.md
        print(guess(socket, 75))
        ask(socket, "restore", snapshot_id=kept)
        print(guess(socket, 86))


if __name__ == "__main__":
    main()
