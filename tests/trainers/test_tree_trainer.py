"""TreeTrainer: exact gradients, repeatable trees and exact resume."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Digits, Flaky, config, trainer

from agentenv import TreeArrays
from agentenv.agents.kv import PrefixStore
from agentenv.credit import allocate_prefixes, grpo_advantages, rtmc_advantages, step_weights
from agentenv.credit.trace import prefixes_of
from agentenv.serialize import read_trees
from agentenv.trainers.batches import micro_batch, micro_batches
from agentenv.trainers.run_folder import read_metrics
from agentenv.tree import Anchor

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def metrics_of(run, *names):
    logs = [log for log in run.state.log_history if "loss" in log]
    return [[log[name] for name in names] for log in logs]


def one_batch(tmp_path, **options):
    """A trainer and one generation, all in one micro-batch."""
    model, tokenizer = random_model()
    settings = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 4, **options}
    run = trainer(model, tokenizer, tmp_path, **settings)
    run.model.train()
    run.current_gradient_accumulation_steps = 1
    batch = run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(4)])
    return run, micro_batch(batch)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("weights", ["occupancy", "graph", "counts", "unique"])
@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "dr_grpo", "cispo"])
def test_gradient_equals_the_weighted_policy_gradient(tmp_path, loss_type, weights):
    """d/dw of -sum w A log p / sum w, each sampled token of the tree once, computed step by step without padding.

    Dr. GRPO divides by its constant and the number of trajectories instead.
    """
    epsilon = {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    run, batch = one_batch(tmp_path, loss_type=loss_type, step_weights=weights, num_continuations=3, **epsilon)
    run.model.zero_grad()
    run.compute_loss(run.model, batch).backward()
    ours = gradient(run.model)

    trees = run.last_trees
    arrays = TreeArrays.from_trees(trees)
    credit = rtmc_advantages(arrays, weights=weights).advantages  # it pools with the weights of the loss
    weight = step_weights(arrays, weights)
    run.model.zero_grad()
    loss, total, offset = torch.zeros(()), 0.0, 0
    for tree in trees:
        for i in range(1, len(tree)):
            sampled = tree.nodes[i].action.token_ids
            whole = torch.tensor([tree.token_ids(i)])
            logprobs = torch.log_softmax(run.model(whole).logits[0, :-1], -1)
            at = whole.size(1) - len(sampled) - 1
            picked = logprobs[at:].gather(1, whole[0, at + 1 :, None])
            loss = loss - weight[offset + i] * credit[offset + i] * picked.sum()
            total += weight[offset + i] * len(sampled)
        offset += len(tree)
    (loss / (512 * weight[arrays.is_root].sum() if loss_type == "dr_grpo" else total)).backward()
    assert credit.any()
    assert len({round(w, 6) for w in weight[~arrays.is_root]}) > 1 or weights == "unique"
    assert torch.allclose(ours, gradient(run.model), atol=2e-7), (ours - gradient(run.model)).abs().max()


def test_trees_really_branch_and_shared_steps_are_trained_once(tmp_path):
    run, batch = one_batch(tmp_path, num_rollouts=2, num_continuations=6, step_weights="unique")
    trees = run.last_trees
    assert any(len(tree.children(i)) > 1 for tree in trees for i in range(1, len(tree)))
    assert all(len(tree.leaves()) == 8 for tree in trees)
    unique = sum(len(node.action.token_ids) for tree in trees for node in tree.nodes[1:])
    through_leaves = sum(
        len(tree.nodes[i].action.token_ids)
        for t in trees
        for tree in [t]
        for leaf in t.leaves()
        for i in t.path(leaf)[1:]
    )
    assert int(batch["tool_mask"].sum()) == unique < through_leaves


def test_an_allocator_chooses_where_episodes_are_continued(tmp_path):
    """TRACE's rule for prefixes, with the success rates taken from the tree itself."""

    def undecided(trees, budget, rng):
        arrays = TreeArrays.from_trees(trees)
        prefixes = prefixes_of(arrays, mixed=True)
        chosen = allocate_prefixes(
            np.full(len(prefixes.nodes), 0.5), prefixes.outcomes, budget=budget, anchors=prefixes.nodes
        )
        seen.append((budget, chosen.total))
        return [Anchor(*entry) for entry in chosen.in_trees(arrays)]

    seen = []
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, allocator=undecided, max_steps=1)
    run.train()
    assert seen == [(8, 8)]
    assert sum(len(tree.leaves()) for tree in run.last_trees) == 4 * 3 + 8
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["allocator"].endswith("undecided")


