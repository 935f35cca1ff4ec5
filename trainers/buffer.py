"""What a trainer has sampled and not trained yet."""

from collections.abc import Mapping
from typing import Any

from accelerate.utils import send_to_device

__all__ = ["BEGIN", "Buffer"]

BEGIN: dict[str, Any] = {"generation": (-1, 0), "broken": 0, "micro_step": 0, "batches": None}
"""The state of a trainer that has not sampled yet."""


class Buffer:
    """Where a trainer stands between two generations: their count, and the batches that are still to be trained.

    Args:
        trainer: a `TreeTrainer`.
    """

    def __init__(self, trainer: Any) -> None:
        self._of: Any = trainer

    def state_dict(self) -> dict[str, Any]:
        """Returns the count and, where some of them are still to be trained, the batches."""
        run = self._of
        left = run._step % (run.args.steps_per_generation * run.num_iterations)
        return {
            "generation": run._generation,
            "broken": run._broken,
            "micro_step": run._step,
            "batches": run._buffered_inputs if left else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        run = self._of
        batches, device = state["batches"], run.accelerator.device
        run._generation, run._broken, run._step = tuple(state["generation"]), state["broken"], state["micro_step"]
        run._buffered_inputs = batches and send_to_device(batches, device)
