"""Episode statistics: how often episodes succeed, what they return, how long they are.

Everything is kept as sums and counts, so that adding up parts (batches, processes, files) gives what the whole would
have given. Episodes from the root are counted apart from continuations: an allocator chooses where the latter start,
so that only the former say how well the policy does.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from agentenv.tree import EpisodeTree, Node

__all__ = ["Episode", "EpisodeStats", "Tally", "episode_stats", "episodes"]


@dataclass(frozen=True, slots=True)
class Episode:
    """The outcome of one rollout.

    Attributes:
        leaf: the node at which it ended, or broke.
        rollout: its number within its tree.
        anchor: the node that it started from; 0 for a full episode.
        value: undiscounted return from the root; `None` where infrastructure failed in every attempt.
        succeeded: whether the return exceeds the environment's threshold.
        steps: from the root, those before the anchor included.
        truncated: a limit ended it.
        retries: attempts before this one that infrastructure broke.
    """

    leaf: int
    rollout: int
    anchor: int
    value: float | None
    succeeded: bool
    steps: int
    truncated: bool
    retries: int


def episodes(tree: EpisodeTree) -> list[Episode]:
    """Returns the outcome of every rollout of a tree, in the order of their ends.

    Of a rollout that was started again only the last attempt counts.
    """
    nodes = tree.nodes
    anchors, values, steps = [0] * len(nodes), [0.0] * len(nodes), [0] * len(nodes)
    last: dict[int, int] = {}
    for i, node in enumerate(nodes[1:], start=1):
        above = nodes[node.parent]
        goes_on = node.parent and (above.rollout, above.attempt) == (node.rollout, node.attempt)
        anchors[i] = anchors[node.parent] if goes_on else node.parent
        values[i], steps[i] = values[node.parent] + (node.reward or 0.0), steps[node.parent] + 1
        last[node.rollout] = max(last.get(node.rollout, 0), node.attempt)
    return [
        Episode(
            leaf=leaf,
            rollout=nodes[leaf].rollout,
            anchor=anchors[leaf],
            value=None if nodes[leaf].reward is None else values[leaf],
            succeeded=nodes[leaf].reward is not None and values[leaf] > tree.success_threshold,
            steps=steps[leaf],
            truncated=nodes[leaf].truncated,
            retries=nodes[leaf].attempt,
        )
        for leaf in tree.leaves()
        if leaf and nodes[leaf].attempt == last[nodes[leaf].rollout]
    ]


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over episodes. Means are NaN where there is none; failed episodes count in `failed` alone.

    Attributes:
        episodes: that went through.
        failed: that infrastructure broke in every attempt.
        retries: broken attempts of either that were started again.
        successes: with a return above their environment's threshold.
        returns: sum of undiscounted returns.
        spread: sum of their squared distances from their mean.
        steps: sum of lengths in steps, from the root.
        truncated: that a limit ended.
    """

    episodes: int = 0
    failed: int = 0
    retries: int = 0
    successes: int = 0
    returns: float = 0.0
    spread: float = 0.0
    steps: int = 0
    truncated: int = 0

    @classmethod
    def of(cls, ended: Sequence[Episode]) -> "Tally":
        """Counts episodes."""
        values = [episode.value for episode in ended if episode.value is not None]
        through = [episode for episode in ended if episode.value is not None]
        total = math.fsum(values)
        distances = [value - total / len(values) for value in values]
        return cls(
            episodes=len(through),
            failed=len(ended) - len(through),
            retries=sum(episode.retries for episode in ended),
            successes=sum(episode.succeeded for episode in through),
            returns=total,
            spread=math.fsum(distance * distance for distance in distances),
            steps=sum(episode.steps for episode in through),
            truncated=sum(episode.truncated for episode in through),
        )

    def __add__(self, other: "Tally") -> "Tally":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        if self.episodes and other.episodes:
            apart = self.mean_return - other.mean_return
            sums["spread"] += apart * apart * (self.episodes * other.episodes / sums["episodes"])
        return Tally(**sums)

    def _mean(self, total: float) -> float:
        return total / self.episodes if self.episodes else math.nan

    @property
    def success(self) -> float:
        """Share of the episodes that succeed."""
        return self._mean(self.successes)

    @property
    def standard_error(self) -> float:
        """Of `success`: sqrt(p (1 - p) / n)."""
        return math.sqrt(self._mean(self.success * (1 - self.success)))

    @property
    def mean_return(self) -> float:
        """Mean undiscounted return."""
        return self._mean(self.returns)

    @property
    def std_return(self) -> float:
        """Standard deviation of the returns: sqrt(E[(R - E[R])^2])."""
        return math.sqrt(self._mean(self.spread))

    @property
    def mean_steps(self) -> float:
        """Mean length in steps."""
        return self._mean(self.steps)

    @property
    def truncated_share(self) -> float:
        """Share of the episodes that a limit ended."""
        return self._mean(self.truncated)


