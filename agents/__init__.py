"""What acts in an environment: a script, a person, a model. One backend per file.

The names below load on first use, because models need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentenv.agents.huggingface import TransformersAgent
    from agentenv.agents.human import HumanAgent, PlayerLeftError
    from agentenv.agents.scripted import ScriptedAgent

__all__ = ["HumanAgent", "PlayerLeftError", "ScriptedAgent", "TransformersAgent"]

_HOMES = {
    "HumanAgent": "human",
    "PlayerLeftError": "human",
    "ScriptedAgent": "scripted",
    "TransformersAgent": "huggingface",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(msg)
    return getattr(import_module(f"agentenv.agents.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
