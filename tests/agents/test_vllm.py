"""VLLMAgent with an engine in this process: exact tokens and log-probabilities, cached prefixes, new weights."""

import asyncio
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from tiny_chat import CONVERSATIONS
from vllm_models import (
    CONTEXT,
    DEVICE,
    OPTIONS,
    largest_difference,
    logprobs_of,
    make_model,
    next_turn,
    roots,
    save_model,
)

from agentenv import make
from agentenv.agents import VLLMAgent
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import AsyncAgent, Context
from agentenv.rollout import Concurrent, Rollout

# vLLM warns of what it does itself; a cold machine compiles for half a minute
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
PAGE, BENCHMARK = ROOT / "docs" / "agents.md", ROOT / "benchmarks" / "agents_vllm.py"


@dataclass
class Served:
    """An engine, and the model that it was made from."""

    llm: Any
    model: Any
    tokenizer: Any
    folder: Path

    def agent(self, **options: Any) -> Any:
        return VLLMAgent(self.llm, **cast("Any", {"max_tokens": 12, **options}))

    def counted(self, name: str) -> float:
        """One of vLLM's own counters."""
        return sum(metric.value for metric in self.llm.get_metrics() if metric.name == name)


@pytest.fixture(scope="module")
def in_process():
    before = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    yield
    os.environ.pop("VLLM_ENABLE_V1_MULTIPROCESSING")
    if before is not None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = before


@pytest.fixture(scope="module")
def tied(tmp_path_factory, in_process):
    yield from _serve(tmp_path_factory.mktemp("tied"), tied=True)


