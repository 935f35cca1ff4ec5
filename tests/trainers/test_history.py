"""A chat template that rewrites history, through the trainer: what is trained is what was seen and sampled."""

from typing import Any

import pytest
import torch
from tiny_chat import random_model
from trainer_env import config, trainer

from agentenv.agents.chat import ChatFormat
from agentenv.trainers.batches import micro_batches
from agentenv.trainers.tiny import CHAT_TEMPLATE

FORGETFUL = CHAT_TEMPLATE.replace(
    "(message['content'] or '')",
    "(message['content'] | replace('1', '') | replace('2', '') | replace(' ', '') "
    "if message['role'] == 'assistant' and not loop.last else message['content'])",
)
"""Leaves out some of what the model wrote in earlier turns, as templates do with reasoning."""


def forgetful() -> tuple[Any, Any]:
    torch.set_num_threads(1)
    model, tokenizer = random_model()
    assert FORGETFUL != CHAT_TEMPLATE
    tokenizer.chat_template = FORGETFUL
    return model, tokenizer


@pytest.mark.parametrize("history", ["exact", "template"])
def test_the_trainer_trains_on_what_the_model_saw(tmp_path, history):
    model, tokenizer = forgetful()
    run = trainer(model, tokenizer, tmp_path, history=history, num_rollouts=4, max_steps=1)
    batches: list[Any] = []
    make = run._generate_and_score_completions

    def watched(inputs):
        batches.append(make(inputs))
        return batches[-1]

    run._generate_and_score_completions = watched
    run.train()
    chat = ChatFormat(tokenizer, history=history)
    rewritten = 0
    for tree in run.last_trees:
        for node in range(len(tree)):
            if (seen := tree.prompt_token_ids(node)) is None:
                continue
            followed = chat.render(tree.messages(node)) == seen
            assert followed or history == "exact"
            assert tree.prompt(node).kept == tree.length(node) or history == "template"
            rewritten += tree.prompt(node).kept < tree.length(node)
    assert (rewritten > 3) == (history == "template")
    assert run.first_log_ratio.tokens > 20
    assert run.first_log_ratio.largest < 1e-4
    share = run.state.log_history[0]["episode/rewritten"]
    assert 0 < share <= 1 if history == "template" else share == 0
    sampled = {
        (tree.prompt_token_ids(tree.nodes[i].parent), tree.nodes[i].action.token_ids)
        for tree in run.last_trees
        for i in range(1, len(tree))
    }
    assert set().union(*map(_trained, micro_batches(batches[0]))) == sampled


def _trained(batch: dict[str, torch.Tensor]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What precedes every stretch of trained tokens in the rows of a batch, and the stretch."""
    found: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for row in range(len(batch["prompt_ids"])):
        before = batch["prompt_ids"][row][batch["prompt_mask"][row] > 0].tolist()
        ids = batch["completion_ids"][row][batch["completion_mask"][row] > 0].tolist()
        trained = (batch["tool_mask"][row] > 0).tolist()
        for start in range(len(ids)):
            if trained[start] and (start == 0 or not trained[start - 1]):
                end = next((i for i in range(start, len(ids)) if not trained[i]), len(ids))
                found.add((tuple(before + ids[:start]), tuple(ids[start:end])))
    return found


def test_history_is_checked_with_the_other_settings(tmp_path):
    with pytest.raises(ValueError, match="history must be 'exact' or 'template', got 'sampled'"):
        config(tmp_path, history="sampled")
    assert config(tmp_path, history="template").history == "template"
