"""Question 2: RTMC against others, and what its smoothing is worth."""

from benchmarks.study.methods import SMOOTHING, smoothed

from .question import ALL, TrainingQuestion

QUESTION = TrainingQuestion(
    number=2,
    title="Who reads a group best?",
    asks="RTMC against GRPO, the step reward, GiGPO, RLOO, CRBC and graph values, RTMC by its smoothing, and by the "
    "size of groups; nothing is forked, so what states share is natural overlap.",
    baseline="GRPO",
    methods=(
        "GRPO", "RTMC", "graph values", "step reward", "GiGPO", "RLOO", "CRBC", *map(smoothed, SMOOTHING),
        "RTMC, groups of 4", "GRPO, groups of 4", "RTMC, groups of 16", "GRPO, groups of 16",
    ),
    settings=ALL,
    core_methods=("GRPO", "RTMC", "graph values", "step reward", "GiGPO", "RLOO", "CRBC", "RTMC, prior 0"),
    core_settings=(
        "decisive-hard", "irrecoverable-hard", "aliased-hard", "misleading", "decisive-short", "decisive-long",
        "decisive-rare", "math-hard", "sokoban",
    ),
)  # fmt: skip