@pytest.fixture(scope="module")
def untied(tmp_path_factory, in_process):
    yield from _serve(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(params=["tied", "untied"])
def either(request):
    """What is tried with tied and untied embeddings."""
    return request.getfixturevalue(request.param)


def _serve(folder: Path, *, tied: bool) -> Iterator[Served]:
    model, tokenizer = make_model(tied=tied)
    save_model(folder, model, tokenizer)
    llm = importlib.import_module("vllm").LLM(
        model=str(folder), logprobs_mode="processed_logprobs", disable_log_stats=not tied, **OPTIONS
    )
    yield Served(llm, model, tokenizer, folder)
    llm.llm_engine.engine_core.shutdown()


@pytest.fixture
def served(tied):
    return tied


@pytest.fixture
def agent(served):
    with served.agent() as agent:
        yield agent


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_those_of_transformers_cold_and_from_the_cache(either, temperature):
    served = either
    with served.agent(temperature=temperature) as agent:
        agent.weights_changed()  # nothing is cached
        contexts = roots(24, per_task=1)
        lengths, cached = set(), []
        for number in range(4):
            actions = agent.act(contexts)
            assert largest_difference(served.model, actions, temperature) < 1e-4
            for context, action in zip(contexts, actions, strict=True):
                assert action.prompt_token_ids == agent.chat.prompt(context)
                stopped = action.token_ids[-1] == agent.tokenizer.eos_token_id
                assert action.finish_reason == ("stop" if stopped else "length")
                assert agent.tokenizer.eos_token_id not in action.token_ids[:-1]
                assert action.usage.prompt_tokens == len(action.prompt_token_ids)
                assert action.usage.completion_tokens == len(action.token_ids)
                lengths.add(len(action.token_ids))
            cached.append(max(action.usage.cached_tokens for action in actions))
            contexts = next_turn(contexts, actions, number, words=12)[number:]  # some episodes end
        assert cached[0] == 0 and cached[-1] >= 32
        assert len(lengths) > 2


def test_an_action_does_not_depend_on_its_batch(served, agent):
    contexts = roots(20)
    for number in range(2):
        together = agent.act(contexts)
        for i in (0, 7, 19):
            (alone,) = agent.act([contexts[i]])
            assert alone.token_ids == together[i].token_ids
            assert alone.logprobs == pytest.approx(together[i].logprobs, abs=1e-4)
        assert [a.token_ids for a in agent.act(contexts[::-1])[::-1]] == [a.token_ids for a in together]
        contexts = next_turn(contexts, together, number)
    branches = [replace(contexts[0], seed=seed) for seed in (-1, 0, 2**63 - 1, 2**64 + 5, 5)]
    ids = [action.token_ids for action in agent.act(branches)]
    assert ids[3] == ids[4] and len(set(ids)) > 2


def test_branches_of_a_long_prefix_take_it_from_the_cache(served, agent):
    (root,) = [Context(({"role": "user", "content": "Compute " + "7 + 8 * " * 220 + "1."},), seed=1)]
    (first,) = agent.act([root])
    (after,) = next_turn([root], [first])
    hits, asked = served.counted("vllm:prefix_cache_hits"), served.counted("vllm:prefix_cache_queries")
    branches = [replace(after, seed=100 + i) for i in range(8)]
    actions = agent.act(branches)
    hits = served.counted("vllm:prefix_cache_hits") - hits
    asked = served.counted("vllm:prefix_cache_queries") - asked
    length = len(actions[0].prompt_token_ids)
    assert length > 600 and asked == 8 * length
    assert hits >= 0.9 * asked
    assert sum(action.usage.cached_tokens for action in actions) == hits
    assert len({action.token_ids for action in actions}) > 4
    assert largest_difference(served.model, actions) < 1e-4


def test_limits_are_kept_and_a_full_window_silences(served, agent):
    assert issubclass(VLLMAgent, AsyncAgent) and agent.honors == {"max_tokens"}
    assert agent.context_length == CONTEXT and agent.act([]) == []
    free = agent.act(roots(8))
    for limit in (1, 3, 100):
        cut = agent.act([replace(context, max_tokens=limit) for context in roots(8)])
        assert [a.token_ids for a in cut] == [a.token_ids[:limit] for a in free]
    nearly = Context(({"role": "user", "content": "x" * (CONTEXT - 14)},), seed=1)
    beyond = Context(({"role": "user", "content": "x" * 2 * CONTEXT},), seed=1)
    tight, silent = agent.act([nearly, beyond])
    assert len(tight.prompt_token_ids) < CONTEXT
    assert len(tight.prompt_token_ids) + len(tight.token_ids) <= CONTEXT
    assert (silent.token_ids, silent.logprobs, silent.finish_reason) == ((), (), "length")
    assert silent.usage.prompt_tokens > CONTEXT


def test_temperature_zero_and_top_p(served):
    with served.agent(temperature=0.0) as agent:
        for action in agent.act(roots(6)):
            ids = torch.tensor([[*action.prompt_token_ids, *action.token_ids]], device=DEVICE)
            likeliest = served.model(input_ids=ids).logits[0, len(action.prompt_token_ids) - 1 : -1].argmax(-1)
            assert likeliest.tolist() == list(action.token_ids)
            assert set(action.logprobs) == {0.0}
    with served.agent(top_p=1e-6) as agent:
        assert {value for action in agent.act(roots(6)) for value in action.logprobs} == {0.0}


@pytest.mark.parametrize("way", ["folder", "state_dict", "parameters"])
def test_new_weights_change_outputs_and_the_recorded_version(either, tmp_path, way):
    served, agent = either, either.agent()
    tied = served.model.config.tie_word_embeddings
    new, _ = make_model(seed=5, tied=tied)
    give: dict[str, Any] = {
        "folder": lambda model: save_model(tmp_path / str(id(model)), model, served.tokenizer),
        "state_dict": lambda model: model.state_dict().items(),
        "parameters": lambda model: model.named_parameters(),
    }
    contexts = next_turn(roots(8), agent.act(roots(8)), words=40)
    before = agent.act(contexts)
    assert max(action.usage.cached_tokens for action in agent.act(contexts)) > 32
    try:
        agent.update_weights(give[way](new))
        after = agent.act(contexts)
        assert largest_difference(new, after) < 1e-4
        assert [a.token_ids for a in after] != [a.token_ids for a in before]
        assert {a.weight_version for a in before} == {0}
        assert {a.weight_version for a in after} == {agent.weight_version} == {1}
    finally:
        agent.update_weights(give[way](served.model))
    again = agent.act(contexts)
    agent.close()
    assert [a.token_ids for a in again] == [a.token_ids for a in before]
    assert largest_difference(served.model, again) < 1e-4


def test_weights_of_another_model_are_refused_and_the_old_ones_stay(served, agent, tmp_path):
    state = served.model.state_dict()
    layer = "model.layers.0.self_attn.q_proj.weight"
    wrong: list[tuple[Any, str]] = [
        ([(layer, state[layer])], "lacks model.embed_tokens"),
        ([(f"module.{name}", tensor) for name, tensor in state.items()], "has unknown module"),
        ([*[(n, t) for n, t in state.items() if n != layer], (layer, state[layer][:1])], rf"has shapes {layer} \[1, "),
        ([], "at least one tensor"),
        (tmp_path / "nowhere", "'no folder'|holds no folder"),
        (tmp_path, "safetensors"),
        ({"a": 1}, "got an entry 'a'"),
    ]
    for given, message in wrong:
        with pytest.raises(ModelError, match=message):
            agent.update_weights(given)
    with pytest.raises(ValueError, match="in_flight must be one of 'keep', 'restart', got 'later'"):
        agent.pause("later")
    assert agent.weight_version == 0
    assert largest_difference(served.model, agent.act(roots(4))) < 1e-4


@pytest.mark.parametrize("in_flight", ["restart", "keep"])
def test_what_is_in_flight_begins_again_or_goes_on(served, in_flight):
    new, _ = make_model(seed=5, tied=served.model.config.tie_word_embeddings)
    contexts = [Context((CONVERSATIONS[i][0],), seed=i) for i in range(32)]
    done: list[Any] = []
    with served.agent(max_tokens=900) as agent:
        asking = threading.Thread(target=lambda: done.extend(agent.act(contexts)))
        asking.start()
        while served.llm.llm_engine.get_num_unfinished_requests() < 8:
            time.sleep(0.001)
        try:
            agent.pause(in_flight)
            agent.update_weights(new.state_dict().items(), in_flight=in_flight)  # does not resume what it found paused
            late = threading.Thread(target=lambda: done.extend(agent.act(roots(2))))
            late.start()
            assert not done
            agent.resume()
            asking.join()
            late.join()
        finally:
            agent.resume()
            agent.update_weights(served.model.state_dict().items())
    assert len(done) == 34
    mixed = 0
    for action in done:
        pairs = zip(action.logprobs, logprobs_of(served.model, action), logprobs_of(new, action), strict=True)
        olds = [abs(ours - old) < 1e-4 for ours, old, _ in pairs]
        news = [abs(a - b) < 1e-4 for a, b in zip(action.logprobs, logprobs_of(new, action), strict=True)]
        switch = next((i for i, same in enumerate(olds) if not same), len(olds))
        assert all(news[switch:]), "what comes after the update is of the new weights, token by token"
        mixed += 0 < switch < len(olds)
        if in_flight == "restart":
            assert action.weight_version == 1 and all(news)
    if in_flight == "keep":
        assert mixed > 4
        assert {a.weight_version for a in done} == {0, 1}


def test_a_cancelled_action_leaves_the_engine(served):
    async def cancel(agent: VLLMAgent) -> None:
        tasks = [asyncio.create_task(agent.respond(context)) for context in roots(8)]
        while served.llm.llm_engine.get_num_unfinished_requests() < 8:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        assert {type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)} == {asyncio.CancelledError}

    with served.agent(max_tokens=900) as agent:
        asyncio.run(cancel(agent))
        assert len(agent.act(roots(1))) == 1
        assert served.llm.llm_engine.get_num_unfinished_requests() == 0


