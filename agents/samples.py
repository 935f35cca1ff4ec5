"""What sampling gives, whoever samples."""

from dataclasses import dataclass

__all__ = ["Sample", "TokenIds"]

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """Sampled tokens.

    Attributes:
        token_ids: `[L]`, the stop token included.
        logprobs: `[L]` natural logarithm of the probability with which each was drawn.
        stopped: whether the last one is a stop token; otherwise a limit cut the sequence.
        cached: how many tokens of the prompt were not read, because their keys were kept or another row read them.
        weight_version: of the weights it was drawn from, where the sampler counts.
    """

    token_ids: TokenIds
    logprobs: tuple[float, ...]
    stopped: bool
    cached: int = 0
    weight_version: int | None = None
