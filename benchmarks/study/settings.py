"""The testbed: environments with fixed panels of tasks, and starts that solve some of them.

Every setting has a twin `-hard` whose start solves 2 to 8 in a hundred tasks instead of 20 to 40, so that groups are
rarely mixed. Tasks of training and held-out tasks are drawn once and for all; `panel` is the digest of both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from agentenv.env import Env
from agentenv.envs.math_verifier import MathVerifier
from agentenv.envs.math_verifier.demonstrations import careful_calls, noisy_calls
from agentenv.signatures import digest
from agentenv.trainers import Play
from agentenv.trainers.demo import demo_tasks

from .bundled import BUNDLED
from .names import named
from .sokoban import Sokoban, levels, sloppy_moves
from .tabular import EASY, PROBLEMS, AliasedEnv, TabularEnv

__all__ = ["QUICK", "SETTINGS", "Setting", "setting_of"]

_HARD = (0.02, 0.08)
_TABLE_LADDER = (0.01, 0.03, 0.1, 0.3, 1.0)
"""It ends where an update moves a logit by 1: beyond, one decides an action for good, and a run is a gamble."""


@dataclass(frozen=True)
class Setting:
    """An environment, its panels of tasks, and how a model comes to solve some of them.

    Attributes:
        name: of the setting.
        make_env: makes an environment.
        draw: returns tasks to train on and held-out tasks.
        plays: what the tiny model imitates; empty where the start is a table.
        problem: the exact problem of which the start is the table, where it is one.
        max_action_tokens: limit of an action.
        rates: learning rates that every method is tried with first.
        ladder: rates by size, those among them; while the best that was tried has a neighbour here that was not, that
            one is tried, too.
        tokens: budget of sampled tokens of one run.
        tasks_per_step: trees of an optimizer step.
        share: success of the start that the setting is made for, from and to.
        long: whether a run takes more than a minute of a core, so that there are fewer.
    """

    name: str
    make_env: Callable[[], Env]
    draw: Callable[[], tuple[Sequence[Any], Sequence[Any]]]
    plays: tuple[Play, ...] = ()
    problem: Callable[[], Any] | None = None
    max_action_tokens: int = 24
    rates: tuple[float, ...] = (3e-4, 6e-4, 1.2e-3)
    ladder: tuple[float, ...] = (3.75e-5, 7.5e-5, 1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3)
    tokens: int = 100_000
    tasks_per_step: int = 16
    share: tuple[float, float] = field(default=(0.2, 0.4))
    long: bool = False

    @cached_property
    def tasks(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Tasks to train on, and held-out tasks."""
        return self.draw()

    @cached_property
    def panel(self) -> str:
        """The digest of all tasks, or of the exact problem."""
        if self.problem is not None:
            made = self.problem()
            return digest([made.transitions.tolist(), made.policy.tolist(), made.rewards.tolist()])[:16]
        return digest([list(part) for part in self.tasks])[:16]


def _math(difficulty: int) -> tuple[Sequence[Any], Sequence[Any]]:
    held_out = demo_tasks(128, seed=100, difficulty=difficulty)
    return demo_tasks(2048, seed=200, difficulty=difficulty, exclude=held_out), held_out


def _sokoban(size: int, least: int, most: int, spare: int, held_out: int) -> tuple[Sequence[Any], Sequence[Any]]:
    everything = levels(size=size, least=least, most=most, spare=spare)
    return everything[held_out:], everything[:held_out]


def _nothing() -> tuple[Sequence[Any], Sequence[Any]]:
    return [None] * 64, [None] * 256


def _math_plays(updates: int, left_to_right: float, mistype: float) -> tuple[Play, ...]:
    sloppy = partial(noisy_calls, left_to_right=left_to_right, mistype=mistype)
    return Play("careful play", _careful, updates), Play("sloppy play", sloppy, 3 * updates // 4)


def _careful(task: Any, _: np.random.Generator) -> Any:
    return careful_calls(task)


def _sokoban_plays(updates: int, slips: float) -> tuple[Play, ...]:
    return (
        Play("careful play", partial(sloppy_moves, slips=0.05), updates),
        Play("sloppy play", partial(sloppy_moves, slips=slips), updates // 4),
    )


def _table(name: str) -> Setting:
    problem = PROBLEMS[name]
    env = AliasedEnv if name.startswith("aliased") else TabularEnv
    return Setting(
        name,
        lambda: env(problem()),
        _nothing,
        problem=problem,
        max_action_tokens=2,
        rates=(0.1, 0.3, 1.0),
        ladder=_TABLE_LADDER,
        tokens=4_000 if name.startswith("misleading") else 8_000,
        tasks_per_step=8 if name.startswith("misleading") else 2,  # its episodes are short
        share=(0.2, 0.4) if name in EASY else _HARD,
    )


_MATH = Setting(
    "math",
    partial(MathVerifier, operations_per_call=1, max_steps=6),
    partial(_math, 2),
    _math_plays(160, 0.35, 0.1),
    long=True,
)
_SOKOBAN = Setting(
    "sokoban",
    Sokoban,
    partial(_sokoban, 4, 2, 4, 4, 128),
    _sokoban_plays(240, 0.5),
    max_action_tokens=4,
    tokens=80_000,
    long=True,
)

SETTINGS = {
    setting.name: setting
    for setting in (
        _MATH,
        Setting(
            "math-hard",
            partial(MathVerifier, operations_per_call=1, max_steps=9),
            partial(_math, 4),
            _math_plays(160, 0.6, 0.2),
            rates=(1.5e-4, 3e-4, 6e-4),
            tokens=100_000,
            share=_HARD,
        ),
        _SOKOBAN,
        replace(
            _SOKOBAN,
            name="sokoban-hard",
            draw=partial(_sokoban, 5, 3, 6, 3, 128),
            plays=_sokoban_plays(120, 0.5),
            share=_HARD,
        ),
        replace(_SOKOBAN, name="sokoban-aliased", make_env=partial(Sokoban, aliased=True)),
        *(Setting(name, **made) for name, made in BUNDLED.items()),
        *map(_table, PROBLEMS),
    )
}
"""All settings, by name."""

QUICK = {
    "sokoban": replace(
        _SOKOBAN,
        draw=partial(_sokoban, 3, 1, 2, 2, 16),
        plays=_sokoban_plays(16, 0.3),
        tokens=600,
        tasks_per_step=4,
        rates=(6e-4,),
    ),
    "decisive": replace(SETTINGS["decisive"], tokens=1_500, tasks_per_step=4, rates=(0.05, 0.1), ladder=(0.05, 0.1)),
}
"""The same in little, for `--quick`: what is measured there means nothing."""


def setting_of(name: str, *, quick: bool = False) -> Setting:
    """Returns a setting by its name.

    Raises:
        ValueError: there is none of that name.
    """
    return named("setting", QUICK if quick else SETTINGS, name)
