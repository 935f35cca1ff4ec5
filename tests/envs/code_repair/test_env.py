"""The environment: tools, rewards, branches, signatures, and input that should not be."""

import functools
import json
import pickle
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from agentenv.envs.code_repair import CodeRepair, RepairTask, bundled_tasks, read_case, read_tasks
from agentenv.errors import SandboxError, TaskError
from agentenv.sandboxes import open_sandbox
from agentenv.testing import check_env
from agentenv.types import Action, message_text

TASK = RepairTask(
    id="add",
    instruction="add() subtracts. Repair it.",
    files={
        "pkg/m.py": "def add(a, b):\n    return a - b\n\n\ndef twice(a):\n    return a - -a\n",
        "notes.txt": "hello\n",
    },
    setup="from pkg.m import add",
    visible=(read_case("add(1, 0) == 1"), read_case("add(1, 2) == 3")),
    hidden=(read_case("add(2, 5) == 7"), read_case("add(0, 0) == 0"), read_case("add('a', 'b') == 'ab'")),
    solution={"pkg/m.py": "def add(a, b):\n    return a + b\n\n\ndef twice(a):\n    return a - -a\n"},
)


def call(name, **arguments):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


REPAIR = [
    call("read_file", path="pkg/m.py"),
    call("search", pattern="return a"),
    call("run", command="echo noise > scratch; python3 -c 'import pkg.m; print(pkg.m.add(1, 2))'"),
    call("edit_file", path="pkg/m.py", old="a - b", new="a + b"),
    call("run_tests"),
    call("submit"),
]


@pytest.fixture
def env():
    with closing(CodeRepair(tasks=[TASK])) as made:
        made.reset(seed=0)
        yield made


def ask(env, name, **arguments):
    observation, *_ = env.step(call(name, **arguments))
    return message_text(observation[0])


@pytest.mark.slow
def test_check_env_passes_on_a_whole_repair():
    with closing(CodeRepair(tasks=[TASK])) as made:
        check_env(made, actions=[*REPAIR[2:4], REPAIR[5]])


def test_an_episode(env):
    observation, info = env.reset(seed=0)
    assert info["task_id"] == "add"
    assert message_text(observation[1]).startswith("add() subtracts.")
    assert message_text(observation[1]).endswith("notes.txt\npkg/m.py\ntests/test_visible.py")
    assert ask(env, "read_file", path="pkg/m.py", start=2, end=2) == "    2      return a - b"
    assert ask(env, "search", pattern="return a") == "pkg/m.py:2:    return a - b\npkg/m.py:6:    return a - -a"
    assert ask(env, "run", command="echo out; echo err >&2; exit 3") == "out\nerr\n[exit code 3]"
    tests = ask(env, "run_tests")
    assert "AssertionError: -1 != 3" in tests
    assert tests.endswith("FAILED (failures=1)\n[exit code 1]")
    assert ask(env, "edit_file", path="pkg/m.py", old="a - b", new="a + b") == "replaced 1 occurrence in pkg/m.py"
    assert ask(env, "run_tests").endswith("OK\n[exit code 0]")
    observation, reward, terminated, truncated, info = env.step(call("submit"))
    assert (message_text(observation[0]), reward, terminated, truncated) == ("all hidden tests pass", 1.0, True, False)
    assert info["rewards"] == {"outcome": 1.0}


def test_rewards():
    with closing(CodeRepair(tasks=[TASK], reward="fraction", progress_reward=0.5)) as env:
        env.reset(seed=0)
        assert env.step(call("run_tests"))[1] == 0  # one of two is right from the start
        assert env.step(call("write_file", path="tests/test_visible.py", content=""))[1] == 0
        assert env.step(call("run_tests"))[1] == 0  # tests that the agent wrote count nothing
        env.step(call("edit_file", path="pkg/m.py", old="a - b", new="a + b"))
        assert env.step(call("run_tests"))[4]["rewards"] == {"progress": 0.25}
        assert env.step(call("run_tests"))[1] == 0  # once
        env.step(call("write_file", path="pkg/m.py", content="def add(a, b):\n    return int(a) + int(b)\n"))
        assert env.step(call("submit"))[1] == pytest.approx(2 / 3)
        env.reset(seed=0)
        env.step(call("write_file", path="pkg/m.py", content=""))
        assert env.step(call("submit"))[1] == 0


