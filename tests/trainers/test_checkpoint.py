"""Checkpoints hold all that decides what a run does next, and a run that goes on is the one that never stopped."""

import shutil
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, trainer, weights_of
from transformers import AutoModelForCausalLM

from agentenv.credit import rtmc_advantages
from agentenv.trainers.checkpoint import last_checkpoint, load_parts, save_parts
from agentenv.tree import Anchor

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Moody:
    """An allocator that remembers how often it was asked, and draws from a generator of its own."""

    def __init__(self):
        self.calls = 0
        self.rng = np.random.default_rng(3)

    def __call__(self, trees, budget, rng):
        self.calls += 1
        places: list[tuple[int, int]] = [
            (i, node) for i, tree in enumerate(trees) for node in sorted(tree.snapshots) if node
        ]
        if not places:
            return []
        chosen = self.rng.integers(len(places), size=min(budget, 1 + self.calls % 4))
        return [Anchor(places[k][0], places[k][1], 1) for k in chosen]

    def state_dict(self):
        return {"calls": self.calls, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.calls, self.rng.bit_generator.state = state["calls"], state["rng"]


class NoisyCredit:
    """An estimator with random state: RTMC and some noise."""

    def __init__(self):
        self.rng = np.random.default_rng(5)

    def __call__(self, arrays):
        credit = rtmc_advantages(arrays)
        return replace(credit, advantages=credit.advantages + 0.1 * self.rng.normal(size=len(arrays)))

    def state_dict(self):
        return {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state):
        self.rng.bit_generator.state = state["rng"]


def run_to(folder, steps, *, resume=None, **options):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, folder, max_steps=steps, save_strategy="steps", save_steps=1, **options)
    run.train(resume_from_checkpoint=resume)
    return run


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"allocator": Moody(), "estimator": NoisyCredit()},
        lambda: {"allocator": "trace"},
        lambda: {"allocator": "trace", "predictor": "hidden"},
        lambda: {"steps_per_generation": 6, "gradient_accumulation_steps": 2, "allocator": Moody()},
        lambda: {"num_iterations": 3},
        lambda: {"eval_strategy": "steps", "eval_steps": 1, "eval_tasks": TASKS[:5], "steps_per_generation": 4},
    ],
    ids=["parts", "trace", "hidden", "several_steps_per_generation", "several_iterations", "evaluated"],
)
def test_a_resumed_run_ends_in_the_same_weights_bit_for_bit(tmp_path, options):
    def logs(run):
        return [(log["loss"], log.get("reward")) for log in run.state.log_history if "loss" in log]

    whole = run_to(tmp_path, 4, **options())
    for stop in (1, 3):
        again = run_to(tmp_path, 4, resume=str(tmp_path / f"checkpoint-{stop}"), **options())
        assert torch.equal(weights_of(whole), weights_of(again))
        assert logs(whole) == logs(again)


def test_a_reference_that_follows_the_model_goes_on_too(tmp_path):
    made, tokenizer = random_model()
    made.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    follows = {"beta": 0.5, "sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5}

    def run_from(resume):
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2, **follows}
        run = trainer(model, tokenizer, tmp_path / "run", **settings)
        run.train(resume_from_checkpoint=resume)
        return run

    whole = run_from(None)
    shutil.rmtree(tmp_path / "run" / "checkpoint-3")
    again = run_from(True)
    assert torch.equal(weights_of(whole), weights_of(again))
    pairs = zip(whole.ref_model.parameters(), again.ref_model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(made.parameters()), next(again.ref_model.parameters()))


def test_evaluation_changes_nothing_of_what_is_trained(tmp_path):
    options = {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
    looks = {"eval_strategy": "steps", "eval_steps": 1, "eval_tasks": TASKS[:5], "eval_rollouts": 2}
    runs = [run_to(tmp_path / str(len(more)), 3, **options, **more) for more in ({}, looks)]
    assert torch.equal(weights_of(runs[0]), weights_of(runs[1]))


def test_evaluation_makes_no_gpu_ready_for_a_run_on_the_cpu(tmp_path, monkeypatch):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, eval_tasks=TASKS[:2], eval_rollouts=1)

    def full():
        msg = "CUDA error: out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", full)
    assert "eval_success" in run.evaluate()


