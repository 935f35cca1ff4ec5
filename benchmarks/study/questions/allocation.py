"""Question 4: TRACE's two stages, alone and together."""

from benchmarks.study.cells import MIXED

from .question import ALL, TrainingQuestion

QUESTION = TrainingQuestion(
    number=4,
    title="What do TRACE's two stages buy?",
    asks="Effective ratio (the share of trees with both outcomes) and success for tasks and prefixes that are chosen "
    "evenly or by prediction, at equal tokens, on easy and hard pools; against PCL and VIP at the root, dynamic "
    "sampling, which goes on to fresh tasks until enough groups are mixed, "
    "and random expansion; and by what forked steps weigh. All trees are read by graph values, alone where "
    "nothing is forked.",
    baseline="uniform/uniform",
    methods=(
        "uniform/uniform", "active/active", "active/uniform", "uniform/active", "active roots by PCL",
        "active roots by VIP", "dynamic sampling", "graph values",
        "TRACE, a pool of 4", "TRACE, a quarter, occupancy", "TRACE, a quarter, counts", "TRACE, a quarter, unique",
    ),
    settings=ALL,
    core_methods=("uniform/uniform", "active/uniform", "uniform/active", "active/active", "dynamic sampling"),
    core_settings=("math-hard", "irrecoverable-hard"),
    quarters=("effective_ratio", MIXED, "predictor/brier"),
)  # fmt: skip
