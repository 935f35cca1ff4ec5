"""Adapters with a reference, half precision, accumulation and several iterations, packed as padded, through runs."""

import copy

import pytest
import torch
from tiny_chat import random_model
from trainer_env import trainer

from agentenv.agents import TransformersAgent
from agentenv.trainers.batches import micro_batches
from agentenv.trainers.sampler_weights import sampler_weights

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


def adapted(**options):
    """A model, a copy of it that never met an adapter, and the model under an adapter that says something."""
    model, tokenizer = random_model()
    policy = pytest.importorskip("peft").get_peft_model(copy.deepcopy(model), lora(**options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model, tokenizer, policy


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["norm"]}], ids=str)
def test_a_sampler_is_given_the_model_with_its_adapter_merged(options):
    plain, _, policy = adapted(**options)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    weights = dict(sampler_weights(policy))
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    assert weights.keys() == plain.state_dict().keys()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        wanted, other = policy(input_ids=ids).logits, plain(input_ids=ids).logits
        plain.load_state_dict(weights)
        assert torch.allclose(plain(input_ids=ids).logits, wanted, atol=1e-4)
    assert (wanted - other).abs().max() > 1e-2


def test_the_names_are_those_that_trl_gives_its_own_engine():
    from accelerate import Accelerator
    from trl.distributed import DistributedBackend
    from trl.generation.vllm_generation import VLLMGeneration

    _, _, policy = adapted()
    theirs = VLLMGeneration.__new__(VLLMGeneration)
    theirs.model, theirs.accelerator = policy, Accelerator(cpu=True)
    theirs._dist = DistributedBackend(theirs.accelerator)
    ours = dict(sampler_weights(policy))
    given = {name: tensor.clone() for name, tensor in theirs._iter_named_params()}
    assert ours.keys() - given.keys() <= {"lm_head.weight"}  # of tied embeddings
    assert all(torch.allclose(ours[name], tensor, atol=1e-6) for name, tensor in given.items())


def test_a_policy_with_an_adapter_is_sampled_elsewhere(tmp_path):
    model, tokenizer = random_model()

    class Elsewhere(TransformersAgent):
        def __init__(self, _, tokenizer):
            super().__init__(random_model(seed=7)[0], tokenizer, max_new_tokens=6)

        def update_weights(self, weights):
            self.model.load_state_dict(dict(weights))
            self.weights_changed()

    run = trainer(model, tokenizer, tmp_path, peft_config=lora(), agent=Elsewhere, max_steps=3)
    run.train()
    assert run.first_log_ratio.largest < 1e-3
    assert run.last_trees[0].nodes[1].action.weight_version == 3


def trained(tmp_path, layout, **options):
    """How far one generation moves the weights: `[parameters]`."""
    model, tokenizer = random_model()
    settings = {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    settings |= {"max_steps": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    settings["epsilon"] = 0.9  # no ratio is clipped: rounding alone would decide which
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
