"""Rollouts of the environments for tests."""

from typing import Any

from envs_for_tests import Counted, GuessingAgent

from agentenv.rollout import Rollout

__all__ = ["TASKS", "grow"]

TASKS = [{"goal": 5}, {"goal": 30}, None]


def grow(agent=None, make_env: Any = Counted, *, tasks=TASKS, num_rollouts=4, extend=(), **options) -> Any:
    with Rollout(make_env, agent or GuessingAgent(), **options) as rollout:
        trees = rollout.grow(tasks, num_rollouts)
        if extend:
            rollout.extend(trees, extend)
    return trees, rollout
