"""What `--agent` takes: every kind acts, in every command, and a wrong one is named before anything is played."""

import sys
import types
from typing import Any

import pytest
from cli_runs import one_line_error, run, run_json
from openai_server import Reply, Server, completion

from agentenv.serialize import read_trees

DICE = "dice_env:Dice"
MINE = '''
from agentenv.protocols import AsyncAgent
from agentenv.types import Action, ToolCall


class Roller:
    """Rolls dice with so many sides."""

    def __init__(self, sides: int = 6, *, temperature: float = 0.5):
        self.sides = sides
        self.temperature = temperature

    def act(self, contexts):
        return [Action(f"at {self.temperature}", (ToolCall("roll", {"sides": self.sides}),)) for _ in contexts]


class Says(AsyncAgent):
    async def respond(self, context):
        return {"content": "hm", "tool_calls": [{"function": {"name": "roll", "arguments": "{}"}}]}


def made(text="so"):
    class Made(Roller):
        def act(self, contexts):
            return [text for _ in contexts]
    return Made()


READY = Roller(4)
NEITHER = 7


class Holder:
    inner = Roller
'''


@pytest.fixture
def mine(here):
    (here / "my_agents.py").write_text(MINE)
    yield here
    sys.modules.pop("my_agents", None)


def rolled(*words) -> Any:
    run_json("rollout", DICE, "--tasks", 1, "--rollouts", 2, "--out", "t.jsonl", "--overwrite", *words)
    return [node.action for node in read_trees("t.jsonl")[0].nodes[1:]]


@pytest.mark.parametrize(
    ("words", "sides", "content"),
    [
        (("--agent", "my_agents:Roller"), 6, "at 1.0"),
        (("--agent", "my_agents:Roller", "--agent-option", "sides=3", "--temperature", 0.25), 3, "at 0.25"),
        (("--agent", "my_agents:Roller", "--agent-option", "temperature=2"), 6, "at 2.0"),
        (("--agent", "my_agents:READY"), 4, "at 0.5"),
        (("--agent", "my_agents:Holder.inner"), 6, "at 1.0"),
        (("--agent", "my_agents:Says"), None, "hm"),
        (("--agent", "my_agents:made", "--agent-option", "text=well"), "none", "well"),
    ],
)
def test_an_agent_of_ones_own(mine, words, sides, content):
    for action in rolled(*words):
        assert action.content == content
        assert sides == "none" or action.tool_calls[0].arguments.get("sides") == sides


def test_a_server(here):
    call = {"id": "c", "type": "function", "function": {"name": "roll", "arguments": '{"sides": 2}'}}
    with Server(lambda *_: completion("", [call])) as server:
        words = ("--agent", server.url, "--agent-option", "concurrency=2", "--agent-option", "top_p=0.5")
        assert {action.tool_calls[0].arguments["sides"] for action in rolled(*words, "--temperature", 0.7)} == {2}
        sent = server.requests[0]
        assert (sent["temperature"], sent["top_p"], sent["max_tokens"]) == (0.7, 0.5, 256)
        found = run_json("eval", DICE, "--agent", server.url, "--tasks", 2)
        assert found["summary"]["episodes"] == 8
        done = run_json("replay", "t.jsonl", "--at", 0, "--env", DICE, "--agent", server.url)
        assert len(done["continuations"]) == 1


def test_a_server_that_refuses_the_key_ends_the_run_in_one_line(here):
    with Server(lambda *_: completion(), models=Reply({"error": {"message": "bad key"}}, 401)) as server:
        assert "set OPENAI_API_KEY" in one_line_error(run("rollout", DICE, "--agent", server.url))
        assert not server.requests
    with Server(lambda *_: Reply({"error": {"message": "bad key"}}, 401)) as server:
        words = ("rollout", DICE, "--agent", server.url, "--tasks", 20, "--max-envs", 4, "--out", "x.jsonl")
        assert "set OPENAI_API_KEY" in one_line_error(run(*words), code=1)
        assert len(server.requests) <= 4, "not once per episode"


def test_a_person_acts_in_a_rollout(here):
    words = ("rollout", DICE, "--agent", "human", "--tasks", 1, "--rollouts", 1, "--out", "h.jsonl")
    result = run(*words, stdin="roll 6\n" * 4)
    assert result.exit_code == 0, result.stderr
    assert "user: Reach 9." in result.stdout
    assert {node.action.tool_calls[0].name for node in read_trees("h.jsonl")[0].nodes[1:] if node.action} == {"roll"}
    left = run(*words[:-1], "i.jsonl", stdin="roll 6\n")
    assert left.exit_code == 130 and "Interrupted" in left.stderr
    assert "the same command goes on with --resume --out i.jsonl" in left.stderr


def test_random_has_options_and_repeats_itself(here):
    first, again = rolled("--agent-option", "text_share=0"), rolled("--agent-option", "text_share=0")
    assert first == again and all(action.tool_calls for action in first)


def test_vllm_is_made_with_what_the_command_says(here, monkeypatch):
    """The parser alone: tests/agents/test_vllm*.py have the engine."""
    seen = {}

    class VLLMAgent:
        def __init__(self, engine, *, temperature=1.0, max_tokens=16, seed=0):
            seen.update(engine=engine, temperature=temperature, max_tokens=max_tokens, seed=seed)

        def act(self, contexts):
            return ["x" for _ in contexts]

    monkeypatch.setitem(sys.modules, "agentenv.agents.vllm", types.SimpleNamespace(VLLMAgent=VLLMAgent))
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text("{}")
    rolled("--agent", "vllm:model", "--agent-option", "seed=3", "--temperature", 0.5, "--max-action-tokens", 9)
    assert seen == {"engine": "model", "temperature": 0.5, "max_tokens": 9, "seed": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--agent", "nobody"), "got 'nobody', which is no folder"),
        (("--agent", "randm"), "did you mean 'random'?"),
        (("--agent", "vllm:"), "got 'vllm:': there is no ./config.json"),
        (("--agent", "vllm:nowhere"), "got 'vllm:nowhere': there is no nowhere/config.json"),
        (("--agent", "vllm:http://127.0.0.1:9"), "no server answers at http://127.0.0.1:9"),
        (("--agent", "htp://127.0.0.1:9"), "got 'htp://127.0.0.1:9', which is no folder"),
        (("--agent", "http://127.0.0.1:9/v1"), "no server answers at http://127.0.0.1:9/v1"),
        (("--agent", "http://"), "base_url must be like"),
        (("--agent", "no_module:Class"), "No module named 'no_module'"),
        (("--agent", "my_agents:Rollr"), "has no 'Rollr'; did you mean 'Roller'?"),
        (("--agent", "my_agents:NEITHER"), "must be an agent, with act(contexts)"),
        (("--agent", "my_agents:Roller", "--agent-option", "side=3"), "did you mean 'sides'?"),
        (("--agent", "my_agents:Roller", "--agent-option", "sides=x"), "'--agent-option'"),
        (("--agent", "my_agents:READY", "--agent-option", "sides=3"), "takes none, got 'sides=3'"),
        (("--agent", "random", "--agent-option", "text_share=7"), "text_share must be in [0, 1]"),
        (("--agent", "human", "--agent-option", "x=1"), "takes none"),
        (("--agent", "scripted"), "has no demonstrations to script: write careful_calls(task) beside the class"),
        (("--agent", "."), "'--agent'"),
    ],
)
@pytest.mark.slow
@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_what_is_no_agent_is_named(mine, command, words, message):
    assert message in one_line_error(run(command, DICE, *words))
    assert not (mine / "trees.jsonl").exists()
