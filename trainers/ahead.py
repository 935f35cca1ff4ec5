"""Sampling that goes on while weights are updated, and what makes its older samples right.

A generation is sampled by a copy of the weights as they were when it was asked for, in a thread of its own. When it is
trained, the weights have moved on by at most `TreeConfig.staleness` generations. Nothing that was sampled is thrown
away: long, hard episodes would be the first to go.
"""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agentenv.rollout.ahead import Ahead
from agentenv.serialize import read_trees, write_trees
from agentenv.tree import EpisodeTree

from .generation import Generation

__all__ = ["Sampled", "SamplingAhead", "correct"]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A generation that is ready to be trained.

    Attributes:
        trees: without snapshots.
        report: of `Generation`.
        step: the optimizer step whose weights sampled it.
    """

    trees: list[EpisodeTree]
    report: dict[str, float]
    step: int


class SamplingAhead:
    """Samples generations ahead of time.

    Args:
        generation: what grows the trees; nobody else may use it.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._ahead: Ahead[Sampled] = Ahead()
        self._model: Any = None

    def __len__(self) -> int:
        return len(self._ahead)

    def ask(self, model: Any, tasks: Sequence[Any], *, seed: int, step: int) -> None:
        """Has a generation sampled with the weights that the model has now."""
        if self._model is None:
            self._model = _copy(model)
        weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._ahead.call(partial(self._sample, weights, tasks, seed, step))

    def take(self) -> Sampled:
        """Waits for the next generation; raises what went wrong in it."""
        return self._ahead.take()

    def wait(self) -> None:
        """Waits until nothing is being sampled; what went wrong is raised where it is taken."""
        self._ahead.wait()

    def close(self) -> None:
        """Ends the thread and closes the environments. May be called twice."""
        self._ahead.close()
        self._generation.close()

    def state_dict(self) -> dict[str, Any]:
        """Returns the generations that are sampled and not trained yet, up to the first that failed."""
        return {"ready": [(_text(one.trees), dict(one.report), one.step) for one in self._ahead.wait()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes what `state_dict` returned."""
        self._ahead.restore([Sampled(_trees(text), dict(report), step) for text, report, step in state["ready"]])

    def _sample(self, weights: Mapping[str, torch.Tensor], tasks: Sequence[Any], seed: int, step: int) -> Sampled:
        self._model.load_state_dict(weights)
        trees = self._generation.grow(self._model, tasks, seed=seed)
        for tree in trees:
            tree.snapshots.clear()
        return Sampled(trees, self._generation.report, step)


def correct(batch: dict[str, torch.Tensor], logprobs: torch.Tensor, *, cap: float) -> dict[str, float]:
    """Corrects a batch that older weights sampled, by truncated importance sampling.

    With the sampler `mu` and the weights `old` before the update, the loss of a token becomes

        min(old(a) / mu(a), cap) * clip(new(a) / old(a)) A

    so that clipping is around the weights that the update starts from, and not around the sampler. The first factor
    goes into the advantage, which it multiplies exactly; weights and normalizers stay what they are.

    Args:
        batch: whose `old_per_token_logps` are the sampler's; changed in place.
        logprobs: `[B, L]` of the completions under the weights before the update.
        cap: on the ratio.

    Returns:
        The means of the ratio and of the share that was cut off, over trained tokens; empty where there is none.
    """
    trained = batch["tool_mask"] > 0
    ratio = torch.where(trained, logprobs - batch["old_per_token_logps"], 0.0).exp()
    batch["advantages"] = batch["advantages"] * ratio.clamp(max=cap)
    batch["old_per_token_logps"] = torch.where(trained, logprobs, 0.0)
    if not trained.any():
        return {}
    found = ratio[trained]
    return {
        "sampling/importance_ratio": float(found.mean()),
        "sampling/truncated": float((found > cap).float().mean()),
    }


def _copy(model: Any) -> Any:
    """Copies a model for sampling. What TRL put in place of its `forward` would go on running the original: it goes."""
    own = copy.deepcopy(model).requires_grad_(requires_grad=False)
    for module in own.modules():
        vars(module).pop("forward", None)
    return own


def _text(trees: Sequence[EpisodeTree]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.jsonl"
        write_trees(path, trees)
        return path.read_text(encoding="utf-8")


def _trees(text: str) -> list[EpisodeTree]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trees.jsonl"
        path.write_text(text, encoding="utf-8")
        return read_trees(path)
