"""Sokoban in text, small enough to be solved: states recur, some pushes cannot be undone, and values are known exactly.

One box, one goal, an empty room. The whole state is said after every move, so two ways to a place are one state, and
dynamic programming over (player, box) gives what any position is worth.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

import agentenv as ae

__all__ = ["MOVES", "Level", "Sokoban", "best_moves", "levels", "moves_left", "random_values", "sloppy_moves"]

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
Place = tuple[int, int]


class Level(ae.Task):
    """A room of `size` by `size` places, where player, box and goal are, and how many moves there are."""

    size: int
    player: Place
    box: Place
    goal: Place
    limit: int


class Sokoban(ae.Env):
    """Push the box onto the goal; say up, down, left or right. A box in a corner, or at a wall without goal, is lost.

    `aliased=True` makes signatures forget where the player is, so that states that differ count as one.
    """

    max_steps = None
    Task = Level

    class State(ae.State):
        """What moves, and how many moves were made."""

        player: Place = (0, 0)
        box: Place = (0, 0)
        moves: int = 0

    def __init__(self, *, aliased: bool = False) -> None:
        super().__init__(tasks=levels(64))
        self._aliased = aliased

    def start(self, task: Level) -> str:
        """Says where everything is."""
        self.state.player, self.state.box = task.player, task.box
        return self._draw()

    def respond(self, action: ae.Action) -> str:
        """Moves, pushing the box where it is in the way; a wall stops both. Another word is a move lost."""
        state, task = self.state, self.task
        if action.content.strip() in MOVES:
            state.player, state.box = move(task.size, state.player, state.box, action.content.strip())
        state.moves += 1
        if state.box == task.goal:
            return self.finish("solved", reward=1.0)
        return self.finish("no moves left") if state.moves >= task.limit else self._draw()

    def state_signature(self) -> str:
        """Says what decides what can still happen: the places, and the moves left; aliased, without the player."""
        known = (self.state.box, self.state.moves, self._terminated)
        return str(known if self._aliased else (self.state.player, *known))

    def _draw(self) -> str:
        (y, x), (v, u), (b, a) = self.state.player, self.state.box, self.task.goal
        return f"@ {y} {x} $ {v} {u} . {b} {a}"


def move(size: int, player: Place, box: Place, word: str) -> tuple[Place, Place]:
    """Returns where player and box are after a move."""
    dy, dx = MOVES[word]
    to = (player[0] + dy, player[1] + dx)
    pushed = (to[0] + dy, to[1] + dx) if to == box else box
    return (to, pushed) if _inside(size, to) and _inside(size, pushed) else (player, box)


def _inside(size: int, place: Place) -> bool:
    return 0 <= place[0] < size and 0 <= place[1] < size


@lru_cache(maxsize=256)
def moves_left(size: int, goal: Place) -> dict[tuple[Place, Place], int]:
    """Returns how many moves every position (player, box) needs that can be solved at all: breadth first, backwards."""
    places = [(y, x) for y in range(size) for x in range(size)]
    states = [(player, box) for player in places for box in places if player != box]
    after = {state: {move(size, *state, word) for word in MOVES} for state in states if state[1] != goal}
    needed = {state: 0 for state in states if state[1] == goal}
    distance = 0
    while True:
        distance += 1
        new = [
            s for s, follow in after.items() if s not in needed and any(needed.get(t) == distance - 1 for t in follow)
        ]
        if not new:
            return needed
        needed |= dict.fromkeys(new, distance)


def random_values(level: Level) -> dict[tuple[Place, Place, int], float]:
    """Returns the exact success probability of moves drawn at random, by (player, box, moves made)."""
    size, goal = level.size, level.goal
    places = [(y, x) for y in range(size) for x in range(size)]
    states = [(player, box) for player in places for box in places if player != box]
    values: dict[tuple[Place, Place, int], float] = {}
    for made in reversed(range(level.limit + 1)):
        for player, box in states:
            if box == goal or made == level.limit:
                values[player, box, made] = float(box == goal)
                continue
            follow = [move(size, player, box, word) for word in MOVES]
            values[player, box, made] = sum(values[p, b, made + 1] for p, b in follow) / len(MOVES)
    return values


def levels(
    count: int | None = None, *, size: int = 4, seed: int = 0, least: int = 3, most: int = 5, spare: int = 3
) -> list[Level]:
    """Draws distinct solvable levels.

    Args:
        count: how many; `None` for all that there are.
        size: of the room.
        seed: of the draws.
        least: moves that a level needs at least.
        most: moves that it needs at most.
        spare: moves beyond those needed.
    """
    places = [(y, x) for y in range(size) for x in range(size)]
    found = [
        Level(size=size, player=player, box=box, goal=goal, limit=needed + spare)
        for goal in places
        for (player, box), needed in moves_left(size, goal).items()
        if player != goal and least <= needed <= most
    ]
    if count is not None and count > len(found):
        msg = f"count must be at most {len(found)} with rooms of {size} and {least} to {most} moves, got {count}"
        raise ValueError(msg)
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:count]]


def best_moves(level: Level) -> list[str]:
    """Returns a shortest solution."""
    return _play(level, np.random.default_rng(0), slips=0.0)


def sloppy_moves(level: Level, rng: np.random.Generator, *, slips: float) -> list[str]:
    """Returns moves of a player who knows the way, and moves at random with probability `slips`."""
    return _play(level, rng, slips=slips)


def _play(level: Level, rng: np.random.Generator, *, slips: float) -> list[str]:
    needed, player, box = moves_left(level.size, level.goal), level.player, level.box
    made: list[str] = []
    while box != level.goal and len(made) < level.limit:
        words: Sequence[str] = list(MOVES)
        costs: NDArray[np.int64] = np.array([needed.get(move(level.size, player, box, w), 99) for w in words])
        best = int(rng.choice(np.flatnonzero(costs == costs.min())))
        word = words[int(rng.integers(len(words)))] if rng.random() < slips else words[best]
        player, box = move(level.size, player, box, word)
        made.append(word)
    return made
