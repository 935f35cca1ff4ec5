"""Sampling from a transformers model: exact log-probabilities, one forward per token for the whole frontier.

The layout is always `[left padding][tokens]` without gaps, so masks and positions mean to any model what they mean in
`model.generate`. Three things make it faster than that: equal prompts are read once and their cache rows repeated; the
keys and values of earlier calls are kept and only the new messages read; finished rows leave the batch.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from .drawing import draw, evaluating
from .kv import SPARE, KeptRow, PrefixStore, gather_rows, is_plain, new_cache, select_rows
from .noise import uniforms
from .recompute import past_is_kept, sample_afresh
from .samples import Sample, TokenIds

__all__ = ["Sampler"]

_COMPACT_AT = 0.5
"""Share of live rows at which the finished ones leave the batch: moving rows costs about one token's forward."""

_UNTOLD = (
    "the model's weights changed between two calls of the agent, and nobody said so; kept keys and values were "
    "dropped: call agent.weights_changed() after every change of the weights, switched adapters included"
)


_PASS = 64
"""Tokens that could be read in the time that a forward pass takes for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class _Frontier:
    """Rows that have read their prompt: `B` of them, `T` slots each, right-aligned."""

    cache: DynamicCache
    logits: torch.Tensor  # [B, V] for the next token
    lengths: torch.Tensor  # [B] tokens of each prompt
    slots: int  # T, the longest prompt
    cached: Sequence[int]  # tokens of each different prompt whose keys were kept from earlier calls

    def select(self, rows: torch.Tensor) -> "_Frontier":
        return _Frontier(select_rows(self.cache, rows), self.logits[rows], self.lengths[rows], self.slots, self.cached)


_AFRESH = (
    "{} does not keep its past in a cache as other models do (cached and uncached log-probabilities differ), so every "
    "token reads the whole conversation again: right, but slow"
)


class Sampler:
    """Draws continuations of prompts from a model's distribution.

    Attributes:
        model: the live model; its weights may change between calls, and whoever changes them calls `weights_changed`.
        max_new_tokens: limit per sample.
        temperature: of the distribution that is sampled from; 0 takes the likeliest token, with log-probability 0.
        kept: keys and values of earlier calls, all of the present weights.
        weight_version: how often the weights have changed.
        context_length: tokens that the model can read; `None` where its configuration names no limit.
        caches: whether the model keeps its past as expected; otherwise every token reads the conversation again.
        on_read: called with the prompts of every batch once the model has read them, in the order of its rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_token_ids: Iterable[int],
        max_new_tokens: int,
        temperature: float = 1.0,
        keep_bytes: int = 1 << 30,
    ) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.kept = PrefixStore(keep_bytes)
        self._keeps = keep_bytes > 0
        self._stops = torch.tensor(sorted(stop_token_ids))
        self.context_length = _context_length(model)
        self.weight_version = 0
        self.on_read: Callable[[Sequence[TokenIds]], None] | None = None
        self._probed: torch.Tensor | None = None
        parameters = signature(model.forward).parameters.values()
        self._accepts = {parameter.name for parameter in parameters}
        self._accepts_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
        self._past = _name_of_cache(model)
        with torch.no_grad(), evaluating(model):
            self.caches = past_is_kept(model, self._read_on, self.context_length)
        if not self.caches:
            self._keeps = False
            warnings.warn(_AFRESH.format(type(model).__name__), RuntimeWarning, stacklevel=3)

    def weights_changed(self) -> None:
        """Drops the kept keys and values, which belong to the weights before, and counts."""
        self.kept.clear()
        self.weight_version += 1
        self._probed = None

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[TokenIds],
        known: Sequence[int],
        seeds: Sequence[int],
        limits: Sequence[int | None] | None = None,
    ) -> list[Sample]:
        """Draws one continuation per prompt.

        Args:
            prompts: `[B]` token ids, none empty.
            known: `[B]` how many of them ended an earlier sample (0: unknown), where keys may be kept.
            seeds: `[B]` of the noise; the same prompt, seed and weights give the same tokens in any batch, up to the
                rounding of floating-point sums.
            limits: `[B]` tokens per sample, where less than `max_new_tokens`.

        Returns:
            `[B]` in the order of the prompts. A prompt that fills the model's window gives an empty sample.
        """
        most = [self.max_new_tokens if limit is None else limit for limit in limits or [None] * len(prompts)]
        room = [min(self._room(len(prompt)), limit) for prompt, limit in zip(prompts, most, strict=True)]
        active = [i for i, tokens in enumerate(room) if tokens > 0]
        samples = [Sample((), (), stopped=False)] * len(prompts)
        if not active:
            return samples
        if not self.caches:
            afresh = [prompts[i] for i in active], [room[i] for i in active], [seeds[i] for i in active]
            drawn = sample_afresh(self.model, *afresh, stops=self._stops, temperature=self.temperature)
            for i, sample in zip(active, drawn, strict=True):
                samples[i] = sample
            return samples
        with evaluating(self.model):
            self._check_weights()
            unique = {prompts[i]: known[i] for i in active}
            number = {prompt: row for row, prompt in enumerate(unique)}
            frontier = self._read(list(unique), list(unique.values()))
            if self.on_read is not None:
                self.on_read(list(unique))
            if len(active) > len(unique):
                frontier = frontier.select(self._tensor([number[prompts[i]] for i in active]))
            drawn = self._decode(
                frontier, [prompts[i] for i in active], [room[i] for i in active], seeds=[seeds[i] for i in active]
            )
        cached = dict(zip(unique, frontier.cached, strict=True))
        for i, sample in zip(active, drawn, strict=True):
            samples[i] = replace(sample, cached=cached.get(prompts[i], len(prompts[i])))
            cached.pop(prompts[i], None)  # the next row with this prompt reads nothing
        return samples

    def _room(self, length: int) -> int:
        window = self.context_length
        return self.max_new_tokens if window is None else min(self.max_new_tokens, window - length)

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(values, device=self.model.device)

    def _check_weights(self) -> None:
        """Compares what the model says to a few fixed tokens with what it said before, where keys may be kept.

        A net below `weights_changed`, which people forget to call. It reads no counter of any framework: whatever
        changes what the model computes changes these logits, be it a fused optimizer, raw memory or an adapter.
        """
        if not self._keeps:
            return
        probed = self._probe()
        if self._probed is None:
            self._keeps = torch.equal(probed, self._probe())  # else it does not repeat itself: no net, nothing kept
        elif not torch.equal(probed, self._probed):
            self.weights_changed()
            warnings.warn(_UNTOLD, RuntimeWarning, stacklevel=2)
        self._probed = probed

    def _probe(self) -> torch.Tensor:
        """Returns the logits `[1, 16, V]` after sixteen tokens spread over the vocabulary; fewer in a narrow window."""
        ids = torch.arange(1, 17, device=self.model.device) * self.model.config.get_text_config().vocab_size // 17
        ids = ids[: self.context_length]
        return self.model(input_ids=ids[None], use_cache=False).logits

    def _read(self, prompts: Sequence[TokenIds], known: Sequence[int]) -> _Frontier:
        """Runs the model over prompts, all different, as far as their keys are not kept already.

        Every row reads the same number of tokens, `C`: the most that any row lacks. A row that lacks less reads some of
        its kept tokens again, which costs no more than padding and leaves no gap.
        """
        kept = [
            self.kept.find(prompt[:length]) if length else None for prompt, length in zip(prompts, known, strict=True)
        ]
        have = [
            0 if where is None else min(where.length, len(prompt) - 1)
            for where, prompt in zip(kept, prompts, strict=True)
        ]
        cached = have
        lack = [len(prompt) - n for prompt, n in zip(prompts, have, strict=True)]
        if is_plain(new_cache(self.model.config)) and (longer := _read_apart(lack)):
            kept, have = self._read_ahead(prompts, known, longer, kept, have)
        lengths = [len(prompt) for prompt in prompts]
        slots, chunk = max(lengths), max(len(prompt) - n for prompt, n in zip(prompts, have, strict=True))
        taken = [max(0, length - chunk) for length in lengths]
        cache = (
            gather_rows(kept, taken, slots - chunk, spare=chunk + min(SPARE, self.max_new_tokens))
            if slots > chunk
            else new_cache(self.model.config)
        )
        ids = self._tensor([[0] * (chunk - len(prompt[-chunk:])) + list(prompt[-chunk:]) for prompt in prompts])
        sizes = self._tensor(lengths)
        mask = self._mask(sizes, slots, slots)
        cached = [min(pair) for pair in zip(cached, taken, strict=True)]
        return _Frontier(cache, self._forward(ids, mask, sizes, slots, cache), sizes, slots, cached)

    def _read_on(self, prompts: Sequence[TokenIds], more: Sequence[int]) -> torch.Tensor:
        """Reads prompts of several lengths, then the same few tokens after each; returns the last logits `[B, V]`."""
        frontier = self._read(prompts, [0] * len(prompts))
        logits, lengths, slots = frontier.logits, frontier.lengths, frontier.slots
        # As sampling does: token by token, and several at once where keys may be kept.
        chunks = [more[:1], more[1:]] if is_plain(frontier.cache) else [[token] for token in more]
        for chunk in chunks:
            slots, lengths = slots + len(chunk), lengths + len(chunk)
            ids = self._tensor([list(chunk)] * len(prompts))
            logits = self._forward(ids, self._mask(lengths, slots, slots), lengths, slots, frontier.cache)
        return logits

    def _read_ahead(
        self,
        prompts: Sequence[TokenIds],
        known: Sequence[int],
        rows: Sequence[int],
        kept: Sequence[KeptRow | None],
        have: Sequence[int],
    ) -> tuple[list[KeptRow | None], list[int]]:
        """Reads all but the last token of some prompts, so that they lack no more than the others."""
        read = self._read([prompts[i][:-1] for i in rows], [known[i] for i in rows])
        kept, have = list(kept), list(have)
        for row, i in enumerate(rows):
            have[i] = len(prompts[i]) - 1
            kept[i] = KeptRow(read.cache, row, read.slots - have[i], have[i])
        return kept, have

    def _mask(self, lengths: torch.Tensor, slots: int, width: int) -> torch.Tensor:
        """Returns `[B, width]`: 0 on the left padding of right-aligned rows, 1 elsewhere."""
        return (torch.arange(width, device=lengths.device)[None, :] >= slots - lengths[:, None]).long()

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor, slots: int, cache: DynamicCache
    ) -> torch.Tensor:
        """Runs the model over the last `C` slots `[B, C]`, appends to the cache, returns the last logits `[B, V]`."""
        places = torch.arange(slots - ids.shape[1], slots, device=ids.device)[None, :] - (slots - lengths[:, None])
        inputs: dict[str, Any] = {"position_ids": places.clamp_(min=0), "logits_to_keep": 1}
        inputs = {name: value for name, value in inputs.items() if self._accepts_all or name in self._accepts}
        inputs[self._past] = cache
        output = self.model(input_ids=ids, attention_mask=mask, use_cache=True, **inputs)
        return output.logits[:, -1]

    def _decode(
        self, frontier: _Frontier, prompts: Sequence[TokenIds], room: Sequence[int], *, seeds: Sequence[int]
    ) -> list[Sample]:
        steps, device = max(room), frontier.logits.device
        noise = torch.from_numpy(uniforms(seeds, steps)).to(device)
        limits, stops = self._tensor(room), self._stops.to(device)
        rows = torch.arange(len(prompts), device=device)
        tokens = torch.zeros(len(prompts), steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(prompts), steps, device=device)
        counts, live = torch.zeros_like(limits), torch.ones_like(limits, dtype=torch.bool)
        cache, logits, lengths, slots = frontier.cache, frontier.logits, frontier.lengths, frontier.slots
        mask = self._mask(lengths, slots, slots + steps)
        left: list[tuple[DynamicCache, torch.Tensor]] = []
        for step in range(steps):
            token, logprob = draw(logits, noise[rows, step], self.temperature)
            tokens[rows, step], logprobs[rows, step] = token, logprob
            counts[rows] += live
            live = live & ~torch.isin(token, stops) & (step + 1 < limits[rows])
            remaining = int(live.sum())
            if remaining == 0:
                break
            if remaining <= _COMPACT_AT * len(rows):
                left.append((cache, rows.where(~live, -1)))
                chosen = live.nonzero()[:, 0]
                cache, rows, token, lengths = select_rows(cache, chosen), rows[chosen], token[chosen], lengths[chosen]
                mask, live = mask[chosen], live[chosen]
            slots += 1
            lengths = lengths + 1
            logits = self._forward(token[:, None], mask[:, :slots], lengths, slots, cache)
        left.append((cache, rows))
        samples = self._samples(tokens, logprobs, counts)
        self._keep(left, prompts, samples, frontier)
        return samples

    def _samples(self, tokens: torch.Tensor, logprobs: torch.Tensor, counts: torch.Tensor) -> list[Sample]:
        stops = set(self._stops.tolist())
        samples: list[Sample] = []
        for ids, values, n in zip(tokens.tolist(), logprobs.tolist(), counts.tolist(), strict=True):
            samples.append(Sample(tuple(ids[:n]), tuple(values[:n]), stopped=ids[n - 1] in stops))
        return samples

    def _keep(
        self,
        left: Sequence[tuple[DynamicCache, torch.Tensor]],
        prompts: Sequence[TokenIds],
        samples: Sequence[Sample],
        frontier: _Frontier,
    ) -> None:
        """Remembers the keys of every prompt and sample, but for the last token, which no forward has read.

        Args:
            left: caches, and `[B']` which prompt each of their rows belongs to, -1 where it went on in a later cache.
            prompts: `[B]`.
            samples: `[B]`.
            frontier: where decoding began.
        """
        if not self._keeps or not is_plain(frontier.cache):
            return
        for cache, rows in left:
            found: dict[TokenIds, KeptRow] = {}
            for row, i in enumerate(rows.tolist()):
                if i < 0:
                    continue
                sequence = prompts[i] + samples[i].token_ids
                if self.kept.find(sequence) is None:
                    found[sequence] = KeptRow(cache, row, frontier.slots - len(prompts[i]), len(sequence) - 1)
            if found:
                self.kept.add(cache, found)


def _read_apart(lack: Sequence[int]) -> list[int]:
    """Chooses the rows that read ahead, so that the others need not read as much as the longest does.

    All rows in one forward pass cost `B` times the most that any lacks. Reading those ahead that lack more than `c`
    costs a pass of their own (what it takes whatever its size, and their longest), and `c` for every row. None where
    that is no cheaper.

    Args:
        lack: `[B]` tokens that each row has yet to read.
    """
    order = sorted(range(len(lack)), key=lambda i: lack[i])
    longest, count = lack[order[-1]], len(lack)
    best, cut = longest * count, count
    for i in range(1, count):
        if lack[order[i]] > lack[order[i - 1]]:
            cost = lack[order[i - 1]] * count + (longest - 1) * (count - i) + _PASS
            if cost < best:
                best, cut = cost, i
    return order[cut:]


def _name_of_cache(model: PreTrainedModel) -> str:
    """Returns the argument by which a model takes its cache: `cache` since transformers 5.24."""
    wrapped: Any = getattr(model, "get_base_model", lambda: model)()  # adapters take anything and hand it on
    return "cache" if "cache" in signature(wrapped.forward).parameters else "past_key_values"


def _context_length(model: PreTrainedModel) -> int | None:
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None