def test_episodes_run_side_by_side_and_their_tokens_are_exact(served, agent):
    tasks = [{"question": f"Compute {i} + 1.", "reference": str(i + 1)} for i in range(4)]
    executor = Concurrent(workers=4)
    with Rollout(lambda: make("agentenv/MathVerifier-v0", attempts=3), agent, executor=executor, seed=3) as rollout:
        trees = rollout.grow(tasks, 4)
    executor.close()
    nodes: list[Any] = [node for tree in trees for node in tree.nodes[1:]]
    assert rollout.failures == 0 and len(nodes) >= 16
    assert rollout.ledger.cost.tokens_sampled == sum(len(node.action.token_ids) for node in nodes)
    assert {node.action.weight_version for node in nodes} == {0}


@pytest.mark.skipif(DEVICE != "cpu", reason="what kills an engine on the CPU does not on a GPU")
def test_what_gives_other_logprobs_or_dies_of_a_seed_is_refused_and_death_is_said(untied, monkeypatch):
    options = {name: value for name, value in OPTIONS.items() if name != "enable_chunked_prefill"}
    llm = importlib.import_module("vllm").LLM(model=str(untied.folder), max_num_batched_tokens=CONTEXT, **options)
    with pytest.raises(ModelError, match="make it with logprobs_mode='processed_logprobs'"):
        VLLMAgent(llm, temperature=0.7)
    with pytest.raises(ModelError, match=f"enable_chunked_prefill=False or max_num_batched_tokens={64 * CONTEXT}"):
        VLLMAgent(llm)
    monkeypatch.setattr("agentenv.agents.vllm_engine._check_engine", lambda *_: None)
    with VLLMAgent(llm, max_tokens=12) as agent:
        assert len(agent.act(roots(2))) == 2
        long = [Context(({"role": "user", "content": f"{i} 8 " * (CONTEXT // 6)},), seed=i) for i in range(4)]
        for _ in range(2):
            with pytest.raises(AgentError, match="the vLLM engine is dead, make a new one"):
                agent.act(long)
        with pytest.raises(AgentError, match="is dead"):
            agent.update_weights(untied.model.named_parameters())
        agent.resume()
    with pytest.raises(AgentError, match="the agent is closed"):
        agent.act(roots(1))


@pytest.mark.skipif(not PAGE.exists(), reason="needs the repository, not a wheel")
def test_the_code_of_the_docs_runs(tied):
    """In a process of its own: vLLM takes all engines of a process down with the one that is closed."""
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    code = "\n".join(block for block in blocks if "VLLMAgent" in block).replace('{"dtype": "float32"}', repr(OPTIONS))
    made = "from vllm_models import make_model, roots\nmodel, contexts = make_model()[0], roots(4)\n"
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", f"{made}folder = {str(tied.folder)!r}\n{code}"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths},
    )  # fmt: skip
    (said,) = re.findall(r"# (\[.*\])$", code, re.MULTILINE)
    assert done.returncode == 0 and said in done.stdout.splitlines(), done.stdout + done.stderr


@pytest.mark.skipif(not BENCHMARK.exists(), reason="needs the repository, not a wheel")
def test_the_benchmark_measures(served):
    spec = importlib.util.spec_from_file_location("agents_vllm", BENCHMARK)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    rows = [*benchmark._engine_rows(served.llm, 1, small=True), *benchmark._tools_rows(served.llm, 1, small=True)]
    assert len(rows) == 4 and all(value > 0 for _, _, value in rows)
    drawn = np.random.default_rng(0).uniform(size=(20_000, 64)) ** 3
    assert benchmark.slowest_over_mean(64, 3) == pytest.approx(drawn.max(1).mean() / drawn.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("engine", "options", "error", "message"),
    [
        ("nowhere", {}, ModelError, "engine must name a folder with a model that vLLM can serve, got 'nowhere'"),
        (3, {}, TypeError, "engine must be an LLM of vLLM, a folder or the URL of a server, got 3"),
        ("nowhere", {"max_tokens": 0}, ValueError, "max_tokens must be at least 1, got 0"),
        ("nowhere", {"temperature": float("nan")}, ValueError, "temperature must be finite"),
        ("nowhere", {"top_p": 0.0}, ValueError, "top_p must be above 0"),
        ("nowhere", {"server_options": {"api_key": "k"}}, ValueError, "server_options must be None unless engine is a"),
        ("http://x", {"engine_options": {"a": 1}}, ValueError, "engine_options must be None unless engine is a folder"),
    ],
)
def test_wrong_arguments_are_named(engine, options, error, message):
    with pytest.raises(error, match=message):
        VLLMAgent(engine, **options)
