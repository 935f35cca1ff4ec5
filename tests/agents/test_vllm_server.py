"""VLLMAgent with a server: the same tokens as in process, new weights, and a server that is killed in the middle."""

import asyncio
import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cli_runs import run
from vllm_models import (
    OPTIONS,
    ServerProcess,
    largest_difference,
    logprobs_of,
    make_model,
    next_turn,
    roots,
    save_model,
)

import agentenv as ae
from agentenv.agents import OpenAIAgent, VLLMAgent
from agentenv.agents.vllm_weights import staged
from agentenv.cli import main
from agentenv.errors import AgentError, ModelError
from agentenv.rollout import Concurrent, Rollout
from agentenv.serialize import read_trees

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]

LONG = 4096
"""Tokens that the model reads: the files that are to be repaired are long for its tokenizer."""
PROGRAM = Path(__file__).parent / "programs" / "plain_program.py"
EVERYTHING = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Nothing of a generation config's, so that the model's own distribution is sampled from."""
TASKS = [{"question": f"Compute {i} + 1.", "reference": str(i + 1)} for i in range(8)]


class Killable:
    """A server, and the model that it serves."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = make_model(context=LONG)
        self.folder = save_model(folder / "model", self.model, self.tokenizer)
        words = ["--enable-scale-out", "--logprobs-mode", "processed_logprobs"]
        words += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]  # for chat completions
        self.process = ServerProcess(self.folder, folder / "log", *words)

    def agent(self, **options: Any) -> Any:
        return VLLMAgent(self.process.url, **cast("Any", {"max_tokens": 12, **options}))

    def chat(self, **options: Any) -> OpenAIAgent:
        """The same server's chat completions."""
        given: dict[str, Any] = {"max_tokens": 12, "temperature": 1.0, "record_tokens": True, "options": EVERYTHING}
        return OpenAIAgent(f"{self.process.url}/v1", **given | options)

    def counted(self, name: str) -> float:
        """One of the server's own counters."""
        lines = httpx.get(f"{self.process.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Killable(tmp_path_factory.mktemp("served"))
    server.process.start()
    yield server
    server.process.kill()


def grow(agent: Any, count: int, name: str = "agentenv/MathVerifier-v0", tasks: Any = TASKS, **options: Any) -> Any:
    executor = Concurrent(workers=8)
    try:
        with Rollout(lambda: ae.make(name, max_steps=3), agent, executor=executor, seed=3, **options) as rollout:
            return rollout.grow(tasks, count), rollout
    finally:
        executor.close()


def content(trees: Any) -> list[Any]:
    return [(n.parent, n.action and n.action.token_ids, n.action and n.action.logprobs, n.reward)
            for tree in trees for n in tree.nodes]  # fmt: skip


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_both_ways_in_give_the_same_exact_tokens(server, temperature):
    with server.agent(temperature=temperature) as agent:
        assert agent.context_length == LONG
        found: list[Any] = []
        actions: list[Any] = []
        for path in ("/inference/v1/generate", "/v1/completions"):
            if not found:
                assert agent._backend._path == path, "it is there, so it is taken"
            agent._backend._path = path
            contexts = roots(16, per_task=1)
            for number in range(2):
                actions = agent.act(contexts)
                assert largest_difference(server.model, actions, temperature) < 1e-4
                assert {a.finish_reason for a in actions} <= {"stop", "length"}
                contexts = next_turn(contexts, actions, number, words=30)
            found.append([(a.token_ids, a.finish_reason) for a in actions])
            assert max(action.usage.cached_tokens for action in agent.act(contexts)) > 32
        assert found[0] == found[1]


def test_chat_completions_give_the_same_exact_tokens(server):
    with server.agent() as exact, ae.make("agentenv/MathVerifier-v0") as env:
        for offered in ((), tuple(env.tools)):
            contexts = [replace(context, tools=offered) for context in roots(16, per_task=1)]
            wanted = exact.act(contexts)
            actions = server.chat().act(contexts)
            assert [action.prompt_token_ids for action in actions] == [action.prompt_token_ids for action in wanted]
            assert [action.token_ids for action in actions] == [action.token_ids for action in wanted]
            assert largest_difference(server.model, actions) < 1e-4


def test_new_weights_and_what_is_in_flight(server, tmp_path):
    new, _ = make_model(seed=5, context=LONG)
    with server.agent(max_tokens=700) as agent:
        here, there = (server.model, lambda: server.folder), (new, new.named_parameters)
        for in_flight in ("restart", "keep"):
            switched = 0
            for _ in range(5):  # on a busy machine all may have ended before the weights are there
                switched = switched_in_flight(agent, server, here[0], there, in_flight)
                here, there = there, here
                if switched > 4:
                    break
            assert switched > 4
        version = agent.weight_version
        agent.update_weights(server.folder)
        assert agent.weight_version == version + 1
        assert largest_difference(server.model, agent.act(roots(4))) < 1e-4
        with pytest.raises(ModelError, match="lacks"):
            agent.update_weights([("lm_head.weight", new.lm_head.weight)])
        with server.agent() as other:
            other.weights_changed()  # empties the cache, and takes the weights that are there
            assert other.weight_version == 1
            assert largest_difference(server.model, other.act(roots(4))) < 1e-4


def test_a_request_that_asks_for_the_weights_while_they_are_replaced_is_no_ones_fault(server):
    with server.agent(max_tokens=4) as agent:
        backend = agent._backend
        ask, asked, renewing, told = backend._version, threading.Event(), asyncio.Event(), asyncio.Event()

        async def version():
            if not asked.is_set():  # the request's question, answered when the weights have their new name
                asked.set()
                await renewing.wait()
                found = await ask()
                told.set()
                return found
            renewing.set()
            await told.wait()
            return await ask()

        backend._version = version
        done = list[Any]()
        asking = threading.Thread(target=lambda: done.extend(agent.act(roots(1, per_task=1))))
        asking.start()
        assert asked.wait(60)
        agent.update_weights(server.folder)
        asking.join()
        assert [action.weight_version for action in done] == [1]


def test_somebody_else_sends_the_weights_and_everybody_notices(server):
    """As TRL's trainers do over NCCL, here by the server's own command: nothing is sampled meanwhile."""
    new, _ = make_model(seed=5, context=LONG)
    weights = {name: parameter.detach() for name, parameter in new.named_parameters()}
    with server.agent() as agent, server.agent() as other, staged(weights, tied=True, place=None) as folder:
        agent.act(roots(4))

        def push() -> None:
            call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            httpx.post(f"{server.process.url}/collective_rpc", json=call, timeout=300).raise_for_status()

        agent.update_by(push)
        assert agent.weight_version == 1
        assert largest_difference(new, agent.act(roots(4))) < 1e-4
        with pytest.raises(AgentError, match="other weights than this agent knows"):
            other.act(roots(1))
        other.weights_changed()
        assert largest_difference(new, other.act(roots(4))) < 1e-4
        agent.weights_changed()

        def fail() -> None:
            msg = "the line went dead"
            raise OSError(msg)

        with pytest.raises(AgentError, match=r"has no whole weights.*line went dead"):
            agent.update_by(fail)
        with pytest.raises(AgentError, match="has no whole weights"):
            agent.act(roots(1))
        agent.update_weights(server.folder)
        assert largest_difference(server.model, agent.act(roots(4))) < 1e-4


def switched_in_flight(agent, server, before, after, in_flight):
    """Replaces weights while 64 actions are sampled; returns how many have tokens of the new ones."""
    version, done = agent.weight_version, list[Any]()
    asking = threading.Thread(target=lambda: done.extend(agent.act(roots(64, per_task=1))))
    asking.start()
    while asking.is_alive() and server.counted("vllm:num_requests_running") < 1:
        time.sleep(0.01)
    agent.update_weights(after[1](), in_flight=in_flight)
    asking.join()
    assert len(done) == 64
    switched = 0
    for action in done:
        both = [logprobs_of(model, action) for model in (before, after[0])]
        olds, news = ([abs(a - b) < 1e-4 for a, b in zip(action.logprobs, one, strict=True)] for one in both)
        switch = next((i for i, same in enumerate(olds) if not same), len(olds))
        assert all(news[switch:])
        switched += switch < len(olds)
        assert in_flight == "keep" or action.weight_version == (version + 1 if switch < len(olds) else version)
    return switched


def test_a_server_killed_in_mid_rollout_and_restarted_loses_no_finished_episode(server, tmp_path):
    """By token ids and by chat completions, at the same time."""
    as_started = {"new_version": "default"}  # what it says when it has just started, with these very weights
    httpx.post(f"{server.process.url}/update_weight_version", json=as_started).raise_for_status()
    chat = server.chat(retries=60)
    with server.agent() as agent:
        undisturbed, _ = grow(agent, 6)
        told, _ = grow(chat, 3)
        ended: list[str] = []
        starting: list[threading.Thread] = []
        heard: list[Any] = []
        lock = threading.Lock()

        def kill_once(which: str) -> None:
            with lock:
                ended.append(which)
                if not starting and ended.count("ids") >= 6 and ended.count("chat") >= 3:
                    server.process.kill()
                    starting.append(threading.Thread(target=server.process.start))
                    starting[0].start()

        options: dict[str, Any] = {
            "record": tmp_path / "trees.jsonl",
            "on_end": lambda: kill_once("ids"),
            "max_envs": 8,
        }
        beside = threading.Thread(
            target=lambda: heard.append(grow(chat, 3, on_end=lambda: kill_once("chat"), max_envs=4))
        )
        beside.start()
        trees, rollout = grow(agent, 6, **options)
        beside.join()
        starting[0].join()
    assert ended.count("ids") == 48 and rollout.failures == 0
    assert content(trees) == content(undisturbed), "the same seeds gave the same tokens, before and after"
    assert content(read_trees(tmp_path / "trees.jsonl")) == content(trees)
    ((heard_trees, heard_rollout),) = heard
    assert ended.count("chat") == 24 and heard_rollout.failures == 0 and content(heard_trees) == content(told)


def test_a_server_that_stays_away_fails_what_is_left_and_one_without_our_weights_is_refused(server, tmp_path):
    new, _ = make_model(seed=5, context=LONG)
    with server.agent(server_options={"patience_s": 1.0}) as agent:
        agent.update_weights(new.named_parameters())
        ended: list[int] = []

        def kill_once() -> None:
            ended.append(len(ended))
            if len(ended) == 6:
                server.process.kill()

        trees, rollout = grow(agent, 2, record=tmp_path / "trees.jsonl", on_end=kill_once, max_envs=2, retries=1)
        finished = [leaf for tree in trees for leaf in tree.leaves() if tree.nodes[leaf].reward is not None]
        assert len(ended) == 16 and 6 <= len(finished) < 16
        assert rollout.failures == 2 * (16 - len(finished))
        assert len(content(read_trees(tmp_path / "trees.jsonl"))) == len(content(trees))
        with pytest.raises(AgentError, match=r"away for more than patience_s=1.0: ConnectError"):
            agent.act(roots(1))
        server.process.start()
        with pytest.raises(AgentError, match=r"has other weights than this agent knows .*it was restarted"):
            agent.act(roots(1))
        agent.update_weights(new.named_parameters())
        assert largest_difference(new, agent.act(roots(4))) < 1e-4
        agent.update_weights(server.folder)
    with pytest.raises(AgentError, match="the agent is closed"):
        agent.act(roots(1))


def test_64_episodes_of_math(server):
    with server.agent() as agent:
        trees, rollout = grow(agent, 8)
        leaves = [tree.nodes[leaf] for tree in trees for leaf in tree.leaves()]
        assert rollout.failures == 0 and len(leaves) == 64
        assert all((leaf.terminated or leaf.truncated) and leaf.reward is not None for leaf in leaves)


def test_64_episodes_of_repairing_code(server):
    with server.agent(server_options={"concurrency": 32}) as agent:
        trees, rollout = grow(agent, 8, "agentenv/CodeRepair-v0", range(8), max_envs=8)
        leaves = [tree.nodes[leaf] for tree in trees for leaf in tree.leaves()]
        assert rollout.failures == 0 and len(leaves) == 64
        assert all((leaf.terminated or leaf.truncated) and leaf.reward is not None for leaf in leaves)


def test_a_program_acts_through_the_proxy_before_an_engine_made_on_the_command_line(server, tmp_path, monkeypatch):
    """`agentenv proxy --agent vllm:FOLDER -- COMMAND`: a program's tokens are recorded, and it branches by replay."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    out = tmp_path / "trees.jsonl"
    engine = {name: value for name, value in OPTIONS.items() if name != "max_num_seqs"}
    words = ["--agent", f"vllm:{server.folder}", "--agent-option", f"engine_options={json.dumps(engine)}"]
    words += ["--tasks", "2", "--rollouts", "2", "--continuations", "1", "--max-action-tokens", "12", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:  # in this process: another would be slow to begin
        main(["proxy", "agentenv/MathVerifier-v0", *words, "--", sys.executable, str(PROGRAM)])
    assert ended.value.code == 0
    trees = read_trees(out)
    assert [len(tree.leaves()) for tree in trees] == [3, 3]
    sampled = [(node.action, tree, i) for tree in trees for i, node in enumerate(tree.nodes) if node.action]
    assert sampled
    for action, tree, i in sampled:
        ids, drawn = tuple(tree.token_ids(i)), action.token_ids or ()
        assert drawn and ids[-len(drawn) :] == drawn
        whole = replace(action, prompt_token_ids=ids[: -len(drawn)])
        assert largest_difference(server.model, [whole]) < 1e-4


def test_the_command_trains_with_a_server_that_samples(server, tmp_path, monkeypatch):
    """`agentenv train --agent vllm:URL`: every generation is sampled by the weights of its step."""
    monkeypatch.chdir(tmp_path)
    words = ["--tasks-per-step", 2, "--tasks", 8, "--rollouts", 4, "--eval-tasks", 0, "--every", 1, "--steps", 2]
    words += ["--max-action-tokens", 6, "--learning-rate", 0.01, "--credit", "rloo", "--run-folder", tmp_path / "run"]
    words += ["--agent", f"vllm:{server.process.url}", "--option", "max_steps=2"]
    result = run("train", "agentenv/MathVerifier-v0", "--model", server.folder, *words)
    assert result.exit_code == 0, result.output
    versions = []
    for step in (1, 2):
        trees = read_trees(tmp_path / "run" / "trees" / f"step_{step}.jsonl")
        versions.append({node.action.weight_version for tree in trees for node in tree.nodes if node.action})
    assert [len(version) for version in versions] == [1, 1] and versions[0] != versions[1]


def test_what_is_no_vllm_server_is_named(server):
    with pytest.raises(AgentError, match=r"away for more than patience_s=0\.1: ConnectError"):
        VLLMAgent("http://127.0.0.1:9", server_options={"patience_s": 0.1})
    with pytest.raises(ModelError, match=r"engine must be the URL of a vLLM server|refuses the request, status 404"):
        VLLMAgent(f"{server.process.url}/elsewhere")
    with server.agent(max_tokens=5) as agent:
        agent._backend.model = "another"
        with pytest.raises(ModelError, match="refuses the request, status 404"):
            agent.act(roots(1))
