"""Losses and gradients on packed rows are those on padded rows, whatever the tree, the loss and the model are."""

import tempfile
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_trees import random_trees
from tiny_chat import random_model
from trainer_env import config, trainer
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    Qwen3NextConfig,
)

from agentenv import Action, EpisodeTree
from agentenv.credit import StepAdvantages
from agentenv.errors import ModelError
from agentenv.trainers.batches import computed_tokens, micro_batches, model_for
from agentenv.trainers.packable import obstacle, probe, token_cost

pytestmark = pytest.mark.model

FLOAT32, FLOAT64 = 1e-4, 4e-6
"""Qwen3 normalizes in float32 whatever its weights are: 1.3e-6 was seen in float64."""

few = settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def lora(**options):
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **options)


class Injected:
    """A trainer that is given its trees, and the credit of their steps from a seed."""

    def __init__(self, model: Any = None, *, dtype: torch.dtype = torch.float32, **options: Any) -> None:
        made, tokenizer = random_model()
        model = (made if model is None else model).to(dtype)
        options = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 2, **options}
        self.run = trainer(model, tokenizer, Path(tempfile.mkdtemp()), estimator=self._credit, **options)
        self.run.model.train()
        self.run.current_gradient_accumulation_steps = 1
        self.run.first_log_ratio = object()
        if self.run.ref_model is not None:  # some updates later
            with torch.no_grad():
                for parameter in self.run.model.parameters():
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def _credit(self, arrays):
        values = np.random.default_rng(len(arrays)).normal(size=len(arrays))
        values[arrays.is_root] = 0
        return StepAdvantages(values, values, values, arrays.leaf_counts)

    def batch(self, trees: list[EpisodeTree], layout: str, budget: int | None = None) -> dict[str, Any]:
        run = self.run
        run._grow = lambda numbers, mode: trees
        run._layout.wanted, run.args.max_packed_tokens = layout, budget
        run._metrics["train"].clear()
        return run._generate_and_score_completions([{"prompt": "", "task": i} for i in range(len(trees))])

    def gradient(self, trees: list[EpisodeTree], layout: str, budget: int | None = None) -> tuple[float, torch.Tensor]:
        return self.of(self.batch(trees, layout, budget))

    def of(self, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
        """The loss of a whole batch and its gradient; a packed one may have several micro-batches."""
        run = self.run
        run.model.zero_grad()
        total = 0.0
        for micro in micro_batches(batch):
            loss = run.compute_loss(run.model, micro)
            loss.backward()
            total += loss.item()
        return total, torch.cat([p.grad.flatten().double() for p in run.model.parameters() if p.grad is not None])

    def sampled(self, trees: list[EpisodeTree], noise: float = 0.0) -> list[EpisodeTree]:
        """The same trees with the log-probabilities that the model gives their tokens, and noise."""
        rng = np.random.default_rng(0)
        filled = []
        for tree in trees:
            new = EpisodeTree(({"role": "user", "content": "q"},))
            for i, node in enumerate(tree.nodes[1:], 1):
                ids = torch.tensor([tree.token_ids(i)])
                said: Any = node.action
                count = len(said.token_ids)
                with torch.no_grad():
                    scores = self.run.model(ids).logits[0].log_softmax(-1)[-count - 1 : -1]
                found = scores.gather(1, ids[0, -count:, None])[:, 0].double().numpy()
                found = np.minimum(found + noise * rng.normal(size=count), 0.0)
                action = replace(said, logprobs=tuple(found.tolist()))
                new.append(replace(node, action=action), prompt=tree.prompt(node.parent))
            filled.append(new)
        return filled


@cache
def injected(**options: Any) -> Injected:
    return Injected(**options)


def check(harness, trees, tolerance, *, noise=0.3, budget=None):
    trees = harness.sampled(trees, noise)
    loss, gradient = harness.gradient(trees, "padded")
    packed_loss, packed = harness.gradient(trees, "packed", budget)
    assert packed_loss == pytest.approx(loss, abs=tolerance)
    assert (packed - gradient).abs().max() <= tolerance * max(1.0, float(gradient.abs().max()))
    return gradient


several = st.lists(random_trees(vocabulary=6), min_size=1, max_size=3)


@few
@given(several, st.sampled_from([None, 6, 25]))
def test_float64(trees, budget):
    check(injected(dtype=torch.float64), trees, FLOAT64, budget=budget)


@few
@given(several)
def test_trees_that_are_cut_because_attention_is_dear(trees):
    """The default, for a model so narrow that any cut pays which repeats less than it saves."""
    harness = Injected(dtype=torch.float64)
    harness.run._layout.token_cost = 0.5
    check(harness, trees, FLOAT64)


def test_the_cost_of_a_token_follows_from_the_shape_of_the_model():
    model, _ = random_model()
    config = model.config
    weights = sum(p.numel() for p in model.model.layers.parameters())
    width = config.num_attention_heads * config.head_dim
    cost = token_cost(model)
    assert cost == pytest.approx(weights / (2 * config.num_hidden_layers * width), rel=0.01)
    assert token_cost(pytest.importorskip("peft").get_peft_model(model, lora())) == pytest.approx(cost, rel=0.5)
    assert token_cost(AutoModelForCausalLM.from_config(GPT2Config(n_layer=2, n_embd=32, n_head=2))) > 16
    model.config._attn_implementation = "flex_attention"
    assert token_cost(model) == np.inf
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1))
    assert token_cost(mamba) == np.inf


