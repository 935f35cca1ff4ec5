"""`agentenv train`: trains a model on episode trees."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .command_line import refuse
from .console import open_console, say_line
from .samplers import SAMPLERS, choose_sampler
from .train_config import add_words, read_config

__all__ = ["train"]


def train(  # noqa: PLR0913, PLR0917  one per option
    ctx: typer.Context,
    env_id: Annotated[
        str,
        typer.Argument(
            metavar="ENV_ID|CONFIG.yaml",
            help="A registered id, module:Class, or a file with all of this: options, and fields of TreeConfig.",
            show_default=False,
            is_eager=True,
            callback=read_config,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="A folder that save_pretrained wrote, a name on the Hugging Face hub, or tiny: a small model made on "
            "the spot, which imitates the environment's demonstrations first.",
            show_default=False,
        ),
    ],
    agent: Annotated[
        str | None,
        typer.Option(
            metavar=SAMPLERS,
            help="Who samples: vLLM, made of a folder or served at a URL, given the model's weights before every "
            "generation; or your own class, of model and tokenizer. By default the model itself.",
        ),
    ] = None,
    agent_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of its constructor; may be repeated.")
    ] = None,
    credit: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Estimator of each step's advantage; or sr_ppo: a critic of tokens, one episode per task; or "
            "closed_loop: that critic chooses where episodes are continued, and RTMC gives the credit.",
        ),
    ] = "rtmc",
    credit_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the estimator; may be repeated.")
    ] = None,
    step_weights: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What a step weighs in the loss and in the estimator's means: occupancy (how often the policy itself "
            "would come through it), graph (the same, on merged states), counts (episodes through it), unique (1), or "
            "auto (graph with --allocator trace, otherwise occupancy).",
        ),
    ] = "auto",
    allocator: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where continuations start: even, random, trace or trace_unseen. The last two also choose how many "
            "full episodes each task gets.",
        ),
    ] = "even",
    predictor: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="What trace predicts success from: text, or the model's own hidden states (hidden)."
        ),
    ] = "text",
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Optimizer steps in all, those before --resume included.")
    ] = 100,
    tasks_per_step: Annotated[int, typer.Option(metavar="N", min=2, help="Trees per optimizer step.")] = 8,
    tasks: Annotated[
        int, typer.Option(metavar="N", min=2, help="Different tasks to train on; fewer where there are no more.")
    ] = 1024,
    rollouts: Annotated[
        int | None,
        typer.Option(metavar="G", min=1, help="Full episodes per tree.", show_default="8, or 1 with sr_ppo"),
    ] = None,
    continuations: Annotated[
        int, typer.Option(metavar="K", min=0, help="Further episodes per tree, from snapshots in mid-episode.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(metavar="X", min=0, help="Constant.")] = 1e-5,
    max_action_tokens: Annotated[int, typer.Option(metavar="L", min=1, help="Of one action.")] = 256,
    eval_tasks: Annotated[int, typer.Option(metavar="N", min=0, help="Held-out tasks, never trained on.")] = 64,
    every: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps between measurements, checkpoints and kept trees.")
    ] = 10,
    rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Episodes per backward pass; lower it where memory runs out.")
    ] = 64,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything.")] = 0,
    run_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of this run; by default runs/NAME-CREDIT, or the next free name."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --run-folder.")] = False,
    override: Annotated[
        bool, typer.Option("--override", help="Let --resume go on with other settings than the run has.")
    ] = False,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Argument of the environment; may be repeated.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any field of TreeConfig (SRPPOConfig); may be repeated."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would run where, how many tokens and how much memory; then stop."),
    ] = False,
) -> None:
    """Train a model on episode trees, with an advantage for every step.

    Each optimizer step grows a tree per task, turns the trees into step advantages, and updates the model with TRL's
    GRPO loss. The run folder gets run.json, metrics.jsonl, trees, curve.png and checkpoints. `agentenv demo` is a
    run that needs no model, and makes the runs/demo/checkpoint-30 below. What a file says, options on the command line
    override.

    Examples:
        agentenv train agentenv/MathVerifier-v0 --model tiny --steps 20 --learning-rate 5e-4 --max-action-tokens 24
        agentenv train agentenv/MathVerifier-v0 --model Qwen/Qwen3-0.6B --steps 200 --continuations 4 --dry-run
        agentenv train agentenv/MathVerifier-v0 --model tiny --credit sr_ppo --set k=8 --max-action-tokens 24
        agentenv train agentenv/MathVerifier-v0 --model runs/demo/checkpoint-30 --agent vllm:runs/demo/checkpoint-30
        agentenv train agentenv/MathVerifier-v0 --model tiny --run-folder runs/grpo --credit grpo --steps 20
        agentenv train agentenv/MathVerifier-v0 --model tiny --run-folder runs/grpo --credit grpo --steps 40 --resume
        agentenv train examples/recipes/search_trace.yaml --model tiny --steps 50 --dry-run
    """
    from .env_choice import choose_env
    from .estimators import TRAINED, choose_allocator, choose_estimator, choose_predictor, try_estimator, weigh_alike
    from .run_folders import choose_run_folder, tell_when_stopped

    choice = choose_env(env_id, add_words(ctx, "option", option))
    method = credit if credit in TRAINED else "tree"
    rollouts = rollouts or (1 if method == "sr_ppo" else 8)
    rule = choose_allocator(allocator)
    if step_weights == "auto":
        step_weights = getattr(rule, "weights", "occupancy")
    estimator = None
    if method == "tree":
        words = add_words(ctx, "credit_option", credit_option)
        estimator = weigh_alike(choose_estimator(credit, words, also=TRAINED), step_weights)
        try_estimator(estimator, rollouts)
    elif credit_option or allocator != "even":
        refuse("--credit", f"{credit} takes no --credit-option and no --allocator: its settings are fields, --set k=8")
    choose_predictor(predictor, allocator)
    folder = choose_run_folder(run_folder, f"{choice.cls.__name__}-{credit}", resume=resume)

    from .actors import quiet_transformers
    from .threads import wait_briefly

    _look_for_model(model)
    wait_briefly()
    quiet_transformers("--model")
    sampler = choose_sampler(agent, add_words(ctx, "agent_option", agent_option), model=model)
    from .training import Plan, check_resumed, choose_tasks, load_model, run_training

    if resume:
        check_resumed(folder)

    settings = {
        "max_steps": steps,
        "num_rollouts": rollouts,
        "num_continuations": continuations,
        "step_weights": step_weights,
        "predictor": predictor,
        "learning_rate": learning_rate,
        "max_action_tokens": max_action_tokens,
        "seed": seed,
        "allow_changes": override,
    }
    plan = Plan(
        choice, method, estimator, allocator, folder, settings, tasks_per_step, tasks, eval_tasks, every, rows, sampler
    ).with_settings(ctx, set_ or ())
    with nullcontext() if dry_run else tell_when_stopped(folder, resume=resume):
        trained_on, held_out = choose_tasks(plan)  # before a model is made, which takes minutes
        made = load_model(plan, model, held_out, trained=not (dry_run or resume))
        run_training(plan, *made, [*trained_on.values()], [*held_out.values()], resume=resume, dry_run=dry_run)


def _look_for_model(model: str) -> None:
    """Says when a model is sought on the hub, for that can take a while and fail by other words."""
    if model == "tiny" or Path(model).is_dir():
        return
    if Path(model).exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        why = "that is a file" if Path(model).exists() else "no such folder"
        refuse("--model", f"must be a model's folder, NAME/NAME on the hub, or tiny, got {model!r}: {why}")
    say_line(open_console(stderr=True), f"no folder {model} here: asking the Hugging Face hub")
