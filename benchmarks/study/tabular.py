"""Problems in which credit is hard on purpose, with exact values: environments of one token a step, a table as model.

The environment and the model are those of `benchmarks/trained_loss.py`; here are the problems, each in a form that its
starting policy solves 20 to 40 times in a hundred, and harder ones of 2 to 8.

Every verdict is doubtful: 3 of 10 successes are missed, 1 of 100 failures passes. Without that a single lucky episode
teaches a table everything, the largest learning rate is the best, and all methods are alike.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from agentenv.credit.problems import lattice, traps
from agentenv.credit.tabular import TabularMDP
from benchmarks.trained_loss import TabularEnv

__all__ = ["EASY", "PROBLEMS", "AliasedEnv", "doubtful", "misleading", "one_decisive"]

MISSED, PASSED = 0.3, 0.01
"""Shares of successes that the verdict misses, and of failures that it passes."""

Moves = Mapping[str, list[tuple[float, Mapping[str, float]]]]
"""By state: for every action its probability, and the probabilities of the states that follow."""


def build(name: str, moves: Moves, *, actions: int) -> TabularMDP:
    """Makes a problem of named states; the first is the start, `won` and `lost` are the ends."""
    index = {state: number for number, state in enumerate([*moves, "won", "lost"])}
    transitions, policy = np.zeros((len(index), actions, len(index))), np.full((len(index), actions), 1.0 / actions)
    for state, choices in moves.items():
        policy[index[state]] = 0.0
        for action, (probability, follow) in enumerate(choices):
            policy[index[state], action] = probability
            for to, share in follow.items():
                transitions[index[state], action, index[to]] += share
        for action in range(len(choices), actions):  # never taken
            transitions[index[state], action, index["lost"]] = 1.0
    rewards = np.zeros(len(index))
    rewards[index["won"]] = 1.0
    return TabularMDP(transitions, policy, rewards, np.array([s in {"won", "lost"} for s in index]), name=name)


def one_decisive(*, length: int = 12, at: int = 3, chance: float = 0.3, looks: int = 3) -> TabularMDP:
    """Builds a long problem in which one step decides: the action of probability `chance` at step `at`.

    All other steps, and which of the states of a step the episode is in, do not matter.
    """
    moves: dict[str, list[tuple[float, Mapping[str, float]]]] = {}
    for t in range(length):
        for good in (False, True) if t > at else (False,):
            for look in range(looks if t else 1):
                after = {True: "won", False: "lost"}
                choices: list[tuple[float, Mapping[str, float]]] = []
                for action in range(3):
                    then = action == 0 if t == at else good
                    follow = {f"{t + 1}{'+' if then else '-'}{k}": 1 / looks for k in range(looks)}
                    chosen = (chance if action == 0 else (1 - chance) / 2) if t == at else 1 / 3
                    choices.append((chosen, follow if t + 1 < length else {after[then]: 1.0}))
                moves[f"{t}{'+' if good else '-'}{look}"] = choices
    return build("one decisive step", moves, actions=3)


def misleading(*, short: float = 0.35, skill: float = 0.6, length: int = 5, tempted: float = 0.8) -> TabularMDP:
    """Builds a problem whose early successes mislead: a short cut wins with probability `short`, the long way always.

    At first the long way succeeds `skill^length` of the time, which is less than the short cut; once its steps are
    learned it is the best.
    """
    moves: dict[str, list[tuple[float, Mapping[str, float]]]] = {
        "start": [(tempted, {"won": short, "lost": 1 - short}), (1 - tempted, {"way 0": 1.0})]
    }
    for t in range(length):
        ahead = f"way {t + 1}" if t + 1 < length else "won"
        moves[f"way {t}"] = [(skill, {ahead: 1.0}), (1 - skill, {"lost": 1.0})]
    return build("misleading success", moves, actions=2)


class AliasedEnv(TabularEnv):
    """A problem whose signatures are its coarse ones: states that differ count as the same."""

    def __init__(self, problem: TabularMDP) -> None:
        super().__init__(problem)
        self._aliases: Any = problem.aliases

    def state_signature(self) -> str:
        """Says what the coarse signature makes of the state."""
        return f"{self._aliases[self.state.place]}{self._terminated}"


@lru_cache
def _build(name: str) -> TabularMDP:
    return doubtful(_MADE[name]())


def doubtful(problem: TabularMDP, *, missed: float = MISSED, passed: float = PASSED) -> TabularMDP:
    """Returns the problem with a verdict that errs: the best policy now has a success of `1 - missed`.

    Args:
        problem: whose rewards are 1 for a success and 0 for a failure, at the end.
        missed: probability that a success counts as a failure.
        passed: probability that a failure counts as a success.
    """
    won = problem.terminal & (problem.rewards > 0)
    lost = problem.terminal & ~won
    moves = problem.transitions.copy()
    good, bad = moves[..., won].sum(-1), moves[..., lost].sum(-1)
    moves[..., won | lost] = 0.0
    moves[..., np.flatnonzero(won)[0]] = (1 - missed) * good + passed * bad
    moves[..., np.flatnonzero(lost)[0]] = missed * good + (1 - passed) * bad
    return replace(problem, transitions=moves)


_MADE: dict[str, Callable[[], TabularMDP]] = {
    "decisive": one_decisive,
    "decisive-hard": partial(one_decisive, chance=0.05),
    "decisive-short": partial(one_decisive, chance=0.05, length=6),
    "decisive-long": partial(one_decisive, chance=0.05, length=24),
    "decisive-rare": partial(one_decisive, chance=0.02),
    "irrecoverable": traps,
    "irrecoverable-hard": partial(traps, slip=0.3),
    "misleading": misleading,
    "misleading-hard": partial(misleading, short=0.06, skill=0.45),
    "aliased": partial(lattice, skill=0.5),
    "aliased-hard": partial(lattice, skill=0.3),
}
EASY = ("decisive", "irrecoverable", "misleading", "aliased")
"""Those that are solved 20 to 40 times in a hundred."""

PROBLEMS: dict[str, Callable[[], TabularMDP]] = {name: partial(_build, name) for name in _MADE}
"""The problems by the name of their setting."""
