"""What becomes of a step that loses the sandbox: taken back the first time, the end of the episode the second."""

import itertools
from typing import Any, cast

from agentenv.env import Env
from agentenv.errors import InfrastructureError, SandboxLost
from agentenv.protocols import Sandbox
from agentenv.testing.clauses import Broken, Skipped
from agentenv.testing.probe import Probe

__all__ = ["check_losing"]

_KEPT = ("fork", "snapshot")
_MOST = 3
_CAUSE = (
    "a tool catches what `self.sandbox` raises, or it cannot be snapshotted: let `SandboxLost` leave it, and open "
    "the sandbox in `make_sandbox`"
)


def check_losing(probe: Probe) -> None:
    """Raises `Broken` where a lost sandbox is not the agent's; loses it at up to three steps, in fresh episodes."""
    with probe.episode() as env:
        if env.sandbox is None:  # there is nothing to lose
            return
    reached = (position for position in range(len(probe.actions)) if _lose_twice(probe, position))
    if not list(itertools.islice(reached, _MOST)):
        msg = "no action of these asks anything of the sandbox: give `actions` that do"
        raise Skipped(msg)


def _lose_twice(probe: Probe, position: int) -> bool:
    """Returns whether the action at a position asks the sandbox for anything, so that it could be lost there."""
    with probe.episode(position) as env:
        if env.step_count < position or (env.max_steps or position + 3) < position + 3:
            return False
        before, action = env.sandbox_content(), probe.actions[position]
        first = _step_without(env, action, position)
        if first is None:
            return False
        _, _, terminated, truncated, info = first
        if terminated or truncated or not info.get("breakages"):
            seen = f"terminated={terminated}, truncated={truncated}, breakages={info.get('breakages')!r}"
            raise Broken(_CAUSE, f"step({action!r:.120}) lost the sandbox, for the first time: {seen}")
        if env.sandbox_content() != before:
            raise Broken(_CAUSE, f"step({action!r:.120}) lost the sandbox, and its files are not as before that step")
        second = _step_without(env, action, position)
        if second is not None and (not second[2] or second[1] != 0.0):
            seen = f"terminated={second[2]}, reward={second[1]}"
            raise Broken(_CAUSE, f"step({action!r:.120}) lost the sandbox, for the second time: {seen}")
    return True


def _step_without(env: Env, action: Any, position: int) -> Any:
    """Takes a step in which the sandbox is lost; `None` where it asks nothing of the sandbox."""
    losing = _Losing(env.sandbox)
    env.sandbox = cast("Sandbox", losing)
    try:
        result = env.step(action)
    except InfrastructureError as error:
        seen = f"step {position} ({action!r:.120}) lost the sandbox, and raised {type(error).__name__}: {error}"
        raise Broken(_CAUSE, seen) from error
    finally:
        if env.sandbox is cast("object", losing):
            env.sandbox = losing.whole
    return result if losing.lost else None


class _Losing:
    """A sandbox that is lost at whatever it is asked for first, until it is restored."""

    def __init__(self, whole: Any) -> None:
        self.whole, self.lost, self._gone = whole, False, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.whole, name)
        if name.startswith("_") or not callable(found) or name == "close":
            return found
        if self._gone or (not self.lost and name not in _KEPT):
            return self._lose
        return found

    def restore(self, snapshot: Any, /) -> None:
        self.whole.restore(snapshot)
        self._gone = False

    def _lose(self, *_: Any, **__: Any) -> Any:
        self.lost = self._gone = True
        msg = "the check of environments lost this sandbox"
        raise SandboxLost(msg)
