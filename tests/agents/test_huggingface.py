"""TransformersAgent: exact tokens and log-probabilities, whatever the batch, the cache and the turn."""

import warnings
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_chat import CONVERSATIONS, answer, random_model, tiny
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from agentenv.agents import TransformersAgent
from agentenv.agents.sampler import _PASS, _read_apart
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import Agent, Context


def agent_of(model_and_tokenizer: Any = None, **options: Any) -> Any:
    model, tokenizer = model_and_tokenizer or tiny()
    return TransformersAgent(model, tokenizer, **cast("Any", {"max_new_tokens": 12, **options}))


def roots(count: int, per_task: int = 4) -> list[Context]:
    return [Context((CONVERSATIONS[i // per_task][0],), seed=1000 + i) for i in range(count)]


def next_turn(contexts: Any, actions: Any, number: int = 0) -> list[Context]:
    """What rollout would show the agent after its actions; answers of several lengths."""
    out = []
    for i, (context, action) in enumerate(zip(contexts, actions, strict=True)):
        messages = (*context.messages, action.to_message())
        ids = action.prompt_token_ids + action.token_ids
        reply = answer("7 " * (1 + (i + number) % 5))
        out.append(Context((*messages, reply), (), ids, len(messages), context.seed * 31 + number))
    return out


def teacher_forced(model, prompt, sampled, temperature=1.0):
    """Log-probabilities by one plain forward over the whole sequence, without cache or padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + sampled])).logits[0].double()
    logprobs = torch.log_softmax(logits / temperature, -1)
    return [logprobs[len(prompt) - 1 + t, token].item() for t, token in enumerate(sampled)]


def assert_exact(model, actions, temperature=1.0):
    for action in actions:
        expected = teacher_forced(model, action.prompt_token_ids, action.token_ids, temperature)
        assert action.logprobs == pytest.approx(expected, abs=1e-4)  # by float32, on any processor


@pytest.mark.parametrize("keep_gib", [0.0, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_teacher_forcing_over_several_turns(keep_gib, temperature):
    agent = agent_of(temperature=temperature, keep_gib=keep_gib)
    contexts = roots(24)
    lengths = set()
    for number in range(4):
        actions = agent.act(contexts)
        assert_exact(agent.model, actions, temperature)
        for context, action in zip(contexts, actions, strict=True):
            assert action.prompt_token_ids == agent.chat.prompt(context)
            assert 1 <= len(action.token_ids) <= 12
            stopped = action.token_ids[-1] == agent.tokenizer.eos_token_id
            assert action.finish_reason == ("stop" if stopped else "length")
            assert agent.tokenizer.eos_token_id not in action.token_ids[:-1]
            lengths.add(len(action.token_ids))
        contexts = next_turn(contexts, actions, number)[number:]  # some episodes end
    assert len(lengths) > 4


def test_an_action_does_not_depend_on_its_batch():
    agent, alone = agent_of(), agent_of(keep_gib=0.0)
    contexts = roots(20)
    for number in range(3):
        together = agent.act(contexts)
        for i in (0, 7, 19):
            single = alone.act([contexts[i]])[0]
            assert single.token_ids == together[i].token_ids
            assert single.logprobs == pytest.approx(together[i].logprobs, abs=1e-4)  # by float32, on any processor
        assert [a.token_ids for a in agent_of(batch_size=3).act(contexts)] == [a.token_ids for a in together]
        shuffled = agent.act(contexts[::-1])[::-1]
        assert [a.token_ids for a in shuffled] == [a.token_ids for a in together]
        contexts = next_turn(contexts, together, number)


def test_branches_of_one_prefix_share_its_keys_and_stay_exact():
    agent = agent_of()
    first = roots(6, per_task=1)
    second = next_turn(first, agent.act(first))
    branches = [replace(context, seed=100 * i + k) for i, context in enumerate(second) for k in range(5)]
    actions = agent.act(branches)
    assert_exact(agent.model, actions)
    assert len({action.token_ids for action in actions}) > 6  # seeds differ, so branches do
    same = agent.act([replace(second[0], seed=5)] * 3)
    assert len({action.token_ids for action in same}) == 1


def test_known_and_unknown_prefixes_in_one_call():
    agent = agent_of()
    first = roots(8, per_task=1)
    second = next_turn(first, agent.act(first))
    third = next_turn(second, agent.act(second))
    foreign = [replace(c, token_ids=(*c.token_ids[:-1], 1), seed=9) for c in second[:2]]  # never sampled here
    mixed = [first[0], second[1], third[2], foreign[0], third[3], foreign[1], replace(second[1], seed=3)]
    actions = agent.act(mixed)
    assert_exact(agent.model, actions)
    assert [a.token_ids for a in actions] == [a.token_ids for a in agent_of(keep_gib=0.0).act(mixed)]


@pytest.mark.parametrize("long", [[0], [0, 5, 11], range(11)])
def test_one_long_answer_does_not_make_every_row_read_as_much(monkeypatch, long):
    """Those that lack much read ahead, where that is cheaper; what is drawn stays the same."""
    agent = agent_of()
    contexts = roots(12, per_task=1)
    contexts = next_turn(contexts, agent.act(contexts))
    for i in long:
        reply = answer("7 " * 60)
        contexts[i] = replace(contexts[i], messages=(*contexts[i].messages[:-1], reply))
    rows = watch(monkeypatch, agent.model)
    actions = agent.act(contexts)
    new = [len(a.prompt_token_ids) - len(c.token_ids) for a, c in zip(actions, contexts, strict=True)]
    reads = [shape for shape in rows if shape[1] > 1]
    assert sum(b * c for b, c in reads) < 0.6 * len(contexts) * max(new) or len(long) > 8
    assert len(reads) <= 3
    assert_exact(agent.model, actions)
    assert [a.token_ids for a in actions] == [a.token_ids for a in agent_of(keep_gib=0.0).act(contexts)]
    assert_exact(agent.model, agent.act(next_turn(contexts, actions)))


@pytest.mark.parametrize("seed", range(20))
def test_reading_ahead_is_never_dearer_than_reading_at_once(seed):
    rng = np.random.default_rng(seed)
    lack = [int(n) for n in rng.choice([1, 3, 6, 40, 300], rng.integers(1, 40))]
    ahead = _read_apart(lack)
    left = [n for i, n in enumerate(lack) if i not in ahead]
    assert left and (not ahead or min(lack[i] for i in ahead) > max(left))
    cost = max(left) * len(lack) + (max(lack) - 1) * len(ahead) + _PASS * bool(ahead)
    cuts = [max(lack) * len(lack)] + [
        c * len(lack) + (max(lack) - 1) * sum(n > c for n in lack) + _PASS for c in set(lack) - {max(lack)}
    ]
    assert cost == min(cuts)


def watch(monkeypatch, model) -> list[Any]:
    """Shapes `[B, C]` of what the model reads from now on, but for the fixed tokens that tell whether it changed."""
    shapes: list[Any] = []
    forward = model.forward

    def watched(*args, **kwargs):
        if kwargs.get("use_cache"):
            shapes.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", watched)
    return shapes


def test_equal_prompts_are_read_once(monkeypatch):
    agent = agent_of()
    rows = watch(monkeypatch, agent.model)
    contexts = roots(24, per_task=8)
    actions = agent.act(contexts)
    assert rows[0][0] == 3
    assert rows[1] == (24, 1)
    rows.clear()
    contexts = next_turn(contexts, actions)
    actions = agent.act(contexts)
    new = [len(a.prompt_token_ids) - len(c.token_ids) for a, c in zip(actions, contexts, strict=True)]
    assert rows[0][1] == 1 + max(new)  # and the last sampled token, which no forward has read


def test_finished_rows_leave_the_batch(monkeypatch):
    agent = agent_of(max_new_tokens=200)
    rows = watch(monkeypatch, agent.model)
    contexts = roots(64)
    actions = agent.act(contexts)
    assert rows[-1][0] <= 32
    assert_exact(agent.model, actions)
    assert_exact(agent.model, agent.act(next_turn(contexts, actions)))


def train_step(model, optimizer):
    model.train()
    model(input_ids=torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def fused(model):
    train_step(model, torch.optim.AdamW(model.parameters(), lr=0.01, fused=True))


def plain(model):
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.05))


def moving_average(model):
    for parameter in model.parameters():
        parameter.data.lerp_(torch.ones_like(parameter), 0.02)


def loaded(model):
    model.load_state_dict({name: value * 1.05 for name, value in model.state_dict().items()})


def raw_memory(model):
    weight = model.model.layers[0].mlp.up_proj.weight
    weight.detach().numpy()[0, 0] += 0.5


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("change", [fused, plain, moving_average, loaded, raw_memory])
def test_changed_weights_make_kept_keys_void(change, told):
    model, tokenizer = random_model(seed=3)
    agent = agent_of((model, tokenizer))
    contexts = roots(8)
    first = agent.act(contexts)
    contexts = next_turn(contexts, first)
    change(model)
    training = model.training
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if told:
            agent.weights_changed()
        actions = agent.act(contexts)
    assert model.training == training
    model.eval()
    assert_exact(model, actions)
    assert {a.weight_version for a in first} == {0}
    assert {a.weight_version for a in actions} == {agent.weight_version} == {1}
    assert ["weights_changed" in str(warning.message) for warning in caught] == [True] * (not told)


def test_adapters_switched_off_and_on_are_other_weights():
    model, tokenizer = random_model(seed=3)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    agent = agent_of((adapted, tokenizer))
    contexts = next_turn(roots(8), agent.act(roots(8)))
    with adapted.disable_adapter():
        agent.weights_changed()
        assert_exact(adapted, agent.act(contexts))
    with pytest.warns(RuntimeWarning, match="switched adapters"):
        assert_exact(adapted, agent.act(contexts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_exact(adapted, agent.act(next_turn(contexts, agent.act(contexts))))


def test_reset_frees_and_zero_keeps_nothing():
    agent = agent_of()
    agent.act(roots(4))
    assert len(agent._sampler.kept) == 4
    agent.reset()
    assert len(agent._sampler.kept) == 0
    agent = agent_of(keep_gib=0.0)
    agent.act(roots(4))
    assert len(agent._sampler.kept) == 0


def test_the_oldest_keys_leave_first():
    agent = agent_of(keep_gib=1e-3)  # about two turns of eight contexts
    contexts = roots(8)
    for number in range(4):
        actions = agent.act(contexts)
        contexts = next_turn(contexts, actions, number)
    store = agent._sampler.kept
    assert store._bytes <= store._limit
    assert store.find(contexts[0].token_ids) is not None
    assert 8 <= len(store) < 32, store._bytes


def test_modes_of_modules_come_back_one_by_one():
    model, tokenizer = random_model()
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    agent_of((model, tokenizer)).act(roots(2))
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_model_can_be_trained_right_after_acting():
    model, tokenizer = random_model()
    agent = agent_of((model, tokenizer))
    agent.act(roots(4))
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_frequencies_are_the_models_probabilities():
    agent = agent_of(max_new_tokens=1)
    count = 4000
    actions = agent.act([Context((CONVERSATIONS[0][0],), seed=i) for i in range(count)])
    prompt = actions[0].prompt_token_ids
    with torch.no_grad():
        probabilities = agent.model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    drawn = torch.bincount(torch.tensor([a.token_ids[0] for a in actions]), minlength=len(probabilities)) / count
    likely = probabilities > 0.01
    assert likely.sum() > 5
    deviation = (drawn - probabilities)[likely] / (probabilities * (1 - probabilities) / count)[likely].sqrt()
    assert deviation.abs().max() < 5


def test_temperature_zero_takes_the_likeliest():
    agent = agent_of(temperature=0.0)
    for action in agent.act(roots(6)):
        logits = agent.model(input_ids=torch.tensor([action.prompt_token_ids + action.token_ids])).logits[0]
        start = len(action.prompt_token_ids) - 1
        assert logits[start:-1].argmax(-1).tolist() == list(action.token_ids)
        assert set(action.logprobs) == {0.0}


def gpt2(tokenizer):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu():
    model, tokenizer = random_model()
    agent = agent_of((model.to("cuda").double(), tokenizer))
    reference = agent_of((random_model()[0].double(), tokenizer))
    contexts = roots(24)
    for number in range(3):
        actions, expected = agent.act(contexts), reference.act(contexts)
        assert [a.token_ids for a in actions] == [a.token_ids for a in expected]
        contexts = next_turn(contexts, actions, number)


def test_a_full_window_cuts_and_then_silences():
    tokenizer = tiny()[1]
    agent = agent_of((gpt2(tokenizer).eval(), tokenizer), max_new_tokens=100)
    prompt = len(agent.chat.prompt(roots(1)[0]))
    long = Context(({"role": "user", "content": "1 " * 200},), seed=1)
    cut, silent = agent.act([roots(1)[0], long])
    assert len(cut.token_ids) in range(1, 128 - prompt + 1)
    assert (silent.token_ids, silent.logprobs, silent.finish_reason) == ((), (), "length")


def test_tokens_used_are_counted():
    agent = agent_of()
    contexts = [*roots(2, per_task=1), *roots(1, per_task=1)]
    first = agent.act(contexts)
    for action in first:
        assert (action.usage.prompt_tokens, action.usage.completion_tokens) == (
            len(action.prompt_token_ids),
            len(action.token_ids),
        )
    assert [action.usage.cached_tokens for action in first] == [0, 0, first[2].usage.prompt_tokens]
    second = next_turn(contexts, first)[:2]
    for context, action in zip(second, agent.act(second), strict=True):
        known = len(context.token_ids)
        assert 0 < action.usage.cached_tokens < known
    assert {action.usage.cached_tokens for action in agent_of(keep_gib=0.0).act(second)} == {0}


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_limit_of_a_context_is_kept(limit):
    assert agent_of().honors == {"max_tokens"}
    actions = agent_of().act([replace(context, max_tokens=limit) for context in roots(8)])
    assert max(len(action.token_ids) for action in actions) == min(limit, 12)
    free = agent_of().act(roots(8))
    assert [a.token_ids for a in actions] == [a.token_ids[:limit] for a in free]


def test_it_is_an_agent():
    assert isinstance(agent_of(), Agent)
    assert agent_of().act([]) == []


def test_save_and_load(tmp_path):
    model, tokenizer = tiny()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    agent = TransformersAgent.from_pretrained(tmp_path, max_new_tokens=12, device="cpu")
    assert [a.token_ids for a in agent.act(roots(6))] == [a.token_ids for a in agent_of().act(roots(6))]


def test_a_folder_without_tokenizer_or_model_is_refused(tmp_path):
    model, tokenizer = tiny()
    with pytest.raises(ModelError, match=r"folder must hold a model \(config.json and weights\), .* holds \[\]"):
        TransformersAgent.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"folder must hold a tokenizer .*: write it there with tokenizer.save_pretrained"
    ):
        TransformersAgent.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="folder must name a causal language model and its tokenizer"):
        TransformersAgent.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"max_new_tokens": 0}, {"batch_size": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"keep_gib": -1}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        agent_of(**options)


def test_a_broken_model_is_an_agent_error(tmp_path):
    model, tokenizer = tiny()
    model.save_pretrained(tmp_path)
    broken = AutoModelForCausalLM.from_pretrained(tmp_path)
    broken.model.layers[0].mlp.gate_proj.weight.data = torch.zeros(3, 3)
    with pytest.raises(AgentError, match="the model failed on 2 contexts: RuntimeError"):
        agent_of((broken, tokenizer)).act(roots(2))
    infinite: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    infinite.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(AgentError, match="log-probabilities must be finite"):
        agent_of((infinite, tokenizer)).act(roots(2))
