"""Trees as batches for other trainers: rows of tokens with advantages and weights, in the form that each reads.

Every token that the policy sampled is trained once, in one row, in its own context, as in `TreeTrainer`; where
rollouts share a trunk, one row trains it and the others only read it. A batch asks for the update of our own loss:

    sum over trained tokens of  weight * advantage * grad log pi

| trainer | where advantages are | where weights are |
|---|---|---|
| verl 0.9 | `advantages` `[B, R]` | `rollout_is_weights` `[B, R]`, by which its losses multiply each token |
| SkyRL 0.4 | `advantages` `[B, R]`, times the weight | in the advantages: it is at least 0, so clipping commutes |
| prime-rl 0.8 | `advantages` `[L]` | `rl_weights` `[L]` |

Letters: `B` rows, `P` tokens before the first trained one, `R` tokens from there on, `L` of a row, `S` of the longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agentenv.arrays import TreeArrays, check_count
from agentenv.credit import StepAdvantages, step_weights
from agentenv.credit.weights import Weights

from .credited import Trees, trees_of

if TYPE_CHECKING:
    import torch

__all__ = ["TokenRow", "prime_rl_batches", "skyrl_batch", "token_rows", "verl_batch"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TokenRow:
    """The tokens from a root to one node, normally a leaf."""

    tree: int  # its place among the trees
    task_id: str
    env_id: str
    leaf: int  # the node at which the row ends, within its tree
    score: float  # undiscounted return there
    token_ids: NDArray[np.int64]  # [L]
    trained: NDArray[np.bool_]  # [L] sampled, and trained in this row
    logprobs: FloatArray  # [L] with which trained tokens were sampled, 0 elsewhere
    advantages: FloatArray  # [L] of the step that a trained token belongs to, 0 elsewhere
    weights: FloatArray  # [L] of that step, 0 elsewhere

    @property
    def first(self) -> int:
        """Where the first trained token is; what comes before is the prompt."""
        return int(self.trained.argmax())


def token_rows(
    trees: Trees,
    credit: StepAdvantages | ArrayLike | Callable[[TreeArrays], StepAdvantages | ArrayLike],
    *,
    weights: Weights = "occupancy",
    train_truncated: bool = True,
) -> list[TokenRow]:
    """Returns rows in the order of the trees, one per leaf; more where a chat template rewrote history.

    Left out are episodes that infrastructure broke, and steps without tokens, log-probabilities or a known context.

    Args:
        trees: a trees file, a tree, or several.
        credit: an estimator, what it returned, or advantages `[N]` of all nodes of all trees.
        weights: of the steps, as for `agentenv.credit.step_weights`.
        train_truncated: whether steps that lead only to truncated episodes are trained.

    Raises:
        ValueError: advantages or weights are not `[N]` finite numbers; nothing can be trained.
        MissingDependencyError: there is no torch here.
    """
    from agentenv.trainers.layout import lay_out

    found = trees_of(trees)
    rows = lay_out(found, train_truncated=train_truncated)
    if not len(rows):
        msg = "no step can be trained: batches need actions with token_ids, logprobs and prompt_token_ids, and rewards"
        raise ValueError(msg)
    given = credit(rows.arrays) if callable(credit) else credit
    advantages = np.asarray(given.advantages if isinstance(given, StepAdvantages) else given, dtype=np.float64)
    if advantages.shape != (len(rows.arrays),) or not np.isfinite(advantages).all():
        msg = f"credit must be finite numbers [N] = [{len(rows.arrays)}], one per node, got {list(advantages.shape)}"
        raise ValueError(msg)
    per_token = rows.per_token(advantages), rows.per_token(step_weights(rows.arrays, weights))
    starts = np.flatnonzero(rows.arrays.is_root)
    out: list[TokenRow] = []
    for i, end in enumerate(rows.ends.tolist()):
        tree, size = int(rows.arrays.tree_ids[end]), int(rows.lengths[i])
        logprobs = np.where(rows.trained[i], rows.logprobs[i], 0.0)
        values = [array[:size] for array in (logprobs, per_token[0][i], per_token[1][i])]
        score = float(rows.arrays.returns[end])
        ids, trained = rows.token_ids[i, :size], rows.trained[i, :size]
        leaf = end - int(starts[tree])
        out.append(TokenRow(tree, found[tree].task_id, found[tree].env_id, leaf, score, ids, trained, *values))
    return out


def verl_batch(rows: Sequence[TokenRow], *, pad_token_id: int = 0) -> dict[str, Any]:
    """Returns the arguments of verl's `DataProto.from_dict`: prompts padded on the left, responses on the right.

    Use `loss_agg_mode="token-sum"`, or a mode that divides by a number of the whole batch.

    Args:
        rows: of `token_rows`.
        pad_token_id: fills the holes.

    Returns:
        `tensors`: `prompts` `[B, P]`; `responses`, `response_mask`, `old_log_probs`, `rollout_log_probs`, `advantages`,
        `returns`, `token_level_scores`, `token_level_rewards`, `rollout_is_weights` `[B, R]`; `input_ids`,
        `attention_mask`, `position_ids` `[B, P + R]`. `non_tensors`: `uid` (the group: the tree), `task_id`, `leaf`.
    """
    prompt, response = max(row.first for row in rows), max(len(row.token_ids) - row.first for row in rows)
    left = [(row, row.first, prompt - row.first) for row in rows]

    def fill(array: Callable[[TokenRow], NDArray[Any]], fill_with: float = 0) -> NDArray[Any]:
        kind = array(rows[0]).dtype
        out = np.full((len(rows), prompt + response), fill_with, dtype=kind)
        for i, (row, _, shift) in enumerate(left):
            out[i, shift : shift + len(row.token_ids)] = array(row)
        return out

    ids = fill(lambda row: row.token_ids, pad_token_id)
    seen = fill(lambda row: np.ones(len(row.token_ids), dtype=np.int64))
    last = fill(_score_at_end)
    logprobs = fill(lambda row: row.logprobs)[:, prompt:]
    advantages = fill(lambda row: row.advantages)[:, prompt:]
    tensors = {
        "prompts": ids[:, :prompt],
        "responses": ids[:, prompt:],
        "response_mask": fill(lambda row: row.trained.astype(np.int64))[:, prompt:],
        "input_ids": ids,
        "attention_mask": seen,
        "position_ids": np.maximum(np.cumsum(seen, axis=1) - 1, 0),
        "old_log_probs": logprobs,
        "rollout_log_probs": logprobs,
        "advantages": advantages,
        "returns": advantages,
        "token_level_scores": last[:, prompt:],
        "token_level_rewards": last[:, prompt:],
        "rollout_is_weights": fill(lambda row: row.weights)[:, prompt:],
    }
    groups = {
        "uid": np.array([f"tree-{row.tree}" for row in rows], dtype=object),
        "task_id": np.array([row.task_id for row in rows], dtype=object),
        "leaf": np.array([row.leaf for row in rows], dtype=object),
    }
    return {"tensors": _tensors(tensors), "non_tensors": groups}


def skyrl_batch(rows: Sequence[TokenRow], *, pad_token_id: int = 0) -> dict[str, Any]:
    """Returns what SkyRL's `TrainingInputBatch` is made of: every row flush right, padded on the left.

    Its losses sum over `loss_mask`, so nothing is divided once more; entropy and KL terms know no weights.

    Args:
        rows: of `token_rows`.
        pad_token_id: fills the holes.

    Returns:
        `fields`: `sequences`, `attention_mask` `[B, S]`; `loss_mask`, `response_mask`, `action_log_probs`,
        `rollout_logprobs`, `advantages`, `rewards` `[B, R]`. `metadata`: `uids` (the tree of each row),
        `response_length`.
    """
    width, response = max(len(row.token_ids) for row in rows), max(len(row.token_ids) - row.first for row in rows)

    def flush(array: Callable[[TokenRow], NDArray[Any]], size: int, fill_with: float = 0) -> NDArray[Any]:
        out = np.full((len(rows), size), fill_with, dtype=array(rows[0]).dtype)
        for i, row in enumerate(rows):
            values = array(row)[-size:]
            out[i, size - len(values) :] = values
        return out

    logprobs = flush(lambda row: row.logprobs, response)
    fields = {
        "sequences": flush(lambda row: row.token_ids, width, pad_token_id),
        "attention_mask": flush(lambda row: np.ones(len(row.token_ids), dtype=np.int64), width),
        "loss_mask": flush(lambda row: row.trained.astype(np.float64), response),
        "response_mask": flush(_response_mask, response),
        "action_log_probs": logprobs,
        "rollout_logprobs": logprobs,
        "advantages": flush(lambda row: row.advantages * row.weights, response),
        "rewards": flush(_score_at_end, response),
    }
    metadata = {"uids": [f"tree-{row.tree}" for row in rows], "response_length": response}
    return {"fields": _tensors(fields), "metadata": metadata}


def prime_rl_batches(rows: Sequence[TokenRow], *, ranks: int = 1, temperature: float = 1.0) -> list[bytes]:
    """Returns what prime-rl's trainers read of a step, a file for each data-parallel rank: micro-batches of one row.

    It goes to `rollouts/step_N/rank_R.bin` below prime-rl's output folder (its transport of type `filesystem`). Ranks
    get equally many; rows that train nothing fill up. Written against prime-rl 0.8, which is on no package index, so
    no test loads it with the real package.

    Args:
        rows: of `token_rows`.
        ranks: number of data-parallel ranks.
        temperature: that the tokens were sampled with.

    Raises:
        ValueError: `ranks` is below 1.
        MissingDependencyError: there is no msgpack here.
    """
    from agentenv.distribution import install_module
    from agentenv.errors import MissingDependencyError

    check_count("ranks", ranks, least=1)
    try:
        import msgpack
    except ImportError as error:
        msg = f"prime_rl_batches needs msgpack: {install_module('msgpack')}"
        raise MissingDependencyError(msg) from error
    batches = [_micro_batch(row, temperature) for row in rows]
    idle = _micro_batch(rows[0], temperature, idle=True)
    batches += [idle] * (-len(batches) % ranks)
    pack = cast("Callable[[Any], bytes]", cast("Any", msgpack).packb)
    return [pack(batches[rank::ranks]) for rank in range(ranks)]


def _micro_batch(row: TokenRow, temperature: float, *, idle: bool = False) -> list[Any]:
    """A micro-batch as the array of its fields, in prime-rl's order; the fields after the last one given are absent."""
    size = len(row.token_ids)
    trained = np.zeros(size, dtype=np.bool_) if idle else row.trained
    return [
        row.token_ids.tolist(),
        trained.tolist(),
        row.advantages.tolist(),
        row.logprobs.tolist(),
        list(range(size)),
        [size],  # sequence_lengths
        [temperature] * size,
        [row.env_id] * size,
        [size],  # seq_lens
        None,  # ref_logprobs
        None,  # routed_experts
        None,  # mm_kwargs
        None,  # mm_token_type_ids
        row.weights.tolist(),
    ]


def _score_at_end(row: TokenRow) -> FloatArray:
    score = np.zeros(len(row.token_ids))
    score[-1] = row.score
    return score


def _response_mask(row: TokenRow) -> NDArray[np.int64]:
    return (np.arange(len(row.token_ids)) >= row.first).astype(np.int64)


def _tensors(arrays: dict[str, NDArray[Any]]) -> dict[str, "torch.Tensor"]:
    import torch

    kinds = {"f": np.float32}
    found = {name: np.ascontiguousarray(a, dtype=kinds.get(a.dtype.kind, np.int64)) for name, a in arrays.items()}
    return {name: cast("Any", torch).from_numpy(array) for name, array in found.items()}
