"""Whether a model can be trained on packed rows, found by what it is made of and by trying."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from accelerate.utils import extract_model_from_parallel

from agentenv.errors import ModelError

from .config import PER_MICRO_BATCH, TreeConfig
from .layout import Rows
from .packed_model import MASKED, PackedModel, implementation

__all__ = ["Layout", "longest_path", "obstacle", "probe", "token_cost"]

_LAYERS = frozenset({"full_attention", "sliding_attention", "attention"})
_TRUNK, _BRANCH = 6, 5


class Layout:
    """Decides for every generation whether its rows are packed; every process decides alike.

    Args:
        args: the settings; a loss that is a mean over each micro-batch is computed on padded rows.
        model: before it is wrapped for distribution.
        balanced: whether the loss has a term that balances experts, which counts tokens of padded rows.
        gather: joins the lists of all processes.
    """

    def __init__(
        self, args: TreeConfig, model: Any, *, balanced: bool, gather: Callable[[list[Any]], list[Any]]
    ) -> None:
        self.wanted = "padded" if args.loss_type in PER_MICRO_BATCH else args.layout
        self.token_cost = token_cost(model)
        self._half = args.bf16 or args.fp16
        self._balanced = balanced
        self._gather = gather
        self._reasons: dict[str, str | None] = {}
        self._told = False

    def packs(self, model: Any, rows: Rows, *, vocab_size: int) -> bool:
        """Returns whether to pack rows.

        Args:
            model: patched by TRL, wrapped for distribution or not; tried out once.
            rows: the generation's.
            vocab_size: tokens are below it.

        Raises:
            ModelError: packed rows are asked for, and the model cannot be trained on them.
        """
        if self.wanted == "padded":
            return False
        inner = extract_model_from_parallel(model, keep_torch_compile=False)
        reasons = self._gather([self._obstacle(inner, int(rows.lengths.max(initial=0)))])
        reason = next(filter(None, reasons), None)
        if reason is None:
            if "probe" not in self._reasons:
                found = self._gather([probe(model, vocab_size, half=self._half)])
                self._reasons["probe"] = next(filter(None, found), None)
            reason = self._reasons["probe"]
        if reason and self.wanted == "packed":
            msg = f"layout='packed' is not possible with {type(inner).__name__}: {reason}; take layout='auto'"
            raise ModelError(msg)
        if reason and not self._told:
            warnings.warn(f"rows are padded, not packed, with {type(inner).__name__}: {reason}", stacklevel=2)
            self._told = True
        return reason is None

    def _obstacle(self, model: Any, longest: int) -> str | None:
        if "obstacle" not in self._reasons:
            experts = "its experts are balanced over padded rows" if self._balanced else None
            self._reasons["obstacle"] = obstacle(model) or experts
        limit = longest_path(model)
        if longest > limit:
            long = f"a row has {longest} tokens, and beyond {limit:g} its attention is not that of its mask"
            return self._reasons["obstacle"] or long
        return self._reasons["obstacle"]


def obstacle(model: Any) -> str | None:
    """Returns why a model's attention cannot be masked so that branches do not see each other; `None` if it can.

    Args:
        model: a causal language model, with adapters or without, not wrapped for distribution.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    if layers:
        return f"it has layers of type {', '.join(sorted(layers))}, which no mask reaches"
    if getattr(inner, "_is_stateful", False):
        return "it is recurrent: its state goes through all tokens of a row"
    if any(name.rpartition(".")[2] == "sinks" for name, _ in inner.named_parameters()):
        return "it has attention sinks"
    if implementation(inner) not in MASKED:
        return f"attn_implementation={implementation(inner)!r} takes no mask; {', '.join(sorted(MASKED))} do"
    if any(one.is_prompt_learning for one in getattr(model, "peft_config", {}).values()):
        return "its adapter puts tokens of its own before every row"
    return None


