"""A run folder that has another run in it, or later steps of the same one: they are put aside, never mixed up."""

import json
from typing import Any

import pytest
import torch
from tiny_chat import random_model
from trainer_env import run_to, steps_of, trainer, weights_of
from transformers import AutoModelForCausalLM

from agentenv.trainers.run_folder import put_aside

pytestmark = pytest.mark.model


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_a_new_run_in_a_used_folder_is_not_mixed_up_with_the_old_one(tmp_path, caplog):
    old = weights_of(run_to(tmp_path, 3)).clone()
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    run_to(tmp_path, 1, learning_rate=0.05)
    assert f"another run lay in {str(tmp_path)!r}, and is in {str(tmp_path / 'earlier-1')!r} now" in caplog.text
    assert (tmp_path / "earlier-1" / "metrics.jsonl").read_bytes() == metrics
    assert sorted(path.name for path in (tmp_path / "earlier-1").glob("checkpoint-*")) == [
        f"checkpoint-{step}" for step in (1, 2, 3)
    ]
    new = run_to(tmp_path, 3, resume=True, learning_rate=0.05)
    straight = run_to(tmp_path / "straight", 3, learning_rate=0.05)
    assert torch.equal(weights_of(new), weights_of(straight))
    assert not torch.equal(weights_of(new), old)
    assert steps_of(tmp_path) == [1, 2, 3]
    run_to(tmp_path, 1)
    assert steps_of(tmp_path / "earlier-2") == [1, 2, 3]


def test_a_run_that_went_back_does_not_go_on_from_what_it_left_behind(tmp_path):
    run_to(tmp_path, 4)
    back = {"learning_rate": 0.05, "allow_changes": True}
    run_to(tmp_path, 3, resume=str(tmp_path / "checkpoint-2"), **back)
    aside = tmp_path / "earlier-1"
    assert sorted(path.name for path in aside.iterdir()) == ["checkpoint-3", "checkpoint-4", "metrics.jsonl"]
    assert steps_of(aside) == [1, 2, 3, 4]
    again = run_to(tmp_path, 4, resume=True, learning_rate=0.05)
    other = run_to(tmp_path / "other", 4, resume=str(aside.parent / "checkpoint-2"), **back)
    assert torch.equal(weights_of(again), weights_of(other))
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_going_back_leaves_the_settings_of_the_abandoned_steps_behind(tmp_path):
    run_to(tmp_path, 2)
    run_to(tmp_path, 3, resume=True, learning_rate=0.5, allow_changes=True)
    run_to(tmp_path, 2, resume=str(tmp_path / "checkpoint-1"))
    assert [path.name for path in tmp_path.glob("run*.json")] == ["run.json"]
    assert run_to(tmp_path, 3, resume=True).state.global_step == 3  # compared with the settings that it went back to


def test_a_run_that_goes_back_is_compared_with_the_settings_that_it_had_there(tmp_path):
    run_to(tmp_path, 2)
    later: dict[str, Any] = {"learning_rate": 0.5}
    run_to(tmp_path, 3, resume=True, **later, allow_changes=True)
    with pytest.raises(ValueError, match=r"learning_rate is 0.01 in the run, 0.5 now"):
        run_to(tmp_path, 2, resume=str(tmp_path / "checkpoint-1"), **later)
    run_to(tmp_path, 2, resume=str(tmp_path / "checkpoint-1"), **later, allow_changes=True)
    assert json.loads((tmp_path / "run_step_1.json").read_text())["settings"]["learning_rate"] == 0.5


def lay(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_tables_of_completions_and_trees_are_moved_with_the_run_that_wrote_them(tmp_path):
    table = "completions/completions_{:05d}.parquet".format
    run = [f"checkpoint-{n}/trainer_state.json" for n in (1, 2, 11)] + [table(n) for n in (1, 2, 11)]
    run += ["run.json", "critic.png", "metrics.jsonl", *(f"trees/step_{n}.jsonl" for n in (2, 3))]
    run += ["trees/step_3_rank_1.jsonl"]
    lay(tmp_path, [*run, "trees/mine.jsonl", "notes.txt"])
    back = put_aside(tmp_path, 2)
    assert back is not None
    assert names_in(back) == [
        "checkpoint-11/trainer_state.json",
        table(11),
        "metrics.jsonl",
        "trees/step_3.jsonl",
        "trees/step_3_rank_1.jsonl",
    ]
    kept = sorted({*run, "trees/mine.jsonl"} - {*names_in(back)} | {"metrics.jsonl"})
    anew = put_aside(tmp_path, 0)
    assert anew is not None
    assert names_in(anew) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier-1", "earlier-2", "notes.txt"]


def test_a_run_after_a_crash_writes_over_what_is_after_its_last_checkpoint(tmp_path):
    lay(tmp_path, ["checkpoint-2/trainer_state.json", "run.json", "metrics.jsonl", "trees/step_3.jsonl"])
    assert put_aside(tmp_path, 2) is None


@pytest.mark.parametrize("place", [".", "checkpoint-1"])
def test_a_new_run_does_not_move_or_write_over_the_model_that_it_begins_from(tmp_path, place):
    model, tokenizer = random_model()
    model.save_pretrained(tmp_path / place)
    before = names_in(tmp_path)
    begun = AutoModelForCausalLM.from_pretrained(tmp_path / place)
    with pytest.raises(ValueError, match=r"output_dir must not be where the model lies .*: name another"):
        trainer(begun, tokenizer, tmp_path).train()
    assert names_in(tmp_path) == before
    trainer(begun, tokenizer, tmp_path / "run", max_steps=1).train()


def test_a_checkpoint_of_a_model_alone_is_not_gone_on_from(tmp_path):
    run_to(tmp_path, 2, save_only_model=True)
    with pytest.raises(ValueError, match=r"checkpoint-2' holds no optimizer, schedule and random numbers"):
        run_to(tmp_path, 3, resume=True)
