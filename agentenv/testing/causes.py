"""What usually breaks a law: the causes that reports name."""

import traceback

from agentenv.env import Env
from agentenv.errors import InfrastructureError
from agentenv.testing.clauses import Broken
from agentenv.testing.probe import Trace

__all__ = [
    "DOWN",
    "HERE",
    "MAIN",
    "OUTSIDE",
    "OVERRIDDEN",
    "OWNED",
    "RAISES",
    "RANDOM",
    "SHARED",
    "UNSEEDED",
    "check_same",
    "guess_cause",
]

MAIN = "a function or class of a script or notebook was given, which another process lacks: move it to a module"
OUTSIDE = "something that changes during an episode is kept outside `self.state` and `self.np_random`"
RANDOM = "randomness comes from elsewhere than `self.np_random` (random, numpy.random, time, the order of a set)"
SHARED = "they share a mutable object: a class attribute, a constructor argument, a module variable"
OWNED = "a snapshot refers to something that the environment owns and changes or frees"
HERE = "the snapshot refers to something in this process: set fidelity = Fidelity.LOCAL"
RAISES = "{} raises; answer with text, or raise ToolError"
DOWN = "{} meets broken infrastructure: what it reaches is down, and until that is mended nothing is known"
UNSEEDED = "that of the law 'seeded', which is broken too: mend that first"
OVERRIDDEN = "`{name}` is overridden and falls short, or does not call super()"


def check_same(first: Trace, second: Trace, cause: str, what: str) -> None:
    """Raises `Broken` where two traces of the same actions differ."""
    for i, (a, b) in enumerate(zip(first, second, strict=False)):  # flags differ where one ends before the other
        if a != b:
            raise Broken(cause, f"{what}: step {i + 1} gave {a!r:.300} and then {b!r:.300}")


def guess_cause(error: Exception) -> str | None:
    """Names the tool that raised, and whether infrastructure broke in it; or the attribute that is missing."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        env, name = frame.f_locals.get("self"), frame.f_code.co_name
        if isinstance(env, Env) and name in (tool["function"]["name"] for tool in env.tools):
            return (DOWN if isinstance(error, InfrastructureError) else RAISES).format(f"the tool `{name}`")
    if isinstance(error, AttributeError) and isinstance(error.obj, Env):
        return f"{OUTSIDE}: `self.{error.name}` is set during an episode only"
    return None
