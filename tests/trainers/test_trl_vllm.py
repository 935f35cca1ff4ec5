"""TreeTrainer and SRPPOTrainer sample with the vLLM that TRL makes (`use_vllm`), and TRL's own way sends the weights.

On a CPU, vLLM packs most weights away, where TRL's way finds no place to write to. Without those kernels of its own it
keeps them, and all of `VLLMGeneration.sync_weights` runs as it is. Run by itself: engines in one process disturb each
other (.ci/tests).
"""

import gc
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_models import DEVICE, make_model, save_model, watch

from agentenv.agents import VLLMAgent
from agentenv.errors import AgentError, ModelError

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.filterwarnings("default"), pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def small_engine(monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # TRL sets them for vLLM
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def unpacked(monkeypatch):
    """vLLM without kernels that want the weights in another layout."""
    monkeypatch.setattr(importlib.import_module("vllm._custom_ops"), "_supports_onednn", False)


def load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    model, tokenizer = make_model(context=256)
    save_model(folder, model, tokenizer)
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return loaded, tokenizer


def check(run: Any, steps: int) -> None:
    before = torch.cat([p.detach().flatten().clone() for p in run.model.parameters()])
    ratios, versions = watch(run)
    run.train()
    worst = float((torch.cat(ratios) - 1).abs().max())
    assert len(versions) == steps and all(len(one) == 1 for one in versions)
    assert len(set[Any]().union(*versions)) == steps, "every generation was sampled by weights of its own"
    assert worst < 1e-3, f"importance ratios are up to {worst:.1e} from 1"
    after = torch.cat([p.detach().flatten() for p in run.model.parameters()])
    assert (after - before).abs().max() > 1e-3, "and the weights did move"
    logged = [entry for entry in run.state.log_history if "sampling/importance_ratio" in entry]
    assert len(logged) == steps and all(abs(entry["sampling/importance_ratio"] - 1) < 1e-3 for entry in logged)


def adapter() -> Any:
    from peft import LoraConfig

    torch.manual_seed(0)
    return LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


def check_with_adapter(run: Any) -> None:
    """The ratios are those of the policy with its adapter; merging and taking back moves no bit of the base."""
    base = {name: p.detach().clone() for name, p in run.model.named_parameters() if not p.requires_grad}
    check(run, 2)
    assert base and all(torch.equal(base[name], p) for name, p in run.model.named_parameters() if name in base)
    end(run)


def end(run: Any) -> None:
    """Ends the agent and TRL's engine, so that the next test may have one."""
    agent, llm = run._sampling.agent, run.vllm_generation.llm
    if agent is not None:
        agent.close()
    run.close()
    llm.llm_engine.engine_core.shutdown()
    gc.collect()


def test_trls_own_way_sends_the_weights(tmp_path, unpacked):
    from trainer_env import trainer  # where vLLM is there, TRL imports it, and what that warns of is no fault here

    model, tokenizer = load(tmp_path / "model")
    run = trainer(model, tokenizer, tmp_path / "run", use_vllm=True, max_steps=3, use_cpu=DEVICE == "cpu")
    sync, sent = run.vllm_generation.sync_weights, []

    def count() -> None:
        sync()
        sent.append(True)

    run.vllm_generation.sync_weights = count
    engine = run.vllm_generation.llm.llm_engine
    assert engine.vllm_config.scheduler_config.max_num_seqs == 12, "4 tasks of 3 episodes, and not TRL's 4 rows"
    check(run, 3)
    assert len(sent) == 3

    with pytest.raises(ModelError, match="another VLLMAgent samples with this one"):
        VLLMAgent(run.vllm_generation.llm, tokenizer)

    def fail() -> None:
        msg = "the line went dead"
        raise OSError(msg)

    run.vllm_generation.sync_weights = fail
    with pytest.raises(AgentError, match=r"no whole weights.*line went dead"):
        run._grow([0, 1], "train")
    run.vllm_generation.sync_weights = sync
    assert run._grow([0, 1], "train")[0].nodes, "an update that succeeds mends it"
    end(run)


@pytest.mark.skipif(DEVICE != "cpu", reason="only a CPU packs weights")
def test_packed_weights_get_the_same_ones_with_an_adapter_too_and_sr_ppo_samples_so(tmp_path):
    from trainer_env import TASKS, Digits

    from agentenv.trainers import SRPPOConfig, SRPPOTrainer

    model, tokenizer = load(tmp_path / "model")
    args = SRPPOConfig(
        output_dir=str(tmp_path / "run"), max_steps=2, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        max_action_tokens=6, learning_rate=5e-2, bf16=False, use_cpu=True, gradient_checkpointing=False, report_to=[],
        logging_steps=1, save_strategy="no", disable_tqdm=True, critic_warmup=0, use_vllm=True,
    )  # fmt: skip
    given: Any = {"train_tasks": TASKS, "processing_class": tokenizer, "peft_config": adapter()}
    check_with_adapter(SRPPOTrainer(model, args, env=Digits, **given))


def test_an_adapter_is_merged_by_trl_and_the_weights_below_it_stay(tmp_path, unpacked):
    from trainer_env import trainer

    model, tokenizer = load(tmp_path / "model")
    settings = {"max_steps": 2, "learning_rate": 5e-2, "use_cpu": DEVICE == "cpu", "peft_config": adapter()}
    run = trainer(model, tokenizer, tmp_path / "run", use_vllm=True, **settings)
    check_with_adapter(run)
