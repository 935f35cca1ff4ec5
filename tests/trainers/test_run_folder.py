"""A run folder survives crashes, and a run that goes on is the one that was begun."""

import json
from functools import partial
from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_chat import random_model
from trainer_env import TASKS, Digits, Flaky, run_to, steps_of, trainer

from agentenv.credit import TraceAllocator, grpo_advantages
from agentenv.errors import InfrastructureError, TaskError
from agentenv.trainers.progress import TrainingBar
from agentenv.trainers.run_folder import changed_settings, draw_curve, name_of, read_metrics
from agentenv.tree import Anchor

pytestmark = pytest.mark.model

BROKEN = [task for task in TASKS if int(task["id"][1:]) % 3 == 0]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_metrics_that_a_crash_cut_off_are_left_out_and_written_again(tmp_path, cut):
    run_to(tmp_path, 3)
    path = tmp_path / "metrics.jsonl"
    whole = [m for m in read_metrics(tmp_path) if "loss" in m]
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:cut])
    assert len(read_metrics(tmp_path)) == 2
    run_to(tmp_path, 3, resume=str(tmp_path / "checkpoint-1"))
    again = [m for m in read_metrics(tmp_path) if "loss" in m]
    assert [(m["step"], m["loss"], m["reward"]) for m in again] == [(m["step"], m["loss"], m["reward"]) for m in whole]


def test_a_broken_line_before_the_last_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2"):
        read_metrics(tmp_path)


