"""Agent programs that people already have, recorded: a server that they take for OpenAI or Anthropic.

A program is given one base URL per episode. What it asks is answered by an agent of ours; tokens, log-probabilities and
what the environment did become an episode tree like every other. The names load on first use: they need a web server.
"""

from typing import TYPE_CHECKING

from agentenv.lazy import lazy_names

if TYPE_CHECKING:
    from agentenv.agents.proxy.programs import ProgramRollout
    from agentenv.agents.proxy.proxy import Proxy
    from agentenv.agents.proxy.session import Session, SessionLimits

__all__ = ["ProgramRollout", "Proxy", "Session", "SessionLimits"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"ProgramRollout": "programs", "Proxy": "proxy", "Session": "session", "SessionLimits": "session"},
)
