"""Which of TRL's options `TreeTrainer` honors, and what to do instead of those that it refuses.

TRL's `GRPOTrainer` samples completions and scores them; `TreeTrainer` does both itself, so that options of that half
would be ignored in silence. Each is refused by name, unless it has the value that changes nothing.
"""

import math
from dataclasses import MISSING, Field, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args, get_type_hints

from transformers import TrainingArguments
from trl import GRPOConfig

__all__ = ["HONORED", "REFUSED", "check_options", "check_types"]

HONORED = frozenset({
    # the model
    "model_init_kwargs", "trust_remote_code", "router_aux_loss_coef", "disable_dropout", "cast_lm_head_to_fp32",
    # tables
    "log_completions", "num_completions_to_print", "log_unique_prompts",
    # sampling
    "temperature", "chat_template_kwargs", "ds3_gather_for_generation",
    # sampling with TRL's vLLM; `check_vllm` says what goes together
    "use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_server_base_url", "vllm_server_host",
    "vllm_server_port", "vllm_server_timeout", "vllm_group_port", "vllm_gpu_memory_utilization",
    "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_importance_sampling_correction",
    # batches
    "shuffle_dataset", "pad_to_multiple_of", "generation_batch_size", "steps_per_generation", "num_iterations",
    "num_generations", "num_generations_eval",
    # the loss
    "loss_type", "epsilon", "epsilon_high", "delta", "importance_sampling_level", "mask_truncated_completions",
    "max_completion_length", "off_policy_mask_threshold", "top_entropy_quantile", "sapo_temperature_neg",
    "sapo_temperature_pos", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg",
    "beta", "use_bias_correction_kl", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps",
    "entropy_coef", "use_adaptive_entropy", "entropy_coef_min", "entropy_coef_max", "entropy_coef_delta",
    "entropy_target",
})  # fmt: skip
"""Options of TRL that do here what they do there; `TreeConfig` says what is special about a few."""

_DISTRIBUTION = "the loss needs the probabilities of the distribution that was sampled from: leave it out"
_ENGINE = "the training model itself samples: leave it out"
_RATIO = "the ratio is taken per token and cut off at importance_cap: set that"
_REWARD = "rewards come from the environment and are made comparable by the estimator: choose that"
_TREES = "set save_trees_steps: whole episodes are written to the run folder, and `agentenv trees` prints them"

REFUSED: dict[str, str] = {
    **dict.fromkeys(["top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs"], _DISTRIBUTION),
    **dict.fromkeys(
        ["cache_implementation", "use_transformers_paged", "use_transformers_continuous_batching",
         "transformers_continuous_batching_config"],
        _ENGINE,
    ),
    "vllm_structured_outputs_regex": _DISTRIBUTION,
    **dict.fromkeys(
        ["vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min",
         "vllm_importance_sampling_cap"],
        _RATIO,
    ),
    **dict.fromkeys(["reward_weights", "multi_objective_aggregation", "scale_rewards"], _REWARD),
    "max_tool_calling_iterations": "set the environment's max_steps",
    **dict.fromkeys(["log_multimodal", "log_completions_hub_repo"], _TREES),
    # of transformers
    "neftune_noise_alpha": "noise in the loss but not in sampling makes the ratio wrong: leave it out",
    "label_smoothing_factor": "the loss has no labels: leave it out",
    "remove_unused_columns": "tasks are no columns of text: leave it out",
    "train_sampling_strategy": "tasks come in the order that TRL's sampler gives, shuffled or not (shuffle_dataset)",
}  # fmt: skip
"""Options that are refused unless they have their default, and the remedy."""

_NEUTRAL: dict[str, tuple[object, ...]] = {
    "top_k": (0, None, -1),
    "min_p": (None, 0.0),
    "scale_rewards": ("group", True),
}
"""Other values that change nothing."""


def check_options(config: GRPOConfig) -> None:
    """Refuses options of TRL that would be ignored.

    Raises:
        ValueError: one has another value than the one that changes nothing; the message names it and the remedy.
    """
    inherited = {field.name for field in fields(TrainingArguments)}
    for field in fields(GRPOConfig):
        value, remedy = getattr(config, field.name), REFUSED.get(field.name)
        if remedy is None and (field.name in inherited or field.name in HONORED):
            continue
        neutral = (_default(field), *_NEUTRAL.get(field.name, ()))
        if not any(value == other for other in neutral):
            reason = remedy or "TreeTrainer does not know this option of a newer TRL: leave it out"
            msg = f"{field.name} must be {neutral[0]!r}, got {value!r}: {reason}"
            raise ValueError(msg)


_KINDS: dict[object, str] = {bool: "True or False", int: "an integer", float: "a number", NoneType: "None"}


def check_types(config: GRPOConfig) -> None:
    """Refuses switches, integers and numbers that are something else.

    `"no"`, from a file or a command line, would count as yes, and two and a half episodes as an error far from here.

    Raises:
        ValueError: a field has another type than it is declared with, or is not a number; the message names it.
    """
    for field in fields(config):
        kinds = _declared(type(config)).get(field.name)
        value = getattr(config, field.name)
        if kinds is None or field.name in REFUSED or value is _default(field):
            continue
        if not any(_is(value, kind) for kind in kinds):
            msg = f"{field.name} must be {' or '.join(_KINDS[kind] for kind in kinds)}, got {value!r}"
            raise ValueError(msg)


@cache
def _declared(config: type[GRPOConfig]) -> dict[str, tuple[object, ...]]:
    """Returns the types of the fields that are nothing but switches, integers, numbers or `None`."""
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(config).items()}
    return {name: kinds for name, kinds in hints.items() if all(kind in _KINDS for kind in kinds)}


def _is(value: object, kind: object) -> bool:
    if kind is NoneType:
        return value is None
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, Integral if kind is int else Real) and not math.isnan(value)


def _default(field: "Field[Any]") -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default
