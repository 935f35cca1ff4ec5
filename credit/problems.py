"""A family of tabular problems, each with one property that credit assignment finds hard or easy.

All rewards are 0 except 1 for a success at the end, so values are success rates. Sizes are small enough for exact
solutions, shapes like those of agent tasks: several steps, a few ways to go on, an outcome at the end.
"""

import numpy as np
from numpy.typing import NDArray

from .tabular import TabularMDP

__all__ = ["PROBLEMS", "bush", "corridor", "decisive", "lattice", "traps"]

FloatArray = NDArray[np.float64]


class _Builder:
    """Collects transitions between named states."""

    def __init__(self, actions: int) -> None:
        self.actions = actions
        self.index: dict[object, int] = {}
        self.moves: list[tuple[int, int, int, float]] = []
        self.outcomes: dict[int, float] = {}
        self.choices: dict[int, list[float]] = {}

    def state(self, name: object) -> int:
        return self.index.setdefault(name, len(self.index))

    def move(self, name: object, action: int, to: object, probability: float = 1.0) -> None:
        self.moves.append((self.state(name), action, self.state(to), probability))

    def end(self, name: object, reward: float) -> None:
        self.outcomes[self.state(name)] = reward

    def choose(self, name: object, probabilities: list[float]) -> None:
        self.choices[self.state(name)] = probabilities

    def build(self, name: str, aliases: dict[object, object] | None = None) -> TabularMDP:
        count = len(self.index)
        transitions, policy = np.zeros((count, self.actions, count)), np.full((count, self.actions), 1.0 / self.actions)
        for state, action, to, probability in self.moves:
            transitions[state, action, to] += probability
        for state, probabilities in self.choices.items():
            policy[state] = probabilities
        rewards, terminal = np.zeros(count), np.zeros(count, dtype=np.bool_)
        for state, reward in self.outcomes.items():
            rewards[state], terminal[state] = reward, True
        numbers: dict[object, int] = {}
        coarse = [numbers.setdefault((aliases or {}).get(key, key), len(numbers)) for key in self.index]
        return TabularMDP(transitions, policy, rewards, terminal, np.array(coarse), name)


def lattice(*, length: int = 8, needed: int = 5, skill: float = 0.6, noise: float = 0.0, name: str = "") -> TabularMDP:
    """Builds a sparse-reward problem: succeed by doing `needed` of `length` steps right; every count is a state.

    Many rollouts meet in the same states. With `noise`, the world replaces the action's effect by a coin flip. The
    coarse signature forgets the count and keeps the step.
    """
    builder = _Builder(2)
    aliases: dict[object, object] = {}
    for t in range(length):
        for right in range(t + 1):
            builder.choose((t, right), [skill, 1.0 - skill])
            for action in (0, 1):
                builder.move((t, right), action, (t + 1, right + 1 - action), 1.0 - noise / 2.0)
                builder.move((t, right), action, (t + 1, right + action), noise / 2.0)
            aliases[t, right] = t
    for right in range(length + 1):
        builder.end((length, right), float(right >= needed))
    return builder.build(name or ("stochastic" if noise else "sparse"), aliases)


def decisive(*, length: int = 6, at: int = 2, surfaces: int = 4, blind: bool = False) -> TabularMDP:
    """Builds a problem with one decisive step: the rest of the steps only change the surface.

    At step `at` one of four actions puts the episode on the good track (success 0.9 at the end instead of 0.1). All
    other actions just pick one of `surfaces` looks of the state, so exact signatures rarely match. The coarse signature
    ignores the look, or with `blind` also the track: then it merges states that differ.
    """
    builder, aliases = _Builder(4), dict[object, object]()
    builder.state((0, 0, 0))
    for t in range(length):
        for track in (0, 1):
            for look in range(surfaces if t else 1):
                if t <= at and track:
                    continue
                here = (t, track, look)
                aliases[here] = t if blind else (t, track)
                for action in range(4):
                    good = int(action == 0) if t == at else track
                    if t + 1 == length:
                        win = 0.9 if good else 0.1
                        builder.move(here, action, "won", win)
                        builder.move(here, action, "lost", 1.0 - win)
                    else:
                        for k in range(surfaces):
                            near = 0.7 * (k == (look + action) % surfaces) + 0.3 / surfaces
                            builder.move(here, action, (t + 1, good, k), near)
    builder.end("won", 1.0)
    builder.end("lost", 0.0)
    return builder.build("blind" if blind else "decisive", aliases)


def corridor(*, length: int = 40, advance: float = 0.8, quit_rate: float = 0.02) -> TabularMDP:
    """Builds a long chain with loops: advance, stay, or give up; success only at the far end.

    Episodes take about 50 steps and meet states again and again, so discounts and repeated visits matter.
    """
    builder = _Builder(3)
    for place in range(length):
        builder.choose(place, [advance, 1.0 - advance - quit_rate, quit_rate])
        builder.move(place, 0, place + 1 if place + 1 < length else "won")
        builder.move(place, 1, place)
        builder.move(place, 2, "lost")
    builder.end("won", 1.0)
    builder.end("lost", 0.0)
    return builder.build("long", {place: place // 8 for place in range(length)})


def traps(*, length: int = 8, slip: float = 0.12) -> TabularMDP:
    """Builds a problem of irrecoverable errors: any slip loses, but the episode goes on to its end as if nothing was.

    The coarse signature cannot see that it is lost.
    """
    builder = _Builder(3)
    aliases: dict[object, object] = {}
    for t in range(length):
        for lost in (False, True) if t else (False,):
            here = (t, lost)
            aliases[here] = t
            builder.choose(here, [1.0 - slip, slip / 2, slip / 2])
            for action in range(3):
                gone = lost or action > 0
                builder.move(here, action, (t + 1, gone))
    builder.end((length, False), 1.0)
    builder.end((length, True), 0.0)
    return builder.build("irrecoverable", aliases)


def bush(*, depth: int = 6, branching: int = 3, seed: int = 0, logit: float = -0.5) -> TabularMDP:
    """Builds a tree: every history is a state of its own, so rollouts share nothing but prefixes.

    The success rate of a leaf is drawn by a random walk in logits along the path, from `logit` at the root. The coarse
    signature keeps the depth and the last action.
    """
    rng = np.random.default_rng(seed)
    builder, aliases = _Builder(branching), dict[object, object]()
    frontier: list[tuple[tuple[int, ...], float]] = [((), logit)]
    for level in range(depth):
        ahead: list[tuple[tuple[int, ...], float]] = []
        for path, here in frontier:
            aliases[path] = (level, path[-1:])
            for action in range(branching):
                score = here + float(rng.normal(0.0, 1.2))
                if level + 1 == depth:
                    win = float(1.0 / (1.0 + np.exp(-score)))
                    builder.move(path, action, "won", win)
                    builder.move(path, action, "lost", 1.0 - win)
                else:
                    builder.move(path, action, (*path, action))
                    ahead.append(((*path, action), score))
        frontier = ahead
    builder.end("won", 1.0)
    builder.end("lost", 0.0)
    return builder.build("tree", aliases)


def _stochastic() -> TabularMDP:
    return lattice(noise=0.3)


def _blind() -> TabularMDP:
    return decisive(blind=True)


PROBLEMS = {
    "sparse": lattice,
    "stochastic": _stochastic,
    "decisive": decisive,
    "blind": _blind,
    "long": corridor,
    "irrecoverable": traps,
    "tree": bush,
}
"""The problems of the certification, by name; `blind` is `decisive` with a coarse signature that merges too much."""
