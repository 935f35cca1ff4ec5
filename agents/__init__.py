"""What acts in an environment: a script, a person, a model. One backend per file.

The names below load on first use, because models need torch.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.agents.huggingface import TransformersAgent
    from agentenv.agents.human import HumanAgent, PlayerLeftError
    from agentenv.agents.openai_agent import OpenAIAgent
    from agentenv.agents.proxy import ProgramRollout, Proxy
    from agentenv.agents.random_agent import RandomAgent
    from agentenv.agents.scripted import ScriptedAgent
    from agentenv.agents.vllm import VLLMAgent

__all__ = [
    "HumanAgent",
    "OpenAIAgent",
    "PlayerLeftError",
    "ProgramRollout",
    "Proxy",
    "RandomAgent",
    "ScriptedAgent",
    "TransformersAgent",
    "VLLMAgent",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "HumanAgent": "human",
        "PlayerLeftError": "human",
        "OpenAIAgent": "openai_agent",
        "ProgramRollout": "proxy",
        "Proxy": "proxy",
        "RandomAgent": "random_agent",
        "ScriptedAgent": "scripted",
        "TransformersAgent": "huggingface",
        "VLLMAgent": "vllm",
    },
)