def test_the_step_limit_truncates_without_a_verdict():
    with closing(CodeRepair(tasks=[TASK], max_steps=1)) as env:
        env.reset(seed=0)
        assert env.step(call("edit_file", path="pkg/m.py", old="a - b", new="a + b"))[1:4] == (0.0, False, True)


def test_edit_file_explains_what_is_wrong(env):
    assert "occurs 2 times in pkg/m.py (at lines 2, 6)" in ask(env, "edit_file", path="pkg/m.py", old="a - ", new="x")
    absent = ask(env, "edit_file", path="pkg/m.py", old="return a - b\n    # no", new="x")
    assert absent.startswith("old does not occur in pkg/m.py")
    assert absent.endswith("its first line, but for white space, is line 2")
    assert "must not be empty" in ask(env, "edit_file", path="pkg/m.py", old="", new="x")
    assert "the same" in ask(env, "edit_file", path="pkg/m.py", old="a - b", new="a - b")
    assert "No such file" in ask(env, "edit_file", path="gone.py", old="a", new="b")


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("read_file", {"path": "gone.py"}, "gone.py: No such file"),
        ("read_file", {"path": "../../etc/passwd"}, "leads out of the workspace"),
        ("read_file", {"path": "/etc/passwd"}, "leads out of the workspace"),
        ("read_file", {"path": "pkg"}, "directory"),
        ("read_file", {"path": ""}, "must be text of 1 to"),
        ("read_file", {"path": "a\0b"}, "without NUL"),
        ("read_file", {"path": "x\ud800"}, "must be text of 1 to"),
        ("read_file", {"path": "pkg/m.py", "start": 99}, "start must be in 1 to 6"),
        ("read_file", {"path": "pkg/m.py", "start": 0}, "start must be in 1 to 6"),
        ("read_file", {"path": "pkg/m.py", "start": 3, "end": 2}, "end must be at least start"),
        ("write_file", {"path": "../x", "content": ""}, "leads out of the workspace"),
        ("write_file", {"path": "pkg", "content": ""}, "pkg"),
        ("write_file", {"path": "x", "content": "\ud800"}, "lone surrogates"),
        ("search", {"pattern": "("}, "grep"),
        ("search", {"pattern": "x", "path": "gone"}, "gone"),
        ("run", {"command": "x" * 200_000}, "must be text of 1 to"),
        ("run", {"command": ""}, "must be text of 1 to"),
        ("nothing", {}, "there is no tool"),
    ],
)
def test_mistakes_are_observations(env, name, arguments, answer):
    observation, reward, terminated, _, info = env.step(call(name, **arguments))
    assert answer in message_text(observation[0])
    assert (reward, terminated) == (0.0, False)
    assert info["mistakes"]


def test_hostile_files(env):
    ask(env, "run", command="head -c 999 /dev/urandom > b.bin; printf '\\0' >> b.bin; printf 'caf\\351\\n' > latin.txt")
    assert "b.bin is a binary file of 1000 bytes" in ask(env, "read_file", path="b.bin")
    assert ask(env, "read_file", path="latin.txt") == "    1  caf\xe9\n[its encoding is latin-1]"
    ask(env, "run", command="ln -s /etc/passwd link.py; mkfifo pipe.py; ln -s . loop")
    for path in ("link.py", "pipe.py"):
        assert "root:" not in ask(env, "read_file", path=path)
    assert ask(env, "search", pattern="return a - b") == "pkg/m.py:2:    return a - b"
    assert (
        "file size" in (answer := ask(env, "run", command="head -c 1G /dev/zero > big.py")).lower()
        or "exit code" in answer
    )
    assert env.step(call("submit"))[1:3] == (0.0, True)


def test_output_is_capped_and_says_so(env):
    answer = ask(env, "run", command="yes | head -c 3000000")
    assert len(answer) < 7_000
    assert "characters cut" in answer
    assert "output beyond the limit was dropped" in answer


def test_a_command_that_hangs_and_one_that_stays():
    with closing(CodeRepair(tasks=[TASK], command_timeout_s=1.0)) as env:
        env.reset(seed=0)
        assert ask(env, "run", command="echo a; sleep 60").endswith("a\n[timed out after 1 s]")
        assert ask(env, "run", command="sleep 60 & echo b").startswith("b\n[exit code 0")
        env.step(call("write_file", path="tests/test_visible.py", content="while True: pass\n"))
        assert "timed out" in ask(env, "run_tests")


