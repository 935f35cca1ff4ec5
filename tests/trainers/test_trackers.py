"""Weights & Biases and trackio are told what the run folder is told, under the names that their pages show.

Both run whole and offline, and what they wrote to their own files is read back. `.ci/peers trackers` has them.
"""

import json
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_chat import random_model
from trainer_env import TASKS, Flaky
from transformers.integrations.integration_utils import rewrite_logs

from agentenv.trainers import SRPPOConfig, SRPPOTrainer
from agentenv.trainers.run_folder import read_metrics

pytestmark = [pytest.mark.peers("trackers"), pytest.mark.filterwarnings("default")]  # they warn of what is their own

ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_PROJECT": "attempt",
}


@dataclass
class Told:
    """What each tracker has of a run."""

    folder: Path
    wandb: list[dict[str, Any]]
    trackio: list[dict[str, Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run of the closed loop, which logs what every trainer logs, and a table in which broken episodes are NaN."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("told")
    args = SRPPOConfig(
        output_dir=str(folder / "run"), max_steps=2, per_device_train_batch_size=4, max_action_tokens=6,
        closed_loop=True, num_rollouts=2, num_continuations=1, critic_warmup=0, rollout_retries=0, bf16=False,
        use_cpu=True, gradient_checkpointing=False, logging_steps=1, save_strategy="no", disable_tqdm=True,
        log_completions=True, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4, project="attempt",
        run_name="first", report_to=["wandb", "trackio"],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        storage: Any = import_module("trackio.sqlite_storage")
        patch.setattr(storage, "TRACKIO_DIR", folder)  # of the environment's variable, which it reads once
        wandb: Any = import_module("wandb")
        model, tokenizer = random_model()
        SRPPOTrainer(
            model, args, env=Flaky, train_tasks=TASKS, eval_tasks=TASKS[:4], processing_class=tokenizer
        ).train()
        wandb.finish()
        wandb.teardown()
    return Told(folder, list(_of_wandb(folder)), list(_of_trackio(folder)))


def _of_wandb(folder: Path) -> Iterator[dict[str, Any]]:
    """Histories of a run's file: a header of 7 bytes, then blocks of 32 KiB with parts of protobuf messages."""
    (path,) = folder.rglob("*.wandb")
    kind, whole, data, at = import_module("wandb.proto.wandb_internal_pb2").Record, b"", path.read_bytes(), 7
    while at < len(data):
        if (room := 2**15 - at % 2**15) < 7:  # not enough for the head of a part: zeros
            at += room
            continue
        _, length, part = struct.unpack("<IHB", data[at : at + 7])
        whole, at = whole + data[at + 7 : at + 7 + length], at + 7 + length
        if part in {1, 4}:  # all of a message, or its last part
            record, whole = kind.FromString(whole), b""
            if record.WhichOneof("record_type") == "history":
                yield {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }


def _of_trackio(folder: Path) -> Iterator[dict[str, Any]]:
    (path,) = folder.glob("*.db")
    with sqlite3.connect(path) as base:
        for run, text in base.execute("SELECT run_name, metrics FROM metrics ORDER BY id"):
            yield {"run": run, **json.loads(text)}


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_a_tracker_is_told_what_the_run_folder_is_told(told, tracker):
    lines = [line for line in read_metrics(told.folder / "run") if "train_runtime" not in line]
    wanted = {"success", "tree/failed", "credit/std", "allocator/opened", "critic/brier", "grad_norm", "eval_success"}
    assert wanted <= {name for line in lines for name in line}
    for line in lines:
        shown = rewrite_logs({name: value for name, value in line.items() if name != "step"})
        (entry,) = [
            entry
            for entry in getattr(told, tracker)
            if entry.get("train/global_step") == line["step"] and shown.keys() <= entry.keys()
        ]
        assert {name: entry[name] for name in shown} == pytest.approx(shown)


def test_runs_and_tables_are_where_their_owner_looks_for_them(told):
    assert {entry["run"] for entry in told.trackio} == {"first"}
    tables = [entry["completions"]["_value"] for entry in told.trackio if "completions" in entry]
    assert tables and {"prompt", "completion", "return", "advantage"} <= tables[0][0].keys()
    shown = [entry for entry in told.wandb if entry.get("completions/_type") == "table-file"]
    assert [entry["completions/nrows"] for entry in shown] == [len(table) for table in tables]
