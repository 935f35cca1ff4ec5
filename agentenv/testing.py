"""Checks that an environment keeps the contract: `check_env` for any `agentenv.Env`, bundled or yours.

The contract is a list of laws. Each is one clause here, tried on episodes of random actions (or of actions you give); a
broken law is reported with its text, what was seen, and the likely cause. `pytest --agentenv-check ENV_ID` runs one
test per clause.
"""

import base64
import gc
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium.utils.env_checker

from agentenv.clauses import Broken, Clause, ClauseResult, Skipped, require_kept, try_clauses
from agentenv.env import Env
from agentenv.errors import EpisodeError, SnapshotError
from agentenv.probe import Probe, Trace, play
from agentenv.protocols import Fidelity, Snapshot
from agentenv.registry import make
from agentenv.testing_sandbox import SANDBOX_CLAUSES, check_sandbox, run_sandbox_clauses

__all__ = [
    "CLAUSES",
    "SANDBOX_CLAUSES",
    "Clause",
    "ClauseResult",
    "check_env",
    "check_sandbox",
    "run_clauses",
    "run_sandbox_clauses",
]


def _same(first: Trace, second: Trace, cause: str, what: str) -> None:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):  # flags differ where one ends before the other
        if a != b:
            raise Broken(cause, f"{what}: step {i + 1} gave {a!r:.300} and then {b!r:.300}")


_MAIN = "a function or class of a script or notebook was given, which another process lacks: move it to a module"
_LEAK_TRIALS = 3
_LEAK_WAIT_S = 2.0
_OUTSIDE = "something that changes during an episode is kept outside `self.state` and `self.np_random`"
_RANDOM = "randomness comes from elsewhere than `self.np_random` (random, numpy.random, time, the order of a set)"
_SHARED = "they share a mutable object: a class attribute, a constructor argument, a module variable"
_OWNED = "a snapshot refers to something that the environment owns and changes or frees"
_HERE = "the snapshot refers to something in this process: set fidelity = Fidelity.LOCAL"
_RAISES = "{} raises; answer with text, or raise ToolError"
_OVERRIDDEN = "`{name}` is overridden and falls short, or does not call super()"


def _attributes(env: Env) -> dict[str, str]:
    """The public attributes of an environment that no snapshot holds."""
    held = {"state", "task", "sandbox", "observation_space", "action_space"}
    return {name: repr(value) for name, value in vars(env).items() if name[0] != "_" and name not in held}


# ---------------------------------------------------------------------- the clauses


def _gymnasium(probe: Probe) -> None:
    with closing(probe.spawn()) as env, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gymnasium.utils.env_checker.check_env(env, skip_render_check=True)
        except (AssertionError, Warning, gymnasium.error.Error) as error:
            raise Broken(_OVERRIDDEN.format(name="reset` or `step"), f"gymnasium says: {error}") from error


def _seeded(probe: Probe) -> None:
    with probe.episode() as first, probe.episode() as second:
        _same(play(first, probe.actions), play(second, probe.actions), _RANDOM, "two episodes with the same seed")


def _mistakes(probe: Probe) -> None:
    with closing(probe.spawn()) as env:
        names = [tool["function"]["name"] for tool in env.tools]
    wrong = [(name, arguments) for name in names for arguments in ("not json", {"no_such_argument": 1}, {})]
    calls = [{"function": {"name": name, "arguments": a}} for name, a in [*wrong, ("no_such_tool", {})]]
    texts = ["", "\x00 \N{SNOWMAN} " + "x" * 10_000, "<tool_call>{broken"]
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]} for call in calls]
    for action in [*texts, *messages]:
        with probe.episode() as env:
            try:
                env.step(action)
            except Exception as error:
                cause = _guess_cause(error) or _RAISES.format("the tool or `on_text`")
                raise Broken(cause, f"step({action!r:.120}) raised {type(error).__name__}: {error}") from error


def _ended(probe: Probe) -> None:
    with probe.episode() as env:
        steps = max(env.max_steps or 0, len(probe.actions))
        trace = play(env, [probe.actions[i % len(probe.actions)] for i in range(steps)])
        if not trace or not (trace[-1][2] or trace[-1][3]):
            msg = "these actions do not end an episode: give `actions` that do, or set max_steps"
            raise Skipped(msg)
        try:
            env.step(probe.actions[0])
        except EpisodeError:
            return
    raise Broken(_OVERRIDDEN.format(name="step"), "step() after the end gave an answer")