def test_one_trainer_may_go_back(tmp_path):
    """What it has in memory of later steps is left behind."""
    options = {"steps_per_generation": 4, "gradient_accumulation_steps": 2}
    run = run_to(tmp_path, 3, **options)
    weights = weights_of(run)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert torch.equal(weights, weights_of(run))


@pytest.mark.parametrize("break_it", ["no_mark", "cut_mark", "empty"])
def test_a_checkpoint_that_a_crash_cut_off_is_passed_over(tmp_path, break_it):
    run_to(tmp_path, 2)
    newest = tmp_path / "checkpoint-2"
    mark = newest / "trainer_state.json"
    if break_it == "no_mark":
        mark.unlink()
    elif break_it == "cut_mark":
        mark.write_bytes(mark.read_bytes()[:100])
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    assert run_to(tmp_path, 2, resume=True).state.global_step == 2


def test_a_part_that_the_checkpoint_does_not_know_is_named(tmp_path):
    constant = {"lr_scheduler_type": "constant"}
    run_to(tmp_path, 1, allocator=Moody(), **constant)
    (tmp_path / "checkpoint-1" / "agentenv_state" / "allocator.pt").unlink()
    with pytest.raises(ValueError, match=r"no state of allocator \(Moody\).*--override"):
        run_to(tmp_path, 2, resume=True, allocator=Moody(), **constant)
    with pytest.warns(RuntimeWarning, match="begins anew"):
        run_to(tmp_path, 2, resume=True, allocator=Moody(), allow_changes=True, **constant)


def test_a_changed_allocator_is_refused_as_a_setting_first(tmp_path):
    run_to(tmp_path, 1)
    with pytest.raises(ValueError, match=r"allocator is 'even' in the run, .*Moody"):
        run_to(tmp_path, 2, resume=True, allocator=Moody())


class Part:
    def __init__(self, state: Any):
        self.state: Any = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_plain_values_come_back_as_they_were(tmp_path):
    state: dict[str, Any] = {
        "array": np.arange(6.0).reshape(2, 3),
        "float32": np.float32(0.1),
        "bool": np.array([True, False]),
        "text": np.array(["a", "bc"]),
        "tensor": torch.arange(3),
        "rng": np.random.default_rng(1).bit_generator.state,
        "nested": [1, (2.5, None), {"x": "y"}],
    }
    part = Part(None)
    save_parts({"a": Part(state)}, tmp_path)
    load_parts({"a": part}, tmp_path)
    assert part.state["rng"] == state["rng"] and part.state["nested"] == state["nested"]
    for name in ("array", "float32", "bool", "text"):
        np.testing.assert_array_equal(part.state[name], state[name], strict=True)
    assert torch.equal(part.state["tensor"], state["tensor"])


@pytest.mark.parametrize(
    "value",
    [object(), np.random.default_rng(1), len, lambda: 0, threading.Lock(), iter([])],
    ids=["object", "generator", "function", "lambda", "lock", "iterator"],
)
def test_what_is_no_plain_value_is_refused_when_it_is_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"state_dict\(\) of mine \(Part\) must hold plain values"):
        save_parts({"mine": Part({"value": value})}, tmp_path)


def test_a_process_that_the_run_did_not_have_takes_the_state_of_the_first_if_told_to(tmp_path):
    save_parts({"a": Part({"who": 0})}, tmp_path)
    save_parts({"a": Part({"who": 1})}, tmp_path, rank=1)
    parts = [Part(None) for _ in range(3)]
    for rank, part in enumerate(parts):
        load_parts({"a": part}, tmp_path, rank=rank, fresh=rank == 2)
    assert [part.state["who"] for part in parts] == [0, 1, 0]
    with pytest.raises(ValueError, match=r"holds no state of a \(Part\) for process 2: set allow_changes"):
        load_parts({"a": Part(None)}, tmp_path, rank=2)


def test_a_state_that_does_not_fit_is_named(tmp_path):
    save_parts({"allocator": Part({"other": 1})}, tmp_path)
    with pytest.raises(ValueError, match=r"allocator \(Moody\) cannot take its state from .*'calls'"):
        load_parts({"allocator": Moody()}, tmp_path)
