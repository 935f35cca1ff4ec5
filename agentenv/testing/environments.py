"""The laws of the contract of environments, each with how it is tried on an episode."""

import json
import pickle
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium.utils.env_checker

from agentenv.env import Env
from agentenv.errors import EpisodeError, SnapshotError
from agentenv.protocols import Snapshot
from agentenv.testing.blame import check_blame
from agentenv.testing.causes import (
    OUTSIDE,
    OVERRIDDEN,
    OWNED,
    RAISES,
    RANDOM,
    SHARED,
    UNSEEDED,
    check_same,
    guess_cause,
)
from agentenv.testing.clauses import Broken, Clause, Skipped
from agentenv.testing.fresh_process import check_travels
from agentenv.testing.leaks import check_leaks
from agentenv.testing.losing import check_losing
from agentenv.testing.probe import Probe, Trace, play

__all__ = ["CLAUSES"]


def _attributes(env: Env) -> dict[str, str]:
    """The public attributes of an environment that no snapshot holds."""
    held = {"state", "task", "sandbox", "observation_space", "action_space"}
    return {name: repr(value) for name, value in vars(env).items() if name[0] != "_" and name not in held}


def _repeated(probe: Probe) -> Trace | None:
    """Returns an episode; `None` where another one with the same seed differs from it."""
    with probe.episode() as first, probe.episode() as second:
        trace = play(first, probe.actions)
        return trace if play(second, probe.actions) == trace else None


def _if_seeded(check: Callable[[Probe], None]) -> Callable[[Probe], None]:
    """Guesses no cause of differences where equal episodes differ as they are."""

    def tried(probe: Probe) -> None:
        try:
            check(probe)
        except Broken as finding:
            if _repeated(probe) is None:
                raise Broken(UNSEEDED, finding.seen) from finding
            raise

    return tried


# ---------------------------------------------------------------------- the clauses


def _gymnasium(probe: Probe) -> None:
    with closing(probe.spawn()) as env, warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            gymnasium.utils.env_checker.check_env(env, skip_render_check=True)
        except (AssertionError, Warning, gymnasium.error.Error) as error:
            raise Broken(OVERRIDDEN.format(name="reset` or `step"), f"gymnasium says: {error}") from error


def _seeded(probe: Probe) -> None:
    with probe.episode() as first, probe.episode() as second:
        check_same(play(first, probe.actions), play(second, probe.actions), RANDOM, "two episodes with the same seed")


def _mistakes(probe: Probe) -> None:
    with closing(probe.spawn()) as env:
        names = [tool["function"]["name"] for tool in env.tools]
    wrong = [(name, arguments) for name in names for arguments in ("not json", {"no_such_argument": 1}, {})]
    calls = [{"function": {"name": name, "arguments": a}} for name, a in [*wrong, ("no_such_tool", {})]]
    texts = ["", "\x00 \N{SNOWMAN} " + "x" * 10_000, "<tool_call>{broken"]
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]} for call in calls]
    with closing(probe.beginnings()) as beginnings:
        for action, env in zip([*texts, *messages], beginnings, strict=False):
            try:
                env.step(action)
            except Exception as error:
                cause = guess_cause(error) or RAISES.format("the tool or `on_text`")
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
    raise Broken(OVERRIDDEN.format(name="step"), "step() after the end gave an answer")


def _json(probe: Probe) -> None:
    with closing(probe.spawn()) as env:
        results: list[Any] = [env.reset(seed=probe.seed, options=probe.options)]
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
        cause = f"{OUTSIDE}: here {changed}" if changed else OUTSIDE
        for trace in traces[1:]:
            check_same(traces[0], trace, cause, f"equal actions after restoring the snapshot of step {position} again")
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
        raise Broken(OWNED, f"restoring after {after} raised {type(error).__name__}: {error}") from error
    if env.state_signature() != signature:
        raise Broken(OWNED, f"restoring after {after} gave another state")


def _pure(probe: Probe) -> None:
    if (expected := _repeated(probe)) is None:
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
    check_same(expected, trace, cause, "an episode without and with a snapshot before every step")


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
                    raise Broken(OVERRIDDEN.format(name="restore"), f"restore did not bring back the {name}")
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
                    raise Broken(SHARED, "a step in one sibling changed the state of another, or of the original")
                check_same(expected, play(second, rest), SHARED, "equal actions in two siblings")
                check_same(expected, play(env, rest), SHARED, "equal actions in a sibling and in the original")
                first.close()
                check_same(expected, play(third, rest), SHARED, "equal actions in a sibling after another was closed")


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
                    raise Broken(OVERRIDDEN.format(name="restore"), seen) from error
            else:
                seen = f"a snapshot of {other!r} was restored into {env.env_id!r}"
                raise Broken(OVERRIDDEN.format(name="restore"), seen)


CLAUSES: tuple[Clause[Probe], ...] = (
    Clause("gymnasium", "it is a gymnasium.Env: gymnasium.utils.env_checker.check_env passes", _if_seeded(_gymnasium)),
    Clause("seeded", "the same seed and actions give the same episode", _seeded),
    Clause("mistakes", "an agent's mistake is an observation, never an exception", _mistakes),
    Clause("blame", "a failure that comes with an action, and not with a control, is the agent's: a step", check_blame),
    Clause("lost", "a step that loses the sandbox is taken back; the second ends the episode with 0", check_losing),
    Clause("ended", "a step after the end of the episode raises EpisodeError", _ended),
    Clause("json", "observations and infos are JSON values", _json),
    Clause(
        "equal",
        "equal actions after restore(s) give equal observations, rewards and flags, on every restore",
        _if_seeded(_equal),
    ),
    Clause("valid", "a snapshot stays valid while the env moves on, after other snapshots, restores and close", _valid),
    Clause("pure", "snapshot changes nothing", _pure),
    Clause("undo", "restore undoes everything: files, processes, step count, random state", _undo),
    Clause("siblings", "siblings of a fork never see each other", _if_seeded(_siblings)),
    Clause("foreign", "a snapshot of another env id or version raises SnapshotError naming both", _foreign),
    Clause(
        "travels", "a pickled snapshot restores in a fresh process, or its fidelity says that it cannot", check_travels
    ),
    Clause("leaks", "nothing leaks (processes, files, mounts) after close", check_leaks),
)
"""The laws, in the order in which they are tried."""
