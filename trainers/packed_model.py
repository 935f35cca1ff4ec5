"""One forward pass over packed rows, in place of the forward pass over padded rows that TRL's loss asks for.

`PackedModel` stands where TRL's loss expects the model, is called as TRL calls the model, and answers with the
log-probabilities and entropies `[B, L]` of the padded rows, computed from packed rows `[P, T]` (`packing`). The loss is
TRL's own: every option of it holds in both layouts alike.

Letters: `B` padded rows, `L` tokens of a completion, `P` packed rows, `T` tokens of each, `M` sampled tokens.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel

__all__ = ["MASKED", "PackedModel", "ancestor_mask"]

MASKED = frozenset({"sdpa", "eager", "flex_attention"})
"""The implementations of attention, by transformers' names, that can be given a mask of one's own."""


@dataclass(frozen=True, slots=True)
class PackedModel:
    """A model that computes the log-probabilities of one micro-batch from its packed rows.

    Attributes:
        model: patched by TRL (`fused_lm_head`), wrapped for distribution or not.
        batch: `packed_ids`, `packed_positions`, `packed_ends` `[P, T]`; `packed_sources`, `packed_targets`,
            `packed_places` `[M]`: which token of `P * T` predicts which token, for which entry of `B * L`.
    """

    model: Any
    batch: Mapping[str, torch.Tensor]

    def __call__(self, **_: Any) -> SimpleNamespace:
        """Computes `log_probs` and `entropy`, each `[B, L]`, 0 where nothing was sampled that is trained here.

        What TRL hands over, the padded rows, is not read.
        """
        batch = self.batch
        inner = _inner(self.model)
        with _only(inner.base_model, batch["packed_sources"]):
            output = self.model(
                input_ids=batch["packed_ids"],
                position_ids=batch["packed_positions"],
                attention_mask=ancestor_mask(batch["packed_ends"], inner),
                shift_labels=batch["packed_targets"][None],
                fused_lm_head=True,
            )
        shape = batch["completion_ids"].shape

        def spread(values: torch.Tensor | None) -> torch.Tensor | None:
            if values is None:
                return None
            flat = values.new_zeros(shape.numel() + 1)  # the last entry takes what stands for nothing
            return flat.index_copy(0, batch["packed_places"], values[0])[:-1].view(shape)

        return SimpleNamespace(log_probs=spread(output.log_probs), entropy=spread(output.entropy), aux_loss=None)

    def logprobs(self) -> torch.Tensor:
        """Computes the log-probabilities `[B, L]`."""
        return self().log_probs


def ancestor_mask(ends: torch.Tensor, model: Any) -> Any:
    """Makes the mask by which every token sees its own row only: token `q` sees `k` when `k <= q < end[k]`.

    Args:
        ends: `[P, T]`, see `packing.Fold`.
        model: whose implementation of attention decides the form.

    Returns:
        `[P, 1, T, T]`, boolean for `sdpa`, to be added for `eager`; blocks for `flex_attention`.
    """
    kind = implementation(model)
    if kind == "flex_attention":
        return _block_mask(ends)
    number = torch.arange(ends.size(1), device=ends.device)
    seen = (number[None, None, :] <= number[None, :, None]) & (number[None, :, None] < ends[:, None, :])
    if kind == "eager":
        lowest = torch.finfo(model.dtype).min
        return torch.zeros(seen.shape, dtype=model.dtype, device=seen.device).masked_fill(~seen, lowest)[:, None]
    return seen[:, None]


def implementation(model: Any) -> str:
    """Returns transformers' name of the implementation of attention that a model uses."""
    return str(getattr(model.config.get_text_config(), "_attn_implementation", None))


def _block_mask(ends: torch.Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(row: torch.Tensor, _: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < ends[row, k])

    size = ends.size(1)
    return create_block_mask(sees, len(ends), None, size, size, device=str(ends.device))


def _inner(model: Any) -> Any:
    """Returns the causal language model below wrappers and adapters."""
    model = extract_model_from_parallel(model, keep_torch_compile=False)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _only(backbone: torch.nn.Module, sources: torch.Tensor) -> Generator[None]:
    """Lets a backbone return the hidden states `[1, M, H]` of some tokens only, so that the head reads no others."""

    def pick(_: torch.nn.Module, __: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden.reshape(-1, hidden.size(-1))[sources][None]
        return output

    handle = backbone.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()