def lose(env):
    """Kills the guest of the agent's sandbox, as a command might do it."""
    signal.pidfd_send_signal(env.sandbox._held.pidfd, signal.SIGKILL)


def test_a_step_that_loses_the_sandbox_is_taken_back_and_the_agent_is_told():
    with closing(CodeRepair(tasks=[TASK], progress_reward=0.5)) as env:
        env.reset(seed=0)
        env.step(REPAIR[3])
        before = env.state_signature()
        lose(env)
        observation, reward, terminated, _, info = env.step(call("run", command="echo x > lost.py"))
        assert "the sandbox was lost in this step" in message_text(observation[0])
        assert (reward, terminated, len(info["breakages"])) == (0.0, False, 1)
        assert (env.sandboxes_lost, info["metrics"]["sandboxes_lost"]) == (1, 1.0)
        assert env.state_signature() == before
        assert ask(env, "run", command="cat pkg/m.py; ls").endswith("pkg\ntests\n[exit code 0]")
        fork = env.fork(1)[0]
        assert env.step(call("submit"))[1:3] == (1.0, True)
        with closing(fork):
            lose(fork)
            observation, reward, terminated, _, info = fork.step(call("run_tests"))
        assert "the episode ends" in message_text(observation[0])
        assert (reward, terminated, info["rewards"], len(info["breakages"])) == (0.0, True, {"outcome": 0.0}, 1)


def test_a_sandbox_that_cannot_be_replaced_is_nobodys_fault():
    opened = []

    def opener(spec):
        if opened:
            msg = "the host has no sandboxes left"
            raise SandboxError(msg)
        opened.append(open_sandbox(spec))
        return opened[0]

    with closing(CodeRepair(tasks=[TASK], sandbox=opener, check="never")) as env:
        env.reset(seed=0)
        with pytest.raises(SandboxError, match="no sandboxes left"):
            env.step(call("submit"))  # grading needs one, and so does its control
        env._phase = "running"
        lose(env)
        with pytest.raises(SandboxError, match="no sandboxes left"):
            env.step(call("run", command="true"))
    opened.clear()


def test_visible_tests_that_files_break_again_and_again_cost_the_agent_and_are_counted():
    """What would be no verdict is none of the infrastructure's: the control, the fourth sandbox, works."""
    opened = []

    def refuse(origin):
        msg = "the host has no sandboxes left"
        raise SandboxError(msg)

    def opener(spec):
        opened.append(open_sandbox(spec))
        if len(opened) in {3, 5}:  # after the agent's own and that of the files at the start
            signal.pidfd_send_signal(opened[-1]._held.pidfd, signal.SIGKILL)
            opened[-1]._begin = refuse
        return opened[-1]

    with closing(CodeRepair(tasks=[TASK], sandbox=opener, check="never", progress_reward=0.5)) as env:
        env.reset(seed=0)
        _, reward, terminated, _, info = env.step(call("run_tests"))
        assert (reward, terminated, len(info["breakages"]), len(opened)) == (0.0, False, 1, 5)
        assert info["metrics"] == {"sandboxes_lost": 0.0, "gradings_broken": 1.0}
        env.step(REPAIR[3])
        assert env.step(call("submit"))[1:3] == (1.0, True)


def test_an_episode_forked_at_every_step_and_replayed(env):
    forks = []
    expected = []
    for action in REPAIR:
        forks.append(env.fork(1)[0])
        expected.append(env.step(action)[:4])
    final = env.state_signature()
    for position, fork in enumerate(forks):
        with closing(fork):
            assert [fork.step(action)[:4] for action in REPAIR[position:]] == expected[position:]
            assert fork.state_signature() == final


def test_64_forks_at_once_do_not_see_each_other(env):
    forks = env.fork(64)
    barrier = threading.Barrier(8)

    def play(number):
        fork = forks[number]
        with closing(fork):
            barrier.wait()
            fork.step(call("run", command=f"echo {number} > mine; mkdir only{number}"))
            return message_text(fork.step(call("run", command="cat mine; ls -d only*"))[0][0])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(play, range(64)))
    assert answers == [f"{n}\nonly{n}\n[exit code 0]" for n in range(64)]
    assert "mine" not in ask(env, "run", command="ls")


