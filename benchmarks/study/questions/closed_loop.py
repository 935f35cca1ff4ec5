"""Question 6: the closed loop against its parts."""

from .question import ALL, TrainingQuestion

QUESTION = TrainingQuestion(
    number=6,
    title="Is the closed loop more than its parts?",
    asks="The critic chooses where, forks give exact shared states, RTMC reads them: against RTMC without forks, with "
    "TRACE's own predictor, graph values, and the critic alone, at equal tokens.",
    baseline="RTMC",
    methods=(
        "RTMC",
        "closed loop",
        "closed loop, no warm-up",
        "closed loop, a quarter",
        "TRACE, half",
        "graph values",
        "SR-PPO, k = 1",
    ),
    settings=ALL,
    core_methods=("RTMC", "closed loop", "closed loop, no warm-up", "TRACE, half"),
    core_settings=("irrecoverable-hard", "decisive-hard", "math-hard"),
    quarters=("effective_ratio",),
)
