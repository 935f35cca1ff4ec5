"""Code repair in a sandbox, graded by hidden cases that never meet the agent."""

from agentenv.envs.code_repair.cases import Case, matches
from agentenv.envs.code_repair.commands import describe_call, describe_command
from agentenv.envs.code_repair.env import CodeRepair, RepairState
from agentenv.envs.code_repair.folders import read_folder, read_harbor
from agentenv.envs.code_repair.grading import Grade, Grader
from agentenv.envs.code_repair.humanevalfix import read_humanevalfix
from agentenv.envs.code_repair.library import bundled_projects, bundled_tasks, read_case
from agentenv.envs.code_repair.mutation import KINDS, GeneratedTasks, Mutation, find_mutations
from agentenv.envs.code_repair.reading import read_tasks
from agentenv.envs.code_repair.references import check_task
from agentenv.envs.code_repair.repositories import GitTree
from agentenv.envs.code_repair.scripts import TestScript
from agentenv.envs.code_repair.submissions import Submission, collect_submission
from agentenv.envs.code_repair.suites import TestSuite
from agentenv.envs.code_repair.swebench import read_swebench
from agentenv.envs.code_repair.tasks import PROTECTED, RepairTask, TestProgram

__all__ = [
    "KINDS",
    "PROTECTED",
    "Case",
    "CodeRepair",
    "GeneratedTasks",
    "GitTree",
    "Grade",
    "Grader",
    "Mutation",
    "RepairState",
    "RepairTask",
    "Submission",
    "TestProgram",
    "TestScript",
    "TestSuite",
    "bundled_projects",
    "bundled_tasks",
    "check_task",
    "collect_submission",
    "describe_call",
    "describe_command",
    "find_mutations",
    "matches",
    "read_case",
    "read_folder",
    "read_harbor",
    "read_humanevalfix",
    "read_swebench",
    "read_tasks",
]
