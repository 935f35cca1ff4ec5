"""A whole repair keeps every law of the contract wherever it runs: on each engine, and for an ordinary user."""

from contextlib import closing

import pytest
from add_task import TASK
from sandbox_backends import open_at, skip_without

from agentenv.envs.code_repair import CodeRepair
from agentenv.testing import check_env

CALLS = (
    ("run", {"command": "echo noise > scratch; python3 -c 'import m; print(m.add(1, 2))'"}),
    ("edit_file", {"path": "m.py", "old": "a - b", "new": "a + b"}),
    ("submit", {}),
)
REPAIR = [
    {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
    for name, arguments in CALLS
]


@pytest.mark.docker
@pytest.mark.parametrize("place", ["docker", "gvisor"])
def test_laws_hold_on_an_engine(place):
    """Podman is asked in the words that Docker is; that it answers as Docker does is in `tests/sandboxes`."""
    skip_without(place)
    open_at(place)().close()  # an engine mounts folders of its own at its first container
    with closing(CodeRepair(tasks=[TASK], sandbox=open_at(place))) as env:
        check_env(env, actions=REPAIR[1:])
        env.reset(seed=0)
        assert [env.step(action)[1] for action in REPAIR] == [0.0, 0.0, 1.0]


@pytest.mark.slow
def test_laws_hold_for_an_ordinary_user(ordinary_user):
    code = (
        "import os, tempfile; os.chdir(tempfile.mkdtemp())\n"  # others change what is in /
        "from agentenv.envs.code_repair import CodeRepair, RepairTask\n"
        "from agentenv.testing import check_env\n"
        f"env = CodeRepair(tasks=[RepairTask.model_validate_json({TASK.model_dump_json()!r})])\n"
        f"check_env(env, actions={REPAIR!r})\n"
        f"env.reset(seed=0); print([env.step(action)[1] for action in {REPAIR!r}], env.sandbox.isolation.backend)\n"
    )
    result = ordinary_user(code)
    assert (result.stdout, result.stderr) == ("[0.0, 0.0, 1.0] namespace\n", "")