def token_cost(model: Any) -> float:
    """Returns what a layer's matrices cost for a token, in pairs of tokens that attend to each other.

    A matrix of `P` weights takes `2 P` operations for a token, attention of width `d` takes `4 d` for a pair: the cost
    is `P / (2 d)`. Measured on a CPU at widths of 64 to 1,024 it is 0.7 to 1.3 times that. Infinite where blocks of a
    mask that nobody sees are left out, so that long packed rows cost no more than short ones.

    Args:
        model: a causal language model, with adapters or without, before it is wrapped for distribution.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    layers, heads, hidden = (
        getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    if not layers or not heads or not hidden or implementation(inner) == "flex_attention":
        return math.inf
    tables = {id(module.weight) for module in inner.modules() if isinstance(module, torch.nn.Embedding)}
    weights = sum(getattr(p, "ds_numel", p.numel()) for p in inner.base_model.parameters() if id(p) not in tables)
    width = heads * (getattr(config, "head_dim", None) or hidden // heads)
    return weights / (2 * layers * width)


def longest_path(model: Any) -> float:
    """Returns how many tokens a path may have for a mask to say all: the sliding window, or where positions change."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    limits: list[float] = []
    layers = getattr(config, "layer_types", None)
    if getattr(config, "sliding_window", None) and (not layers or "sliding_attention" in layers):
        limits.append(config.sliding_window)
    rope = cast("Mapping[str, Any]", getattr(config, "rope_parameters", None) or {})
    limits += [
        kind.get("original_max_position_embeddings") or config.max_position_embeddings
        for kind in [rope, *(value for value in rope.values() if isinstance(value, dict))]
        if kind.get("rope_type") in {"dynamic", "longrope"}
    ]
    return min(limits, default=math.inf)


@torch.no_grad()
def probe(model: Any, vocab_size: int, *, half: bool = False) -> str | None:
    """Computes a small tree packed, padded, and packed under a mask that lets branches see each other, without noise.

    Args:
        model: patched by TRL, wrapped for distribution or not.
        vocab_size: tokens are below it.
        half: whether forward passes are in half precision.

    Returns:
        Why packed rows are not what padded rows are; `None` where they are, within rounding.
    """
    device = next(model.parameters()).device
    number = torch.arange(_TRUNK + 2 * _BRANCH, device=device)
    ids = (7 + 13 * number) % vocab_size
    last = _TRUNK + _BRANCH
    rows = torch.stack([ids[:last], torch.cat([ids[:_TRUNK], ids[last:]])])
    ends = torch.full_like(number, len(ids))
    ends[_TRUNK:last] = last
    sources = torch.cat([number[_TRUNK - 1 : last - 1], number[_TRUNK - 1 : _TRUNK], number[last:-1]])
    batch = {
        "packed_ids": ids[None],
        "packed_positions": torch.cat([number[:last], number[_TRUNK:last]])[None],
        "packed_sources": sources,
        "packed_targets": ids[_TRUNK:],
        "packed_places": number[: 2 * _BRANCH],
        "completion_ids": rows[:, _TRUNK:],
    }
    training = model.training
    model.eval()
    try:
        padded = model(input_ids=rows, attention_mask=torch.ones_like(rows), labels=rows, fused_lm_head=True).log_probs
        packed = PackedModel(model, batch | {"packed_ends": ends[None]}).logprobs()
        blind = PackedModel(model, batch | {"packed_ends": torch.full_like(ends, len(ids))[None]}).logprobs()
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        return f"it cannot be given packed rows ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]})"
    finally:
        model.train(training)
    padded = padded[:, -_BRANCH:]
    off, wrong = (float((one - padded).abs().max()) for one in (packed, blind))
    exact = not half and next(model.parameters()).dtype in {torch.float32, torch.float64}
    if off < max(1e-4, 1e-3 * wrong) if exact else off < max(3e-2, 0.1 * wrong):
        return None
    return f"it ignores the mask or the positions it is given: log-probabilities of a small tree are off by {off:.2g}"
