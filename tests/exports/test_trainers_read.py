"""verl and SkyRL read our batches, and their own losses ask for our update."""

import typing
from importlib import import_module
from typing import Any

import pytest
import torch
import typing_extensions

from agentenv import Action, EpisodeTree
from agentenv.exports import skyrl_batch, token_rows, verl_batch

pytestmark = pytest.mark.peers("trainers")


def rows():
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    for reward, (first, second) in ((1.0, (3, 4)), (0.0, (5, 6))):
        action = Action("x", token_ids=(first,), logprobs=(-0.5,), prompt_token_ids=(1, 2))
        node = tree.add(0, action, reward=0.0)
        action = Action("y", token_ids=(second, 7), logprobs=(-1.0, -2.0), prompt_token_ids=(1, 2, first, 9))
        tree.add(node, action, reward=reward, terminated=True)
    return token_rows(tree, [0.0, 1.0, 0.5, -1.0, -0.25], weights=[0.0, 1.0, 2.0, 0.5, 3.0])


def test_verl():
    batch = verl_batch(rows())
    import_module("verl.protocol").DataProto.from_dict(**batch).check_consistency()
    tensors: dict[str, Any] = batch["tensors"]
    logprobs = tensors["old_log_probs"].clone().requires_grad_()
    config = import_module("verl.workers.config").ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, ppo_mini_batch_size=4
    )
    loss, _ = import_module("verl.trainer.ppo.core_algos").get_policy_loss_fn("vanilla")(
        old_log_prob=tensors["old_log_probs"],
        log_prob=logprobs,
        advantages=tensors["advantages"],
        response_mask=tensors["response_mask"].bool(),
        loss_agg_mode="token-sum",
        config=config,
        rollout_is_weights=tensors["rollout_is_weights"],
    )
    loss.backward()
    assert torch.allclose(logprobs.grad, -tensors["advantages"] * tensors["rollout_is_weights"])


def test_skyrl(monkeypatch):
    monkeypatch.setattr(typing, "TypedDict", typing_extensions.TypedDict)  # it wants Python 3.12
    batch = skyrl_batch(rows())
    fields: dict[str, Any] = import_module("skyrl.backends.skyrl_train.training_batch").TrainingInputBatch(
        batch["fields"]
    )
    logprobs = fields["action_log_probs"].clone().requires_grad_()
    loss, _ = import_module("skyrl.backends.skyrl_train.utils.ppo_utils").ppo_policy_loss(
        logprobs,
        fields["action_log_probs"],
        fields["advantages"],
        import_module("skyrl.train.config").AlgorithmConfig(),
        fields["loss_mask"],
        fields["rollout_logprobs"],
    )
    loss.backward()
    assert torch.allclose(logprobs.grad, -fields["advantages"])
