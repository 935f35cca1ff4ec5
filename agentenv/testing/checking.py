"""`check_env`: tries the laws of the contract on an environment, and says how far that reached."""

import time
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from agentenv.env import Env
from agentenv.registry import make
from agentenv.testing.causes import guess_cause
from agentenv.testing.clauses import Clause, ClauseResult, require_kept, try_clauses
from agentenv.testing.environments import CLAUSES
from agentenv.testing.probe import Probe
from agentenv.testing.scripts import (
    Coverage,
    Script,
    choose_scripts,
    play_script,
    read_actions,
    read_tree_scripts,
    sample_script,
)

__all__ = ["CheckReport", "ForkCost", "check_env", "inspect_env", "prepare_scripts", "run_clauses"]

_MOST_EPISODES = 4
_KNOWN_LATE = {"_np_random", "_np_random_seed", "spec"}  # gymnasium's


@dataclass(frozen=True, slots=True)
class ForkCost:
    """What going back to a state costs.

    Attributes:
        step: how deep the state is.
        snapshot_ms: of taking the snapshot.
        restore_ms: of restoring it in another environment.
        num_bytes: size of the snapshot, without what its sandbox shares with others.
        replayed_steps: steps that were taken again for that; 0 where nothing is replayed.
    """

    step: int
    snapshot_ms: float
    restore_ms: float
    num_bytes: int
    replayed_steps: int = 0

    def __str__(self) -> str:
        """Says it in words."""
        replayed = f", in which {self.replayed_steps} steps are taken again" if self.replayed_steps else ""
        return (
            f"a fork at step {self.step} costs {self.snapshot_ms:.1f} ms for the snapshot ({self.num_bytes:,} bytes) "
            f"and {self.restore_ms:.1f} ms to restore it{replayed}"
        )


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was tried on an environment, and what came of it.

    Attributes:
        results: a verdict per law.
        episodes: how many were played for each.
        coverage: calls and mistakes by tool.
        unreached: the tools of which every call was a mistake, or that were not called: what they do was not checked.
        late_attributes: attributes that appear after `__init__`, which no snapshot holds.
        fork_cost: of a state in the middle; `None` where the environment cannot get there.
    """

    results: tuple[ClauseResult, ...]
    episodes: int
    coverage: tuple[str, ...]
    unreached: tuple[str, ...]
    late_attributes: tuple[str, ...]
    fork_cost: ForkCost | None

    def warnings(self) -> list[str]:
        """Returns what the verdicts do not tell."""
        found: list[str] = []
        if self.unreached:
            found.append(
                f"not reached, and so not checked: {', '.join(self.unreached)}; give actions that do (actions=, "
                "--actions FILE) or trees (trees=, --trees FILE)"
            )
        if self.late_attributes:
            found.append(
                f"set after __init__: {', '.join(f'self.{name}' for name in self.late_attributes)}; no snapshot holds "
                "them: what changes during an episode belongs into State, files into self.sandbox"
            )
        return found


def inspect_env(
    env_or_id: Env | type[Env] | str,
    *,
    clauses: Sequence[Clause[Probe]] = CLAUSES,
    on_clause: Callable[[Clause[Probe]], None] = lambda _: None,
    **options: Any,
) -> CheckReport:
    """Tries every law on an environment and reports.

    Args:
        env_or_id: as in `check_env`.
        clauses: the laws to try.
        on_clause: called before each law.
        options: `seed`, `num_steps`, `actions`, `trees` and `leak_wait_s`, as in `check_env`.
    """
    with _opened(env_or_id) as env:
        probes = _probes(env, **options)
        results = _verdicts(probes, clauses, on_clause)
        coverage, late = _reach(env, probes)
        names = [tool["function"]["name"] for tool in env.tools]
        return CheckReport(
            tuple(results),
            len(probes),
            tuple(coverage.lines(names)),
            tuple(name for name in names if name not in coverage.reached()),
            tuple(late),
            _fork_cost(probes[0]),
        )


def run_clauses(
    env_or_id: Env | type[Env] | str, *, clauses: Sequence[Clause[Probe]] = CLAUSES, **options: Any
) -> list[ClauseResult]:
    """Tries laws on an environment and returns the verdicts; takes what `inspect_env` takes."""
    with _opened(env_or_id) as env:
        return _verdicts(_probes(env, **options), clauses)


def prepare_scripts(
    env_or_id: Env | type[Env] | str, *, seed: int = 0, num_steps: int = 6, actions: Any = None, trees: Any = None
) -> list[Script]:
    """Returns the episodes that the laws are tried on, which may be given as `actions` again; see `check_env`."""
    with _opened(env_or_id) as env:
        given = [] if actions is None else read_actions(actions, seed=seed)
        given += [] if trees is None else read_tree_scripts(trees, env_id=env.env_id, seed=seed)
        return choose_scripts(env, given, most=_MOST_EPISODES) or [sample_script(env, seed=seed, num_steps=num_steps)]


@contextmanager
def _opened(env_or_id: Env | type[Env] | str) -> Generator[Env]:
    if isinstance(env_or_id, Env):
        yield env_or_id
    else:
        with closing(make(env_or_id) if isinstance(env_or_id, str) else env_or_id()) as env:
            yield env


def _probes(env: Env, *, leak_wait_s: float = 2.0, **options: Any) -> list[Probe]:
    return [Probe(env, script, leak_wait_s=leak_wait_s) for script in prepare_scripts(env, **options)]


def _verdicts(
    probes: Sequence[Probe],
    clauses: Sequence[Clause[Probe]],
    on_clause: Callable[[Clause[Probe]], None] = lambda _: None,
) -> list[ClauseResult]:
    results: list[ClauseResult] = []
    for clause in clauses:
        on_clause(clause)
        results.append(_worst([try_clauses(probe, [clause], guess_cause)[0] for probe in probes]))
    return results


def _worst(results: Sequence[ClauseResult]) -> ClauseResult:
    """The verdict on a law from those on several episodes: a failure counts before a pass, a pass before a skip."""
    order = ("failed", "passed", "skipped")
    number, worst = min(enumerate(results), key=lambda entry: order.index(entry[1].outcome))
    if worst.outcome != "failed" or len(results) == 1:
        return worst
    return replace(worst, detail=f"episode {number + 1} of {len(results)}: {worst.detail}")


def _reach(env: Env, probes: Sequence[Probe]) -> tuple[Coverage, list[str]]:
    """Plays every episode once more; returns how far they reach, and the attributes that came up on the way."""
    coverage, late = Coverage(), dict[str, None]()
    for probe in probes:
        with closing(env.spawn()) as other:
            before = set(vars(other)) | _KNOWN_LATE
            with suppress(Exception):  # reported by the laws
                play_script(other, probe.script, coverage)
            late |= dict.fromkeys(name for name in vars(other) if name not in before and not _is_cached(other, name))
    return coverage, list(late)


def _is_cached(env: Env, name: str) -> bool:
    return isinstance(getattr(type(env), name, None), cached_property)


def _fork_cost(probe: Probe) -> ForkCost | None:
    with suppress(Exception):  # reported by the laws
        position = probe.positions()[-1]
        with probe.episode(position) as env, closing(env.spawn()) as other:
            start = time.perf_counter()
            snapshot = env.snapshot()
            taken = time.perf_counter()
            other.restore(snapshot)
            restored = time.perf_counter()
            replayed = int(getattr(other, "replayed_steps", 0))
        milliseconds = 1e3 * (taken - start), 1e3 * (restored - taken)
        return ForkCost(position, *milliseconds, snapshot.num_bytes, replayed)
    return None


def check_env(
    env_or_id: Env | type[Env] | str,
    *,
    seed: int = 0,
    num_steps: int = 6,
    actions: Any = None,
    trees: Any = None,
    leak_wait_s: float = 2.0,
) -> CheckReport:
    """Raises unless an environment keeps every law of the contract (`CLAUSES`), and reports how far that was tried.

    Args:
        env_or_id: a registered id, an environment class, or an environment (others are made with its arguments; it is
            not touched).
        seed: of the episodes and of the random actions.
        num_steps: random actions per episode.
        actions: actions to play instead of random ones, where those are all mistakes: the actions of one episode, a
            list of episodes, or a file of them (see `agentenv.testing.scripts.read_actions`).
        trees: trees whose actions are played, or a file of them. Of many episodes, the few that reach most are played.
        leak_wait_s: how long what an episode left may take to go away by itself.

    Attributes that appear after `__init__` are a warning.

    Returns:
        The report: the verdicts, what was reached, what else looks wrong, and what a fork costs.

    Raises:
        CheckError: laws are broken.
        ValueError: the actions or the trees cannot be used.
    """
    report = inspect_env(
        env_or_id, seed=seed, num_steps=num_steps, actions=actions, trees=trees, leak_wait_s=leak_wait_s
    )
    require_kept(report.results)
    if report.late_attributes:
        warnings.warn(report.warnings()[-1], stacklevel=2)
    return report
