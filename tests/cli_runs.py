"""Runs the command line in this process, and the environments that its tests play."""

import json

from typer.testing import CliRunner

from agentenv.cli import app

__all__ = ["DICE", "one_line_error", "run", "run_json"]

DICE = '''
import random

import agentenv as ae
from agentenv.errors import VerifierError


class Dice(ae.ToolEnv):
    """Rolls up to a goal.

    Args:
        goal: ends the episode.
        **kwargs: as for every environment.
    """

    max_steps = 4

    class Task(ae.Task):
        goal: int = 9

    class State(ae.State):
        total: int = 0

    def __init__(self, *, bonus: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.bonus = bonus

    def start(self, task):
        return f"Reach {task.goal}."

    @ae.tool
    def roll(self, sides: int = 6) -> str:
        """Roll once.

        Args:
            sides: of the die.
        """
        if sides < 1:
            raise ae.ToolError("a die has at least one side")
        self.state.total += int(self.np_random.integers(1, sides + 1)) + self.bonus
        if self.state.total >= self.task.goal:
            return self.finish("there", reward=1.0)
        return str(self.state.total)


class Careless(Dice):
    """Draws from the wrong generator."""

    name = "Careless"

    @ae.tool
    def roll(self, sides: int = 6) -> str:
        """Roll once."""
        return str(random.random())


class Fragile(Dice):
    """Breaks on demand."""

    name = "Fragile"

    @ae.tool
    def crash(self) -> str:
        """Break the infrastructure."""
        raise VerifierError("the verifier is gone")


class Letters(ae.ToolEnv):
    """Pays for capital letters: half of what a random model writes earns something."""

    name = "Letters"
    max_steps = 2

    class Task(ae.Task):
        number: int = 0

    def sample_task(self):
        return self.Task(number=int(self.np_random.integers(100)))

    def start(self, task):
        return f"Say {task.number}."

    def on_text(self, text):
        self.add_reward(float(any(c.isupper() for c in text)))
        return "go on"


class NotAnEnv:
    pass
'''


def run(*words, stdin=None, env=None):
    """Runs `agentenv words...`."""
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin, env=env)


def run_json(*words):
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def one_line_error(result, code=2):
    """The error message, after checking that it is one line, no traceback, and that nothing was printed instead."""
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    line = result.stderr.strip()
    assert line.startswith("Error: "), line
    assert "\n" not in line and "Traceback" not in line, line
    return line
