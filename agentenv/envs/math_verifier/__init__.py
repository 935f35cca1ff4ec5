"""Math problems with a calculator, verified by math-verify in worker processes."""

from agentenv.envs.math_verifier.answers import canonical_answer, last_boxed, plain_value
from agentenv.envs.math_verifier.demonstrations import careful_calls, noisy_calls
from agentenv.envs.math_verifier.env import MathState, MathVerifier
from agentenv.envs.math_verifier.pool import RequestError, WorkerPool
from agentenv.envs.math_verifier.problems import GENERATORS
from agentenv.envs.math_verifier.reading import UnreadableError, read
from agentenv.envs.math_verifier.tasks import MathTask, read_tasks
from agentenv.envs.math_verifier.verifier import Verdict, Verifier, shared_verifier

__all__ = [
    "GENERATORS",
    "MathState",
    "MathTask",
    "MathVerifier",
    "RequestError",
    "UnreadableError",
    "Verdict",
    "Verifier",
    "WorkerPool",
    "canonical_answer",
    "careful_calls",
    "last_boxed",
    "noisy_calls",
    "plain_value",
    "read",
    "read_tasks",
    "shared_verifier",
]
