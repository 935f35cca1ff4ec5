"""Models that keep their past otherwise than in keys and values: found by a trial, and sampled without a cache."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from agentenv.errors import ModelError

from .drawing import draw, evaluating
from .noise import uniforms
from .samples import Sample, TokenIds

__all__ = ["past_is_kept", "sample_afresh"]

_LENGTHS = (14, 9, 4)
_MORE = 3


def past_is_kept(
    model: PreTrainedModel, read_on: Callable[[Sequence[TokenIds], Sequence[int]], torch.Tensor], window: int | None
) -> bool:
    """Says whether a model that reads on from its cache, under left padding too, knows what it read before.

    Logits of cached reading are compared with those of one plain forward per prompt. The answer is no where they differ
    by more than half a percent of what forgetting the whole prompt would change, and by more than rounding, which is
    that of what the model computes in: weights of float32 do so in bfloat16 where a trainer has autocast around them.

    Args:
        model: in evaluation mode.
        read_on: reads prompts, then a few more tokens after each, as sampling does, and returns the last logits.
        window: tokens that the model can read, where there is a limit.

    Raises:
        ModelError: what comes later changes what the model says before.
    """
    size = model.config.get_text_config().vocab_size
    tokens = [1 + 7 * i % max(1, size - 1) for i in range(sum(_LENGTHS) + _MORE)]
    more = tokens[-_MORE:]
    if window is not None and window < sum(_LENGTHS) + _MORE:
        return True
    prompts = [tuple(tokens[sum(_LENGTHS[:i]) :][:length]) for i, length in enumerate(_LENGTHS)]
    try:
        with _outputs_of_head(model) as kinds:
            right = torch.stack([_last_logits(model, [*prompt, *more]) for prompt in prompts])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return True  # it works in no way, and sampling will say so
    if not bool(torch.isfinite(right).all()):
        return True
    forgotten = (right - _last_logits(model, more)).abs().max()
    rounding = max(torch.finfo(kind).eps for kind in (model.dtype, *kinds))
    allowed = max(forgotten / 200, 4 * rounding * right.abs().max())
    earlier = _last_logits(model, [*prompts[0], *more, *prompts[1]], len(prompts[0]) + _MORE - 1)
    if (earlier - right[0]).abs().max() > allowed:
        msg = f"model must be causal, {type(model).__name__} says other things of a token when others come after it"
        raise ModelError(msg)
    try:
        cached = read_on(prompts, more).float()
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    return bool((cached - right).abs().max() <= allowed)


@contextmanager
def _outputs_of_head(model: PreTrainedModel) -> Generator[list[torch.dtype]]:
    """Lists the types of what the last layer returns, before anybody casts it."""
    kinds: list[torch.dtype] = []
    head = model.get_output_embeddings()

    def note(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            kinds.append(output.dtype)

    hook = head.register_forward_hook(note) if isinstance(head, torch.nn.Module) else None
    try:
        yield kinds
    finally:
        if hook is not None:
            hook.remove()


def _last_logits(model: PreTrainedModel, ids: Sequence[int], place: int = -1) -> torch.Tensor:
    """Returns the logits `[V]` after a sequence, or at one of its places, by a plain forward."""
    output = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    return output.logits[0, place].float()


@torch.no_grad()
def sample_afresh(
    model: PreTrainedModel,
    prompts: Sequence[TokenIds],
    room: Sequence[int],
    seeds: Sequence[int],
    *,
    stops: torch.Tensor,
    temperature: float,
) -> list[Sample]:
    """Draws one continuation per prompt without a cache or padding: every token reads the whole sequence again.

    Args:
        model: any causal language model.
        prompts: `[B]` token ids, none empty.
        room: `[B]` most tokens of each sample, at least 1.
        seeds: `[B]` of the noise.
        stops: tokens that end a sample.
        temperature: of the distribution; 0 takes the likeliest token.

    Returns:
        `[B]` in the order of the prompts.
    """
    noise = torch.from_numpy(uniforms(seeds, max(room))).to(model.device)
    ending = set(stops.tolist())
    drawn: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
    live = list(range(len(prompts)))
    with evaluating(model):
        while live:
            length = min(len(prompts[i]) + len(drawn[i][0]) for i in live)
            rows = [i for i in live if len(prompts[i]) + len(drawn[i][0]) == length]
            ids = torch.tensor([[*prompts[i], *drawn[i][0]] for i in rows], device=model.device)
            places = torch.tensor([len(drawn[i][0]) for i in rows], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
            token, logprob = draw(logits, noise[torch.tensor(rows, device=model.device), places], temperature)
            for i, value, score in zip(rows, token.tolist(), logprob.tolist(), strict=True):
                drawn[i][0].append(value)
                drawn[i][1].append(score)
            ended = {i for i in rows if len(drawn[i][0]) == room[i] or drawn[i][0][-1] in ending}
            live = [i for i in live if i not in ended]
    return [Sample(tuple(ids), tuple(scores), stopped=ids[-1] in ending) for ids, scores in drawn]
