"""Sampling ahead of the update: how old samples may be, that they are corrected, that nothing is lost or random."""

import asyncio
import copy
import threading
import time

import numpy as np
import pytest
import torch
from tiny_chat import random_model
from trainer_env import Digits, trainer, weights_of

from agentenv.agents import TransformersAgent
from agentenv.checkpoints import whole_checkpoints
from agentenv.protocols import AsyncAgent
from agentenv.trainers.ahead import correct
from agentenv.trainers.generation import Generation

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run_to(folder, steps=5, *, resume=None, **options):
    model, tokenizer = random_model()
    settings = {"staleness": 1, "lr_scheduler_type": "constant", "max_steps": steps, **options}
    run = trainer(model, tokenizer, folder, **settings)
    run.train(resume_from_checkpoint=resume)
    return run


def logs_of(run, *names):
    return [[log.get(name) for name in names] for log in run.state.log_history if "loss" in log]


@pytest.mark.parametrize("staleness", [1, 2])
def test_samples_are_as_old_as_they_may_be_and_no_older(tmp_path, staleness):
    run = run_to(tmp_path, staleness=staleness)
    ages = [age for (age,) in logs_of(run, "sampling/staleness")]
    assert ages == [0, 1, 2, 2, 2] if staleness == 2 else ages == [0, 1, 1, 1, 1]
    ratios = logs_of(run, "sampling/importance_ratio", "sampling/truncated")
    assert ratios[0] == [pytest.approx(1.0, abs=1e-5), 0.0]
    assert all(abs(mean - 1) > 1e-4 for mean, _ in ratios[1:])  # the weights had moved on
    assert not [thread for thread in threading.enumerate() if "ahead" in thread.name]


def test_old_samples_carry_the_probabilities_of_the_weights_that_sampled_them(tmp_path):
    """Of two generations the second is sampled before the update, with a copy that the update does not touch."""
    model, tokenizer = random_model()
    before = copy.deepcopy(model)
    run = trainer(model, tokenizer, tmp_path, staleness=1, max_steps=2, learning_rate=0.1)
    run.train()
    assert logs_of(run, "sampling/staleness") == [[0.0], [1.0]]
    for tree in run.last_trees:
        for node in range(1, len(tree)):
            action, whole = tree.nodes[node].action, torch.tensor([tree.token_ids(node)])
            with torch.no_grad():
                logprobs = torch.log_softmax(before(whole).logits[0, :-1], -1)
            at = whole.size(1) - len(action.token_ids) - 1
            mine = logprobs[at:].gather(1, whole[0, at + 1 :, None])[:, 0].numpy()
            np.testing.assert_allclose(action.logprobs, mine, atol=2e-4)


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_what_goes_wrong_ahead_takes_no_checkpoint_that_is_due(tmp_path, staleness):
    begun = []

    class Breaks(Digits):
        def start(self, task):
            begun.append(task)
            return super().start(task)

        def respond(self, action):
            if len(begun) > 3 * 4:
                msg = "a bug of the environment, met in the fourth generation"
                raise RuntimeError(msg)
            return super().respond(action)

    options = {"num_rollouts": 2, "num_continuations": 0, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(RuntimeError, match="a bug of the environment"):
        run_to(tmp_path, 6, staleness=staleness, env=Breaks, **options)
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-3", "checkpoint-2", "checkpoint-1"]
    again = run_to(tmp_path, 4, resume=True, staleness=staleness, allow_changes=True, **options)
    assert again.state.global_step == 4


@pytest.mark.parametrize(("staleness", "parts", "steps"), [(1, 2, 2), (2, 1, 2), (1, 4, 3), (3, 3, 3)], ids=str)
def test_no_more_is_sampled_than_is_trained(tmp_path, monkeypatch, staleness, parts, steps):
    grown, grow = [], Generation.grow
    monkeypatch.setattr(Generation, "grow", lambda self, *a, **k: grown.append(1) or grow(self, *a, **k))
    run_to(
        tmp_path, steps, staleness=staleness, steps_per_generation=parts, gradient_accumulation_steps=4,
        per_device_train_batch_size=2, num_rollouts=2, num_continuations=0,
    )  # fmt: skip
    assert len(grown) == -(-steps * 4 // parts)


def test_timing_changes_nothing(tmp_path):
    class Slow(Digits):
        def respond(self, action):
            time.sleep(0.01 * (int(self.task.id[1:]) % 3))
            return super().respond(action)

    runs = [run_to(tmp_path / str(i), 3, env=env, allocator="trace") for i, env in enumerate((Digits, Slow))]
    assert torch.equal(weights_of(runs[0]), weights_of(runs[1]))


@pytest.mark.parametrize("options", [{}, {"staleness": 2, "allocator": "trace", "predictor": "hidden"}], ids=str)
def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path, options):
    saved = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "linear", **options}
    whole = run_to(tmp_path, 4, **saved)
    again = run_to(tmp_path, 4, resume=str(tmp_path / "checkpoint-2"), **saved)
    assert torch.equal(weights_of(whole), weights_of(again))
    assert logs_of(whole, "loss", "reward", "sampling/staleness") == logs_of(
        again, "loss", "reward", "sampling/staleness"
    )