def _json(probe: Probe) -> None:
    with closing(probe.spawn()) as env:
        results: list[Any] = [env.reset(seed=probe.seed)]
        for action in probe.actions:
            observation, _, terminated, truncated, info = env.step(action)
            results.append((observation, info))
            if terminated or truncated:
                break
    for i, result in enumerate(results):
        try:
            json.dumps(result)
        except (TypeError, ValueError) as error:
            cause = "a numpy value, which int() or float() turns into JSON"
            raise Broken(cause, f"observation or info of step {i} is not JSON: {error}") from error


def _equal(probe: Probe) -> None:
    for position in probe.positions():
        traces: list[Trace] = []
        with probe.episode(position) as env:
            snapshot, before = env.snapshot(), _attributes(env)
            for _ in range(3):
                env.restore(snapshot)
                traces.append(play(env, probe.actions[position:]))
            env.restore(snapshot)
            after = _attributes(env)
        changed = ", ".join(f"`self.{name}`" for name, value in before.items() if after.get(name) != value)
        cause = f"{_OUTSIDE}: here {changed}" if changed else _OUTSIDE
        for trace in traces[1:]:
            _same(traces[0], trace, cause, f"equal actions after restoring the snapshot of step {position} again")
        if changed:
            raise Broken(cause, f"restoring the snapshot of step {position} did not bring back {changed}")


def _valid(probe: Probe) -> None:
    for position in probe.positions():
        with probe.episode(position) as env:
            snapshot, signature = env.snapshot(), env.state_signature()
            for action in probe.actions[position:]:
                env.snapshot()
                if any(env.step(action)[2:4]):
                    break
                env.restore(env.snapshot())
            _check_restores(env, snapshot, signature, "other snapshots and restores")
            env.close()
            _check_restores(env, snapshot, signature, "close()")
        with closing(probe.spawn()) as other:
            _check_restores(other, snapshot, signature, "close() of the environment that took it")


def _check_restores(env: Env, snapshot: Snapshot, signature: str, after: str) -> None:
    try:
        env.restore(snapshot)
    except Exception as error:
        raise Broken(_OWNED, f"restoring after {after} raised {type(error).__name__}: {error}") from error
    if env.state_signature() != signature:
        raise Broken(_OWNED, f"restoring after {after} gave another state")


def _pure(probe: Probe) -> None:
    with probe.episode() as plain, probe.episode() as again:
        expected = play(plain, probe.actions)
        if play(again, probe.actions) != expected:
            msg = "it compares two episodes with the same seed, and these differ: see the law 'seeded'"
            raise Skipped(msg)
    with probe.episode() as env:
        trace: Trace = []
        for action in probe.actions[: len(expected)]:
            env.snapshot()
            trace += play(env, [action])
            if any(trace[-1][2:]):
                break
    cause = "`snapshot` draws random numbers or changes the state"
    _same(expected, trace, cause, "an episode without and with a snapshot before every step")


def _undo(probe: Probe) -> None:
    def state(env: Env) -> dict[str, Any]:
        random_state = pickle.dumps(env.np_random.bit_generator.state)
        return {"step count": env.step_count, "random state": random_state, "state signature": env.state_signature()}

    for position in probe.positions():
        with probe.episode(position) as env:
            before, files = state(env), _listing(Path.cwd())
            snapshot = env.snapshot()
            play(env, probe.actions[position:])
            env.restore(snapshot)
            after = state(env)
            for name, value in before.items():
                if after[name] != value:
                    raise Broken(_OVERRIDDEN.format(name="restore"), f"restore did not bring back the {name}")
            if changed := _listing(Path.cwd()) ^ files:
                cause = "files are written outside `self.sandbox`"
                raise Broken(cause, f"restore did not undo files of the working directory: {sorted(changed)[:5]}")


def _listing(folder: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_mtime_ns) for path in folder.iterdir() if path.exists()}


def _siblings(probe: Probe) -> None:
    for position in probe.positions():
        with probe.episode(position) as env:
            rest = probe.actions[position:]
            signature = env.state_signature()
            first, second, third = env.fork(3)
            with closing(first), closing(second), closing(third):
                expected = play(first, rest)
                if second.state_signature() != signature or env.state_signature() != signature:
                    raise Broken(_SHARED, "a step in one sibling changed the state of another, or of the original")
                _same(expected, play(second, rest), _SHARED, "equal actions in two siblings")
                _same(expected, play(env, rest), _SHARED, "equal actions in a sibling and in the original")
                first.close()
                _same(expected, play(third, rest), _SHARED, "equal actions in a sibling after another was closed")


