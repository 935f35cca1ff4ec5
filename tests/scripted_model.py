"""A model, served, that solves some episodes of an environment and is idle in the others: for peers' runners."""

from typing import Any

from openai_server import Server, completion

import agentenv as ae
from agentenv.interop.solutions import solution_calls
from agentenv.types import message_text

__all__ = ["model"]


def model(env_id: str, solved: int) -> Server:
    """Returns a server whose model solves the episode of a seed, and says that it is done in those of other seeds."""
    env = ae.make(env_id)
    observation, _ = env.reset(seed=solved)
    prompt = next(message_text(message) for message in observation if message["role"] == "user")
    calls = [call.to_dict() for call in solution_calls(env) or ()]
    env.close()
    assert calls

    def answer(request: dict[str, Any], _: int) -> Any:
        said = next(message["content"] for message in request["messages"] if message["role"] == "user")
        done = sum(message["role"] == "assistant" for message in request["messages"])
        if said != prompt or done >= len(calls):
            return completion("I am done.")
        return completion("", [{"type": "function"} | calls[done]], "tool_calls")

    return Server(answer)