@dataclass(frozen=True, slots=True)
class EpisodeStats:
    """Sums over episode trees; `a + b` are the statistics of both together.

    Attributes:
        roots: full episodes, from the root.
        continuations: episodes from a later node.
        trees: trees that have an episode which went through.
        even_trees: those of them whose episodes all return the same, so that no estimator can tell them apart.
        broken_trees: trees of which nothing went through.
        breakages: what of the infrastructure agents broke and a control does not (`info["breakages"]`): it cost them
            the step or the reward, and is no failure of an attempt.
        prompts: prompts after the first whose tokens are known, one per state that an agent went on from.
        rewritten_prompts: those of them that do not go on with the tokens seen and sampled before.
        rewritten_tokens: tokens seen and sampled before that those prompts no longer hold in their place.
    """

    roots: Tally = Tally()
    continuations: Tally = Tally()
    trees: int = 0
    even_trees: int = 0
    broken_trees: int = 0
    breakages: int = 0
    prompts: int = 0
    rewritten_prompts: int = 0
    rewritten_tokens: int = 0

    def __add__(self, other: "EpisodeStats") -> "EpisodeStats":
        return EpisodeStats(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def everything(self) -> Tally:
        """Full episodes and continuations together."""
        return self.roots + self.continuations

    @property
    def even_share(self) -> float:
        """Share of the trees whose episodes all return the same."""
        return self.even_trees / self.trees if self.trees else math.nan

    @property
    def rewritten_share(self) -> float:
        """Share of the prompts in which the agent, its server or its chat template rewrote history."""
        return self.rewritten_prompts / self.prompts if self.prompts else math.nan


def episode_stats(trees: Iterable[EpisodeTree], *, num_rollouts: int | None = None) -> EpisodeStats:
    """Counts what happened in episode trees.

    Args:
        trees: the trees.
        num_rollouts: how many full episodes each tree was planned to have. Rollouts after those count as continuations
            even where an allocator, which has seen outcomes, chose the root; by default those from the root do not.
    """
    total = EpisodeStats()
    for tree in trees:
        ended = episodes(tree)
        values = [episode.value for episode in ended if episode.value is not None]
        lost = [
            tree.length(i) - prompt.kept
            for i in range(1, len(tree))
            if tree.length(i) and (prompt := tree.prompt(i)) is not None
        ]
        late = [e.anchor > 0 or (num_rollouts is not None and e.rollout >= num_rollouts) for e in ended]
        total += EpisodeStats(
            roots=Tally.of([episode for episode, chosen in zip(ended, late, strict=True) if not chosen]),
            continuations=Tally.of([episode for episode, chosen in zip(ended, late, strict=True) if chosen]),
            trees=int(bool(values)),
            even_trees=int(bool(values) and float(np.ptp(values)) == 0.0),
            broken_trees=int(not values),
            breakages=sum(len(_breakages(node)) for node in tree.nodes),
            prompts=len(lost),
            rewritten_prompts=sum(tokens > 0 for tokens in lost),
            rewritten_tokens=sum(lost),
        )
    return total


def _breakages(node: Node) -> Sequence[object]:
    """Returns what of the infrastructure a step broke; in infos of others anything may have that name."""
    found: object = node.info.get("breakages")
    return cast("Sequence[object]", found) if isinstance(found, list | tuple) else ()
