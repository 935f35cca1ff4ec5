"""What is asked of a vLLM engine, in this process or behind a URL."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = ["InFlight", "Request", "Sampling", "check_in_flight"]

InFlight = Literal["keep", "restart"]
"""What becomes of requests that are on their way while weights change; see `VLLMAgent.pause`."""


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation to draw.

    Attributes:
        prompt: `[L]` token ids.
        max_tokens: most tokens to draw, at least 1; prompt and these fit into the window.
        seed: of this continuation's noise.
    """

    prompt: Sequence[int]
    max_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution that tokens are drawn from.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: only the likeliest tokens that together have this probability; 1 for all.
        stop_token_ids: what ends a continuation, and nothing else does.
    """

    temperature: float
    top_p: float
    stop_token_ids: frozenset[int]

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            msg = f"temperature must be finite and at least 0, got {self.temperature}"
            raise ValueError(msg)
        if not 0 < self.top_p <= 1:
            msg = f"top_p must be above 0 and at most 1, got {self.top_p}"
            raise ValueError(msg)

    @property
    def plain(self) -> bool:
        """Whether the model's own distribution is sampled from, or no log-probability matters."""
        return self.temperature == 0 or (self.temperature == 1 and self.top_p == 1)

    def as_vllm(self) -> dict[str, Any]:
        """Returns arguments for vLLM that leave nothing to a model's generation config, penalties and end tokens."""
        return {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "min_tokens": 0,
            "ignore_eos": True,
            "stop_token_ids": sorted(self.stop_token_ids),
        }


def check_in_flight(value: object) -> None:
    """Refuses what is neither "keep" nor "restart"."""
    if value not in get_args(InFlight):
        msg = f"in_flight must be one of {', '.join(map(repr, get_args(InFlight)))}, got {value!r}"
        raise ValueError(msg)
