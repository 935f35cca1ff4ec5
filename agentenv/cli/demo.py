"""`agentenv demo`: the main job in small."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    run_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Of the run; by default runs/demo, or the next free name.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of everything.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A little of everything in seconds: shows that it works, learns nothing.")
    ] = False,
) -> None:
    """Make a tiny agent and train it with RTMC on the CPU, in a minute.

    A Qwen3 model of 0.7 million parameters imitates scripted play of arithmetic tasks, and is then trained by
    reinforcement learning. At the end an episode that failed is branched at every step, which shows where it was lost.
    Nothing is downloaded.

    Examples:
        agentenv demo
        agentenv demo --seed 1 --run-folder runs/second
    """
    from .actors import quiet_transformers
    from .console import open_console, own_command
    from .run_folders import choose_run_folder, tell_when_stopped
    from .threads import wait_briefly

    wait_briefly()
    folder = choose_run_folder(run_folder, "demo")
    quiet_transformers("demo")
    from agentenv.trainers.demo import DemoSettings, run_demo

    little = DemoSettings(
        demonstrations=64,
        careful_updates=4,
        noisy_updates=2,
        steps=2,
        tasks_per_step=4,
        num_rollouts=2,
        num_continuations=1,
        eval_tasks=8,
        eval_every=1,
        branched=1,
        branches=2,
        seed=seed,
    )
    settings = little if quick else DemoSettings(seed=seed)
    with tell_when_stopped(folder, resume=None):
        run_demo(folder, settings, console=open_console(), command=own_command())
