"""Question 5: does forking pay?"""

from .question import ALL, TrainingQuestion

QUESTION = TrainingQuestion(
    number=5,
    title="Does forking pay?",
    asks="At equal tokens, where a continuation from a deep prefix is cheaper than an episode: easy and hard tasks, "
    "shallow and deep forks, a quarter and a half of the episodes, and what forked steps weigh.",
    baseline="no forks",
    methods=(
        "no forks", "TRACE, a quarter", "random, a quarter", "TRACE, half", "random, half", "TRACE unseen, a quarter",
        "shallow, a quarter", "deep, a quarter", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts",
        "TRACE, a quarter, unique", "GRPO", "GRPO, TRACE, a quarter",
    ),
    settings=ALL,
    core_methods=(
        "no forks", "TRACE, a quarter", "random, a quarter", "TRACE, half", "GRPO", "GRPO, TRACE, a quarter",
    ),
    core_settings=("irrecoverable-hard", "decisive-hard", "aliased-hard", "math-hard"),
    quarters=("effective_ratio",),
)  # fmt: skip