@few
@given(several, st.sampled_from([None, 6, 25]))
def test_float32(trees, budget):
    check(injected(), trees, FLOAT32, budget=budget)


@few
@given(several, st.sampled_from([None, 25]))
def test_adapters_checkpointing_and_kl(trees, budget):
    options = {"gradient_checkpointing": True, "beta": 0.05, "entropy_coef": 0.01}
    check(injected_lora(**options), trees, FLOAT32, budget=budget)


@cache
def injected_lora(**options):
    return Injected(peft_config=lora(), **options)


@few
@given(several)
def test_gradient_checkpointing_in_float64(trees):
    check(injected(dtype=torch.float64, gradient_checkpointing=True), trees, FLOAT64)


def saved(folder):
    """A model with a folder, which TRL loads the reference from."""
    model, tokenizer = random_model()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder)


TOKEN_LOSSES = [
    {"loss_type": "bnpo"},
    {"loss_type": "dr_grpo", "delta": 1.5},
    {"loss_type": "cispo", "epsilon_high": 5.0},
    {"loss_type": "dapo", "beta": 0.1},
    {"loss_type": "dapo", "top_entropy_quantile": 0.5},
]


@pytest.mark.parametrize("options", TOKEN_LOSSES, ids=lambda options: "-".join(map(str, options.values())))
def test_losses_of_tokens(options, tmp_path):
    harness, trees = Injected(saved(tmp_path), **options), [_example(seed) for seed in range(2)]
    assert check(harness, trees, FLOAT32).abs().max() > 1e-4


SEQUENCE_LOSSES = [
    {"loss_type": "grpo"},
    {"loss_type": "sapo"},
    {"loss_type": "luspo"},
    {"loss_type": "vespo"},
    {"loss_type": "dapo", "beta": 0.1, "off_policy_mask_threshold": 0.1},
    {"loss_type": "dapo", "importance_sampling_level": "sequence"},
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.1},
]


@pytest.mark.parametrize("options", SEQUENCE_LOSSES, ids=lambda options: "-".join(map(str, options.values())))
def test_losses_of_sequences(options, tmp_path):
    harness = Injected(saved(tmp_path), **options, num_continuations=0)
    trees = [_example(seed, fork=False) for seed in range(2)]
    assert check(harness, trees, FLOAT32).abs().max() > 1e-4


