"""Seeded generators of problems, each with a dial for its difficulty."""

from collections.abc import Mapping

from agentenv.envs.math_verifier.problems.arithmetic import arithmetic, read_left_to_right
from agentenv.envs.math_verifier.problems.combinatorics import combinatorics
from agentenv.envs.math_verifier.problems.countdown import countdown, reaches
from agentenv.envs.math_verifier.problems.equations import equation, linear_system
from agentenv.envs.math_verifier.problems.generator import Generator
from agentenv.envs.math_verifier.problems.modular import modular
from agentenv.envs.math_verifier.problems.polynomials import polynomial

__all__ = [
    "GENERATORS",
    "Generator",
    "arithmetic",
    "combinatorics",
    "countdown",
    "equation",
    "linear_system",
    "modular",
    "polynomial",
    "reaches",
    "read_left_to_right",
]

GENERATORS: Mapping[str, Generator] = {
    generator.kind: generator
    for generator in (arithmetic, combinatorics, countdown, equation, linear_system, modular, polynomial)
}
"""The generators by name."""
