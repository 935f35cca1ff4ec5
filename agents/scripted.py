"""An agent that follows a script: for tests, demonstrations and baselines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from agentenv.errors import EpisodeError
from agentenv.protocols import Context
from agentenv.types import Action

__all__ = ["ScriptedAgent"]

Scripted = str | Mapping[str, Any] | Action
"""An action as `step` takes it: text, an assistant message, or an `Action`."""


class ScriptedAgent:
    """Acts as a function of the context says, or as a list says, one entry after another.

    A list is read by position: the next entry is the one after as many as there are assistant messages. So the agent
    keeps no state, and goes on rightly in episodes that branch.

    Args:
        policy: `Context -> action`, or the actions in order. An action is text, an assistant message or an `Action`.

    Raises:
        TypeError: the policy is neither; one action alone is none.
    """

    def __init__(self, policy: Callable[[Context], Scripted] | Sequence[Scripted]) -> None:
        if not callable(policy) and (isinstance(policy, str | Mapping | Action) or not isinstance(policy, Iterable)):
            msg = f"policy must be a function of the context, or a list of actions, got {policy!r:.80}"
            raise TypeError(msg)
        self._policy = policy if callable(policy) else _follow(tuple(policy))

    def act(self, contexts: Sequence[Context]) -> list[Action]:
        """Returns one action per context, in the same order.

        Raises:
            EpisodeError: a list of actions is used up.
            ValueError: the policy returned something that is not an action.
        """
        return [Action.parse(self._policy(context)) for context in contexts]


def _follow(actions: tuple[Scripted, ...]) -> Callable[[Context], Scripted]:
    def policy(context: Context) -> Scripted:
        taken = sum(message["role"] == "assistant" for message in context.messages)
        if taken >= len(actions):
            msg = f"policy must hold an action for every step: it has {len(actions)}, and step {taken + 1} is due"
            raise EpisodeError(msg)
        return actions[taken]

    return policy