def _foreign(probe: Probe) -> None:
    with probe.episode() as env:
        snapshot = env.snapshot()
        name, version = env.env_id.rsplit("-v", 1)
        for other in (f"other/Env-v{version}", f"{name}-v{int(version) + 1}"):
            try:
                env.restore(replace(snapshot, env_id=other))
            except SnapshotError as error:
                if other not in str(error) or env.env_id not in str(error):
                    seen = f"the message must name {other!r} and {env.env_id!r}, got {str(error)!r}"
                    raise Broken(_OVERRIDDEN.format(name="restore"), seen) from error
            else:
                seen = f"a snapshot of {other!r} was restored into {env.env_id!r}"
                raise Broken(_OVERRIDDEN.format(name="restore"), seen)


def _travels(probe: Probe) -> None:
    position = probe.positions()[-1]
    with probe.episode(position) as env:
        snapshot = env.snapshot()
        rest = probe.actions[position:]
        env.restore(snapshot)
        expected = play(env, rest)
        if not _importable(type(env)):
            msg = f"{type(env).__qualname__} cannot be imported by name in another process; move it to a module"
            raise Skipped(msg)
        try:
            job = pickle.dumps((env, snapshot, rest))
        except Exception as error:
            cause = "the state, the task or a constructor argument holds a handle or a lock"
            raise Broken(cause, f"pickling raised {type(error).__name__}: {error}") from error
    reply = _in_fresh_process(job)
    if isinstance(reply, str):
        if snapshot.fidelity is Fidelity.LOCAL and reply.startswith("SnapshotError"):
            return
        lost = "Can't get attribute" in reply
        cause = _MAIN if lost else _OUTSIDE if reply.startswith("AttributeError") else _HERE
        raise Broken(cause, f"restoring a pickled snapshot in a fresh process raised {reply}")
    _same(expected, reply, _HERE, "equal actions after restoring a pickled snapshot in a fresh process")


def _importable(cls: type) -> bool:
    """Whether another process finds the class under its name."""
    return cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__ and cls.__module__ in sys.modules


