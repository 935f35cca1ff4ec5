"""Environments that go wrong in ways that a rollout has to survive, and a run that a test can kill."""

import sys
import threading
import time
from typing import ClassVar

from envs_for_tests import Counted, GuessingAgent

from agentenv.errors import AgentError
from agentenv.protocols import AsyncAgent
from agentenv.rollout import Rollout

__all__ = ["Buggy", "Gate", "Hanging", "Outage", "Sleepy", "slow_run"]


class Sleepy(Counted):
    """Every step takes a while."""

    seconds: ClassVar[float] = 0.02

    def respond(self, action):
        time.sleep(self.seconds)
        return super().respond(action)


class Hanging(Counted):
    """The second step of the goals named here never returns until `release` is set."""

    goals: ClassVar[set[int]] = set()
    release: ClassVar[threading.Event] = threading.Event()
    hung: ClassVar[list[int]] = []

    def respond(self, action):
        if self.task.goal in self.goals and self.step_count == 1:
            self.hung.append(self.task.goal)
            self.release.wait(30)
        return super().respond(action)


class Buggy(Counted):
    """Has a bug in the third step of the goals named here."""

    goals: ClassVar[set[int]] = set()

    def respond(self, action):
        if self.task.goal in self.goals and self.step_count == 2:
            msg = "a bug"
            raise KeyError(msg)
        return super().respond(action)


class Outage(AsyncAgent):
    """A server that is away for the requests with these numbers."""

    honors = frozenset({"max_tokens"})

    def __init__(self, away=()):
        self.away = set(away)
        self.calls = -1

    async def respond(self, context):
        self.calls += 1
        if self.calls in self.away:
            msg = "connection refused"
            raise AgentError(msg)
        return GuessingAgent().choose(context)


class Gate(AsyncAgent):
    """Answers some episodes at once, and the others when `open` is set."""

    def __init__(self, slow):
        self.slow = slow
        self.open = threading.Event()
        self.finished_before = 0

    async def respond(self, context):
        import asyncio

        while self.slow(context) and not self.open.is_set():
            await asyncio.sleep(0.002)
        return GuessingAgent().choose(context)


def slow_run(path, *, resume=False, seconds=0.02):
    """Forty rollouts of two tasks, and ten continuations, recorded."""
    from agentenv.tree import Anchor

    Sleepy.seconds = seconds
    with Rollout(Sleepy, GuessingAgent(), seed=3, max_envs=4, record=path, resume=resume) as rollout:
        trees = rollout.grow([{"goal": 30}, {"goal": 25}], 20)
        anchors = [Anchor(i, sorted(tree.snapshots)[5], 5) for i, tree in enumerate(trees)]
        rollout.extend(trees, anchors)
    return trees, rollout


if __name__ == "__main__":
    slow_run(sys.argv[1])
