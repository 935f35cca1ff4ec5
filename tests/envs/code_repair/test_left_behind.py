"""An episode has an honest reward whatever its agent leaves behind, never none, as if a sandbox had broken."""

from contextlib import closing

import pytest
from left_behind import LEFT_BEHIND, LIMITS, program

from agentenv.envs.code_repair import CodeRepair, RepairTask, read_case
from agentenv.sandboxes import open_sandbox

TASK = RepairTask(
    instruction="Repair add.",
    files={"calc.py": "def add(a, b):\n    return a - b\n"},
    setup="from calc import add",
    hidden=(read_case("add(2, 3) == 5"), read_case("add(0, 0) == 0")),
)
NOT_SOLVED = {
    "a file of 100 GB without content": "more than is graded of changed Python files",
    "everything of the task removed, and folders for files": "the repair, too",
}


@pytest.mark.parametrize("mess", LEFT_BEHIND)
def test_the_reward_is_honest(mess):
    def call(name, **arguments):
        return env.step({"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})

    with closing(CodeRepair(tasks=[TASK], sandbox=lambda spec: open_sandbox(spec, limits=LIMITS))) as env:
        env.reset(seed=0)
        call("write_file", path="calc.py", content="def add(a, b):\n    return a + b\n")
        observation = call("run", command=f"/usr/bin/python3 - <<'END'\n{program(mess, scale=0.2)}\nEND\necho left=$?")[
            0
        ]
        assert "left=0" in observation[-1]["content"], observation
        env.restore(env.snapshot())
        env.state_signature()
        _, reward, terminated, _, info = call("submit")
    assert terminated
    assert reward == (0.0 if mess in NOT_SOLVED else 1.0), info


@pytest.mark.parametrize(("kind", "reward"), [("py", 0.0), ("txt", 1.0)])
def test_very_many_files_are_graded_as_they_deserve(kind, reward):
    """Those of which a submission may hold too many, and those that it leaves behind; 600,000 were tried by hand."""
    make = f"import os; [os.close(os.open(f'x{{n}}.{kind}', os.O_CREAT)) for n in range(5000)]"
    calls = (
        ("write_file", {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}),
        ("run", {"command": f'python3 -c "{make}"'}),
        ("submit", {}),
    )
    with closing(CodeRepair(tasks=[TASK])) as env:
        env.reset(seed=0)
        *_, last = [
            env.step({"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
            for name, arguments in calls
        ]
    assert (last[1], last[2], last[4]["metrics"]) == (reward, True, {"sandboxes_lost": 0.0, "gradings_broken": 0.0})
