"""SR-PPO: token credit from a critic's success probabilities, one rollout per prompt."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import read_flags

from .passes import check_discount
from .passk_tree import passk_values
from .result import TokenAdvantages

__all__ = ["prompt_weights", "sr_ppo_advantages"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def sr_ppo_advantages(
    success: ArrayLike,
    outcomes: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    k: float = 4.0,
    decay: float = 0.0,
    prompt_weighted: bool = False,
    normalize_weights: bool = False,
) -> TokenAdvantages:
    """Computes token advantages from the success probability that a critic gives every prefix.

    With p_t before sampled token t = 0..T-1 and Y the outcome:

        v_t = 1 - (1 - p_t)^k
        delta_t = v_{t+1} - v_t   for t < T-1          delta_{T-1} = Y - v_{T-1}     (terminal correction)
        A_t = sum_{l >= 0} decay^l delta_{t+l}

    The deltas sum to Y - v_0. `decay=0` is the local difference, `decay=1` the Monte Carlo form Y - v_t (unbiased for
    k = 1); `k=inf` is reachability. Tokens that the policy did not sample (observations) are skipped: the difference
    goes from one sampled token to the next, so what the environment answered is credited to the step before it.

    `prompt_weighted` is the variant of a community port: the slope of Pass@k at the prompt as one weight per sequence,

        A_t = w sum_{l >= 0} decay^l delta_{t+l}  with v_t = p_t          w = k (1 - p_0)^(k - 1)

    Source: SR-PPO (arXiv 2606.25451). Attested: a Pass@k value from a Pass@1 critic, local differences, a terminal
    correction. Reconstructed: that the correction falls on the last token, and the decay (GAE with the Monte Carlo end
    attached). Fit the critic to Y at k = 1 and compute advantages with it *before* that update.

    Args:
        success: `[B, L]` critic's probability of success before each token, in [0, 1] where the mask is True.
        outcomes: `[B]` Y in [0, 1].
        mask: `[B, L]` which tokens the policy sampled; default: all. A sequence without any gets 0.
        k: attempts, at least 1; with `prompt_weighted` finite.
        decay: lambda, in [0, 1].
        prompt_weighted: weigh whole sequences instead of transforming values.
        normalize_weights: divide the weights by their mean over the sequences with a sampled token.

    Raises:
        ValueError: shapes that do not fit, probabilities or outcomes outside [0, 1], k below 1, decay outside [0, 1].
    """
    p, sampled = _read(success, mask)
    label = np.asarray(outcomes, dtype=np.float64)
    if label.shape != p.shape[:1] or not ((label >= 0) & (label <= 1)).all():
        msg = f"outcomes must be [B] = [{len(p)}] numbers in [0, 1], got {label!r}"
        raise ValueError(msg)
    check_discount(decay, "decay")
    values = passk_values(p, 1.0 if prompt_weighted else k)
    packed, live = _pack(values, sampled)
    lengths = live.sum(axis=1)
    following = np.zeros_like(packed)
    following[:, :-1] = packed[:, 1:]
    some = np.flatnonzero(lengths > 0)
    following[some, lengths[some] - 1] = label[some]
    differences = np.where(live, following - packed, 0.0)
    credit = differences.copy()
    for t in reversed(range(credit.shape[1] - 1) if decay else range(0)):
        credit[:, t] += decay * credit[:, t + 1]
    if prompt_weighted:
        first = packed[some, :1].ravel()  # p_0: the values are p here
        credit[some] *= prompt_weights(first, k, normalize=normalize_weights)[:, None]
    unpacked = [_unpack(np.where(live, array, 0.0), live, sampled) for array in (credit, packed, differences)]
    return TokenAdvantages(unpacked[0], unpacked[1], unpacked[2], sampled)


def prompt_weights(success: ArrayLike, k: float, *, normalize: bool = False) -> FloatArray:
    """Computes the slope of Pass@k at the prompt, `w = k (1 - p)^(k - 1)`, by which `grad p` weighs in `grad Pass@k`.

    Args:
        success: `[B]` probability of success at the prompt.
        k: attempts, at least 1 and finite.
        normalize: divide by the mean over the batch (where that is positive).
    """
    p = np.asarray(success, dtype=np.float64)
    passk_values(p, k)
    if np.isinf(k):
        msg = "k must be finite for prompt weights, got inf"
        raise ValueError(msg)
    weights = k * (1.0 - p) ** (k - 1.0)
    mean = float(weights.mean()) if len(weights) else 0.0
    return weights / mean if normalize and mean > 0 else weights


def _read(success: ArrayLike, mask: ArrayLike | None) -> tuple[FloatArray, BoolArray]:
    p = np.asarray(success, dtype=np.float64)
    if p.ndim != 2:
        msg = f"success must have shape [B, L], got {list(p.shape)}"
        raise ValueError(msg)
    sampled = np.ones(p.shape, dtype=np.bool_) if mask is None else read_flags("mask", mask)
    if sampled.shape != p.shape:
        msg = f"mask must have the shape of success, {list(p.shape)}, got {list(sampled.shape)}"
        raise ValueError(msg)
    return np.where(sampled, p, 0.0), sampled


def _pack(values: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Moves the sampled tokens of each row to its front; returns them with the mask of the packed rows."""
    lengths = mask.astype(np.int64).sum(axis=1)
    live = np.asarray(np.arange(values.shape[1])[None, :] < lengths[:, None], dtype=np.bool_)
    packed = np.zeros_like(values)
    packed[live] = values[mask]
    return packed, live


def _unpack(packed: FloatArray, live: BoolArray, mask: BoolArray) -> FloatArray:
    out = np.zeros_like(packed)
    out[mask] = packed[live]
    return out