def _example(seed: int, *, fork: bool = True, steps: int = 8) -> EpisodeTree:
    """A tree drawn from a seed, without Hypothesis: its own example() is for the console."""
    rng = np.random.default_rng(seed)
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    for _ in range(steps):
        open_nodes = [i for i in range(len(tree)) if fork or i == 0 or not tree.children(i)]
        parent = int(rng.choice(open_nodes))
        prompt = tree.prompt_token_ids(parent)
        if prompt is None:
            path = tree.token_ids(parent)
            kept = len(path) if rng.random() < 0.7 else int(rng.integers(0, len(path) + 1))
            prompt = (*path[:kept], *rng.integers(0, 6, 3).tolist())
        ids = tuple(rng.integers(0, 6, 3).tolist())
        tree.add(parent, Action("x", token_ids=ids, logprobs=(-1.0,) * 3, prompt_token_ids=prompt), reward=0.0)
    return tree


def test_a_batch_without_anything_to_train_has_a_loss_of_zero_and_gradients():
    harness = Injected()
    empty = EpisodeTree(({"role": "user", "content": "q"},))
    loss, gradient = harness.gradient([empty, empty], "packed")
    assert loss == 0 and not gradient.any() and len(gradient)


def test_micro_batches_add_up_to_the_whole():
    """Two micro-batches of unequal trees: what dapo and Dr. GRPO divide by belongs to the generation."""
    trees = [_example(0, steps=3), _example(1, steps=9), _example(2, steps=5)]
    for loss_type in ("dapo", "dr_grpo"):
        one = Injected(loss_type=loss_type)
        two = Injected(loss_type=loss_type, gradient_accumulation_steps=2)
        trees = one.sampled(trees)
        _, whole = one.gradient(trees, "packed")
        two.run.current_gradient_accumulation_steps = 2
        batch = two.batch(trees, "packed")
        assert len(micro_batches(batch)) == 2
        _, divided = two.of(batch)
        assert torch.allclose(whole, divided, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"loss_type": "grpo"}, {"loss_type": "sapo"}, {"loss_type": "luspo"}, {"loss_type": "bnpo"}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_mean_over_each_micro_batch_is_of_the_rows_of_the_generation(options):
    """Such a loss depends on which rows come together, which packing would decide by the shapes of the trees."""
    harness = Injected(**options, num_continuations=0, gradient_accumulation_steps=2)
    assert harness.run._layout.wanted == "padded"
    with pytest.raises(ValueError, match=r"layout must be 'auto' or 'padded' with .*, got 'packed'"):
        Injected(**options, num_continuations=0, layout="packed")


def test_the_most_uncertain_tokens_are_chosen_whatever_they_weigh():
    """A trunk of eight siblings weighs eight: it is no more uncertain for that."""
    rng = np.random.default_rng(0)
    tree = EpisodeTree(({"role": "user", "content": "q"},))

    def step(parent):
        prompt = tree.prompt_token_ids(parent) or (*tree.token_ids(parent), *rng.integers(0, 6, 3).tolist())
        action = Action("x", token_ids=tuple(rng.integers(0, 6, 6).tolist()), logprobs=(-1.0,) * 6)
        return tree.add(parent, replace(action, prompt_token_ids=prompt), reward=0.0)

    trunk = step(0)
    for _ in range(8):
        step(trunk)
    harness, seen = Injected(top_entropy_quantile=0.25), []
    chosen = harness.run.get_high_entropy_mask

    def spy(entropies, mask, threshold):
        seen.append((entropies, mask, chosen(entropies, mask, threshold)))
        return seen[-1][2]

    harness.run.get_high_entropy_mask = spy
    for layout in ("packed", "padded"):
        harness.gradient(harness.sampled([tree]), layout)
        entropies, mask, kept = seen.pop()
        assert mask.max() > 1.5 * mask[mask > 0].min()
        least = torch.quantile(entropies[mask > 0].float(), 0.75)
        assert torch.equal(kept.bool(), (entropies >= least) & (mask > 0))


def test_computed_tokens_are_the_unique_ones():
    harness = Injected()
    trees = harness.sampled([_example(seed, steps=12) for seed in range(2)])
    beginnings = {
        (number, path[:n])
        for number, tree in enumerate(trees)
        for path in (tree.token_ids(i) for i in range(1, len(tree)))
        for n in range(1, len(path) + 1)
    }
    assert computed_tokens(harness.batch(trees, "packed")) == len(beginnings)
    assert computed_tokens(harness.batch(trees, "padded")) > len(beginnings)