def test_the_corrected_gradient_is_that_of_the_decoupled_loss():
    """At the weights before the update: min(old / mu, cap) A d log new, for every token."""
    rng = np.random.default_rng(0)
    shape = (3, 5)
    sampler, now = (torch.tensor(-rng.random(shape) * 2) for _ in range(2))
    advantages, mask = torch.tensor(rng.normal(size=shape)), torch.tensor(rng.random(shape) < 0.7).double()
    batch = {"old_per_token_logps": sampler.clone(), "advantages": advantages.clone(), "tool_mask": mask}
    report = correct(batch, now, cap=1.5)
    new = now.clone().requires_grad_()
    ratio = torch.exp(new - batch["old_per_token_logps"])
    clipped = ratio.clamp(0.8, 1.28)
    loss = torch.min(ratio * batch["advantages"], clipped * batch["advantages"])
    (loss * mask).sum().backward()
    expected = (now - sampler).exp().clamp(max=1.5) * advantages * mask
    assert new.grad is not None
    assert torch.allclose(new.grad, expected)
    trained = (now - sampler).exp()[mask > 0]
    assert report["sampling/importance_ratio"] == pytest.approx(trained.mean().item())
    assert report["sampling/truncated"] == pytest.approx((trained > 1.5).double().mean().item())
    assert correct(batch | {"tool_mask": mask * 0}, now, cap=1.5) == {}


class Served(AsyncAgent):
    """Answers one request at a time from a copy of its own, as a server does; late where the task is hard."""

    honors = frozenset({"max_tokens"})

    def __init__(self, model, tokenizer):
        self.inner = TransformersAgent(copy.deepcopy(model), tokenizer, max_new_tokens=6)
        for module in self.inner.model.modules():
            vars(module).pop("forward", None)
        self.received = 0

    def update_weights(self, weights):
        self.inner.model.load_state_dict(dict(weights))
        self.inner.weights_changed()
        self.received += 1

    async def respond(self, context):
        await asyncio.sleep(0.02 if "1 +" in str(context.messages[0]) else 0)
        return self.inner.act([context])[0]


def test_it_works_with_an_agent_that_serves_episodes_concurrently_and_loses_none(tmp_path):
    agents = []

    def serve(model, tokenizer):
        agents.append(Served(model, tokenizer))
        return agents[-1]

    run = run_to(tmp_path, 4, agent=serve)
    assert len(agents) == 1 and agents[0].received == 4
    assert [age for (age,) in logs_of(run, "sampling/staleness")] == [0, 1, 1, 1]
    assert [leaves for (leaves,) in logs_of(run, "tree/leaves")] == [5.0] * 4
    assert logs_of(run, "sampling/importance_ratio")[0][0] == pytest.approx(1.0, abs=1e-3)


def test_what_breaks_while_sampling_ahead_stops_the_run(tmp_path):
    class Broken(Digits):
        calls = 0

        def respond(self, action):
            type(self).calls += 1
            if type(self).calls > 60:
                msg = "a mistake in the environment"
                raise RuntimeError(msg)
            return super().respond(action)

    with pytest.raises(RuntimeError, match="a mistake in the environment"):
        run_to(tmp_path, 9, env=Broken)
    assert not [thread for thread in threading.enumerate() if "ahead" in thread.name]


def test_it_learns(tmp_path):
    run = run_to(tmp_path, 15, num_rollouts=6, lr_scheduler_type="linear")
    rewards = [reward for (reward,) in logs_of(run, "reward")]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"staleness": -1}, "staleness must be at least 0, got -1"),
        ({"importance_cap": 0.5}, "importance_cap must be at least 1 and finite, got 0.5"),
        ({"importance_cap": float("inf")}, "got inf"),
    ],
)
def test_wrong_settings_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_to(tmp_path, **options)
