"""Adapters with a reference, half precision, accumulation and several iterations, packed as padded, through runs."""

import copy

import pytest
import torch
from tiny_chat import random_model
from trainer_env import trainer

from agentenv.trainers.batches import micro_batches

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def lora(**options):
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], **options)


def logprobs_of(model, batch, temperature=1.0):
    """Of the completions, by a plain forward pass over every row of its own."""
    found = torch.zeros(batch["completion_ids"].shape)
    for i, mask in enumerate(batch["completion_mask"]):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()]
        ids = torch.cat([prompt, batch["completion_ids"][i][mask.bool()]])
        with torch.no_grad():
            scores = (model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        found[i, : int(mask.sum())] = scores.gather(1, ids[len(prompt) :, None])[:, 0]
    return found


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh adapter", "adapter that says something"])
def test_the_reference_of_an_adapter_is_the_model_without_it(tmp_path, layout, fresh):
    """Against a copy of the model that never met an adapter; training changes it not."""
    model, tokenizer = random_model()
    untouched = copy.deepcopy(model)
    run = trainer(model, tokenizer, tmp_path, peft_config=lora(), beta=0.1, layout=layout, max_steps=2, temperature=0.7)
    assert run.ref_model is None
    if not fresh:
        with torch.no_grad():
            for name, parameter in run.model.named_parameters():
                if "lora_B.default" in name:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    generate, compared = run._generate_and_score_completions, []

    def checked(inputs):
        whole = generate(inputs)
        for batch in micro_batches(whole):
            trained = batch["tool_mask"] > 0
            expected = logprobs_of(untouched, batch, 0.7)
            assert torch.allclose(batch["ref_per_token_logps"][trained], expected[trained], atol=2e-5)
            apart = (batch["old_per_token_logps"] - expected)[trained].abs().max()
            compared.append(float(apart))
        return whole

    run._generate_and_score_completions = checked
    run.train()
    half = len(compared) // 2  # packed, a generation has two micro-batches
    assert half and (max(compared[:half]) < 1e-4) == fresh
    assert min(compared[half:]) > 1e-3  # the policy has moved, the reference has not
    kl = [log["kl"] for log in run.state.log_history if "kl" in log]
    assert (abs(kl[0]) < 1e-6) == fresh and kl[1] > 0


def trained(tmp_path, layout, **options):
    """How far one generation moves the weights: `[parameters]`."""
    model, tokenizer = random_model()
    settings = {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    settings |= {"max_steps": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    run = trainer(model, tokenizer, tmp_path / layout, layout=layout, **settings | options)
    moving = [p for p in run.model.parameters() if p.requires_grad]
    before = torch.cat([p.detach().flatten().clone() for p in moving])
    run.train()
    return torch.cat([p.detach().flatten() for p in moving]) - before, run


CASES = {
    "accumulation": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
    "two iterations": {"num_iterations": 2, "max_steps": 2},
    "adapter, KL and checkpointing": {"beta": 0.2, "gradient_checkpointing": True, "num_iterations": 2, "max_steps": 2},
}


@pytest.mark.parametrize(
    ("case", "bf16"), [*((case, False) for case in CASES), *((case, True) for case in list(CASES)[::2])]
)
def test_packed_trees_move_the_weights_as_padded_rows_do(tmp_path, case, bf16):
    """One generation, so that both layouts train the same trees."""
    options = dict(CASES[case], bf16=bf16)
    torch.manual_seed(0)  # of the adapter
    parts = [
        trained(tmp_path, layout, **options, **({"peft_config": lora()} if "adapter" in case else {}))
        for layout in ("packed", "padded")
    ]
    (packed, one), (padded, two) = parts
    assert [list(a.nodes) for a in one.last_trees] == [list(b.nodes) for b in two.last_trees]
    assert one._generation == two._generation == (0, 0)
    assert padded.norm() > 1e-3
    apart = (packed - padded).norm() / padded.norm()
    assert apart < (0.05 if bf16 else 1e-3), apart
