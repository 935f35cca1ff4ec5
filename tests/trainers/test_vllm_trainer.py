"""TreeTrainer samples with vLLM: the same weights on both sides, reloaded before every generation.

Run by itself: engines in one process disturb each other (.ci/tests).
"""

import importlib

import pytest
import torch
from vllm_models import DEVICE, OPTIONS, make_model, save_model, watch

from agentenv.agents import VLLMAgent

# vLLM warns of what it does itself; a cold machine compiles for half a minute
pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]


def test_ratios_of_sampler_and_trainer_are_one(tmp_path):
    from trainer_env import trainer  # where vLLM is there, TRL imports it, and what that warns of is no fault here

    make_engine = importlib.import_module("vllm").LLM

    model, tokenizer = make_model(context=256)
    folder = save_model(tmp_path / "model", model, tokenizer)
    llm = make_engine(str(folder), logprobs_mode="processed_logprobs", **OPTIONS)
    made = []

    def agent(policy, tokens):
        made.append(VLLMAgent(llm, tokens, max_tokens=6))
        return made[-1]

    run = trainer(model.to("cpu"), tokenizer, tmp_path / "run", agent=agent, max_steps=3, use_cpu=DEVICE == "cpu")
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    ratios, versions = watch(run)
    run.train()
    run.close()
    made[0].close()
    worst = (torch.cat(ratios) - 1).abs().max()
    assert len(versions) == 3
    assert len(set.union(*versions)) == 3, "every generation was sampled by weights of its own"
    assert worst < 1e-3, f"importance ratios are up to {float(worst):.1e} from 1"
    after = torch.cat([p.detach().flatten() for p in run.model.parameters()])
    assert (after.cpu() - before.cpu()).abs().max() > 1e-3, "and the weights did move"
