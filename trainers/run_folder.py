"""The folder of a run: configuration, metrics, episode trees, learning curve, checkpoints.

run.json           settings, environment, estimator, versions
run_step_10.json   the same where the run was resumed at step 10 with other settings
metrics.jsonl      one JSON object per log, with its step
trees/step_10.jsonl  the episode trees of that step
curve.png          reward and success by step
checkpoint-N/      model, tokenizer, optimizer: TRL's own
earlier-N/         what another run left here, or this one after the step that it went back to

What a crash cut off is left out when it is read; whole files are replaced, never written over.
"""

import fcntl
import json
import logging
import math
import os
import platform
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any, Protocol, cast

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

import agentenv
from agentenv.checkpoints import PREFIX, step_of, whole_checkpoints
from agentenv.serialize import write_trees
from agentenv.tree import EpisodeTree
from agentenv.whole_files import append_line, replace_file, whole_file

from .checkpoint import ResumeError
from .config import TreeConfig

__all__ = [
    "FolderTakenError",
    "GrowsTrees",
    "RunFolder",
    "changed_settings",
    "draw_curve",
    "name_of",
    "names_of",
    "put_aside",
    "read_metrics",
    "write_model_card",
]

_log = logging.getLogger(__name__)

_PACKAGES = ("torch", "transformers", "trl", "accelerate", "gymnasium", "numpy")

_FREE = ("log", "eval", "save", "hub", "push", "dataloader", "trackio", "torch_compile", "gradient_checkpointing",
         "per_device_eval", "output_dir", "max_steps", "num_train_epochs", "report_to", "run_name", "project",
         "disable_tqdm", "resume_from", "allow_changes", "max_broken", "rollout_retries", "local_rank", "do_", "ddp",
         "include", "skip_memory", "metric_for", "greater", "load_best", "use_cpu", "ignore_data",
         "restore_callback")  # fmt: skip
"""How settings begin that do not change what is learned: how long, how it is shown, what is kept."""


_RECORD = ("run.json", "run_step_*", "metrics.jsonl", "trees", "completions", "curve.png", "critic.png", f"{PREFIX}*")
"""What a run writes into its folder."""

_BY_STEP = ("run_step_*", "trees/step_*", "completions/completions_*")
"""What of it says its step, besides checkpoints."""


class FolderTakenError(ValueError):
    """Another run trains in the folder, or the model that a new one begins from lies there."""


class GrowsTrees(Protocol):
    """What a run folder needs of its trainer."""

    @property
    def last_trees(self) -> Sequence[EpisodeTree]:
        """The trees of the last generation, on this process."""
        ...