def _in_fresh_process(job: bytes) -> Trace | str:
    """Has a new Python process restore and play; returns what came back, or the text of the exception."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    # not `-m`: names of the caller's `__main__` must not be found in a main module that happens to have them
    command = [sys.executable, "-c", "import agentenv.testing as testing; testing.play_in_fresh_process()"]
    done = subprocess.run(command, input=job, capture_output=True, env=environment, timeout=120, check=False)  # noqa: S603
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
    return pickle.loads(base64.b64decode(done.stdout.rpartition(b"\n")[2]))  # noqa: S301  our own bytes


def play_in_fresh_process() -> None:
    """Plays the job on standard input and writes what came of it; see `_in_fresh_process`."""
    try:
        env, snapshot, actions = pickle.load(sys.stdin.buffer)  # noqa: S301  our own bytes
        with closing(env):
            env.restore(snapshot)
            reply: Any = play(env, actions)
    except Exception as error:  # noqa: BLE001  reported to the parent
        reply = f"{type(error).__name__}: {error}"
    sys.stdout.buffer.write(b"\n" + base64.b64encode(pickle.dumps(reply)))


def _leaks(probe: Probe) -> None:
    position = min(1, probe.positions()[-1])  # where the episode still runs

    def episode() -> None:
        with probe.episode(position) as env:
            snapshot = env.snapshot()
            for child in env.fork(2):
                play(child, probe.actions)
                child.close()
            play(env, probe.actions)
            env.restore(snapshot)

    if not Path("/proc/self/task").exists():
        msg = "needs /proc"
        raise Skipped(msg)
    episode()  # what all environments of a process share may start now, once
    left = ""
    for _ in range(_LEAK_TRIALS):
        left = _left_by(episode)
        if not left:  # what was left before came from elsewhere: another container of the machine, say
            return
    raise Broken(_OVERRIDDEN.format(name="close"), f"left after close(): {left}")


def _left_by(episode: Callable[[], None]) -> str:
    """Plays an episode; returns what is left of it, in words. What goes away by itself soon is not left."""
    with _private_temporary_folder() as folder:
        before = _resources()
        episode()
        left = {kind: things - before[kind] for kind, things in _resources().items()}
        if files := sorted(str(path.relative_to(folder)) for path in folder.rglob("*")):
            return f"temporary files {files[:5]}"
    deadline = time.monotonic() + _LEAK_WAIT_S
    while any(left.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {kind: left[kind] & things for kind, things in _resources().items()}
    return next((f"{kind} {sorted(things)[:5]}" for kind, things in left.items() if things), "")


def _resources() -> dict[str, set[str]]:
    """What this process holds now: children, mounts, threads, open files."""
    gc.collect()
    files: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            files.add(f"{entry.name} -> {entry.readlink()}")
    children = {c for task in Path("/proc/self/task").iterdir() for c in (task / "children").read_text().split()}
    return {
        "processes": children,
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "threads": {f"{thread.name} ({thread.ident})" for thread in threading.enumerate()},
        "open files": {name for name in files if "/proc/" not in name},
    }


@contextmanager
def _private_temporary_folder() -> Generator[Path]:
    """Sends `tempfile` to a folder of its own, so that what is left there is known to be ours."""
    previous = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = previous


CLAUSES: tuple[Clause[Probe], ...] = (
    Clause("gymnasium", "it is a gymnasium.Env: gymnasium.utils.env_checker.check_env passes", _gymnasium),
    Clause("seeded", "the same seed and actions give the same episode", _seeded),
    Clause("mistakes", "an agent's mistake is an observation, never an exception", _mistakes),
    Clause("ended", "a step after the end of the episode raises EpisodeError", _ended),
    Clause("json", "observations and infos are JSON values", _json),
    Clause(
        "equal", "equal actions after restore(s) give equal observations, rewards and flags, on every restore", _equal
    ),
    Clause("valid", "a snapshot stays valid while the env moves on, after other snapshots, restores and close", _valid),
    Clause("pure", "snapshot changes nothing", _pure),
    Clause("undo", "restore undoes everything: files, processes, step count, random state", _undo),
    Clause("siblings", "siblings of a fork never see each other", _siblings),
    Clause("foreign", "a snapshot of another env id or version raises SnapshotError naming both", _foreign),
    Clause("travels", "a pickled snapshot restores in a fresh process, or its fidelity says that it cannot", _travels),
    Clause("leaks", "nothing leaks (processes, files, mounts) after close", _leaks),
)
"""The laws, in the order in which they are tried."""


def run_clauses(
    env_or_id: Env | type[Env] | str,
    *,
    seed: int = 0,
    num_steps: int = 6,
    actions: Sequence[Any] | None = None,
    clauses: Sequence[Clause[Probe]] = CLAUSES,
) -> list[ClauseResult]:
    """Tries every law on an environment and returns the verdicts; see `check_env`."""
    if not isinstance(env_or_id, Env):
        with closing(make(env_or_id) if isinstance(env_or_id, str) else env_or_id()) as env:
            return run_clauses(env, seed=seed, num_steps=num_steps, actions=actions, clauses=clauses)
    probe = Probe(env_or_id, seed=seed, num_steps=num_steps, actions=actions)
    return try_clauses(probe, clauses, _guess_cause)


def _guess_cause(error: Exception) -> str | None:
    """Names the tool that raised, or the attribute that is missing."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        env, name = frame.f_locals.get("self"), frame.f_code.co_name
        if isinstance(env, Env) and name in (tool["function"]["name"] for tool in env.tools):
            return _RAISES.format(f"the tool `{name}`")
    if isinstance(error, AttributeError) and isinstance(error.obj, Env):
        return f"{_OUTSIDE}: `self.{error.name}` is set during an episode only"
    return None


def check_env(
    env_or_id: Env | type[Env] | str, *, seed: int = 0, num_steps: int = 6, actions: Sequence[Any] | None = None
) -> None:
    """Raises unless an environment keeps every law of the contract (`CLAUSES`).

    Args:
        env_or_id: a registered id, an environment class, or an environment (others are made with its arguments; it is
            not touched).
        seed: of the episodes and of the random actions.
        num_steps: random actions per episode.
        actions: actions to play instead of random ones; good ones reach further.

    Raises:
        CheckError: laws are broken.
    """
    require_kept(run_clauses(env_or_id, seed=seed, num_steps=num_steps, actions=actions))
