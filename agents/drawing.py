"""How one token is drawn, and how a model stands while it is drawn from."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

__all__ = ["draw", "evaluating"]


def draw(logits: torch.Tensor, noise: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws by inverting the cumulative distribution: one uniform number per row.

    Args:
        logits: `[B, V]`.
        noise: `float64 [B]` in [0, 1).
        temperature: divides the logits; 0 takes the maximum.

    Returns:
        Tokens `int64 [B]` and their log-probabilities `float32 [B]`.
    """
    if temperature == 0:
        token = logits.argmax(-1)
        return token, torch.zeros_like(token, dtype=torch.float32)
    logprobs = torch.log_softmax(logits.float() / temperature, dim=-1)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    threshold = noise[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=logits.shape[-1] - 1)
    return token[:, 0], logprobs.gather(1, token)[:, 0]


@contextmanager
def evaluating(model: PreTrainedModel) -> Generator[None]:
    """Puts every module into evaluation mode, and back into its own mode afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
