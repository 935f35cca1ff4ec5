"""What a generation hands to TRL: padded rows, or micro-batches of packed rows with the padded view the loss reads.

TRL shuffles the entries of a batch and splits them into `steps_per_generation` micro-batches. Padded rows are entries
one by one. Packed, an entry is a whole micro-batch, whose trees belong together.

Letters: `B` padded rows, `L` tokens of a completion, `P` packed rows, `T` tokens of each, `M` sampled tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from agentenv.credit import step_weights

from .config import TreeConfig
from .layout import Rows
from .packed_model import PackedModel
from .packing import fold

__all__ = ["computed_tokens", "loss_weights", "micro_batch", "micro_batches", "model_for", "pack"]

IntArray = NDArray[np.int64]
Tensors = dict[str, torch.Tensor]

_MICRO = "micro_batches"


def pack(
    rows: Rows, batch: Tensors, planned: Sequence[Sequence[IntArray]], *, count: int, multiple_of: int | None = None
) -> dict[str, Any]:
    """Divides a padded batch into packed micro-batches.

    Args:
        rows: of all trees.
        batch: of the same rows and one dummy row after them, as `Rows.with_advantages` gives it.
        planned: the rows of every packed row of every micro-batch, as `packing.plan` gives them.
        count: padded rows of every micro-batch; the dummy fills up to it.
        multiple_of: rounds the width of packed rows up.

    Returns:
        A batch whose entries are micro-batches; `micro_batch` takes one out.
    """
    micro: list[Tensors] = []
    for packed in planned:
        order = np.concatenate([*packed, np.empty(0, dtype=np.int64)])
        filled = np.concatenate([order, np.full(count - len(order), len(rows))])
        padded = {name: tensor[torch.from_numpy(filled)] for name, tensor in batch.items()}
        micro.append(padded | _packed(rows, packed, order, padded["completion_ids"].shape, multiple_of))
    return {"micro_batch_numbers": torch.arange(len(micro)), _MICRO: micro}


def _packed(
    rows: Rows, packed: Sequence[IntArray], order: IntArray, shape: torch.Size, multiple_of: int | None
) -> dict[str, torch.Tensor]:
    """Lays folds side by side, and says where every trained token of the padded rows is predicted."""
    folds = [fold(rows, which) for which in packed]
    longest = max([len(one.token_ids) for one in folds], default=1)
    longest += -longest % (multiple_of or 1)
    height = max(len(folds), 1)
    ids, positions = np.zeros((height, longest), dtype=np.int64), np.zeros((height, longest), dtype=np.int64)
    ends = np.tile(np.arange(1, longest + 1), (height, 1))  # padding sees itself only
    places: dict[int, IntArray] = {}
    for i, one in enumerate(folds):
        size = len(one.token_ids)
        ids[i, :size], positions[i, :size], ends[i, :size] = one.token_ids, one.positions, one.ends
        places |= {row: where + i * longest for row, where in one.places.items()}
    sources, targets, entries = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number, row in enumerate(order.tolist()):
        at = np.flatnonzero(rows.trained[row])
        sources.append(places[row][at - 1])
        targets.append(rows.token_ids[row, at])
        entries.append(number * shape[1] + at - rows.trained[row].argmax())
    if len(order) == 0:  # one prediction of nothing, so that a loss of 0 has a gradient of 0
        sources, targets, entries = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)], [np.full(1, shape.numel())]
    return {
        "packed_ids": torch.from_numpy(ids),
        "packed_positions": torch.from_numpy(positions),
        "packed_ends": torch.from_numpy(ends),
        "packed_sources": torch.from_numpy(np.concatenate(sources)),
        "packed_targets": torch.from_numpy(np.concatenate(targets)),
        "packed_places": torch.from_numpy(np.concatenate(entries)),
        "packed_tokens": torch.tensor(sum(len(one.token_ids) for one in folds)),
    }


def micro_batches(batch: Mapping[str, Any]) -> list[Tensors]:
    """Returns what a batch is made of: its packed micro-batches, or all its padded rows as one."""
    return batch[_MICRO] if _MICRO in batch else [cast("Tensors", batch)]


def micro_batch(inputs: Mapping[str, Any]) -> Tensors:
    """Returns what TRL's loss reads of what TRL has split off: one packed micro-batch, or padded rows."""
    return micro_batches(inputs)[0]


def model_for(model: Any, batch: Tensors) -> Any:
    """Returns what computes the log-probabilities of a micro-batch: the model itself where its rows are padded."""
    return PackedModel(model, batch) if "packed_ids" in batch else model


def loss_weights(
    rows: Rows, args: TreeConfig, *, count: int, gather: Callable[[torch.Tensor], torch.Tensor]
) -> NDArray[np.float64]:
    """The weight `[N]` of every step in the loss, up to one factor for all.

    Where the loss divides by the sum of the weights, the factor makes the smallest 1, because TRL takes a sum below 1
    for 1. Dr. GRPO divides by the number of rows instead of that of the trajectories, which the factor repairs.

    Args:
        rows: of this process.
        args: the settings.
        count: padded rows of the batch.
        gather: joins tensors, one of each process.
    """
    arrays = rows.arrays
    weights = step_weights(arrays, args.step_weights)
    used = weights[rows.nodes[rows.trained]]
    found = [float(used[used > 0].min(initial=np.inf)), float(weights[arrays.is_root].sum()), float(count)]
    across = gather(torch.tensor(found, device=args.device)).view(-1, 3)
    smallest, trajectories, rows_in_all = float(across[:, 0].min()), *across[:, 1:].sum(0).tolist()
    if args.loss_type == "dr_grpo":
        return weights * rows_in_all / max(trajectories, 1.0)
    return weights / smallest


def computed_tokens(batch: Mapping[str, Any]) -> int:
    """Counts the tokens that a forward pass over a batch computes, without padding."""
    return sum(
        int(one["packed_tokens"] if "packed_tokens" in one else one["prompt_mask"].sum() + one["completion_mask"].sum())
        for one in micro_batches(batch)
    )


def task_rows(count: int) -> Dataset:
    """Returns TRL's data set of tasks: a row holds a number, and the prompt that TRL asks for is empty."""
    return Dataset.from_dict({"prompt": [""] * count, "task": list(range(count))})


def environment_reward(**_: Any) -> list[float | None]:
    """Stands in for TRL's reward functions: TRL asks for one, and rewards come from the environment."""
    msg = "rewards come from the environment; this function is never called"
    raise RuntimeError(msg)
