"""What an agent leaves cannot break its own grading: nothing that needs its files raises, is inexact, or takes
longer than a test may.
"""

import pickle

import pytest
from left_behind import LEFT_BEHIND, LIMITS, program
from sandbox_backends import marks, opener, skip_without

from agentenv.sandboxes import open_sandbox
from agentenv.sandboxes.guest_sandbox import GuestSandbox
from agentenv.sandboxes.namespace import MAX_LAYERS
from agentenv.sandboxes.snapshots import WorkspaceSnapshot

pytestmark = pytest.mark.filterwarnings("ignore::agentenv.sandboxes.subprocess.NoIsolationWarning")

BASE = {"calc.py": "def add(a, b):\n    return a - b\n", "inner/kept.txt": "kept"}
FIX = "def add(a, b):\n    return a + b\n"
SCALES = {"namespace": 1.0, "docker": 1.0, "process": 0.05, "subprocess": 0.05}
"""How many files are made: the last two promise no limit on them, and have them on a slow disk."""


def leave(box: GuestSandbox, mess: str, scale: float) -> None:
    """Has the agent do its work and leave its mess."""
    box.write("calc.py", FIX)
    result = box.exec(["/usr/bin/python3", "-c", program(mess, scale=scale)])
    assert result.exit_code == 0, result.stderr


def grade(box: GuestSandbox, before: WorkspaceSnapshot) -> WorkspaceSnapshot:
    """Does all that grading, training and storing do with a sandbox; returns the state."""
    changes = {change.path: change for change in box.changes(before)}
    assert changes["calc.py"].kind == "modified"
    exported = box.export(["calc.py", "*/bottom.py"])
    assert exported == ({"calc.py": FIX.encode()} if changes["calc.py"].type == "file" else {})
    state = box.snapshot()
    assert state.content_id != before.content_id
    assert box.snapshot().content_id == state.content_id
    (child,) = box.fork(1)
    with child:
        assert child.snapshot().content_id == state.content_id
    box.restore(before)
    assert box.changes(before) == []
    box.restore(state)
    assert box.snapshot().content_id == state.content_id, "restore was inexact"
    return state


@pytest.mark.parametrize("mess", LEFT_BEHIND)
@pytest.mark.parametrize("place", [pytest.param(place, marks=marks(place)) for place in SCALES])
def test_what_an_agent_leaves_cannot_break_its_own_grading(place, mess):
    skip_without(place)
    with opener(place)(base=BASE, limits=LIMITS) as box:
        before = box.snapshot()
        leave(box, mess, SCALES[place])
        state = grade(box, before)
        data = pickle.dumps(state)
    assert len(data) < 2 * LIMITS.disk
    with opener(place)(base=BASE, limits=LIMITS) as other:
        copy = pickle.loads(data)
        other.restore(copy)
        assert other.snapshot().content_id == state.content_id
        assert other.changes(copy) == []


@pytest.mark.parametrize("mess", LEFT_BEHIND)
def test_neither_with_an_open_shell(mess):
    """A snapshot is a copy then, made without the kernel's help."""
    with open_sandbox(base=BASE, limits=LIMITS) as box:
        before = box.snapshot()
        with box.shell() as shell:
            box.write("calc.py", FIX)
            assert shell.run(f"/usr/bin/python3 <<'END'\n{program(mess, scale=0.1)}\nEND").exit_code == 0
            copied = box.snapshot()
            assert shell.run("echo still here").stdout == "still here\n"
        assert box.snapshot().content_id == copied.content_id
        grade(box, before)


@pytest.mark.parametrize("mess", LEFT_BEHIND)
def test_neither_after_many_layers(mess):
    """They are merged, without the kernel's help; what is removed in one of them stays removed."""
    with open_sandbox(base=BASE, limits=LIMITS) as box:
        before = box.snapshot()
        leave(box, mess, 0.05)
        state = box.snapshot()
        for number in range(MAX_LAYERS + 1):
            box.exec(f"echo {number} > /tmp/number")
            assert len(box.snapshot().layers) <= MAX_LAYERS
        box.exec("rm /tmp/number")
        assert box.snapshot().content_id == state.content_id
        grade(box, before)
