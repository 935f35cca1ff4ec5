"""What rollouts cost: the measure by which methods are compared."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from agentenv.tree import Cost, EpisodeTree

__all__ = ["Ledger", "cost_of"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The costs of a run so far; what a resumed run found in its file is not among them.

    Attributes:
        cost: of all steps, those of broken attempts included.
        steps: how many there were.
        episodes: rollouts that ended, continuations included.
        failures: attempts that infrastructure broke.
        wall_seconds: spent in `grow` and `extend`.
    """

    cost: Cost = field(default=Cost())
    steps: int = 0
    episodes: int = 0
    failures: int = 0
    wall_seconds: float = 0.0

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(
            self.cost + other.cost,
            self.steps + other.steps,
            self.episodes + other.episodes,
            self.failures + other.failures,
            self.wall_seconds + other.wall_seconds,
        )


def cost_of(trees: Iterable[EpisodeTree]) -> Cost:
    """Returns what the steps of trees cost, each step once."""
    return sum((node.cost for tree in trees for node in tree.nodes), Cost())