def test_a_snapshot_travels(env):
    env.step(REPAIR[3])
    snapshot = pickle.loads(pickle.dumps(env.snapshot()))
    with closing(CodeRepair(tasks=[TASK])) as other:
        other.restore(snapshot)
        assert other.step(call("submit"))[1] == 1.0


def signatures(style, actions):
    with closing(CodeRepair(tasks=[TASK], signatures=style)) as env:
        env.reset(seed=0)
        out = []
        for action in actions:
            env.step(action)
            out.append((env.action_signature(Action.parse(action)), env.state_signature()))
        return out


def test_signatures_in_the_style_of_the_paper():
    names = signatures("paper", REPAIR[:2] + REPAIR[3:])
    assert [name for name, _ in names] == [
        "view:full@pkg/m.py",
        "search@.",
        "modify:replace:ca3e@pkg/m.py",
        "test@all:ok",
        "finish",
    ]
    assert names[2][1] == ".:S|pkg/m.py:M:ca3e,Vf|()"
    assert names[3][1] == ".:S|pkg/m.py:M:ca3e,Vf|(test:ok)"


def test_coarse_signatures_forget_content_and_exact_ones_do_not():
    first = [call("edit_file", path="pkg/m.py", old="a - b", new="a + b")]
    second = [call("edit_file", path="pkg/m.py", old="a - b", new="b + a")]
    for style, equal in (("coarse", True), ("paper", False), ("exact", False)):
        assert (signatures(style, first)[0][1] == signatures(style, second)[0][1]) is equal
    order = [REPAIR[0], REPAIR[1]]
    for style in ("coarse", "paper", "exact"):
        assert signatures(style, order)[-1][1] == signatures(style, [*order[::-1], order[0]])[-1][1]
    back = [*first, call("edit_file", path="pkg/m.py", old="a + b", new="a - b")]
    assert signatures("exact", back)[-1][1] == signatures("exact", [REPAIR[0]])[-1][1]


def test_tasks_come_bundled_from_files_and_from_rows(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text("".join(task.model_dump_json() + "\n" for task in (TASK, bundled_tasks()[0])))
    assert read_tasks(path) == (TASK, bundled_tasks()[0])
    assert read_tasks([json.loads(TASK.model_dump_json())]) == (TASK,)
    with closing(CodeRepair(tasks=path)) as env:
        env.reset(seed=0, options={"task": 1})
        assert env.task == bundled_tasks()[0]
    with closing(CodeRepair()) as env:
        assert len(env.tasks) >= 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": []}, "needs 'hidden' cases, a 'program' or a 'suite'"),
        ({"files": {"../x": ""}}, "relative and plain"),
        ({"files": {"/x": ""}}, "relative and plain"),
        ({"files": {}}, "needs 'files' or a 'base'"),
        ({"setup": "import ("}, "setup is no Python"),
        ({"hidden": [{"call": "f(", "expected": "1"}]}, "call is no Python"),
        ({"difficulty": 9}, "difficulty"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_broken_task_is_an_error_that_names_the_line(tmp_path, change, message):
    path = tmp_path / "tasks.jsonl"
    path.write_text(TASK.model_dump_json() + "\n" + json.dumps(json.loads(TASK.model_dump_json()) | change))
    with pytest.raises(TaskError, match=message) as caught:
        read_tasks(path)
    assert "line 2" in str(caught.value)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="signatures must be one of 'exact', 'paper', 'coarse', got 'fine'"):
        CodeRepair(signatures="fine")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="reward must be one of"):
        CodeRepair(reward="some")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_output"):
        CodeRepair(max_output=1)
    with pytest.raises(TaskError, match="no rows"):
        CodeRepair(tasks=())
    silent = CodeRepair(tasks=[TASK.model_copy(update={"visible": ()})], progress_reward=1.0)
    with closing(silent), pytest.raises(TaskError, match="no visible cases"):
        silent.reset(seed=0)
    with closing(CodeRepair(tasks=[TASK])) as env, pytest.raises(TaskError, match="index"):
        env.reset(options={"task": 7})


def test_a_back_end_can_be_chosen():
    opener = functools.partial(open_sandbox, backend="namespace")
    with closing(CodeRepair(tasks=[TASK], sandbox=opener)) as env:
        env.reset(seed=0)
        env.step(REPAIR[3])
        assert env.step(call("submit"))[1] == 1.0
