"""The smallest task of code repair, for tests of where it is graded."""

from agentenv.envs.code_repair import RepairTask, read_case

__all__ = ["TASK"]

TASK = RepairTask(
    id="add",
    instruction="add() subtracts. Repair it.",
    files={"m.py": "def add(a, b):\n    return a - b\n"},
    setup="from m import add",
    visible=(read_case("add(1, 2) == 3"),),
    hidden=(read_case("add(2, 5) == 7"),),
)
