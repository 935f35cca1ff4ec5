"""What must hold before weights change: ratios of 1 at the first loss, finite losses and gradients."""

import warnings
from functools import partial

import pytest
import torch
from tiny_chat import random_model
from trainer_env import trainer

from agentenv.credit import StepAdvantages, rtmc_advantages
from agentenv.trainers.guards import active_noise, remove_noise

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def with_lora(model):
    peft = pytest.importorskip("peft")
    targets = ["q_proj", "down_proj"]
    return {"peft_config": peft.LoraConfig(r=4, lora_dropout=0.3, target_modules=targets, init_lora_weights=False)}


def with_fresh_lora(model):
    """Its second factor is 0, so that dropout shows only after the first update."""
    peft = pytest.importorskip("peft")
    return {"peft_config": peft.LoraConfig(r=4, lora_dropout=0.3, target_modules=["q_proj", "down_proj"])}


def with_attention_dropout(model):
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.2
    return {}


def with_a_dropout_module(model):
    model.model.norm = torch.nn.Sequential(model.model.norm, torch.nn.Dropout(0.2))
    return {}


NOISY = [with_lora, with_fresh_lora, with_attention_dropout, with_a_dropout_module]


@pytest.mark.parametrize("noisy", NOISY)
def test_what_was_sampled_without_dropout_is_trained_without_it(tmp_path, noisy):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, max_steps=1, **noisy(model))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="before any update")
        run.train()
    assert run.first_log_ratio.tokens > 20
    assert run.first_log_ratio.largest < 1e-4


@pytest.mark.parametrize("noisy", NOISY)
def test_the_trainer_says_why_the_first_ratio_is_not_one(tmp_path, noisy):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, max_steps=1, disable_dropout=False, **noisy(model))
    names = active_noise(run.model)
    assert names
    with pytest.warns(UserWarning, match="before any update") as caught:
        run.train()
    (told,) = [str(w.message) for w in caught if "before any update" in str(w.message)]
    assert next(iter(names)) in told and "disable_dropout" in told
    assert (run.first_log_ratio.mean > 1e-3) == (noisy is not with_fresh_lora)


def test_a_model_that_computes_otherwise_without_dropout_is_told_of_too(tmp_path):
    """Sampling and loss differ by something that nobody calls dropout."""
    model, tokenizer = random_model()
    forward = model.model.norm.forward
    model.model.norm.forward = lambda hidden: forward(hidden) * (1.3 if model.training else 1.0)
    run = trainer(model, tokenizer, tmp_path, max_steps=1)
    with pytest.warns(UserWarning, match="ratios are not 1: the model computes otherwise"):
        run.train()


def test_checking_the_ratio_changes_no_random_number(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, max_steps=1)
    run.model.train()
    run.current_gradient_accumulation_steps = 1
    batch = run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(4)])
    before = torch.get_rng_state()
    run.compute_loss(run.model, batch)
    assert torch.equal(before, torch.get_rng_state())
    assert run.first_log_ratio is not None


def test_noise_is_found_by_module_and_by_name():
    model = torch.nn.ModuleDict(
        {
            "lstm": torch.nn.LSTM(2, 2, num_layers=2, dropout=0.5),
            "drop": torch.nn.AlphaDropout(0.25),
            "plain": torch.nn.Linear(2, 2),
        }
    )
    model["plain"].layerdrop = 0.1
    model["plain"].use_dropout = True
    assert active_noise(model) == {"lstm.dropout": 0.5, "drop.p": 0.25, "plain.layerdrop": 0.1}
    remove_noise(model)
    assert active_noise(model) == {}


def scaled(arrays, *, by):
    credit = rtmc_advantages(arrays)
    return StepAdvantages(credit.advantages * by, credit.values, credit.action_values, credit.counts)


def weights(model):
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path):
    """Advantages that are finite in float64 and not in float32."""
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator=partial(scaled, by=1e60))
    before = weights(run.model)
    with pytest.raises(FloatingPointError, match=r"loss must be finite, got (nan|inf|-inf) at step 1"):
        run.train()
    assert torch.equal(before, weights(run.model))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_weights(tmp_path, value):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path)
    before = weights(run.model)
    parameter = next(p for n, p in run.model.named_parameters() if "v_proj" in n)
    parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(FloatingPointError, match=r"the gradient of .* is not finite at step 1"):
        run.train()
    assert torch.equal(before, weights(run.model))


def test_environments_are_closed_when_training_stops_with_an_error(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator=partial(scaled, by=1e60))
    closed = []
    run.close = lambda close=run.close: (closed.append(1), close())
    with pytest.raises(FloatingPointError):
        run.train()
    assert closed
