"""Sokoban in text: some pushes cannot be undone, and credit finds them.

python examples/sokoban.py
"""

from typing import Literal

import agentenv as ae
from agentenv.agents import RandomAgent
from agentenv.credit import reachability_advantages
from agentenv.rollout import rollout_trees
from agentenv.types import message_text

LEVEL = ["#####", "# . #", "#   #", "# $ #", "# @ #", "#   #", "#####"]
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def find(mark: str) -> tuple[int, int]:
    """Returns row and column of a mark of the level."""
    return next((y, row.index(mark)) for y, row in enumerate(LEVEL) if mark in row)


class Sokoban(ae.ToolEnv):
    """Push the box ($) onto the goal (.); you are @, and can push but not pull."""

    max_steps = 12

    class State(ae.State):
        """What moves. Two ways to the same place are one state, so credit pools over them."""

        player: tuple[int, int] = find("@")
        box: tuple[int, int] = find("$")

    def start(self, task: object) -> str:  # noqa: ARG002  there is one level
        """Shows the level."""
        return self.draw()

    @ae.tool
    def move(self, direction: Literal["up", "down", "left", "right"]) -> str:
        """Move by one place, pushing the box if it is in the way."""
        step, state = MOVES[direction], self.state
        player = (state.player[0] + step[0], state.player[1] + step[1])
        box = (player[0] + step[0], player[1] + step[1]) if player == state.box else state.box
        if "#" in (LEVEL[player[0]][player[1]], LEVEL[box[0]][box[1]]):
            return "There is a wall."
        state.player, state.box = player, box
        return self.finish("solved", reward=1.0) if box == find(".") else self.draw()

    def draw(self) -> str:
        """Returns the picture that the agent sees."""
        rows = [list(row.replace("@", " ").replace("$", " ")) for row in LEVEL]
        rows[self.state.box[0]][self.state.box[1]] = "$"
        rows[self.state.player[0]][self.state.player[1]] = "@"
        return "\n".join("".join(row) for row in rows)


def main() -> None:
    """Plays at random, and shows the first step after which no episode was seen to succeed any more."""
    (tree,) = rollout_trees(Sokoban, RandomAgent(text_share=0.0), [None], num_rollouts=64)
    solved = sum(tree.succeeded(leaf) is True for leaf in tree.leaves())
    credit = reachability_advantages(tree.arrays())  # equal states of all episodes are one, so they tell of each other
    fatal = [node for node in range(1, len(tree)) if credit.advantages[node] == -1 and not tree.nodes[node].ended]
    print(f"{solved} of 64 episodes solved it; {len(fatal)} steps made it impossible, such as")
    step = tree.nodes[fatal[0]]
    for text in (message_text(tree.nodes[step.parent].observation[0]), step.action, message_text(step.observation[0])):
        print(text.tool_calls[0] if isinstance(text, ae.Action) else text)


if __name__ == "__main__":
    main()
