"""What we rely on in TRL, held against TRL's own trainer, whose methods are called as they are."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import Dataset
from tiny_chat import random_model
from trainer_env import TASKS, config, trainer
from transformers import TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import RepeatSampler, shuffle_sequence_dict, split_tensor_dict

from agentenv.trainers import TreeConfig
from agentenv.trainers.batches import micro_batch

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")]

PROMPT, GROUP = [3, 7, 11], 4
LENGTHS = (5, 1, 3, 6, 2, 4, 6, 5)
LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def a_row(i: int, length: int) -> dict[str, Any]:
    """Tokens of a policy and of an environment; the second token is the environment's."""
    ids = [(13 * i + 5 * j) % 90 + 300 for j in range(length)]
    return {"completion_ids": ids, "env_mask": [int(j != 1) for j in range(length)], "outcome": float(i % 2)}


DUMMY: dict[str, Any] = {"completion_ids": [0], "env_mask": [0], "outcome": None}
"""No sample: one token of padding that nobody trains, without a reward."""


def stock(folder: Any, rows: Any, *, seen: Any = None, **options: Any) -> Any:
    """TRL's trainer on a tiny model, whose rollout function gives these rows."""
    model, tokenizer = random_model()
    settings: dict[str, Any] = {
        "loss_type": "dapo",
        "gradient_accumulation_steps": 1,
        "max_steps": 1,
        "learning_rate": 0.0,
    } | options
    args = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rows) // settings["gradient_accumulation_steps"],
        num_generations=GROUP,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        **settings,
    )

    def give(prompts, _):
        if seen is not None:
            seen.append(list(prompts))
        parts = {name: [row[name] for row in rows] for name in rows[0]}
        return {"prompt_ids": [PROMPT] * len(rows), "logprobs": None} | parts

    data = Dataset.from_list([{"prompt": f"q{i}"} for i in range(len(rows) // GROUP)])
    return GRPOTrainer(
        model,
        reward_funcs=cast("Any", lambda outcome, **_: outcome),
        args=args,
        train_dataset=data,
        processing_class=tokenizer,
        rollout_func=cast("Any", give),
    )


def one_batch(run: Any) -> Any:
    """A generation of TRL's own, as its loss reads it."""
    run.model.train()
    run.current_gradient_accumulation_steps = 1
    (rows,) = [batch for _, batch in zip(range(1), run.get_train_dataloader(), strict=False)]
    return run._generate_and_score_completions(rows)


def gradient(run: Any, batch: Any) -> Any:
    run.model.zero_grad()
    loss = run.compute_loss(run.model, batch)
    loss.backward()
    return float(loss.detach()), torch.cat([p.grad.flatten() for p in run.model.parameters()])


# ---------------------------------------------------------------------- advantages per token


@pytest.mark.parametrize("loss_type", LOSSES)
def test_constant_advantages_per_token_are_advantages_per_row(tmp_path, loss_type):
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)], loss_type=loss_type)
    batch = one_batch(run)
    assert batch["advantages"].shape == (8,) and batch["advantages"].any()
    expected = gradient(run, batch)
    batch["advantages"] = batch["advantages"][:, None].repeat(1, batch["completion_ids"].size(1))
    found = gradient(run, batch)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert torch.allclose(found[1], expected[1], atol=1e-7)


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "grpo", "dr_grpo", "cispo"])
def test_the_gradient_of_advantages_per_token_is_the_one_written_by_hand(tmp_path, loss_type):
    """-sum of A log p over the sampled tokens, divided as the loss says; one row at a time, without padding."""
    rows = [a_row(*pair) for pair in enumerate(LENGTHS)]
    extra = {"epsilon_high": 5.0} if loss_type == "cispo" else {}
    run = stock(tmp_path, rows, loss_type=loss_type, **extra)
    batch = one_batch(run)
    generator = torch.Generator().manual_seed(1)
    advantages = torch.randn(batch["completion_ids"].shape, generator=generator)
    _, found = gradient(run, batch | {"advantages": advantages})
    run.model.zero_grad()
    sampled = sum(sum(row["env_mask"]) for row in rows)
    for i, row in enumerate(rows):
        ids = torch.tensor([PROMPT + row["completion_ids"]])
        scores = run.model(input_ids=ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        mask = torch.tensor(row["env_mask"])
        picked = scores.gather(1, ids[0, len(PROMPT) :, None])[:, 0]
        divisor = {
            "grpo": int(mask.sum()) * len(rows),
            "dr_grpo": len(rows) * run.max_completion_length,
        }.get(loss_type, sampled)
        (-(advantages[i, : len(mask)] * mask * picked).sum() / divisor).backward()
    expected = torch.cat([p.grad.flatten() for p in run.model.parameters()])
    assert expected.abs().max() > 1e-5
    assert torch.allclose(found, expected, atol=2e-7 + 1e-5 * float(expected.abs().max()))


def test_weights_in_the_mask_of_tools_weigh_the_tokens(tmp_path):
    """Ours are no zeros and ones: a weight of 2 is the token twice."""
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)])
    batch = one_batch(run)
    weights = batch["tool_mask"] * torch.linspace(1, 3, batch["tool_mask"].numel()).view_as(batch["tool_mask"])
    advantages = batch["advantages"][:, None].expand(weights.shape)
    _, found = gradient(run, batch | {"tool_mask": weights, "advantages": advantages})
    _, expected = gradient(run, batch | {"advantages": advantages * weights})
    assert (found - expected).norm() < 1e-5 * expected.norm()


