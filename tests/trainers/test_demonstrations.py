"""A warm start from demonstrations of any environment, and the example of training on one's own."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from envs_for_tests import Boxed, Dice
from tiny_chat import random_model

from agentenv.errors import ModelError
from agentenv.trainers import Play, demonstrations, warm_start
from agentenv.types import Action, ToolCall

pytestmark = pytest.mark.model

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_environment.py"
TASKS = [{"goal": goal} for goal in (3, 5, 8)]
SMALL: dict[str, Any] = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 512}

LAZY, LATE = Play("lazy", lambda *_: [], 1), Play("late", lambda *_: [ToolCall("hold", {})] * 2, 1)


def holds(task, rng):
    return [
        ToolCall("roll", {"sides": 6}),
        {"role": "assistant", "content": "enough"},
        Action(tool_calls=(ToolCall("hold", {}),)),
    ]


def test_steps_may_be_calls_messages_or_actions_and_equal_seeds_give_equal_models():
    first, tokenizer = warm_start(Dice, [Play("held", holds, 3)], tasks=TASKS, progress=False, **SMALL)
    again, _ = warm_start(Dice, [Play("held", holds, 3)], tasks=TASKS, progress=False, **SMALL)
    other, _ = warm_start(Dice, [Play("held", holds, 3)], tasks=TASKS, progress=False, seed=1, **SMALL)
    assert "<|im_start|>assistant" in tokenizer.get_vocab() or len(tokenizer) > 256
    weights = [model.state_dict()["lm_head.weight"] for model in (first, again, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_tasks_may_be_drawn_and_a_model_may_be_ones_own():
    model, tokenizer = random_model()
    before = model.state_dict()["lm_head.weight"].clone()
    seen = []

    def remember(task, rng):
        seen.append(task)
        return holds(task, rng)

    warmed, same = warm_start(Dice, [Play("p", remember, 1)], tasks=4, model=model, tokenizer=tokenizer, progress=False)
    assert warmed is model
    assert same is tokenizer
    assert len(seen) == 4
    assert not before.equal(model.state_dict()["lm_head.weight"])


class Shop(Boxed):
    """Notes what was started."""

    started: ClassVar[list[Any]] = []

    def start(self, task):
        self.started.append(task)
        return super().start(task)


def writes(task, rng):
    return [ToolCall("write", {"text": str(task)}), ToolCall("write", {"text": "."})]


def writes_at_random(task, rng):
    return [ToolCall("write", {"text": f"{task} {rng.integers(10**9)}"}), ToolCall("write", {"text": "."})]


@pytest.mark.parametrize(
    ("plays", "tasks", "started"),
    [
        ([Play("one", writes, 40), Play("two", writes, 40)], ["a", "b", "c"] * 200, 3),  # the same is played once
        ([Play("one", writes, 1), Play("two", writes_at_random, 1)], ["a", "b"], 4),
        ([Play("one", writes_at_random, 40)], ["a"] * 600, 512),
        ([Play("one", writes, 40)], [str(n) for n in range(600)], 512),
        ([Play("one", writes, 40)], [None] * 20, 20),  # episodes that differ by their seeds alone
    ],
)
def test_what_opens_a_sandbox_is_played_sparingly_and_seen(monkeypatch, capsys, plays, tasks, started):
    found: dict[str, Any] = {}
    monkeypatch.setattr(demonstrations, "imitate", lambda _, __, phases, **___: found.update(phases=phases))
    monkeypatch.setattr(Shop, "started", [])
    warm_start(Shop, plays, tasks=tasks, **SMALL)
    assert len(Shop.started) == started
    shown = capsys.readouterr().out
    for play, phase in zip(plays, found["phases"], strict=True):
        count = min(len(tasks), 512)
        assert len(phase.conversations) == count
        assert re.search(rf"playing {play.name} .* {count}/{count} ", shown)


def test_without_a_sandbox_every_task_is_played_by_its_own_seed():
    model, tokenizer = random_model()
    seen: list[int] = []

    class Seen(Dice):
        def reset(self, *, seed=None, options=None):
            seen.append(seed or 0)
            return super().reset(seed=seed, options=options)

    warm_start(Seen, [Play("p", holds, 2)], tasks=TASKS * 8, model=model, tokenizer=tokenizer, progress=False)
    assert seen == list(range(24))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"plays": []}, ValueError, "plays must hold at least one Play"),
        ({"tasks": []}, ValueError, r"tasks must hold at least one task, got \[\]"),
        ({"tasks": 0}, ValueError, "tasks must hold at least one task, got 0"),
        ({"model": object()}, ValueError, "model and tokenizer must be given together"),
        (
            {"plays": [Play("lazy", lambda *_: [], 1)]},
            ValueError,
            "'lazy' cannot be imitated on the task .*goal.*at least one action",
        ),
        (
            {"plays": [Play("late", lambda *_: [ToolCall("hold", {})] * 2, 1)]},
            ValueError,
            "'late' cannot be .* must not go on after the end",
        ),
        ({"hidden_size": 33}, ModelError, "hidden_size must be a multiple"),
    ],
)
def test_wrong_arguments(options, error, words):
    given: dict[str, Any] = {"plays": [Play("held", holds, 1)], "tasks": TASKS, "progress": False} | options
    with pytest.raises(error, match=words):
        warm_start(Dice, given.pop("plays"), **given)


@pytest.mark.slow
def test_the_example(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--steps", "2", "--updates", "40", "--folder", str(tmp_path / "coins")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert re.search(r"success on 29 held-out amounts: 0\.\d\d before, 0\.\d\d after", capsys.readouterr().out)
    assert (tmp_path / "coins" / "curve.png").stat().st_size > 1000
    assert (tmp_path / "coins" / "trees" / "step_2.jsonl").is_file()
