"""Question 4: TRACE's two stages, alone and together."""

from .question import ALL, TrainingQuestion

QUESTION = TrainingQuestion(
    number=4,
    title="What do TRACE's two stages buy?",
    asks="Effective ratio (the share of trees with both outcomes) and success for tasks and prefixes that are chosen "
    "evenly or by prediction, at equal tokens, on easy and hard pools; against VIP at the root and random expansion.",
    baseline="uniform/uniform",
    methods=(
        "uniform/uniform", "active/active", "active/uniform", "uniform/active", "active roots by VIP", "no forks",
        "TRACE, a pool of 4", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts", "TRACE, a quarter, unique",
    ),
    settings=ALL,
    core_methods=("uniform/uniform", "active/uniform", "uniform/active", "active/active"),
    core_settings=("decisive-hard", "irrecoverable-hard", "math-hard"),
    quarters=("effective_ratio", "predictor/brier"),
)  # fmt: skip