# ---------------------------------------------------------------------- batches


def test_prompts_arrive_once_for_every_generation(tmp_path):
    seen: list[list[str]] = []
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)], seen=seen)
    run.train()
    (prompts,) = seen
    groups = [prompts[i : i + GROUP] for i in range(0, len(prompts), GROUP)]
    assert [len(set(group)) for group in groups] == [1, 1]
    assert {group[0] for group in groups} == {"q0", "q1"}


def test_one_generation_per_prompt_is_refused_at_first_and_works_afterwards(tmp_path):
    """Which is how a row of TRL's batch becomes a task: TRL's sampler then gives every prompt once."""
    with pytest.raises(ValueError, match="generations"):
        GRPOConfig(output_dir=str(tmp_path), num_generations=1, bf16=False, use_cpu=True, report_to=[])
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)])
    run.train_dataset = Dataset.from_list([{"prompt": f"q{i}"} for i in range(8)])
    run.num_generations = run.num_generations_eval = 1
    sampler = run._get_train_sampler()
    assert isinstance(sampler, RepeatSampler)
    assert sorted(sampler) == list(range(8))


def test_a_row_that_nobody_sampled_changes_nothing(tmp_path):
    """Padding without a reward, which fills a batch up: the same loss and gradient as without it."""
    rows = [a_row(*pair) for pair in enumerate(LENGTHS)]
    full = stock(tmp_path, rows)
    batch = one_batch(full)
    order = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask", "advantages")
    short = {name: value[:7] if name in order else value for name, value in batch.items()}
    short["num_items_in_batch"] = (short["tool_mask"] * short["completion_mask"]).sum()
    expected = gradient(full, short)

    run = stock(tmp_path, [*rows[:7], DUMMY])
    filled = one_batch(run)
    assert (filled["tool_mask"] * filled["completion_mask"])[7].sum() == 0 and filled["advantages"][7] == 0
    filled["advantages"] = torch.cat([short["advantages"], torch.zeros(1)])
    found = gradient(run, filled)
    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert torch.allclose(found[1], expected[1], atol=1e-7)


def test_extra_keys_survive_shuffle_and_split_and_the_remainder_is_dropped():
    batch: Any = {
        "advantages": torch.arange(18.0).view(9, 2),
        "ours": torch.arange(9),
        "parts": [f"row {i}" for i in range(9)],
        "num_items_in_batch": torch.tensor(5),
    }
    chunks: Any = split_tensor_dict(cast("Any", shuffle_sequence_dict(batch)), 2)
    assert [tuple(chunk["advantages"].shape) for chunk in chunks] == [(4, 2), (4, 2)]
    assert [int(chunk["num_items_in_batch"]) for chunk in chunks] == [5, 5]
    for chunk in chunks:
        assert [f"row {i}" for i in chunk["ours"].tolist()] == chunk["parts"]
        assert torch.equal(chunk["advantages"][:, 0], 2.0 * chunk["ours"])