class RunFolder(TrainerCallback):
    """Writes the folder of a run while it trains; added by `TreeTrainer` itself.

    A run that is resumed goes on in the same files: metrics after the checkpoint's step are written again.

    Args:
        trainer: whose run it is.
        description: what the settings do not say: environment, estimator.
        origin: says which run is gone on with, where that is not the one in `output_dir`.
    """

    def __init__(
        self, trainer: GrowsTrees, description: Mapping[str, Any], origin: Callable[[], Path | None] = lambda: None
    ) -> None:
        self._trainer = trainer
        self._description = dict(description)
        self._origin = origin
        self._held: int | None = None

    @override
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Writes the configuration, or compares it with that of the run which goes on.

        Raises:
            ResumeError: a run goes on with other settings, without `allow_changes`.
            FolderTakenError: another run trains in the folder, or a new one would begin from a model that lies there.
        """
        folder = Path(str(args.output_dir))
        step = state.global_step
        if not step:
            _refuse_own_model(folder, kwargs.get("model"))
        config, changes = self.compare(args, folder, step=step) if step else (self._describe(args), {})
        if not state.is_world_process_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._hold(folder)
        if aside := put_aside(folder, step):
            told = "what this run left after the step it goes on from" if step else "another run"
            _log.warning("%s lay in %r, and is in %r now", told, str(folder), str(aside))
        if not step or not (folder / "run.json").exists():
            replace_file(folder / "run.json", json.dumps(config, indent=2) + "\n")
        elif changes:
            replace_file(folder / f"run_step_{step}.json", json.dumps(config, indent=2) + "\n")
        kept = [m for m in read_metrics(folder) if m["step"] <= step] if step else []
        replace_file(folder / "metrics.jsonl", "".join(json.dumps(metrics) + "\n" for metrics in kept))

    def _hold(self, folder: Path) -> None:
        """Keeps other runs out of the folder until `release`, or until this process ends."""
        self.release()
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            msg = f"output_dir must be no other run's, and one trains in {str(folder)!r} now: name another, or wait"
            raise FolderTakenError(msg) from None
        except OSError:  # a file system without locks
            os.close(held)
            return
        self._held = held

    def release(self) -> None:
        """Lets other runs into the folder. May be called twice."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def compare(
        self, args: TrainingArguments, folder: Path, *, step: float = math.inf
    ) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
        """Returns the configuration, and what of it differs from that of the run which goes on.

        Args:
            args: the settings.
            folder: of the run.
            step: that it goes on from; settings that the run took on after it are not those that it had there.

        Raises:
            ResumeError: something differs, without `allow_changes`.
        """
        config = self._describe(args)
        before = _read_config(folder, step) or _read_config(self._origin() or folder, step)
        changes = changed_settings(before, config)
        if changes and not cast("TreeConfig", args).allow_changes:
            told = "; ".join(f"{name} is {old!r} in the run, {new!r} now" for name, (old, new) in changes.items())
            msg = f"{str(folder)!r} would go on with other settings: {told}. Set allow_changes (--override) to let it"
            raise ResumeError(msg)
        _warn_of_schedule(before.get("settings", {}), config["settings"])
        return config, changes

    def _describe(self, args: TrainingArguments) -> dict[str, Any]:
        config = {**self._description, "versions": _versions(), "settings": args.to_dict()}
        return json.loads(json.dumps(config, default=str))

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
            append_line(Path(str(args.output_dir)) / "metrics.jsonl", json.dumps({"step": state.global_step, **logs}))

    @override
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        every = cast("TreeConfig", args).save_trees_steps
        if every and state.global_step % every == 0:
            rank = "" if state.is_world_process_zero else f"_rank_{args.process_index}"
            path = Path(str(args.output_dir)) / "trees" / f"step_{state.global_step}{rank}.jsonl"
            write_trees(path, self._trainer.last_trees)

    @override
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            draw_curve(read_metrics(args.output_dir), Path(str(args.output_dir)) / "curve.png")


def put_aside(folder: Path, step: int) -> Path | None:
    """Moves what would pass for the run's own into `earlier-N`, so that neither is it taken for that, nor lost.

    Args:
        folder: of the run.
        step: that the run begins at. At 0 all that another run left is moved; later, where there are checkpoints or
            settings after it, all that is after it, with a copy of the metrics.

    Returns:
        Where it is now; `None` where there was nothing.
    """
    metrics = folder / "metrics.jsonl"
    found = [one for one in whole_checkpoints(folder) if step_of(one) > step]
    if step and (found or any(_begun_at(path) > step for path in _later_configs(folder))):
        by_step = [path for pattern in _BY_STEP for path in sorted(folder.glob(pattern))]
        found += [path for path in by_step if (number := re.search(r"\d+", path.name)) and int(number[0]) > step]
    elif not step and (found or (metrics.exists() and metrics.stat().st_size)):
        found = [path for pattern in _RECORD for path in sorted(folder.glob(pattern))]
    if not found:
        return None
    aside = next(path for n in count(1) if not (path := folder / f"earlier-{n}").exists())
    aside.mkdir()
    if step and metrics.exists():
        shutil.copy2(metrics, aside)
    for path in found:
        place = aside / path.relative_to(folder)
        place.parent.mkdir(exist_ok=True)
        path.rename(place)
    return aside


def _refuse_own_model(folder: Path, model: Any) -> None:
    """Refuses a new run that would move its model away, or write over it: nobody could load it again."""
    name = getattr(getattr(model, "config", None), "_name_or_path", None)
    if not name or not Path(name).is_dir():
        return
    origin = Path(name).resolve()
    if origin == folder.resolve() or (origin.parent == folder.resolve() and origin.name.startswith(PREFIX)):
        msg = (
            f"output_dir must not be where the model lies that a new run begins from, got {str(folder)!r} with the "
            f"model {name!r}: name another"
        )
        raise FolderTakenError(msg)


