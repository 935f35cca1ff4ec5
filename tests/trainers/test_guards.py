"""What must hold before weights change: ratios of 1 at the first loss, finite losses and gradients."""

import json
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Digits, config, trainer
from trl.trainer.grpo_config import GRPOConfig

from agentenv.agents import TransformersAgent
from agentenv.credit import ALLOCATORS, StepAdvantages, rtmc_advantages, sr_ppo_advantages
from agentenv.trainers import SRPPOConfig, SRPPOTrainer, TreeTrainer
from agentenv.trainers.guards import active_noise, remove_noise
from agentenv.trainers.layout import CONTEXT
from agentenv.tree import Anchor

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
    plain: Any = model["plain"]
    plain.layerdrop = 0.1
    plain.use_dropout = True
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


def spoiled(arrays, *, value, at):
    credit = rtmc_advantages(arrays)
    advantages = credit.advantages.copy()
    advantages[at] = value
    return StepAdvantages(advantages, credit.values, credit.action_values, credit.counts)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_one_advantage_that_is_not_finite_is_named_with_its_estimator_tree_and_node(tmp_path, value):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator=partial(spoiled, value=value, at=-1))
    before = weights(run.model)
    with pytest.raises(ValueError, match=rf"spoiled\(.*advantages must be finite; it is {value} at node \d+ of tree 3"):
        run.train()
    assert torch.equal(before, weights(run.model))


def test_an_estimator_that_returns_something_else_is_named(tmp_path):
    model, tokenizer = random_model()
    for wrong, words in (
        (lambda arrays: rtmc_advantages(arrays).advantages, "must return StepAdvantages, got ndarray"),
        (
            lambda arrays: StepAdvantages(np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3, np.int64)),
            r"advantages must have shape \[N\]",
        ),
    ):
        run = trainer(model, tokenizer, tmp_path, estimator=wrong)
        with pytest.raises((TypeError, ValueError), match=words):
            run.train()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda given, rows: given.advantages, "must return TokenAdvantages, got ndarray"),
        (lambda given, rows: rtmc_advantages(rows.arrays), "must return TokenAdvantages, got StepAdvantages"),
        (
            lambda given, rows: replace(given, advantages=given.advantages[:, :-1]),
            r"advantages must have shape \[B, L\]",
        ),
        (
            lambda given, rows: replace(given, advantages=np.where(rows.trained, np.inf, 0)),
            r"advantages must be finite; it is inf at node \d+ of tree 0, row 0",
        ),
        (
            lambda given, rows: replace(given, values=np.where(rows.arrays.tree_ids[rows.nodes] == 3, np.nan, 0.0)),
            r"values must be finite; it is nan at node \d+ of tree 3",
        ),
    ],
)
def test_what_an_estimator_of_tokens_must_not_return_is_named(tmp_path, spoil, words):
    def own_critic(rows):
        sampled = rows.nodes != CONTEXT
        half = np.where(sampled, 0.5, 0.0)
        return spoil(sr_ppo_advantages(half, rows.arrays.succeeded[rows.ends], sampled, k=1.0), rows)

    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, token_estimator=own_critic)
    before = weights(run.model)
    with pytest.raises((TypeError, ValueError), match=rf"own_critic.*{words}"):
        run.train()
    assert torch.equal(before, weights(run.model))


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (
            lambda trees, budget: [Anchor(0, 0, budget + 1)],
            "at most its budget of 8 .* ask for 9",
        ),
        (lambda trees, budget: [Anchor(0, 0, -1)], "count must be at least 0"),
        (lambda trees, budget: [Anchor(0, trees[0].leaves()[0], 1)], "the episode ended at this node"),
        (lambda trees, budget: [Anchor(9, 0, 1)], r"tree must be an index in \[0, 4\)"),
        (lambda trees, budget: [(0, 0, 1)], "must return a list of agentenv.tree.Anchor; entry 0 is of type tuple"),
        (lambda trees, budget: None, "must return a list of agentenv.tree.Anchor, got NoneType"),
    ],
)
def test_what_an_allocator_must_not_return_is_named(tmp_path, choose, words):
    def own_rule(trees, budget, rng):
        return choose(trees, budget)

    model, tokenizer = random_model()
    with pytest.raises((TypeError, ValueError), match=rf"own_rule.*{words}"):
        trainer(model, tokenizer, tmp_path, allocator=own_rule).train()


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
def test_every_allocator_trains_by_its_name(tmp_path, name):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, allocator=name, max_steps=2)
    run.train()
    assert run.state.global_step == 2
    assert sum(len(tree.leaves()) for tree in run.last_trees) > 12  # 4 trees with 3 full episodes each, and more


def test_an_estimator_trains_by_its_name(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator="dr_grpo", max_steps=1)
    run.train()
    assert run.state.global_step == 1
    assert json.loads((tmp_path / "run.json").read_text())["estimator"] == "agentenv.credit.grpo.dr_grpo_advantages"
    with pytest.raises(ValueError, match=r"estimator must be .*'rtmc'.*got 'rtcm'; did you mean 'rtmc'"):
        trainer(model, tokenizer, tmp_path / "other", estimator="rtcm")


def test_an_allocator_that_there_is_not_is_named(tmp_path):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match=r"allocator must be .*'even'.*got 'evenly'"):
        trainer(model, tokenizer, tmp_path, allocator="evenly")


def test_an_agent_that_samples_otherwise_than_the_loss_is_refused(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, agent=partial(TransformersAgent, temperature=0.5))
    with pytest.raises(ValueError, match=r"agent must sample with temperature=1, TransformersAgent has 0.5"):
        run.train()

    class Nucleus(TransformersAgent):
        top_p = 0.9

    run = trainer(model, tokenizer, tmp_path, agent=Nucleus)
    with pytest.raises(ValueError, match=r"agent must sample with top_p=1, Nucleus has 0.9"):
        run.train()


def test_settings_of_another_trainer_are_refused(tmp_path):
    model, tokenizer = random_model()
    stock = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    critic = SRPPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    for kind, args, told in (
        (TreeTrainer, stock, "a TreeConfig, got GRPOConfig"),
        (TreeTrainer, critic, "a TreeConfig, got SRPPOConfig"),
        (SRPPOTrainer, config(tmp_path), "a SRPPOConfig, got TreeConfig"),
    ):
        with pytest.raises(TypeError, match=f"args must be {told}"):
            kind(model, args, env=Digits, train_tasks=TASKS, processing_class=tokenizer)  # pyright: ignore[reportArgumentType]


def test_token_credit_trains(tmp_path):
    """SR-PPO's credit from a critic that knows nothing: 1/2 everywhere, so that every episode's end gets the credit."""

    def critic(rows):
        sampled = rows.nodes != CONTEXT
        half = np.where(sampled, 0.5, 0.0)
        return sr_ppo_advantages(half, rows.arrays.succeeded[rows.ends], sampled, k=1.0)

    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, token_estimator=critic)
    run.train()
    assert all(log["grad_norm"] > 0 for log in run.state.log_history if "grad_norm" in log)
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["estimator"].endswith("critic")


def test_environments_are_closed_when_training_stops_with_an_error(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator=partial(scaled, by=1e60))
    closed = []
    run.close = lambda close=run.close: (closed.append(1), close())
    with pytest.raises(FloatingPointError):
        run.train()
    assert closed
