"""Where the disk is full, nothing half-written stays, the error says what to do, and the run goes on afterwards.

A limit on the size of files stands for the full disk: the kernel then refuses the very write that goes beyond it.
"""

import resource
import shutil
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import random_model
from trainer_env import trainer
from transformers.trainer_callback import PrinterCallback

from agentenv.trainers.run_folder import draw_curve, read_metrics
from agentenv.whole_files import append_line, replace_file


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@contextmanager
def room_for(size: int) -> Generator[None]:
    """No file may become larger than that."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def run_to(folder: Path, steps: int, **options: Any) -> Any:
    model, tokenizer = random_model()
    settings = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    settings |= {"log_completions": True, "num_completions_to_print": 0}
    run = trainer(model, tokenizer, folder, max_steps=steps, **settings)
    run.remove_callback(PrinterCallback)  # what pytest captures are files as well
    run.train(**options)
    return run


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    run_to(folder, 1)
    return folder


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1_200, r"nothing half-written is left: raise the limit .*metrics\.jsonl"),
        (3_000, r"nothing half-written is left: raise the limit .*completions_00002\.parquet"),
        (100_000, "checkpoint-2 could not be saved, and nothing of it is left .*resume from checkpoint-1"),
        (600_000, "checkpoint-2 could not be saved, and nothing of it is left .*resume from checkpoint-1"),
    ],
    ids=["log", "table", "model", "optimizer"],
)
def test_a_run_that_finds_no_room_leaves_nothing_half_and_goes_on_later(tmp_path, begun, size, words):
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    before = everything(tmp_path)
    with room_for(size), pytest.raises(OSError, match=words):
        run_to(tmp_path, 2, resume_from_checkpoint=True)
    assert everything(tmp_path) - before <= {"completions/completions_00002.parquet"}
    assert [line["step"] for line in read_metrics(tmp_path) if "loss" in line] == [1, 2][: 1 + (size > 2_000)]
    run = run_to(tmp_path, 2, resume_from_checkpoint=True)
    assert run.state.global_step == 2 and "checkpoint-2" in everything(tmp_path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: replace_file(path, "x" * 9000),
        lambda path: append_line(path, "x" * 9000),
        lambda path: draw_curve([{"step": n, "success": n / 9} for n in range(9)], path),
    ],
    ids=["whole", "line", "curve"],
)
def test_a_file_is_whole_or_as_it_was(tmp_path, write):
    path = tmp_path / "file"
    path.write_text("before\n")
    with room_for(4000), pytest.raises(OSError, match=r"nothing half-written is left: raise the limit.*/file"):
        write(path)
    assert path.read_text() == "before\n" and everything(tmp_path) == {"file"}
    write(path)
    assert path.stat().st_size > 4000 and everything(tmp_path) == {"file"}
