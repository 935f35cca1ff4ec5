"""Sokoban in text: solved exactly, and played by the rules."""

import numpy as np
import pytest

from agentenv.testing import check_env
from benchmarks.study.sokoban import Level, Sokoban, best_moves, levels, move, moves_left, random_values, sloppy_moves

ROOM = Level(size=4, player=(1, 0), box=(1, 1), goal=(1, 3), limit=4)


def test_it_is_an_environment():
    check_env(Sokoban)


def test_moves_and_walls():
    assert move(4, (1, 0), (1, 1), "right") == ((1, 1), (1, 2))
    assert move(4, (1, 2), (1, 3), "right") == ((1, 2), (1, 3))  # the box is at the wall
    assert move(4, (0, 0), (2, 2), "up") == ((0, 0), (2, 2))


def test_a_box_in_a_corner_is_lost():
    needed = moves_left(4, (1, 3))
    assert needed[(1, 0), (1, 1)] == 2
    assert ((1, 1), (0, 0)) not in needed
    assert ((1, 1), (3, 2)) not in needed  # at a wall without the goal


@pytest.mark.parametrize("level", levels(20, size=5, least=3, most=6, spare=2))
def test_best_play_solves_every_level_in_as_many_moves_as_it_needs(level):
    env = Sokoban()
    env.reset(options={"task": level})
    moves = best_moves(level)
    assert len(moves) == moves_left(level.size, level.goal)[level.player, level.box] == level.limit - 2
    rewards = [env.step(word)[1] for word in moves]
    assert sum(rewards) == 1
    env.close()


def test_sloppy_play_never_goes_on_after_the_end():
    rng = np.random.default_rng(0)
    for level in levels(30, size=4, least=2, most=4):
        assert 1 <= len(sloppy_moves(level, rng, slips=0.9)) <= level.limit


def test_values_of_random_play_by_hand():
    values = random_values(ROOM)
    # two moves left, two pushes to the right needed: one word in four, twice
    assert values[(1, 0), (1, 1), 2] == pytest.approx(1 / 16)
    assert values[(1, 1), (1, 2), 3] == pytest.approx(1 / 4)
    assert values[(0, 0), (1, 3), 4] == 1.0


def test_aliased_signatures_forget_the_player():
    exact, aliased = Sokoban(), Sokoban(aliased=True)
    signatures: list[set[str]] = []
    for env in (exact, aliased):
        found: set[str] = set()
        for word in ("up", "down"):
            env.reset(options={"task": ROOM})
            env.step(word)
            found.add(env.state_signature())
        signatures.append(found)
        env.close()
    assert [len(found) for found in signatures] == [2, 1]


def test_more_levels_than_there_are_are_refused():
    with pytest.raises(ValueError, match="count must be at most"):
        levels(10**6, size=3)
