"""Math problems with a calculator, verified by math-verify in worker processes."""

from agentenv.envs.math_verifier.answers import canonical_answer, last_boxed, plain_value
from agentenv.envs.math_verifier.demonstrations import careful_calls, noisy_calls
from agentenv.envs.math_verifier.env import MathVerifier
from agentenv.envs.math_verifier.problems import GENERATORS
from agentenv.envs.math_verifier.tasks import MathTask
from agentenv.envs.math_verifier.verifier import Verifier

__all__ = [
    "GENERATORS",
    "MathTask",
    "MathVerifier",
    "Verifier",
    "canonical_answer",
    "careful_calls",
    "last_boxed",
    "noisy_calls",
    "plain_value",
]
