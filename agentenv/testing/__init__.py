"""Checkers of the two contracts: `check_env` for environments, `check_sandbox` for sandboxes.

A contract is a list of laws. Each is one clause, tried on a subject, and a broken one is reported with its text, what
was seen, and the likely cause. `pytest --agentenv-check ENV_ID` runs one test per clause.
"""

from agentenv.testing.checking import CheckReport, ForkCost, check_env, inspect_env, prepare_scripts, run_clauses
from agentenv.testing.clauses import Clause, ClauseResult
from agentenv.testing.environments import CLAUSES
from agentenv.testing.sandboxes import SANDBOX_CLAUSES, check_sandbox, run_sandbox_clauses

__all__ = [
    "CLAUSES",
    "SANDBOX_CLAUSES",
    "CheckReport",
    "Clause",
    "ClauseResult",
    "ForkCost",
    "check_env",
    "check_sandbox",
    "inspect_env",
    "prepare_scripts",
    "run_clauses",
    "run_sandbox_clauses",
]
