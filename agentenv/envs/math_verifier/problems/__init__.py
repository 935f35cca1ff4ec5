"""Seeded generators of problems, each with a dial for its difficulty."""

from collections.abc import Callable, Mapping

import numpy as np

from agentenv.envs.math_verifier.problems.arithmetic import arithmetic, read_left_to_right
from agentenv.envs.math_verifier.problems.equations import equation
from agentenv.envs.math_verifier.tasks import MathTask

__all__ = ["GENERATORS", "Generator", "arithmetic", "equation", "read_left_to_right"]

Generator = Callable[[np.random.Generator, int], MathTask]
"""Draws one problem of a difficulty."""

GENERATORS: Mapping[str, Generator] = {
    "arithmetic": arithmetic,
    "equation": equation,
}
"""The generators by name."""
