"""TRL's options: each one is honored or refused by name; nothing is ignored in silence."""

import importlib.util
from dataclasses import fields

import numpy as np
import pytest
from tiny_chat import random_model
from trainer_env import config, trainer
from transformers import TrainingArguments
from trl.trainer.grpo_config import GRPOConfig

from agentenv.trainers import options
from agentenv.trainers.options import HONORED, REFUSED

pytestmark = pytest.mark.model

OWN = {field.name for field in fields(GRPOConfig)} - {field.name for field in fields(TrainingArguments)}


def another(value):
    """A value of the same kind that is not the default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value} and more" if isinstance(value, str) else {"some": 1}


def test_every_option_of_trl_stands_in_one_table():
    assert HONORED | set(REFUSED) >= OWN
    assert not HONORED & set(REFUSED)
    assert HONORED <= OWN
    assert set(REFUSED) <= {field.name for field in fields(GRPOConfig)}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_would_be_ignored_is_refused_by_name(tmp_path, name):
    default = next(field.default for field in fields(GRPOConfig) if field.name == name)
    given = another(default)
    with pytest.raises(ValueError) as caught:
        config(tmp_path, **{name: given})
    assert str(caught.value) == f"{name} must be {default!r}, got {given!r}: {REFUSED[name]}"
    config(tmp_path, **{name: default})


@pytest.mark.parametrize(
    "neutral", [{"top_k": None}, {"top_k": -1}, {"min_p": 0.0}, {"scale_rewards": True}, {"generation_kwargs": None}]
)
def test_other_ways_to_say_nothing_pass(tmp_path, neutral):
    config(tmp_path, **neutral)


def test_an_option_of_a_newer_trl_is_refused_until_it_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(options, "HONORED", HONORED - {"delta", "entropy_coef"})
    config(tmp_path)
    with pytest.raises(ValueError, match=r"delta must be None, got 3.0: .* does not know"):
        config(tmp_path, delta=3.0)
    with pytest.raises(ValueError, match=r"entropy_coef must be 0.0, got 0.1"):
        config(tmp_path, entropy_coef=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_rollouts": 2.5}, "num_rollouts must be an integer, got 2.5"),
        ({"num_rollouts": True}, "num_rollouts must be an integer, got True"),
        ({"num_continuations": None}, "num_continuations must be an integer, got None"),
        ({"max_packed_tokens": 1.5}, "max_packed_tokens must be an integer or None, got 1.5"),
        ({"max_episode_tokens": "64"}, "max_episode_tokens must be an integer or None, got '64'"),
        ({"disable_dropout": "no"}, "disable_dropout must be True or False, got 'no'"),
        ({"allow_changes": 1}, "allow_changes must be True or False, got 1"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"epsilon": float("nan")}, "epsilon must be a number, got nan"),
        ({"beta": True}, "beta must be a number, got True"),
        ({"learning_rate": float("inf")}, "learning_rate must be at least 0 and finite, got inf"),
        ({"weight_decay": float("inf")}, "weight_decay must be at least 0 and finite, got inf"),
        ({"loss_type": "gspo"}, "loss_type must be 'dapo', 'bnpo'.* or 'vespo', got 'gspo'"),
        ({"importance_sampling_level": "step"}, "importance_sampling_level must be 'token' or 'sequence', got 'step'"),
    ],
)
def test_settings_of_another_kind_are_named(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        config(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vllm_mode": "server"}, "vllm_mode must be 'colocate', got 'server': it is for use_vllm=True"),
        ({"vllm_server_port": 8001}, "vllm_server_port must be 8000, got 8001: it is for .*vllm_mode='server'"),
        ({"vllm_max_model_length": 64}, "vllm_max_model_length must be None, got 64: it is for use_vllm=True"),
        ({"use_vllm": True, "vllm_group_port": 9}, "vllm_group_port must be 51216, got 9: .*vllm_mode='server'"),
        (
            {"use_vllm": True, "vllm_mode": "server", "vllm_gpu_memory_utilization": 0.5},
            "vllm_gpu_memory_utilization must be 0.3, got 0.5: .*vllm_mode='colocate'",
        ),
        ({"use_vllm": True, "vllm_mode": "remote"}, "vllm_mode must be 'colocate' or 'server', got 'remote'"),
        ({"use_vllm": True, "staleness": 1}, "staleness must be 0 with use_vllm=True, got 1"),
        ({"use_vllm": True, "predictor": "hidden"}, "predictor must be 'text' with use_vllm=True, got 'hidden'"),
        ({"use_vllm": True, "vllm_enable_sleep_mode": True}, "vllm_enable_sleep_mode must be False with use_vllm"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, "vllm_tensor_parallel_size must be 1 .*'server'"),
        ({"use_vllm": "yes"}, "use_vllm must be True or False, got 'yes'"),
    ],
)
def test_settings_of_vllm_that_would_be_ignored_or_cannot_hold_are_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        config(tmp_path, **options)


def test_nothing_else_samples_beside_trls_vllm(tmp_path):
    config(tmp_path, use_vllm=True, vllm_mode="server", vllm_server_base_url="http://127.0.0.1:9")
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match="agent must be left out with use_vllm=True"):
        trainer(model, tokenizer, tmp_path, use_vllm=True, agent=lambda *_: None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"use_vllm": True},
            "with use_vllm=True, which vLLM makes its engine of; this one was made in memory: save_pre",
        ),
        (
            {"beta": 0.1},
            "with beta=0.1, whose reference is read from there; this one was made in memory: save_pretrained",
        ),
        ({"use_vllm": True, "beta": 0.1}, "with use_vllm=True, .* and beta=0.1"),
    ],
)
def test_what_is_read_from_a_models_files_needs_some(tmp_path, options, words):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match=f"model must come from a folder or the hub {words}"):
        trainer(model, tokenizer, tmp_path, **options)


@pytest.mark.parametrize("mode", [{}, {"vllm_mode": "server"}])
def test_without_vllm_a_run_that_wants_it_says_how_to_install_it(tmp_path, mode):
    assert importlib.util.find_spec("vllm") is None
    _, tokenizer = random_model()
    with pytest.raises(ImportError, match=r"use_vllm=True needs vllm: .*\[vllm\]"):
        trainer("some/model", tokenizer, tmp_path, use_vllm=True, **mode)


def test_numbers_of_other_libraries_are_numbers(tmp_path):
    made = config(tmp_path, num_rollouts=np.int64(4), temperature=np.float32(1), beta=0, epsilon_high=float("inf"))
    assert made.num_rollouts == 4


def test_variables_of_the_chat_template_reach_it(tmp_path):
    model, tokenizer = random_model()
    tokenizer.chat_template = "{% if mark is defined %}{{ mark }}{% endif %}" + tokenizer.chat_template
    seen = []
    for given in ({"mark": "Compute Compute "}, {}):
        run = trainer(model, tokenizer, tmp_path, max_steps=1, chat_template_kwargs=given, num_continuations=0)
        run.train()
        seen.append(tokenizer.decode(run.last_trees[0].prompt_token_ids(0)))
    assert seen[0].startswith("Compute Compute ")
    assert not seen[1].startswith("Compute Compute ")


def test_the_temperature_is_that_of_sampling_and_of_the_loss(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, max_steps=1, temperature=0.7)
    run.train()
    assert run.first_log_ratio.tokens > 0
    assert run.first_log_ratio.largest < 1e-4


def test_the_constant_of_dr_grpo_is_max_completion_length(tmp_path):
    assert config(tmp_path, loss_type="dr_grpo").max_completion_length == 512
    grads = []
    for constant in (64, 128):
        model, tokenizer = random_model()
        run = trainer(model, tokenizer, tmp_path, max_steps=1, loss_type="dr_grpo", max_completion_length=constant)
        run.train()
        grads.append(next(log["grad_norm"] for log in run.state.log_history if "grad_norm" in log))
    assert grads[0] == pytest.approx(2 * grads[1], rel=1e-4)