def test_sampler_logprobs_are_the_models_own(tmp_path):
    run, batch = one_batch(tmp_path)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].size(1)
    with torch.no_grad():
        logits = run.model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
    logprobs = torch.log_softmax(logits, -1).gather(2, batch["completion_ids"][..., None])[..., 0]
    trained = batch["tool_mask"].bool()
    assert torch.allclose(logprobs[trained], batch["old_per_token_logps"][trained], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch", "sgd"])
def test_every_generation_is_sampled_from_the_weights_of_its_step(tmp_path, optim, monkeypatch):
    """Few tasks, so that prefixes come again: the first log ratios of every step are 0 within rounding."""
    model, tokenizer = random_model()
    run = trainer(
        model, tokenizer, tmp_path, tasks=TASKS[:4], optim=optim, max_steps=5, temperature=0.5, layout="padded"
    )
    generate, ratios, versions = run._generate_and_score_completions, [], []

    def compared(inputs):
        whole = generate(inputs)
        (batch,) = micro_batches(whole)
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        width = batch["completion_ids"].size(1)
        with torch.no_grad():
            logits = run.model.eval()(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
            run.model.train()
        logprobs = torch.log_softmax(logits / 0.5, -1).gather(2, batch["completion_ids"][..., None])[..., 0]
        ratios.append(((logprobs - batch["old_per_token_logps"]) * batch["tool_mask"]).abs().max().item())
        versions.append({n.action.weight_version for tree in run.last_trees for n in tree.nodes[1:] if n.action})
        return whole

    monkeypatch.setattr(run, "_generate_and_score_completions", compared)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the agent's own net finds nothing: it was told
        run.train()
    assert ratios == pytest.approx([0.0] * 5, abs=2e-4)
    assert versions == [{number} for number in range(1, 6)]


def test_same_seed_same_trees_token_for_token(tmp_path):
    def grown(seed):
        model, tokenizer = random_model()
        run = trainer(model, tokenizer, tmp_path, seed=seed)
        run.train()
        return [list(tree.nodes) for tree in run.last_trees], metrics_of(run, "loss", "reward", "grad_norm")

    first, again, other = grown(1), grown(1), grown(2)
    assert first == again
    assert first[0] != other[0]


def test_resuming_gives_the_same_metrics_as_not_stopping(tmp_path):
    names = ["loss", "reward", "grad_norm", "num_tokens", "entropy", "tree/rows"]

    def run_to(steps, **options):
        model, tokenizer = random_model()
        run = trainer(model, tokenizer, tmp_path, max_steps=steps, save_strategy="steps", save_steps=2)
        run.train(**options)
        return run

    whole = metrics_of(run_to(4), *names)
    from_files = [m for m in read_metrics(tmp_path) if "loss" in m]
    resumed = metrics_of(run_to(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2")), *names)
    assert len(whole) == 4
    assert resumed == whole
    again = [m for m in read_metrics(tmp_path) if "loss" in m]
    assert [(m["step"], m["reward"]) for m in again] == [(m["step"], m["reward"]) for m in from_files]


def test_training_raises_the_reward(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, max_steps=15, num_rollouts=6)
    run.train()
    rewards = [reward for (reward,) in metrics_of(run, "reward")]
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.15


def test_run_folder_holds_everything(tmp_path):
    model, tokenizer = random_model()
    estimator = partial(grpo_advantages)
    run = trainer(
        model,
        tokenizer,
        tmp_path,
        estimator=estimator,
        eval_tasks=TASKS[:4],
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        save_trees_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    run.train()
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["env"].endswith("Digits")
    assert described["estimator"].startswith("agentenv.credit.grpo.grpo_advantages(")
    assert described["settings"]["num_rollouts"] == 3
    assert described["versions"]["trl"]
    metrics = read_metrics(tmp_path)
    assert [m["step"] for m in metrics if "eval_success" in m] == [0, 1, 2]
    assert len(read_trees(tmp_path / "trees" / "step_2.jsonl")) == 4
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "checkpoint-2" / "tokenizer.json").exists()


def test_broken_infrastructure_is_left_out_and_counted(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, env=Flaky, rollout_retries=1, num_continuations=0)
    run.train()
    broken = [tree for tree in run.last_trees if int(tree.task_id[1:]) % 3 == 0]
    assert all(tree.episode_return(leaf) is None for tree in broken for leaf in tree.leaves())
    assert sum(failed for (failed,) in metrics_of(run, "tree/failed")) > 0
    assert np.isfinite(metrics_of(run, "loss", "reward")).all()


def test_a_generation_in_which_everything_broke_changes_nothing(tmp_path):
    model, tokenizer = random_model()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    tasks = [task for task in TASKS if int(task["id"][1:]) % 3 == 0]
    run = trainer(
        model, tokenizer, tmp_path, env=Flaky, tasks=tasks, rollout_retries=0, num_continuations=0, max_steps=1
    )
    run.train()
    assert torch.equal(before, torch.cat([p.detach().flatten() for p in model.parameters()]))


@pytest.mark.parametrize(
    "options",
    [
        {"num_iterations": 2},
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"mask_truncated_completions": True},
        {"loss_type": "dr_grpo"},
        {"loss_type": "grpo", "num_continuations": 0},
        {"loss_type": "sapo", "num_continuations": 0},
        {"importance_sampling_level": "sequence", "num_continuations": 0},
        {"delta": 2.0},
        {"off_policy_mask_threshold": 0.5, "num_continuations": 0},
        {"pad_to_multiple_of": 8},
        {"top_entropy_quantile": 0.5, "entropy_coef": 0.01},
    ],
    ids=lambda options: next(iter(options)),
)
def test_trls_own_options_keep_working(tmp_path, options):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, **options)
    run.train()
    assert np.isfinite(metrics_of(run, "loss", "grad_norm")).all()


def test_kl_to_the_reference_model(tmp_path):
    model, tokenizer = random_model()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = trainer(str(folder), tokenizer, tmp_path / "run", beta=0.1, max_steps=3)
    run.train()
    kl = [value for (value,) in metrics_of(run, "kl")]
    assert kl[0] == pytest.approx(0, abs=1e-6)
    assert kl[-1] > 1e-4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_rollouts": 0}, ["num_rollouts", "at least 1", "0"]),
        ({"num_continuations": -1}, ["num_continuations", "at least 0", "-1"]),
        ({"max_action_tokens": 0}, ["max_action_tokens", "at least 1", "0"]),
        ({"top_p": 0.9}, ["top_p", "0.9"]),
        ({"use_vllm": True, "vllm_enable_sleep_mode": True}, ["vllm_enable_sleep_mode must be False", "got True"]),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}, ["at least 2", "got 1"]),
        ({"temperature": 0.0}, ["temperature", "above 0", "0.0"]),
        ({"temperature": float("nan")}, ["temperature", "nan"]),
        ({"step_weights": "occupation"}, ["step_weights must be 'occupancy'", "'occupation'"]),
        ({"max_completion_length": 512}, ["max_completion_length", "512", "max_action_tokens"]),
        ({"num_generations": 8}, ["num_generations", "8", "num_rollouts"]),
        ({"num_generations_eval": 2}, ["num_generations_eval", "2"]),
        ({"loss_type": "grpo"}, ["num_continuations", "'grpo'", "dapo"]),
        ({"importance_sampling_level": "sequence"}, ["num_continuations", "'sequence'"]),
        ({"max_broken_generations": 0}, ["max_broken_generations", "at least 1"]),
        ({"max_episode_tokens": 0}, ["max_episode_tokens", "at least 1"]),
    ],
)
def test_wrong_settings_are_named(tmp_path, options, words):
    with pytest.raises(ValueError) as caught:
        config(tmp_path, **options)
    assert all(word in str(caught.value) for word in words)


def test_too_few_tasks_are_named(tmp_path):
    model, tokenizer = random_model()
    with pytest.raises(ValueError, match="at least one generation of 4 tasks, got 3"):
        trainer(model, tokenizer, tmp_path, tasks=TASKS[:3])


def test_environments_are_closed_at_the_end(tmp_path):
    closed, made = [], []

    class Counting(Digits):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            made.append(self)

        def close(self):
            closed.append(self)
            super().close()

    model, tokenizer = random_model()
    trainer(model, tokenizer, tmp_path, env=Counting).train()
    assert made
    assert {id(env) for env in made} == {id(env) for env in closed}


def test_keys_and_values_are_freed_before_the_update_that_makes_them_useless(tmp_path, monkeypatch):
    add, added = PrefixStore.add, []
    monkeypatch.setattr(PrefixStore, "add", lambda store, *block: (add(store, *block), added.append(len(store))))
    run, _ = one_batch(tmp_path, num_continuations=2)
    assert max(added) > 0
    assert len(run._sampling.agent._sampler.kept) == 0
    added.clear()
    run._sampling.evaluate(run.model, TASKS[:2], seed=0)
    assert max(added) > 0
    assert len(run._sampling.agent._sampler.kept) == 0