def test_keys_that_an_override_adds_reach_the_loss(tmp_path):
    """Through `_prepare_inputs` of TRL's own training loop, with two micro-batches; a ninth row is never trained."""

    class Watched(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            assert all(len(batch[name]) == 8 for name in batch if name != "num_items_in_batch")
            more = {k: torch.cat([v, v[:1]]) for k, v in batch.items() if k != "num_items_in_batch"}
            return batch | more | {"ours": torch.arange(9)}

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            reached.append((inputs["ours"].tolist(), len(inputs["advantages"])))
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    reached: list[Any] = []
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)], gradient_accumulation_steps=2)
    run.__class__ = Watched
    run.train()
    assert [rows for _, rows in reached] == [4, 4]
    assert len({number for numbers, _ in reached for number in numbers}) == 8


def test_batches_have_the_keys_that_we_give_and_the_loss_reads_them(tmp_path):
    stocked = set(one_batch(stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)])))
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, layout="padded", gradient_accumulation_steps=1)
    run.model.train()
    ours = set(micro_batch(run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(2)])))
    read = inspect.getsource(GRPOTrainer._compute_loss)
    assert {key for key in ours | {"ref_per_token_logps"} if f'"{key}"' not in read} == set()
    assert stocked <= ours | {"sampling_per_token_logps"}
    made = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert {key for key in ours | {"ref_per_token_logps"} if f'"{key}"' not in made} == set()


# ---------------------------------------------------------------------- names


def test_the_one_overridden_method_keeps_its_signature():
    assert list(inspect.signature(GRPOTrainer._generate_and_score_completions).parameters) == ["self", "inputs"]
    source = inspect.getsource(GRPOTrainer._prepare_inputs)
    assert "_generate_and_score_completions" in source
    assert "_metrics" in inspect.getsource(GRPOTrainer.log)


def test_what_we_set_and_read_is_there(tmp_path):
    run = stock(tmp_path, [a_row(*pair) for pair in enumerate(LENGTHS)])
    names = ["_metrics", "_step", "_buffered_inputs", "_logs", "aux_loss_enabled", "max_completion_length"]
    names += ["temperature", "beta", "num_generations", "num_generations_eval", "mask_truncated_completions"]
    names += ["pad_to_multiple_of", "ref_model", "log_completions"]
    assert [name for name in names if not hasattr(run, name)] == []
    assert set(run._logs) >= {"prompt", "completion", "rewards", "advantages", "extra", "images"}


def test_trls_vllm_has_the_names_that_sampling_with_it_uses():
    """Its code says so; with vLLM, `test_trl_vllm.py` runs it."""
    source = inspect.getsource(GRPOTrainer)
    assert "self.vllm_generation = VLLMGeneration(" in source
    assert "self.use_vllm and self.vllm_importance_sampling_correction" in source
    assert "self.vllm_generation.sync_weights()" in source
    spec = importlib.util.find_spec("trl.generation.vllm_generation")
    assert spec is not None and spec.origin is not None
    text = Path(spec.origin).read_text()
    assert "from vllm import LLM" in text and "self.llm = LLM(" in text and "dtype=" not in text
    for name in ("model", "max_num_seqs", "max_num_batched_tokens"):
        assert f"                {name}=" in text, "an argument that we read or replace"
    assert "def sync_weights(self):" in text and "def _iter_named_params(self):" in text
    assert "driver_worker.model_runner.model.load_weights(" in text
    assert 'f"http://{self.server_host}:{self.server_port}"' in text


# ---------------------------------------------------------------------- resuming, and ours on top


def test_trls_own_trainer_resumes_to_the_same_weights(tmp_path):
    """What exact resuming of ours stands on: optimizer, scheduler, order of rows and random numbers come back."""

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2

    options: Any = {"max_steps": 3, "learning_rate": 1e-2, "temperature": 1.0}
    rows = [a_row(*pair) for pair in enumerate(LENGTHS)]

    def weights(run):
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    whole = stock(tmp_path / "whole", rows, **options)
    whole.train()
    begun = stock(tmp_path / "cut", rows, **options)
    begun.args.save_strategy, begun.args.save_steps = "steps", 2
    begun.add_callback(Stop())
    begun.train()
    before = weights(begun)
    resumed = stock(tmp_path / "cut", rows, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert resumed.state.global_step == 3
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(before, weights(whole))


def test_trls_group_is_a_whole_generation_and_its_sampler_gives_every_task_once(tmp_path):
    args = config(tmp_path)
    assert isinstance(args, TreeConfig)
    assert args.num_generations == args.generation_batch_size == 4
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, eval_tasks=TASKS[:5])
    assert sorted(set(run._get_train_sampler())) == list(range(len(TASKS)))
    assert sorted(run._get_eval_sampler(run.eval_dataset)) == list(range(5))
