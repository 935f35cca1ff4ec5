"""A progress bar for training, with the success so far."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from typing_extensions import override

__all__ = ["TrainingBar"]

_SHOWN = {"success": "episodes", "eval_success": "held-out"}


class TrainingBar(TrainerCallback):
    """Shows steps and success: a bar on a terminal, a line per measurement elsewhere.

    Args:
        console: where to print.
        steps: optimizer steps in all.
        title: what stands before the bar.
    """

    def __init__(self, console: Console, steps: int, title: str = "training") -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        shown = TextColumn("{task.fields[now]}", markup=False)
        self._console = console
        self._progress = Progress(*columns, shown, console=console, disable=not console.is_terminal)
        self._line = self._progress.add_task(title, total=steps, now="")
        self._now: dict[str, float] = {}

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.start()

    @override
    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        new = {_SHOWN[key]: value for key, value in (logs or {}).items() if key in _SHOWN and value is not None}
        if not new:
            return
        self._now |= new
        now = "  ".join(f"{name} {value:.2f}" for name, value in self._now.items())
        self._progress.update(self._line, completed=state.global_step, now=now)
        if not self._console.is_terminal:
            words = "  ".join(f"{name} {value:.3f}" for name, value in new.items())
            self._console.print(f"step {state.global_step}  success of {words}", markup=False, highlight=False)

    @override
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._progress.stop()
