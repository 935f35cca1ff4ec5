"""An agent that is a transformers model in this process."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from agentenv.arrays import check_count
from agentenv.errors import AgentError, ModelError
from agentenv.protocols import Context
from agentenv.types import Action

from .chat import ChatFormat, History
from .folders import check_folder
from .parsers import Parser
from .sampler import Sampler
from .samples import Sample, read_sample

__all__ = ["TransformersAgent"]


class TransformersAgent:
    """Samples actions from a causal language model, for the whole frontier at once.

    Every action carries the ids it was sampled as, their log-probabilities under the distribution that was sampled from
    (at `temperature`), and the full prompt. The noise of an action comes from `Context.seed`, so it does not depend on
    the batch it was in, up to the rounding of floating-point sums. The model stays live: it may be trained between
    calls, and whoever changes its weights says so by `weights_changed`.

    Attributes:
        model: the live model.
        tokenizer: its tokenizer, with a chat template.
        chat: how contexts become token ids.
    """

    honors = frozenset({"max_tokens"})

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        batch_size: int | None = None,
        keep_gib: float = 1.0,
        stop_token_ids: Iterable[int] = (),
        template_options: Mapping[str, Any] | None = None,
        parser: str | Parser | None = None,
        history: History = "exact",
    ) -> None:
        """Makes an agent.

        Args:
            model: any causal language model of transformers, on any device.
            tokenizer: its tokenizer, with a chat template.
            max_new_tokens: limit per action, at least 1; an action that reaches it has `finish_reason` `"length"`, and
                so has the empty action that answers a conversation longer than the model's window.
            temperature: at least 0; 0 takes the likeliest token, and every log-probability is 0.
            batch_size: at most so many contexts in one forward; `None` for all.
            keep_gib: GiB of keys and values to keep between calls, so that only new messages are read; 0 for none.
            stop_token_ids: tokens that end an action besides those that tokenizer and generation config name.
            template_options: variables for the chat template, such as `{"enable_thinking": False}`.
            parser: what reads the model's messages: a name of `agentenv.agents.parsers.PARSERS`, or a function of text
                and tools that returns an `Action`; by default the one that reads back what the chat template writes.
                `"text"` for a chat template that knows no tools: they are text of ordinary messages.
            history: `"exact"` keeps what was sampled, `"template"` shows what the chat template makes of the whole
                conversation, which for many leaves out the reasoning of earlier turns; see `ChatFormat`.

        Raises:
            ValueError: a number is out of range, or `history` unknown.
            ModelError: the tokenizer has no chat template, the template loses messages, or nothing ends a message.
        """
        check_count("max_new_tokens", max_new_tokens, least=1)
        if batch_size is not None:
            check_count("batch_size", batch_size, least=1)
        if not 0 <= temperature < math.inf or not 0 <= keep_gib < math.inf:
            msg = f"temperature and keep_gib must be finite and at least 0, got {temperature} and {keep_gib}"
            raise ValueError(msg)
        stops = {*stop_token_ids, *_generation_stops(model)}
        self.model = model
        self.tokenizer = tokenizer
        self.chat = ChatFormat(
            tokenizer,
            stop_token_ids=stops,
            template_options=template_options,
            parser=parser,
            history=history,
        )
        self._batch_size = batch_size
        self._sampler = Sampler(
            model,
            stop_token_ids=self.chat.stop_token_ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            keep_bytes=int(keep_gib * 2**30),
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        **options: Any,
    ) -> "TransformersAgent":
        """Loads model and tokenizer from a folder that `save_pretrained` wrote, or from the Hugging Face hub.

        Args:
            folder: the folder, or a name on the hub.
            device: where to put the model; CUDA where there is one by default.
            dtype: of the weights; `"auto"` for what is stored.
            **options: as for the constructor.

        Raises:
            ModelError: there is no model or no tokenizer that can be loaded; the message names the reason.
        """
        check_folder(folder)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = cast("PreTrainedModel", AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))
        except (OSError, ValueError, KeyError) as exc:
            msg = f"folder must name a causal language model and its tokenizer, got {str(folder)!r}: {exc}"
            raise ModelError(msg) from exc
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(_moved(model, where), cast("PreTrainedTokenizerBase", tokenizer), **options)

    @property
    def max_new_tokens(self) -> int:
        """The limit per action."""
        return self._sampler.max_new_tokens

    @property
    def context_length(self) -> int | None:
        """Tokens that the model can read, prompt and action together; `None` where its configuration names no limit."""
        return self._sampler.context_length

    @property
    def temperature(self) -> float:
        """The temperature of the distribution that is sampled from."""
        return self._sampler.temperature

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Samples one action per context, in the same order.

        Raises:
            AgentError: the model failed, or its output is not a number.
            ModelError: the chat template cannot render a context.
        """
        prompts = [self.chat.prompt(context) for context in contexts]
        size = self._batch_size or max(1, len(contexts))
        samples: list[Sample] = []
        for start in range(0, len(contexts), size):
            part = contexts[start : start + size]
            known, seeds = [len(context.token_ids) for context in part], [context.seed for context in part]
            limits = [context.max_tokens for context in part]
            try:
                ids = [tuple(prompt) for prompt in prompts[start : start + size]]
                samples += self._sampler.sample(ids, known, seeds, limits)
            except (RuntimeError, IndexError) as exc:
                msg = f"the model failed on {len(part)} contexts: {type(exc).__name__}: {exc}"
                raise AgentError(msg) from exc
        samples = [replace(sample, weight_version=self.weight_version) for sample in samples]
        return [read_sample(self.chat, *three) for three in zip(contexts, prompts, samples, strict=True)]

    @property
    def weight_version(self) -> int:
        """How often the weights have changed since the agent was made."""
        return self._sampler.weight_version

    def weights_changed(self) -> None:
        """Says that the weights are others now: drops keys and values kept of the old ones, raises `weight_version`.

        To be called after every optimizer step, moving average, weight sync, `load_state_dict`, merged, loaded or
        switched adapter. Whoever forgets gets a `RuntimeWarning` at the next call of `act`, which compares the model's
        logits on a few fixed tokens with those before; with `keep_gib=0` nothing is kept, and nothing compared.
        """
        self._sampler.weights_changed()

    def listen(self, on_read: Callable[[Sequence[tuple[int, ...]]], None] | None) -> None:
        """Calls `on_read` with the prompts of every batch once the model has read them; `None` stops that."""
        self._sampler.on_read = on_read

    def reset(self) -> None:
        """Frees the keys and values kept from earlier calls."""
        self._sampler.kept.clear()


def _moved(model: PreTrainedModel, device: str | torch.device) -> PreTrainedModel:
    torch.nn.Module.to(model, device)
    return model


def _generation_stops(model: PreTrainedModel) -> tuple[int, ...]:
    """Returns the end tokens of the model's generation config, one, several or none."""
    stops = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if stops is None:
        return ()
    return (stops,) if isinstance(stops, int) else tuple(cast("list[int]", stops))
