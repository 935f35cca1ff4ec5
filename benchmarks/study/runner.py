"""Runs cells, a process per core, and writes every result as it comes; what was run before is not run again."""

import gc
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .cells import MAKES_ANOTHER, Cell, OtherStartError, Results, StudyError, not_finite
from .sizes import device_name

__all__ = ["run_cell", "run_plan"]

Plan = Callable[[], list[Cell]]


def run_cell(cell: Cell, folder: Path, start: str = "") -> dict[str, Any]:
    """Runs a cell; one that breaks has its error as result, which is counted and not run again unless asked for.

    Args:
        cell: what to run.
        folder: of the starting models.
        start: the hash of the weights that it must start from; empty for any.

    Raises:
        OtherStartError: it would start from others, which is found before anything is run.
        StudyError: it cannot start from what there is, which is no result.
    """
    began, wall = time.process_time(), time.perf_counter()
    try:
        if start:
            _check_start(cell, folder, start)
        result = _work_of(cell)(cell, folder)
        if wrong := not_finite(cell.seed, result):
            result = {"error": f"{wrong}: the run diverged"}
    except StudyError:
        raise
    except Exception as error:  # noqa: BLE001  any is a result: it says what broke
        result = {"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()[-4000:]}
    gc.collect()  # a trainer holds itself, and with it the model and what it keeps of rollouts
    spent = {"cpu_seconds": time.process_time() - began, "wall_seconds": time.perf_counter() - wall}
    return result | spent | {"load": os.getloadavg()[0], "machine": device_name(cell.device)}


def _check_start(cell: Cell, folder: Path, start: str) -> None:
    from .settings import setting_of
    from .starts import check_start

    check_start(setting_of(cell.setting, quick=cell.quick), folder, start, size=cell.size, device=cell.device)


def _work_of(cell: Cell) -> Callable[[Cell, Path], dict[str, Any]]:
    if cell.kind == "train":
        from .training import train_cell

        return train_cell
    if cell.kind == "credit":
        from .accuracy import credit_cell

        return credit_cell
    msg = f"kind must be 'train' or 'credit', got {cell.kind!r}"
    raise ValueError(msg)


def run_plan(
    plan: Plan,
    results: Results,
    folder: Path,
    *,
    jobs: int = 1,
    minutes: float | None = None,
    retry: bool = False,
    console: Console | None = None,
) -> int:
    """Runs what a plan asks for until it asks for nothing more, or the time is over.

    Args:
        plan: returns the cells that can be run now; asked again after every result.
        results: where results go.
        folder: of the starting models.
        jobs: processes, one core each; 1 runs in this one.
        minutes: no cell begins later than that.
        retry: runs cells again that broke.
        console: where the progress is shown.

    Returns:
        How many cells were run.

    Raises:
        OtherStartError: settings were passed over, as the kept runs of each start from another model than is made here;
            all that can be run was.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # of the processes to come
    results.check_writable()
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    again = {cell.key for cell in plan() if retry and "error" in (results.get(cell) or {})}
    done, refused = 0, dict[str, str]()
    bar = _Bar(jobs, console)
    with bar.progress, _workers(jobs) as submit:
        running: dict[Future[dict[str, Any]], Cell] = {}
        while True:
            busy = {cell.key for cell in running.values()}
            left = (c for c in plan() if c not in results or c.key in again)
            waiting = {c.key: c for c in left if c.key not in busy and c.setting not in refused}
            for cell in list(waiting.values())[: max(0, jobs - len(running))]:
                if time.monotonic() < deadline:
                    running[submit(run_cell, cell, folder, results.start_of(cell))] = waiting.pop(cell.key)
            bar.show(done, len(running) + len(waiting), sum(cell.cost for cell in waiting.values()))
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(future)
                try:
                    result = future.result()
                    results.add(cell, result)
                except OtherStartError as error:
                    refused[cell.setting] = str(error)
                    bar.say(f"passed over | {error}")
                    continue
                again.discard(cell.key)
                done += 1
                bar.learn(cell, result)
    if refused:
        msg = (
            f"{results.path}: passed over {', '.join(refused)}, whose runs would start from another model than those "
            f"that are kept: {MAKES_ANOTHER}. Run these settings with a --folder of their own"
        )
        raise OtherStartError(msg)
    return done


@contextmanager
def _workers(jobs: int) -> Generator[Callable[..., Future[dict[str, Any]]]]:
    if jobs == 1:
        yield _now
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)
    try:
        yield cast("Any", pool.submit)
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the one that made it is gone, however it went: a killed study leaves nothing running."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _now(work: Callable[..., dict[str, Any]], *args: Any) -> Future[dict[str, Any]]:
    future: Future[dict[str, Any]] = Future()
    try:
        future.set_result(work(*args))
    except StudyError as error:
        future.set_exception(error)
    return future


class _Bar:
    """Shows how many cells are done, what was last, and how long the rest will take at the speed so far."""

    def __init__(self, jobs: int, console: Console | None) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        self.progress = Progress(*columns, TextColumn("{task.fields[left]} left"), console=console)
        self._task = self.progress.add_task("study", total=1, left="?")
        self._jobs, self._spent, self._expected = jobs, 0.0, 0.0

    def learn(self, cell: Cell, result: dict[str, Any]) -> None:
        self._spent += result["wall_seconds"]
        self._expected += cell.cost
        final = result.get("metrics", {}).get("final")  # credit has none: nothing is learned
        said = result.get("error") or ("done" if final is None else f"success {final:.2f}")
        run = f"{cell.setting} | {cell.method} | seed {cell.seed} | rate {cell.rate:g}"
        self.say(f"{run} | {result['cpu_seconds']:.0f} s | {said}")

    def say(self, line: str) -> None:
        self.progress.console.print(line, markup=False)

    def show(self, done: int, rest: int, expected: float) -> None:
        speed = self._spent / self._expected if self._expected else 1.0
        minutes = expected * speed / self._jobs / 60
        left = f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
        self.progress.update(self._task, completed=done, total=done + rest, left=left)