def name_of(value: Any) -> str:
    """Returns how to say in a file which function, class or id was given."""
    if isinstance(value, str):
        return value
    if isinstance(value, partial):
        arguments = [*map(_said, value.args), *(f"{k}={_said(v)}" for k, v in value.keywords.items())]
        return f"{name_of(value.func)}({', '.join(arguments)})"
    if "object at 0x" not in repr(value) and not hasattr(value, "__qualname__"):
        return f"{type(value).__module__}.{value!r}"
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def names_of(**given: Any) -> dict[str, str]:
    """Returns `name_of` each that is given, by argument."""
    return {name: name_of(value) for name, value in given.items() if value is not None}


def _said(value: Any) -> str:
    return name_of(value) if callable(value) or "object at 0x" in repr(value) else repr(value)


def _warn_of_schedule(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A run may get more steps; where its learning rate falls with them, it is another run from here on."""
    schedule = str(now["lr_scheduler_type"])
    if before and before.get("max_steps") != now["max_steps"] and not schedule.startswith("constant"):
        msg = (
            f"max_steps is {before.get('max_steps')} in the run, {now['max_steps']} now, and the learning rate follows "
            f"it: the run goes on with another schedule (lr_scheduler_type={schedule!r}; 'constant' would not)"
        )
        warnings.warn(msg, stacklevel=3)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns what differs between the configurations of a run and changes what it learns, as name: (before, now).

    What one of them does not describe is `None` there. Settings that only one of them knows (another version of a
    library wrote it) are not compared.
    """
    if not before:
        return {}
    names = [name for name in {**before, **now} if name not in {"versions", "settings"}]
    pairs = {name: (before.get(name), now.get(name)) for name in names}
    old, new = (config.get("settings", {}) for config in (before, now))
    pairs |= {name: (old[name], new[name]) for name in old if name in new and not name.startswith(_FREE)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _read_config(folder: Path, step: float) -> dict[str, Any]:
    """The configuration that a run had at a step; empty where there is none."""
    later = [path for path in _later_configs(folder) if _begun_at(path) <= step]
    path = [folder / "run.json", *later][-1]
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _later_configs(folder: Path) -> list[Path]:
    """The configurations that a run went on with, in the order of the steps from which on."""
    return sorted(folder.glob("run_step_*.json"), key=_begun_at)


def _begun_at(config: Path) -> int:
    return int(config.stem.rpartition("_")[2])


def read_metrics(folder: str | Path | None) -> list[dict[str, Any]]:
    """Returns the objects of a run's `metrics.jsonl`, in order; none where there is no such file.

    A last line that a crash cut off is left out.

    Raises:
        ValueError: another line cannot be read; the message names it.
    """
    path = Path(str(folder)) / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    metrics: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as exc:
            if number == len(lines):
                break
            msg = f"{path}, line {number}: not a JSON object ({exc}): remove the line"
            raise ValueError(msg) from exc
        metrics.append(entry)
    return metrics


def write_model_card(args: TrainingArguments, model: PreTrainedModel, state: TrainerState) -> None:
    """Writes a README.md into the run folder that says how its model came about."""
    base = getattr(model.config, "_name_or_path", "")
    text = (
        f"---\nlibrary_name: transformers\ntags: [agentenv, trl]\n---\n\n# {Path(str(args.output_dir)).name}\n\n"
        f"Trained by reinforcement learning on episode trees (agentenv, on TRL), step {state.global_step}"
        f"{f', from {base}' if base else ''}. Environment, estimator, settings: run.json. Results: metrics.jsonl.\n"
    )
    replace_file(Path(str(args.output_dir)) / "README.md", text)


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
    train, held_out = (
        [(m["step"], m[key]) for m in metrics if m.get(key) is not None] for key in ("success", "eval_success")
    )
    if train:
        axes.plot(*zip(*train, strict=True), color="#9db4c8", linewidth=1.2, label="training episodes")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", color="#1f5f8b", linewidth=2, label="held-out tasks")
        _label_ends(axes, held_out)
    axes.set(xlabel="optimizer step", ylabel="success", ylim=(0, 1.03))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if train or held_out:
        axes.legend(loc="lower right", frameon=False)
    with whole_file(path) as part:
        figure.savefig(part, dpi=150, format="png")


def _label_ends(axes: Any, points: Sequence[tuple[int, float]]) -> None:
    for (step, value), place in ((points[0], (10, -4)), (points[-1], (-8, -18))):
        axes.annotate(f"{value:.2f}", (step, value), textcoords="offset points", xytext=place)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "agentenv": agentenv.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
