"""The study: what the methods are worth, at equal cost, on a machine that anyone has.

    python -m benchmarks.study 5                    # one question; `all` for all of them
    python -m benchmarks.study all --jobs 4         # resumable: what is in the results is not run again
    python -m benchmarks.study 2 5 --quick          # a check that everything runs, in a minute
    python -m benchmarks.study 2 4 5 --size 20m --device cuda --seeds 20   # with a larger model, on a GPU
    python -m benchmarks.study report               # docs/study.md from the results

How the data flows:

    question -> cells (one run each, plain data) -> runner (a process per core) -> results.jsonl (a line per run)
             -> tables and figures with intervals -> docs/study.md

`settings` are the environments with their fixed panels of tasks and a start: a tiny model that solves some of them.
`methods` says what is compared. `training` and `accuracy` run a cell, through the public trainers and rollouts.
"""
