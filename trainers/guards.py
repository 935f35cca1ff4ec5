"""What must hold before weights change: no dropout, ratios of 1 at the first loss, finite losses and gradients."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from agentenv.errors import ModelError

from .packed_model import PackedModel

__all__ = [
    "FiniteGradients",
    "LogRatio",
    "active_noise",
    "check_tokens",
    "log_ratio",
    "reference_logprobs",
    "remove_noise",
    "token_logprobs",
]

_NOISE = re.compile(r"drop_?out|drop_?path|layer_?drop|jitter_noise")

_ROWS = 4
"""Rows of a batch that are enough to see whether ratios are 1."""

_TOKENS = 128
"""Tokens whose logits become float32 at a time."""


def active_noise(model: torch.nn.Module) -> dict[str, float]:
    """Returns the settings that make a model's forward pass random in training mode, by their names.

    Found by name: the probability of dropout modules, and numbers above 0 called dropout, layerdrop or the like.
    """
    return {f"{name}.{key}".lstrip("."): value for name, _, key, value in _noise(model)}


def check_tokens(model: Any, tokenizer: Any) -> PreTrainedTokenizerBase:
    """Returns the tokenizer, unless the model cannot read or end what it makes.

    Raises:
        ModelError: it has no end token, or tokens that the model does not know.
    """
    if tokenizer.eos_token_id is None:
        msg = "tokenizer must have an end token, which ends an action: set tokenizer.eos_token to that of the template"
        raise ModelError(msg)
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        msg = (
            f"model must know all {len(tokenizer)} tokens of its tokenizer, got one that knows {known}: take its own "
            "tokenizer, or model.resize_token_embeddings(len(tokenizer))"
        )
        raise ModelError(msg)
    return tokenizer


def remove_noise(model: torch.nn.Module) -> None:
    """Sets all that `active_noise` finds to 0."""
    for _, module, key, _ in list(_noise(model)):
        setattr(module, key, 0.0)


def _noise(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module, str, float]]:
    for name, module in model.named_modules():
        dropout = "dropout" in type(module).__name__.lower()
        for key, value in vars(module).items():
            named = _NOISE.search(key.lower()) or (dropout and key == "p")
            if named and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                yield name, module, key, float(value)


def token_logprobs(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], *, temperature: float) -> torch.Tensor:
    """Computes the log-probabilities `[B, L]` of a batch's completion tokens, in one forward pass.

    Logits become float32 a part of the tokens at a time, because they take more memory than all the rest.
    """
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    width = batch["completion_ids"].size(1)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
    parts = zip(logits.split(_TOKENS, dim=1), ids[:, -width:, None].split(_TOKENS, dim=1), strict=True)
    logprobs = [
        scaled.gather(2, tokens).squeeze(2) - scaled.logsumexp(2)
        for scaled, tokens in ((part.float() / temperature, tokens) for part, tokens in parts)
    ]
    return torch.cat(logprobs, dim=1)


@torch.no_grad()
def reference_logprobs(model: Any, batch: Mapping[str, torch.Tensor], size: int, temperature: float) -> torch.Tensor:
    """Computes the log-probabilities `[B, L]` of a micro-batch without gradients and without dropout.

    Args:
        model: patched by TRL, in whichever mode, which is left as it was.
        batch: packed, or padded.
        size: padded rows of one forward pass.
        temperature: of sampling.
    """
    training = model.training
    model.eval()
    try:
        if "packed_ids" in batch:
            return PackedModel(model, batch).logprobs()
        read = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        parts = zip(*(batch[name].split(size) for name in read), strict=True)
        return torch.cat(
            [token_logprobs(model, dict(zip(read, part, strict=True)), temperature=temperature) for part in parts]
        )
    finally:
        model.train(training)


@dataclass(frozen=True, slots=True)
class LogRatio:
    """How far the loss is from the policy that sampled, before any update: 0 but for rounding.

    Attributes:
        mean: mean absolute difference of the log-probabilities of sampled tokens.
        largest: the largest.
        tokens: how many were compared.
    """

    mean: float
    largest: float
    tokens: int

    def warn_unless_rounding(self, model: torch.nn.Module, *, half: bool = False) -> None:
        """Warns when rounding does not explain the difference, or will not at later losses, and says what does.

        Args:
            model: that was compared.
            half: whether it computes in half precision, whatever its weights are.
        """
        exact = not half and all(parameter.dtype in {torch.float32, torch.float64} for parameter in model.parameters())
        noise = [f"{name}={value:g}" for name, value in active_noise(model).items()]
        if self.mean <= (1e-4 if exact else 2e-2) and not noise:
            return
        reason = (
            f"the loss is computed with noise that sampling does not have ({', '.join(noise[:3])}"
            f"{', ...' if len(noise) > 3 else ''}): leave disable_dropout on"
            if noise
            else "the model computes otherwise in training mode, or with a cache or left padding, than without"
        )
        msg = (
            f"before any update the log-probabilities of the loss differ from those of sampling by {self.mean:.2g} on "
            f"average and up to {self.largest:.2g} over {self.tokens} tokens; ratios are not 1: {reason}"
        )
        warnings.warn(msg, stacklevel=2)


def log_ratio(model: torch.nn.Module, batch: Mapping[str, torch.Tensor], *, temperature: float) -> LogRatio:
    """Compares log-probabilities of the loss with those of sampling on some rows, in the model's present mode.

    Random numbers of the caller are left as they are.

    Args:
        model: whose weights sampled the batch.
        batch: as `Rows.with_advantages` gives it.
        temperature: of sampling.
    """
    rows = batch["tool_mask"].sum(1).topk(min(_ROWS, len(batch["tool_mask"]))).indices
    few = {name: tensor[rows] for name, tensor in batch.items() if tensor.ndim == 2 and "packed" not in name}
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
        if "packed_ids" in batch:
            new = PackedModel(model, batch).logprobs()[rows]
        else:
            rows_of = ({name: tensor[i : i + 1] for name, tensor in few.items()} for i in range(len(rows)))
            new = torch.cat([token_logprobs(model, row, temperature=temperature) for row in rows_of])
    difference = (new - few["old_per_token_logps"]).abs()[few["tool_mask"] > 0]
    if not len(difference):
        return LogRatio(0.0, 0.0, 0)
    return LogRatio(float(difference.mean()), float(difference.max()), len(difference))


class FiniteGradients(TrainerCallback):
    """Stops training before an optimizer step that would write numbers which are not finite into the weights."""

    @override
    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model: torch.nn.Module = kwargs["model"]
        if args.fp16:  # the gradient scaler expects infinities, and skips their steps
            return
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                msg = (
                    f"the gradient of {name} is not finite at step {state.global_step + 1}: training stops before it "
                    "reaches the weights; resume from the last checkpoint with a lower learning rate or another seed"
                )
                raise FloatingPointError(msg)
