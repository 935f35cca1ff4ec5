"""One scripted policy in five frameworks: the same observations and rewards, for all bundled environments.

The policy makes mistakes first, then plays the environment's own demonstration or solution. What each
framework hands to its agent is compared as text with what `step` says here, and the reward of every step with it.
"""

# pyright: reportMissingImports=false

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest

import agentenv as ae
from agentenv.interop.solutions import solution_calls
from agentenv.types import ToolCall, message_text

BUNDLED = ["agentenv/CodeRepair-v0", "agentenv/MathVerifier-v0", "agentenv/SearchQA-v0"]
SEED = 3

Trace = list[tuple[str, float]]
"""What the agent reads after each step, and the step's reward."""


def policy(env_id: str, *, malformed: bool) -> list[ToolCall]:
    """A useless call, where wanted two that do not fit the tool's schema, then what solves the task of the seed."""
    env = ae.make(env_id)
    env.reset(seed=SEED)
    calls = solution_calls(env)
    first = next(tool["function"] for tool in env.tools if tool["function"]["parameters"].get("required"))
    env.close()
    assert calls
    useless = ToolCall(first["name"], dict.fromkeys(first["parameters"]["required"], "?"))
    wrong = [ToolCall(first["name"], {}), ToolCall(first["name"], {"what": 1})] if malformed else []
    return [useless, *wrong, *calls]


def message(call: ToolCall) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [call.to_dict()]}


def texts(observation: Any) -> str:
    return "\n".join(message_text(part) for part in observation)


def natively(env_id: str, calls: list[ToolCall]) -> Trace:
    env = ae.make(env_id)
    env.reset(seed=SEED)
    taken = [env.step(message(call)) for call in calls]
    env.close()
    assert taken[-1][2] and sum(step[1] for step in taken) > env.success_threshold
    return [(texts(step[0]), step[1]) for step in taken]


def by_our_openenv_client(env_id: str, calls: list[ToolCall]) -> Trace:
    from agentenv.interop import OpenEnvEnv, OpenEnvServer

    with OpenEnvServer(env_id, port=0) as server:
        env = OpenEnvEnv(server.url)
        env.reset(seed=SEED)
        taken = [env.step(message(call)) for call in calls]
        env.close()
    return [(texts(step[0]), step[1]) for step in taken]


def by_their_openenv_client(env_id: str, calls: list[ToolCall]) -> Trace:
    from openenv.core.generic_client import GenericEnvClient

    from agentenv.interop import OpenEnvServer

    with OpenEnvServer(env_id, port=0) as server, GenericEnvClient(base_url=server.url).sync() as client:
        client.reset(seed=SEED)
        taken: list[Any] = [client.step({"tool_calls": [call.to_dict()]}) for call in calls]
    assert taken[-1].done
    return [(texts(step.observation["messages"]), step.reward) for step in taken]


def by_gymnasium_vector(env_id: str, calls: list[ToolCall]) -> Trace:
    vector = gymnasium.vector.SyncVectorEnv([lambda: ae.make(env_id)] * 2)
    vector.reset(seed=[SEED, SEED])
    taken = [vector.step([message(call)] * 2) for call in calls]
    vector.close()
    for step in taken:
        assert texts(step[0][0]) == texts(step[0][1]) and step[1][0] == step[1][1]
    assert taken[-1][2].all()
    return [(texts(step[0][0]), float(step[1][0])) for step in taken]


def by_trl(env_id: str, calls: list[ToolCall]) -> Trace:
    """As TRL's loop does it: `reset` with a row, methods by name, and `get_reward`."""
    from agentenv.trainers import as_trl_environment, trl_rows

    player = as_trl_environment(env_id)()
    (row,) = trl_rows(env_id, 1, seed=SEED)
    player.reset(**row)
    trace: Trace = []
    total = 0.0
    for call in calls:
        assert isinstance(call.arguments, dict)
        text = getattr(player, call.name)(**call.arguments)
        trace.append((text, player.get_reward() - total))
        total = player.get_reward()
    return trace


def by_verifiers(env_id: str, calls: list[ToolCall]) -> Trace:
    """Through the tools that a taskset serves over MCP; the state that verifiers keeps is kept here."""
    import verifiers.v1 as vf
    from mcp.server.mcpserver import MCPServer

    from agentenv.interop.verifiers_tasks import EpisodeTasksetConfig, EpisodeTools, as_taskset

    class Tools(EpisodeTools):
        async def _pull_state(self) -> Any:
            return self._kept

        async def _push_state(self, before: bytes) -> None:
            self._kept = self.state

    (task,) = as_taskset(env_id)(EpisodeTasksetConfig(seed=SEED, num_tasks=1))

    async def play() -> Trace:
        tools = Tools(vf.ToolsetConfig())
        tools._kept = tools._state_cls()
        await tools.setup_task(task.data)
        server = MCPServer("tools")
        tools.register(server)
        trace: Trace = []
        total = 0.0
        for call in calls:
            assert isinstance(call.arguments, dict)
            answer: Any = await server.call_tool(call.name, call.arguments)
            trace.append((answer.content[0].text, tools._kept.total - total))
            total = tools._kept.total
        assert tools._kept.ended
        return trace

    return asyncio.run(play())


def by_verifiers_v0(env_id: str, calls: list[ToolCall]) -> Trace:
    """By their own loop over what `load_environment` returns; the rewards of steps are in its trajectory."""
    from agentenv.interop.verifiers_v0 import Asking, as_v0_environment

    env: Any = as_v0_environment(env_id, num_episodes=1, seed=SEED)
    left = iter(calls)

    async def ask(_: Any) -> Any:
        return message(next(left))

    state: Any = asyncio.run(env.rollout(env.get_dataset()[0], Asking(ask), "m", {}))
    assert state["stop_condition"] == "has_final_env_response" and state.get("error") is None
    turns: list[Any] = state["trajectory"]
    after = [turn["prompt"][len(before["prompt"]) + 1 :] for before, turn in itertools.pairwise(turns)]
    heard = [[part.model_dump() for part in parts] for parts in (*after, state["completion"][-1:])]
    return [(texts(parts), turn["reward"]) for parts, turn in zip(heard, turns, strict=True)]


WAYS: list[Any] = [
    pytest.param(by_our_openenv_client, id="openenv"),
    pytest.param(by_gymnasium_vector, id="gymnasium"),
    pytest.param(by_trl, id="trl", marks=pytest.mark.model),
    pytest.param(by_their_openenv_client, id="openenv-theirs", marks=pytest.mark.peers("openenv")),
    pytest.param(by_verifiers, id="verifiers", marks=pytest.mark.peers("verifiers")),
    pytest.param(by_verifiers_v0, id="verifiers-v0", marks=pytest.mark.peers("verifiers-v0")),
]


@pytest.mark.parametrize("env_id", BUNDLED)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_policy_sees_and_earns_the_same(way: Callable[[str, list[ToolCall]], Trace], env_id: str):
    calls = policy(env_id, malformed=way is not by_verifiers)  # its MCP server refuses those itself
    assert way(env_id, calls) == natively(env_id, calls)