# ---------------------------------------------------------------------- models


def tiny_config(kind, **options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 500}
    return kind(**sizes, **options)


def made(settings_of, **options):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings_of, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def llama(**options):
    return made(tiny_config(LlamaConfig, intermediate_size=64, num_key_value_heads=1), **options)


def gpt2():
    return made(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=500, n_positions=128))


def mistral(window):
    return made(tiny_config(MistralConfig, intermediate_size=64, num_key_value_heads=1, sliding_window=window))


@pytest.mark.parametrize(
    "make",
    [llama, lambda: llama(attn_implementation="eager"), lambda: mistral(200)],
    ids=["sdpa", "eager", "window longer than rows"],
)
def test_models_that_are_packed(make):
    harness = Injected(make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(harness, [_example(seed) for seed in range(2)], FLOAT32)


def test_learned_positions_are_those_of_sampling():
    """TRL's padded rows begin with padding and tell no positions, which shifts learned ones; packed rows tell them."""
    harness = Injected(gpt2())
    trees = harness.sampled([_example(seed) for seed in range(2)])
    (batch,) = micro_batches(harness.batch(trees, "packed"))
    with torch.no_grad():
        new = model_for(harness.run.model, batch).logprobs()
    trained = batch["tool_mask"] > 0
    assert torch.allclose(new[trained], batch["old_per_token_logps"][trained], atol=1e-5)


def mamba():
    return made(MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=500, state_size=4))


def hybrid():
    return made(
        tiny_config(
            Qwen3NextConfig,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=32,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
            num_experts=2,
            num_experts_per_tok=1,
            linear_num_key_heads=2,
            linear_num_value_heads=2,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            layer_types=["linear_attention", "full_attention"],
        )
    )


def with_sinks():
    return made(
        tiny_config(
            GptOssConfig,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=32,
            num_local_experts=2,
            num_experts_per_tok=1,
        ),
        attn_implementation="eager",
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (mamba, "layers of type linear_attention|recurrent"),
        (hybrid, "layers of type linear_attention"),
        (with_sinks, "attention sinks"),
        (lambda: mistral(4), "beyond 4"),
    ],
)
def test_models_that_fall_back_to_padded_rows_say_why(make, words):
    harness = Injected(make())
    trees = [_example(seed) for seed in range(2)]
    with pytest.warns(UserWarning, match=f"rows are padded, not packed, with .*{words}"):
        batch = harness.batch(trees, "auto")
    assert "packed_ids" not in micro_batches(batch)[0]
    with pytest.raises(ModelError, match=f"layout='packed' is not possible.*{words}.*'auto'"):
        harness.batch(trees, "packed")


def test_a_model_that_ignores_positions_is_found_by_trying():
    """MPT biases attention by the distance in the row, whatever positions it is told."""
    model = made(MptConfig(d_model=32, n_heads=2, n_layers=1, vocab_size=500, max_seq_len=64))
    assert obstacle(model) is None
    assert "ignores the mask or the positions" in str(probe(Injected(model).run.model, 500))


def test_a_model_that_ignores_the_mask_is_found_by_trying():
    harness = Injected(llama())
    assert probe(harness.run.model, 500) is None
    layer = harness.run.model.model.layers[0]
    forward = layer.forward
    layer.forward = lambda hidden, attention_mask=None, **rest: forward(hidden, attention_mask=None, **rest)
    assert "ignores the mask" in str(probe(harness.run.model, 500))


def test_flash_attention_takes_no_mask():
    model = llama()
    model.config._attn_implementation = "flash_attention_2"
    assert "'flash_attention_2' takes no mask" in str(obstacle(model))


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"layout must be 'auto', 'packed' or 'padded', got 'flat'"):
        config(tmp_path, layout="flat")
    for wrong in ({"max_packed_tokens": 0}, {"max_packed_tokens": 100, "layout": "padded"}):
        with pytest.raises(ValueError, match="max_packed_tokens must be at least 1 or None"):
            config(tmp_path, **wrong)
