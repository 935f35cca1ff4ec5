"""A black-box agent through the proxy: a program that knows only OpenAI's API, recorded and branched.

python examples/black_box.py         # wants the extra proxy
"""

import sys
from functools import partial

from agentenv import Context, ToolCall, make
from agentenv.agents import ProgramRollout, ScriptedAgent
from agentenv.tree import Anchor
from agentenv.types import Action

PROGRAM = """
import json, os, sys
from urllib.request import Request, urlopen

def post(url, body=None):
    head = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
    with urlopen(Request(url, body and json.dumps(body).encode(), head)) as answer:
        return json.load(answer)

model, tools = os.environ["OPENAI_BASE_URL"] + "/chat/completions", os.environ["AGENTENV_TOOLS_URL"]
messages = [{"role": "user", "content": sys.stdin.read()}]
while True:
    asked = {"model": "any", "messages": messages, "tools": post(tools)["tools"]}
    message = post(model, asked)["choices"][0]["message"]
    messages.append(message)
    if not message.get("tool_calls"):
        break
    for call in message["tool_calls"]:
        said = post(tools + "/" + call["function"]["name"], json.loads(call["function"]["arguments"]))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": said["content"]})
"""


def policy(context: Context) -> Action:
    """Stands for the model: calculates, then submits an answer that is right by chance."""
    if context.messages[-1]["role"] == "tool":
        return Action(tool_calls=(ToolCall("submit", {"answer": ("3", "21")[context.seed % 2]}),))
    return Action(tool_calls=(ToolCall("calculate", {"expression": "2 * 3"}),))


def main() -> None:
    """Runs the program once from the start, and twice from the middle of the first episode."""
    command = [sys.executable, "-c", PROGRAM]  # as well as any: it reads OPENAI_BASE_URL
    task = {"question": "Compute 9 - 2 * 3.", "reference": "3"}
    make_env = partial(make, "agentenv/MathVerifier-v0", attempts=1)
    with ProgramRollout(make_env, ScriptedAgent(policy), command=command, seed=1) as rollout:
        (tree,) = rollout.grow([task], 1)
        rollout.extend([tree], [Anchor(tree=0, node=1, count=2)])  # replayed to node 1, then on its own
    for leaf in tree.leaves():
        print(" -> ".join(tree.nodes[node].action_signature for node in tree.path(leaf)[1:]), tree.episode_return(leaf))


if __name__ == "__main__":
    main()
