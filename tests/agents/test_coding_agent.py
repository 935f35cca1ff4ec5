"""OpenAI's Codex repairs code, unchanged: recorded with its tokens, rewarded by our environment, branched by replay.

Its model is a chat server with a script, which gives ids and log-probabilities as vLLM does; its tools are the
environment's, over MCP.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from openai_server import Server, completion

from agentenv import make
from agentenv.agents import OpenAIAgent, ProgramRollout
from agentenv.serialize import read_trees
from agentenv.tree import Anchor

pytestmark = pytest.mark.peers("coding-agent")

TASK = "intervals/stretch"
REPAIR = {"path": "spans/calendar_days.py", "old": "last - first >= length", "new": "last - first + 1 >= length"}
SCRIPT = [("search", {"pattern": "length", "path": "spans"}), ("edit_file", REPAIR), ("run_tests", {}), ("submit", {})]
SETTINGS = {
    "model": '"any"',
    "model_provider": '"here"',
    "model_providers.here": '{name="here", base_url="{base_url}", env_key="OPENAI_API_KEY", wire_api="responses"}',
    "mcp_servers.env": '{url="{mcp_url}", bearer_token_env_var="OPENAI_API_KEY", required=true}',
    "web_search": '"disabled"',
    "check_for_update_on_startup": "false",
    "analytics.enabled": "false",
}


def command() -> list[str]:
    import codex_cli_bin  # pyright: ignore  only in its own environment

    words = [str(codex_cli_bin.bundled_codex_path()), "exec", "--ephemeral", "--skip-git-repo-check"]
    words += ["--dangerously-bypass-approvals-and-sandbox"]  # all that it touches is the environment's
    return [*words, *(word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")), "-"]


def written(message: Any) -> list[int]:
    """The ids of a message: its bytes."""
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return list(json.dumps([message["role"], message.get("content") or "", calls]).encode())


def answer(body: dict[str, Any], _: int) -> dict[str, Any]:
    """The next call of the script, once the tools' answers to those before are there."""
    step = sum(message["role"] == "tool" for message in body["messages"])
    names = [tool["function"]["name"] for tool in body["tools"]]
    calls: list[Any] = []
    if step < len(SCRIPT):
        (name,) = (name for name in names if name.endswith(f"__{SCRIPT[step][0]}"))
        calls = [{"id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(SCRIPT[step][1])}}]
    said = "" if calls else "Done."
    ids = written({"role": "assistant", "content": said, "tool_calls": calls})
    logprobs = {"content": [{"token": "x", "logprob": -i / 64, "bytes": None, "top_logprobs": []} for i in ids]}
    prompt = [i for message in body["messages"] for i in written(message)]
    return completion(said, calls, token_ids=ids, logprobs=logprobs, prompt_token_ids=prompt)


def test_codex_repairs_code_and_is_branched_by_replay(tmp_path: Path):
    (task,) = (i for i, task in enumerate(make("agentenv/CodeRepair-v0").tasks) if task.id == TASK)
    home = tmp_path / "home"
    home.mkdir()
    options: dict[str, Any] = {"variables": {"CODEX_HOME": str(home), "RUST_LOG": "off"}, "retries": 0}
    with (
        Server(answer) as server,
        ProgramRollout(
            lambda: make("agentenv/CodeRepair-v0"),
            OpenAIAgent(server.url, record_tokens=True),
            command=command(),
            varying=[r"Wall time: [\d.]+ seconds"],
            record=tmp_path / "trees.jsonl",
            **options,
        ) as rollout,
    ):
        (tree,) = rollout.grow([task])
        asked = len(server.requests)
        rollout.extend([tree], [Anchor(0, 2)])
        assert rollout.failures == 0, tree.nodes[-1].info
    names = [[call.name for call in node.action.tool_calls] for node in tree.nodes[1:] if node.action]
    expected = [[f"mcp__env__{name}"] for name, _ in SCRIPT]
    assert names == [
        *expected,
        [],
        *expected[2:],
    ]  # the branch begins below the second call: its clock says another time
    assert [node.parent for node in tree.nodes] == [-1, 0, 1, 2, 3, 2, 5, 6]
    assert [tree.episode_return(leaf) for leaf in tree.leaves()] == [1.0, 1.0]
    replay = tree.nodes[6].info["replay"]
    assert replay == {"wanted": 2, "answered": 2, "live": True, "left_early": False, "why": ""}
    assert (asked, len(server.requests)) == (4, 6)  # what was replayed, the model was not asked again
    for node in (1, 2, 3, 4, 6, 7):
        action = tree.nodes[node].action
        assert action is not None
        assert action.token_ids == tuple(written(action.to_message()))
        assert action.logprobs == tuple(-i / 64 for i in written(action.to_message()))
        prompt = [i for message in tree.messages(tree.nodes[node].parent) for i in written(message)]
        assert list(tree.prompt_token_ids(tree.nodes[node].parent) or ()) == prompt
    (read,) = read_trees(tmp_path / "trees.jsonl")
    assert read.nodes == tree.nodes