def test_steps_are_steps_in_all(tmp_path):
    run_to(tmp_path, 2)
    weights = [p.detach().clone() for p in run_to(tmp_path, 2, resume=True).model.parameters()]
    assert steps_of(tmp_path) == [1, 2]
    again = run_to(tmp_path, 1, resume=str(tmp_path / "checkpoint-2"))  # fewer than were made already
    assert again.state.global_step == 2
    assert all(torch.equal(a, b) for a, b in zip(weights, again.model.parameters(), strict=True))
    assert run_to(tmp_path, 3, resume=True).state.global_step == 3
    assert steps_of(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rate": 0.5}, ["learning_rate is 0.01 in the run, 0.5 now"]),
        ({"num_rollouts": 4}, ["num_rollouts is 3 in the run, 4 now"]),
        ({"estimator": grpo_advantages}, ["estimator is 'agentenv.credit.rtmc.rtmc_advantages'", "grpo_advantages"]),
        ({"seed": 7, "beta": 0.0, "epsilon": 0.3}, ["seed is 42", "epsilon is 0.2"]),
        ({"env": Flaky}, ["env is", "Digits", "Flaky"]),
        ({"tasks": [*TASKS[1:], TASKS[0]]}, ["train_tasks_digest is"]),
        ({"allocator": TraceAllocator(maximum=2)}, ["allocator is 'even' in the run", "maximum=2"]),
        ({"allocator": "trace"}, ["allocator is 'even'", "step_weights is 'occupancy' in the run, 'graph' now"]),
        ({"allocator": "trace", "predictor": "hidden"}, ["predictor is 'text' in the run, 'hidden' now"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_run_goes_on_with_its_own_settings_or_says_which_changed(tmp_path, options, words):
    run_to(tmp_path, 1)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match="would go on with other settings") as caught:
        run_to(tmp_path, 2, resume=True, **options)
    assert all(word in str(caught.value) for word in words)
    assert "allow_changes (--override)" in str(caught.value)
    assert (tmp_path / "run.json").read_text() == before
    assert steps_of(tmp_path) == [1]


def test_a_model_saved_into_the_run_folder_takes_nothing_of_the_run(tmp_path):
    """`trainer.save_model(output_dir)` ends most of TRL's scripts; it writes a `config.json` of the model's."""
    run_to(tmp_path, 1).save_model(str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"]
    with pytest.raises(ValueError, match=r"learning_rate is 0\.01 in the run, 0\.5 now"):
        run_to(tmp_path, 2, resume=True, learning_rate=0.5)
    assert run_to(tmp_path, 2, resume=True).state.global_step == 2


def test_changes_that_are_wanted_are_kept_beside_the_first_settings(tmp_path):
    run_to(tmp_path, 1)
    before = (tmp_path / "run.json").read_text()
    run_to(tmp_path, 2, resume=True, learning_rate=0.5, allow_changes=True)
    assert (tmp_path / "run.json").read_text() == before
    assert json.loads((tmp_path / "run_step_1.json").read_text())["settings"]["learning_rate"] == 0.5
    run_to(tmp_path, 3, resume=True, learning_rate=0.5)  # compared with the newest
    with pytest.raises(ValueError, match=r"learning_rate is 0.5 in the run, 0.01 now"):
        run_to(tmp_path, 4, resume=True)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_a_checkpoint_of_another_folder_is_compared_with_its_own_run(tmp_path):
    run_to(tmp_path / "old", 1)
    checkpoint = str(tmp_path / "old" / "checkpoint-1")
    with pytest.raises(ValueError, match="seed is 42 in the run, 7 now"):
        run_to(tmp_path / "new", 2, resume=checkpoint, seed=7)
    assert run_to(tmp_path / "new", 2, resume=checkpoint).state.global_step == 2


def test_more_steps_under_a_schedule_that_ends_are_said_to_be_another_schedule(tmp_path):
    run_to(tmp_path, 1, lr_scheduler_type="cosine")
    with pytest.warns(UserWarning, match=r"max_steps is 1 in the run, 2 now.*'cosine'"):
        run_to(tmp_path, 2, resume=True, lr_scheduler_type="cosine")


def test_how_long_and_how_it_is_shown_may_change(tmp_path):
    run_to(tmp_path, 1)
    run_to(tmp_path, 2, resume=True, logging_steps=2, save_trees_steps=1, eval_strategy="no", save_total_limit=3)
    assert (tmp_path / "trees" / "step_2.jsonl").exists()
    assert not list(tmp_path.glob("run_step_*"))


def test_only_what_both_know_is_compared():
    old = {"env": "a", "settings": {"learning_rate": 1, "gone": 2}, "versions": {"trl": "1"}}
    new = {"env": "a", "settings": {"learning_rate": 1, "new": 3}, "versions": {"trl": "2"}}
    assert changed_settings(old, new) == {}
    assert changed_settings(old, new | {"env": "b"}) == {"env": ("a", "b")}
    assert changed_settings({}, new) == {}


def test_what_is_given_to_a_trainer_is_compared_also_where_it_was_not_given():
    run = {"env": "a", "settings": {}}
    other = run | {"state_ids": name_of(partial(sorted, key=len))}
    assert changed_settings(run, run) == changed_settings(other, other) == {}
    assert changed_settings(run, other) == {"state_ids": (None, "builtins.sorted(key=builtins.len)")}
    assert changed_settings(other, run) == {"state_ids": ("builtins.sorted(key=builtins.len)", None)}


def test_names_say_nothing_that_changes_from_process_to_process():
    def mine() -> None: ...

    for given in (partial(map, mine), partial(max, key=lambda _: 0, default=object()), partial(partial, partial(mine))):
        assert "0x" not in name_of(given)


def test_no_half_written_file_is_left(tmp_path):
    run_to(tmp_path, 1)
    assert not list(tmp_path.rglob("*.part"))


def test_the_model_card_says_only_what_holds(tmp_path):
    run_to(tmp_path, 1)
    text = (tmp_path / "README.md").read_text()
    assert "None" not in text and "GRPO" not in text
    assert "on episode trees" in text and "step 1" in text


# ---------------------------------------------------------------------- outages


def test_a_log_of_failures_alone_breaks_neither_bar_nor_curve(tmp_path):
    console = Console(record=True, width=100)
    model, tokenizer = random_model()
    run = trainer(
        model,
        tokenizer,
        tmp_path,
        env=Flaky,
        tasks=BROKEN,
        eval_tasks=BROKEN[:3],
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        rollout_retries=0,
        max_steps=2,
    )
    run.add_callback(TrainingBar(console, 2))
    run.train()
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert not any("success" in m or "eval_success" in m for m in read_metrics(tmp_path))
    assert [m["eval_tree/failed"] for m in read_metrics(tmp_path) if "eval_tree/failed" in m] == [3, 3, 3]


def test_logs_of_older_runs_without_success_are_drawn(tmp_path):
    bar = TrainingBar(Console(record=True), 1)
    bar.on_log(None, type("State", (), {"global_step": 1}), None, {"success": None, "eval_success": None})
    draw_curve([{"step": 1, "success": None}, {"step": 2, "success": 0.5}], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_permanent_outage_stops_the_run(tmp_path):
    model, tokenizer = random_model()
    run = trainer(
        model, tokenizer, tmp_path, env=Flaky, tasks=BROKEN, rollout_retries=0, max_steps=50, max_broken_generations=2
    )
    with pytest.raises(InfrastructureError, match=r"in 2 generations in a row .*the verifier is down"):
        run.train()
    assert run.state.global_step == 1


def test_a_short_outage_does_not(tmp_path):
    """Broken generations count only in a row."""
    state = {"generation": 0}

    flaky: Any = Flaky

    class Down(Digits):
        def respond(self, action):
            return super().respond(action) if state["generation"] % 3 == 0 else flaky.respond(self, action)

    model, tokenizer = random_model()
    run = trainer(
        model, tokenizer, tmp_path, env=Down, tasks=BROKEN, rollout_retries=0, max_steps=6, max_broken_generations=3
    )
    grow = run._grow

    def count(numbers, mode):
        state["generation"] += 1
        return grow(numbers, mode)

    run._grow = count
    run.train()
    assert run.state.global_step == 6
    failed = [log["tree/failed"] > 0 for log in run.state.log_history if "tree/failed" in log]
    assert failed == [True, True, False] * 2


# ---------------------------------------------------------------------- means and seeds


def test_evaluation_over_batches_counts_every_task_once(tmp_path):
    """One success in nine tasks, in batches of four, is 0.111."""

    class NinthWins(Digits):
        def respond(self, action):
            self.add_reward(float(self.task.id == "t8"))
            return self.finish("done")

    model, tokenizer = random_model()
    run = trainer(
        model, tokenizer, tmp_path, env=NinthWins, eval_tasks=TASKS[:9], per_device_eval_batch_size=4, max_steps=1
    )
    assert run.evaluate()["eval_success"] == pytest.approx(1 / 9)
    assert run.evaluate()["eval_reward"] == pytest.approx(1 / 9)  # the second does not go on with the sums of the first


def seeds_of(run, mode):
    seen = []
    grow = run._grow

    def remember(numbers, now):
        trees = grow(numbers, now)
        if now == mode:
            seen.append([tree.metadata["seed"] for tree in trees])
        return trees

    run._grow = remember
    return seen


def test_evaluation_seeds_differ_between_batches_and_are_the_same_every_time(tmp_path):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, eval_tasks=TASKS[:32], per_device_eval_batch_size=8)
    seen = seeds_of(run, "eval")
    run.evaluate()
    run.evaluate()
    assert len(seen) == 8
    assert seen[:4] == seen[4:]
    assert len({seed for batch in seen[:4] for seed in batch}) == 32


def test_two_generations_of_one_step_differ(tmp_path):
    model, tokenizer = random_model()
    run = trainer(
        model, tokenizer, tmp_path, steps_per_generation=1, gradient_accumulation_steps=3, max_steps=2, save_steps=1
    )
    seen = seeds_of(run, "train")
    run.train()
    assert len(seen) == 6
    assert len({seed for batch in seen for seed in batch}) == 12


def test_training_success_is_that_of_full_episodes(tmp_path):
    """Continuations all start where an episode went wrong, so they would pull the mean down."""

    class FirstStepDecides(Digits):
        max_steps = 4

        class State(Digits.State):
            steps: int = 0

        def respond(self, action):
            self.state.steps += 1
            if self.state.steps == 1 and int(self.task.id[1:]) % 2:
                self.add_reward(1.0)
                return self.finish("won")
            return self.finish("lost") if self.state.steps == 3 else "go on"

    model, tokenizer = random_model()

    def late(trees, budget, rng):
        return [Anchor(i, max(tree.snapshots), 12) for i, tree in enumerate(trees) if max(tree.snapshots)]

    settings = {"tasks": TASKS[:4], "num_continuations": 6, "max_steps": 1}
    run = trainer(model, tokenizer, tmp_path, env=FirstStepDecides, allocator=late, **settings)
    run.train()
    (log,) = [log for log in run.state.log_history if "loss" in log]
    assert log["success"] == 0.5
    assert log["continuation/success"] == 0.0
    assert log["tree/leaves"] > 3


# ---------------------------------------------------------------------- what is no environment, no sequence


def test_an_environment_instead_of_a_way_to_make_one_is_named(tmp_path):
    model, tokenizer = random_model()
    for given in (Digits(), 7, None):
        with pytest.raises(
            TypeError, match=rf"env must be .* type {type(given).__name__}: every episode needs its own"
        ):
            trainer(model, tokenizer, tmp_path, env=given)


@pytest.mark.parametrize("name", ["train_tasks", "eval_tasks"])
@pytest.mark.parametrize("given", [TASKS[0], "no/such.jsonl", 7, object()], ids=lambda v: type(v).__name__)
def test_tasks_that_cannot_be_read_are_named(tmp_path, name, given):
    model, tokenizer = random_model()
    with pytest.raises(TaskError, match=f"^{name}: "):
        options: Any = {{"train_tasks": "tasks"}.get(name, name): given}
        trainer(model, tokenizer, tmp_path, **options)


def as_file(folder):
    path = folder / "tasks.jsonl"
    path.write_text("".join(json.dumps(task) + "\n" for task in TASKS))
    return path


@pytest.mark.parametrize(
    "make",
    [
        as_file,
        lambda folder: (task for task in TASKS),
        lambda folder: pytest.importorskip("pandas").DataFrame(TASKS),
        lambda folder: pytest.importorskip("datasets").Dataset.from_list(TASKS),
    ],
    ids=["file", "generator", "pandas", "datasets"],
)
def test_tasks_of_any_library_train(tmp_path, make):
    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path / "run", tasks=make(tmp_path), eval_tasks=make(tmp_path), max_steps=1)
    run.train()
    assert {tree.task_id for tree in run.last_trees} <= {task["id"] for task in TASKS}
    assert len(run._tasks["eval"]) == len(TASKS)


def test_evaluation_needs_no_credit(tmp_path):
    """Estimators that compare the episodes of a group would refuse its trees of one."""

    def needs_groups(arrays):
        assert arrays.leaf_counts[arrays.is_root].min() > 1
        return grpo_advantages(arrays)

    model, tokenizer = random_model()
    run = trainer(model, tokenizer, tmp_path, estimator=needs_groups, eval_tasks=TASKS[:4], max_steps=1)
    run.train()
    assert "eval_success" in run.evaluate()


def test_anything_callable_can_be_environment_and_estimator(tmp_path):
    class Maker:
        def __call__(self):
            return Digits()

    class Credit:
        def __call__(self, arrays):
            return grpo_advantages(arrays)

    run_to(tmp_path, 1, env=Maker(), estimator=Credit())
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["env"].endswith("Maker") and described["estimator"].endswith("Credit")
    assert "0x" not in described["env"] + described["estimator"]
