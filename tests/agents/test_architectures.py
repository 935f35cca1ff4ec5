"""Models of many architectures: exact by their cache, exact without it, or refused by name."""

import warnings
from types import MethodType
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from tiny_chat import CONVERSATIONS, answer, random_model, tiny
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, Gemma3ForConditionalGeneration

from agentenv.agents import TransformersAgent
from agentenv.errors import ModelError
from agentenv.protocols import Context

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
MIXED = {**SIZES, "head_dim": 8, "sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
LINEAR = {
    **SIZES,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 16,
}
HEADS = {"num_hidden_layers": 2, "num_attention_heads": 4}
LOCAL = [[["global", "local"], 1]]
LATENT = {
    **SIZES,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
    "first_k_dense_replace": 1,
}
STATE = {"hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}

CACHED: dict[str, dict[str, Any]] = {
    "gpt2": {**GPT, "n_positions": 256},  # learned positions
    "opt": {"hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32, **HEADS},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # no positions but in the attention's bias
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": LOCAL, "window_size": 9},
    "mistral": {**SIZES, "sliding_window": 9},
    "gemma3_text": MIXED,
    "gpt_oss": {**MIXED, **EXPERTS},
    "qwen3_next": LINEAR,
    "lfm2": {**SIZES, "layer_types": ["conv", "full_attention"]},
    "deepseek_v3": LATENT,
}
AFRESH: dict[str, dict[str, Any]] = {
    "mamba": STATE,
    "mamba2": {**STATE, "num_heads": 4, "head_dim": 16, "n_groups": 1},
    "falcon_mamba": STATE,
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "openai-gpt": {**GPT, "n_positions": 256},
    "minimax": {
        **SIZES,
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "num_local_experts": 2,
        "block_size": 4,
    },
}


def made(kind: str, sizes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config: Any = CONFIG_MAPPING[kind]
    model = AutoModelForCausalLM.from_config(config(vocab_size=len(tiny()[1]), **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def assert_exact_over_turns(agent: Any) -> None:
    """Every log-probability equals that of one plain forward over the whole sequence, alone and unpadded."""
    contexts = [Context((CONVERSATIONS[i][0],), seed=i) for i in (0, 1, 1, 40)]
    for number in range(3):
        actions = agent.act(contexts)
        for action in actions:
            ids = action.prompt_token_ids + action.token_ids
            with torch.no_grad():
                logprobs = agent.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            start = len(action.prompt_token_ids) - 1
            expected = [logprobs[start + t, token].item() for t, token in enumerate(action.token_ids)]
            assert action.logprobs == pytest.approx(expected, abs=1e-4)
        following = []
        for i, (context, action) in enumerate(zip(contexts, actions, strict=True)):
            messages = (*context.messages, action.to_message())
            ids = action.prompt_token_ids + action.token_ids
            following.append(Context((*messages, answer("7 " * (1 + i))), (), ids, len(messages), 10 * i + number))
        contexts = following


@pytest.mark.parametrize("kind", CACHED)
def test_cached_sampling_is_exact(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        agent = TransformersAgent(made(kind, CACHED[kind]), tiny()[1], max_new_tokens=6)
    assert_exact_over_turns(agent)


@pytest.mark.parametrize("kind", AFRESH)
def test_models_that_keep_their_past_otherwise_are_sampled_without_a_cache(kind):
    with pytest.warns(RuntimeWarning, match=r"\w+ does not keep its past in a cache .* right, but slow"):
        agent = TransformersAgent(made(kind, AFRESH[kind]), tiny()[1], max_new_tokens=6)
    assert_exact_over_turns(agent)


@pytest.mark.parametrize(("kind", "name"), [("bert", "BertLMHeadModel"), ("xlnet", "XLNetLMHeadModel")])
def test_models_that_look_ahead_are_refused(kind, name):
    sizes = {"bert": {**SIZES}, "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}}[kind]
    with pytest.raises(ModelError, match=f"model must be causal, {name} says other things"):
        TransformersAgent(made(kind, sizes), tiny()[1])


def test_both_ways_of_sampling_draw_the_same_tokens():
    model, tokenizer = random_model()
    agent: Any = TransformersAgent(model, tokenizer, max_new_tokens=12)
    afresh: Any = TransformersAgent(model, tokenizer, max_new_tokens=12)
    afresh._sampler.caches = False
    contexts = [Context((CONVERSATIONS[i % 9][0],), seed=i, max_tokens=3 + i) for i in range(12)]
    drawn, again = agent.act(contexts), afresh.act(contexts)
    assert [a.token_ids for a in again] == [a.token_ids for a in drawn]
    assert [a.finish_reason for a in again] == [a.finish_reason for a in drawn]
    assert {a.finish_reason for a in drawn} == {"stop", "length"}
    assert [a.logprobs for a in again] == [pytest.approx(a.logprobs, abs=1e-5) for a in drawn]


def test_the_window_of_a_composite_configuration_is_its_texts():
    torch.manual_seed(0)
    text = {**MIXED, "vocab_size": len(tiny()[1]), "max_position_embeddings": 64}
    seen = {"hidden_size": 16, "intermediate_size": 16, "image_size": 28, "patch_size": 14, **HEADS}
    composite: Any = CONFIG_MAPPING["gemma3"]
    config = composite(text_config=text, vision_config=seen, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config).eval()
    assert not hasattr(config, "max_position_embeddings")
    agent: Any = TransformersAgent(model, tiny()[1], max_new_tokens=6)
    assert agent.context_length == 64
    assert_exact_over_turns(agent)
    (long,) = agent.act([Context(({"role": "user", "content": "1 " * 100},))])
    assert (long.token_ids, long.finish_reason) == ((), "length")


def test_half_precision_is_no_reason_to_go_without_a_cache():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for kind in ("gpt2", "mistral", "qwen3_next"):
            TransformersAgent(made(kind, CACHED[kind]).bfloat16(), tiny()[1])
    with pytest.warns(RuntimeWarning, match="MambaForCausalLM does not keep its past"):
        TransformersAgent(made("mamba", STATE).bfloat16(), tiny()[1])


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "qwen3_next"])
def test_autocast_around_weights_in_full_precision_is_no_reason_either(kind):
    """As a trainer has it with `bf16=True`: outputs are cast back, so that only the last layer shows the precision."""
    model: Any = made(kind, CACHED[kind])
    autocast = torch.autocast("cpu", torch.bfloat16)
    model.forward = MethodType(convert_outputs_to_fp32(autocast(type(model).forward)), model)  # as accelerate does
    assert model(input_ids=torch.tensor([[1, 2]])).logits.dtype == model.dtype == torch.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert TransformersAgent(model, tiny()[1])._sampler.caches


def test_what_forgets_its_past_is_found_in_autocast_too():
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(RuntimeWarning, match="MambaForCausalLM does not keep"):
        TransformersAgent(made("mamba", STATE), tiny()[1])
