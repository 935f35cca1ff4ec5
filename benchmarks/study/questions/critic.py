"""Question 3: SR-PPO, a critic in place of a group."""

from .question import TrainingQuestion

QUESTION = TrainingQuestion(
    number=3,
    title="Is one rollout per prompt enough?",
    asks="SR-PPO by k, lambda and its protections against GRPO at equal tokens: success, pass@1 and pass@64 at the "
    "end, calibration of the critic in the last quarter, and what makes it collapse.",
    baseline="GRPO",
    methods=(
        "GRPO", "SR-PPO, k = 1", "SR-PPO, k = 4", "SR-PPO, k = 16", "SR-PPO, k = 64", "SR-PPO, k adaptive",
        "SR-PPO, lambda 0", "SR-PPO, lambda 0.5", "SR-PPO, lambda 1", "SR-PPO, lambda 0, no guard",
        "SR-PPO, lambda 0, no guard, no warm-up",
    ),
    settings=(
        "irrecoverable-hard", "math", "math-hard", "sokoban", "sokoban-hard", "misleading", "misleading-hard",
        "decisive",
    ),
    core_methods=("GRPO", "SR-PPO, k = 1", "SR-PPO, k adaptive", "SR-PPO, lambda 0, no guard, no warm-up"),
    core_settings=("irrecoverable-hard", "misleading", "math"),
    metrics=("pass@1", "pass@64"),
    quarters=("critic/brier", "critic/ece", "critic/trust", "entropy"),
    config={"attempts": 64, "attempt_tasks": 32},
)  # fmt: skip
