"""The folder of a run: configuration, metrics, episode trees, learning curve, checkpoints.

config.json        settings, environment, estimator, versions
metrics.jsonl      one JSON object per log, with its step
trees/step_10.jsonl  the episode trees of that step
curve.png          reward and success by step
checkpoint-N/      model, tokenizer, optimizer: TRL's own
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from agentenv.serialize import write_trees
from agentenv.tree import EpisodeTree

__all__ = ["GrowsTrees", "RunFolder", "draw_curve", "read_metrics"]

_PACKAGES = ("agentenv", "torch", "transformers", "trl", "accelerate", "gymnasium", "numpy")


class GrowsTrees(Protocol):
    """What a run folder needs of its trainer."""

    @property
    def last_trees(self) -> Sequence[EpisodeTree]:
        """The trees of the last generation, on this process."""
        ...

    def close(self) -> None:
        """Closes the environments."""
        ...


class RunFolder(TrainerCallback):
    """Writes the folder of a run while it trains; added by `TreeTrainer` itself.

    A run that is resumed goes on in the same files: metrics after the checkpoint's step are written again.

    Args:
        trainer: whose run it is.
        description: what the settings do not say: environment, estimator.
        save_trees_steps: writes the trees of every so many optimizer steps; 0 for never.
    """

    def __init__(self, trainer: GrowsTrees, description: Mapping[str, Any], *, save_trees_steps: int = 0) -> None:
        self._trainer = trainer
        self._save_trees_steps = save_trees_steps
        self._description = dict(description)

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self._description, "versions": _versions(), "settings": args.to_dict()}
        (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
        kept = [m for m in read_metrics(folder) if m["step"] <= state.global_step] if state.global_step else []
        lines = "".join(json.dumps(metrics) + "\n" for metrics in kept)
        (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")

    @override
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            with (Path(str(args.output_dir)) / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._save_trees_steps and state.global_step % self._save_trees_steps == 0:
            rank = "" if state.is_world_process_zero else f"_rank_{args.process_index}"
            path = Path(str(args.output_dir)) / "trees" / f"step_{state.global_step}{rank}.jsonl"
            write_trees(path, self._trainer.last_trees)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.close()
        if state.is_world_process_zero:
            draw_curve(read_metrics(args.output_dir), Path(str(args.output_dir)) / "curve.png")


def read_metrics(folder: str | Path | None) -> list[dict[str, Any]]:
    """Returns the objects of a run's `metrics.jsonl`, in order; none where there is no such file."""
    path = Path(str(folder)) / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def draw_curve(metrics: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draws success against the optimizer step: training episodes as a line, held-out tasks as points.

    Args:
        metrics: logs with `step`, and `success` or `eval_success`.
        path: of the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(metrics)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    train = [(m["step"], m["success"]) for m in metrics if "success" in m]
    held_out = [(m["step"], m["eval_success"]) for m in metrics if "eval_success" in m]
    if train:
        axes.plot(*zip(*train, strict=True), color="#9db4c8", linewidth=1.2, label="training episodes")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="#1f5f8b", linewidth=2, label="held-out tasks")
        _label_ends(axes, held_out)
    axes.set(xlabel="optimizer step", ylabel="success", ylim=(0, 1.03))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


def _label_ends(axes: Any, points: Sequence[tuple[int, float]]) -> None:
    for (step, value), place in ((points[0], (10, -4)), (points[-1], (-8, -18))):
        axes.annotate(f"{value:.2f}", (step, value), textcoords="offset points", xytext=place)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
