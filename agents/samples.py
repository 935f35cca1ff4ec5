"""What sampling gives, whoever samples."""

import math
from dataclasses import dataclass, replace

from agentenv.errors import AgentError
from agentenv.protocols import Context
from agentenv.tokens import TokenIds as GrowingIds
from agentenv.types import Action, Usage

from .chat import ChatFormat

__all__ = ["Sample", "TokenIds", "read_sample"]

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


def read_sample(chat: ChatFormat, context: Context, prompt: TokenIds | GrowingIds, sample: Sample) -> Action:
    """Returns the action that was sampled, with its tokens and what they cost.

    Args:
        chat: reads the tokens.
        context: what the agent saw.
        prompt: the tokens of that.
        sample: what was drawn after them.

    Raises:
        AgentError: a log-probability is not finite.
    """
    if not all(map(math.isfinite, sample.logprobs)):
        msg = f"log-probabilities must be finite, got {sample.logprobs}: the model's weights or inputs are broken"
        raise AgentError(msg)
    return replace(
        chat.parse(sample.token_ids, tools=context.tools),
        token_ids=sample.token_ids,
        logprobs=sample.logprobs,
        prompt_token_ids=prompt,
        finish_reason="stop" if sample.stopped else "length",
        usage=Usage(len(prompt), sample.cached, len(sample.token_ids)),
        weight_version=sample.weight_version,
    )
