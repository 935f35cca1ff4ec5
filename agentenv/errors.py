"""Every exception the SDK raises on purpose.

    AgentEnvError
    |-- TaskError (ValueError)             a task of the wrong shape, or one whose reference is broken
    |-- EpisodeError (RuntimeError)        a step before reset, after the end, or after a failure
    |-- SnapshotError (ValueError)         a snapshot of another env id or version, or one that cannot travel
    |-- UnknownEnvError (LookupError)      an id nobody registered
    |-- TreeError (ValueError)             a node or an array that breaks a rule of the episode tree
    |   `-- TreeFileError                  a line of a trees file that cannot be read
    |-- CorpusError (ValueError)           a corpus or a search index that cannot be used
    |-- ModelError (ValueError)            a model folder that cannot be used
    |-- CheckError (AssertionError)        an environment breaks a law of the contract
    |-- WorkspaceError (OSError)           a path of a sandbox that cannot be read or written: the agent's business
    |-- MissingDependencyError (ImportError)   an optional package is needed here
    `-- InfrastructureError (RuntimeError) not the agent's fault: never turned into a reward
        |-- SandboxError
        |   `-- SandboxLost                the guest ended while it served a request; `restore` brings the sandbox back
        |       `-- SandboxTimeout (TimeoutError)
        |-- VerifierError
        |-- RetrieverError (ConnectionError)
        |-- ToolServerError (ConnectionError)   a server of tools, such as an MCP server, is gone
        `-- AgentError                     the model or its server broke

`AgentFault` stands apart: what the agent asked for breaks the infrastructure, and a control does not. It ends the
episode with reward 0 and never reaches the caller of `step`.

`ToolError` does so, too: a tool raises it to tell the *agent* that it made a mistake, so it becomes an
observation and never reaches the caller of `step`. `UnusableText` (ValueError) is one: a sandbox was given text that no
process or file can be given.

To add one: derive it from the base it belongs to AND from the stdlib exception it replaces, and keep it picklable
(a message, no custom `__init__`).
"""

__all__ = [
    "AgentEnvError",
    "AgentError",
    "AgentFault",
    "CheckError",
    "CorpusError",
    "EpisodeError",
    "InfrastructureError",
    "MissingDependencyError",
    "ModelError",
    "RetrieverError",
    "SandboxError",
    "SandboxLost",
    "SandboxTimeout",
    "SnapshotError",
    "TaskError",
    "ToolError",
    "ToolServerError",
    "TreeError",
    "TreeFileError",
    "UnknownEnvError",
    "UnusableText",
    "VerifierError",
    "WorkspaceError",
]


class AgentEnvError(Exception):
    """Base class of every exception of this SDK."""


class TaskError(AgentEnvError, ValueError):
    """A task has the wrong shape, or its reference answer cannot be used."""


class EpisodeError(AgentEnvError, RuntimeError):
    """`step` was called before `reset`, after the end of the episode, or after a failure."""


class SnapshotError(AgentEnvError, ValueError):
    """A snapshot cannot be taken, or cannot be restored here."""


class UnknownEnvError(AgentEnvError, LookupError):
    """No environment is registered under this id."""


class TreeError(AgentEnvError, ValueError):
    """A node or an array breaks a rule of the episode tree."""


class TreeFileError(TreeError):
    """A trees file cannot be read; the message names the file, the line and the reason."""


class CorpusError(AgentEnvError, ValueError):
    """A corpus or a search index cannot be used; the message names the file and the reason."""


class ModelError(AgentEnvError, ValueError):
    """A model or tokenizer cannot be used."""


class CheckError(AgentEnvError, AssertionError):
    """An environment breaks a law of the contract; the message quotes the law and the likely cause."""


class WorkspaceError(AgentEnvError, OSError):
    """A file of a sandbox cannot be read or written: missing, no regular file, outside, too large, or no room."""


class MissingDependencyError(AgentEnvError, ImportError):
    """An optional package is missing; the message carries the command that installs it."""


class InfrastructureError(AgentEnvError, RuntimeError):
    """Something that is not the agent broke. The episode has no reward and is left out of every baseline."""


class SandboxError(InfrastructureError):
    """A sandbox died or refused to work."""


class SandboxLost(SandboxError):
    """A sandbox ended, or stopped answering, while it served a command or another request.

    What a command did may be the reason. `restore` to an earlier snapshot makes the same sandbox usable again.
    """


class SandboxTimeout(SandboxLost, TimeoutError):
    """A sandbox did not answer in time."""


class VerifierError(InfrastructureError):
    """A verifier could not reach a verdict: neither right nor wrong."""


class RetrieverError(InfrastructureError, ConnectionError):
    """A retrieval server did not answer, or answered nonsense."""


class ToolServerError(InfrastructureError, ConnectionError):
    """A server of tools, such as an MCP server, is gone or does not answer."""


class AgentError(InfrastructureError):
    """A model or its server could not produce an action."""


class ToolError(Exception):
    """Raised by a tool to tell the agent about its mistake; the message becomes the tool's answer."""


class UnusableText(ToolError, ValueError):
    """Text that no process or file can be given: no word at all, a NUL, a lone surrogate.

    A sandbox raises it before anything is sent. Agents write such text, and programs hardly do: in a tool it is the
    agent's mistake, and everywhere else a wrong argument.
    """


class AgentFault(AgentEnvError):
    """What the agent asked for broke the infrastructure, again and again, and a control did not: its own fault.

    Raised by `with_control`, by a tool or by `respond`; it ends the episode, and costs the reward.
    """
