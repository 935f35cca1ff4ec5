"""A cell that trains: one method from one start until its budget of tokens is spent, through the public trainers.

The budget is the rollouts' own ledger, in which everything counts that was sampled for training: full episodes,
continuations, broken attempts, the warm-up of a critic. Measurements on held-out tasks are apart. They are taken at
fixed shares of the budget, so that curves of different methods have their points at equal cost.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from agentenv.agents import TransformersAgent
from agentenv.credit import pass_at_k
from agentenv.credit.tabular import TabularMDP
from agentenv.rollout import Ledger, Rollout, rollout_trees
from agentenv.stats import episode_stats
from agentenv.trainers import SRPPOConfig, SRPPOTrainer, TreeConfig, TreeTrainer, evaluate_agent
from agentenv.trainers.run_folder import read_metrics

from .allocators import allocator_named
from .cells import MIXED, Cell
from .methods import estimator_of
from .settings import Setting, setting_of
from .starts import start_of, weights_of

__all__ = ["train_cell"]

POINTS = 4
"""Measurements after the one at the start."""

_COMMON: dict[str, Any] = {
    "lr_scheduler_type": "constant",
    "adam_beta2": 0.95,
    "weight_decay": 0.0,
    "epsilon_high": 0.28,
    "entropy_coef": 0.0,  # a bonus of 0.003 drowns small advantages where groups are rarely mixed: entropy explodes
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
    "report_to": [],
    "max_steps": 100_000,
}

_KEPT = ("effective_ratio", "allocator/root_share", "predictor/brier", "predictor/calibration_error", "critic/brier",
         "critic/ece", "critic/auroc", "critic/trust", "critic/k", "critic/decay", "entropy", "frac_reward_zero_std",
         "success", "grad_norm", MIXED)  # fmt: skip
"""What is kept of the metrics of every step, as means over the four quarters of training."""


class Meter(TrainerCallback):
    """Adds up what training sampled, measures at shares of the budget, and stops when it is spent.

    Args:
        tokens: sampled tokens that may be spent; the step that goes beyond is the last.
        measure: says how good the model is now.
    """

    def __init__(self, tokens: int, measure: Callable[[], dict[str, float]]) -> None:
        self.tokens = tokens
        self.curve: list[dict[str, float]] = []
        self.measured_s = 0.0
        self._measure = measure
        self._rollouts: list[Rollout] = []

    def rollout(self, *args: Any, **options: Any) -> Rollout:
        """Makes a rollout whose ledger is read here."""
        self._rollouts.append(Rollout(*args, **options))
        return self._rollouts[-1]

    @property
    def ledger(self) -> Ledger:
        """What was spent so far."""
        return sum((rollout.ledger for rollout in self._rollouts), Ledger())

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Measures the start."""
        self._point(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures where a share of the budget was passed; stops at its end."""
        del args, kwargs
        spent = self.ledger.cost.tokens_sampled
        if spent >= self.tokens * len(self.curve) / POINTS:
            self._point(state.global_step)
        control.should_training_stop = spent >= self.tokens

    def _point(self, step: int) -> None:
        began = time.process_time()
        spent = {"tokens": float(self.ledger.cost.tokens_sampled), "step": float(step)}
        self.curve.append(spent | self._measure())
        self.measured_s += time.process_time() - began


def train_cell(cell: Cell, folder: Path) -> dict[str, Any]:
    """Trains, and returns the curve, the ledger and the metrics.

    Args:
        cell: what to run; `config` is a method.
        folder: of the starting models.
    """
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    setting = setting_of(cell.setting, quick=cell.quick)
    model, tokenizer = start_of(setting, folder, size=cell.size, device=cell.device)
    held_out, weights = setting.tasks[1], weights_of(model) if setting.plays else ""

    def agent() -> TransformersAgent:
        return TransformersAgent(model, tokenizer, max_new_tokens=setting.max_action_tokens)

    def measure() -> dict[str, float]:
        if setting.problem is not None:
            return {"success": success_of_table(model, tokenizer, setting.problem())}
        return {"success": evaluate_agent(setting.make_env, agent(), held_out).success}

    meter, began = Meter(cell.tokens, measure), time.process_time()
    with tempfile.TemporaryDirectory() as name:
        trainer = _trainer(cell, setting, model, tokenizer, meter, Path(name))
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(meter)
        trainer.train()
        metrics = read_metrics(name)
    seconds, more = time.process_time() - began, dict[str, float]()
    if most := cell.config.get("attempts", 0):
        trees = rollout_trees(setting.make_env, agent(), held_out[: cell.config["attempt_tasks"]], most, seed=1)
        counts = [episode_stats([tree]).roots.successes for tree in trees]
        more = {f"pass@{k}": float(np.mean([pass_at_k(most, c, k) for c in counts])) for k in _powers(most)}
    success = [point["success"] for point in meter.curve]
    return {
        "panel": setting.panel,
        "weights": weights,
        "curve": meter.curve,
        "metrics": {"final": success[-1], "mean": _area(meter.curve), "start": success[0]} | more,
        "quarters": _quarters(metrics),
        "ledger": _spent(meter.ledger) | {"steps_trained": trainer.state.global_step},
        "seconds": {"training": seconds - meter.measured_s, "measuring": meter.measured_s},
    }


def success_of_table(model: Any, tokenizer: Any, problem: TabularMDP) -> float:
    """Computes the success of a table exactly: the values of the policy that its logits are."""
    states, actions = problem.policy.shape
    said = tokenizer.convert_tokens_to_ids([f"a{a}" for a in range(actions)])
    with torch.no_grad():
        ids = torch.tensor(tokenizer([f"s{s}" for s in range(states)])["input_ids"], device=model.device)
        logits = model(ids).logits[:, -1].double().cpu()
    policy = torch.softmax(logits[:, said], dim=-1).numpy()
    return float(replace(problem, policy=policy).values()[0])


def _area(curve: list[dict[str, float]]) -> float:
    """The mean height of a curve over the tokens spent, by trapezoids."""
    tokens, success = (np.array([point[name] for point in curve]) for name in ("tokens", "success"))
    return float(((success[1:] + success[:-1]) / 2 * np.diff(tokens)).sum() / (tokens[-1] - tokens[0]))


def _trainer(cell: Cell, setting: Setting, model: Any, tokenizer: Any, meter: Meter, folder: Path) -> Any:
    method = cell.config
    critic = method["trainer"] == "sr_ppo"
    trees = setting.tasks_per_step * (8 if critic else 1)  # one episode each: as many as a group has in all
    options: dict[str, Any] = _COMMON | {
        "output_dir": str(folder),
        "per_device_train_batch_size": max(1, trees // 2),
        "gradient_accumulation_steps": 2,
        "num_rollouts": method["rollouts"],
        "num_continuations": method["continuations"],
        "max_action_tokens": setting.max_action_tokens,
        "learning_rate": cell.rate,
        "seed": cell.seed,
        "use_cpu": cell.device == "cpu",
        "bf16": cell.device == "cuda",
    }
    options |= method["options"] | ({"critic_warmup": 8} if cell.quick and method["trainer"] != "tree" else {})
    shared: dict[str, Any] = {
        "env": setting.make_env,
        "train_tasks": _enough(setting.tasks[0], trees),
        "processing_class": tokenizer,
        "rollout": meter.rollout,
    }
    if method["trainer"] == "tree":
        credit: dict[str, Any] = {
            "estimator": estimator_of(method["estimator"]),
            "allocator": allocator_named(method["allocator"]),
        }
        return TreeTrainer(model, TreeConfig(**options), **shared, **credit)
    loop: dict[str, Any] = {} if critic else {"closed_loop": True}
    return SRPPOTrainer(model, SRPPOConfig(**options, **loop), **shared)


def _enough(tasks: Any, least: int) -> list[Any]:
    """Repeats a panel that is smaller than a generation."""
    return list(tasks) * -(-least // len(tasks)) if len(tasks) < least else list(tasks)


def _powers(most: int) -> list[int]:
    return [1 << i for i in range(most.bit_length())]


def _quarters(metrics: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Means of what is kept over the quarters of training."""
    found: dict[str, list[float]] = {}
    for m in metrics:
        if "effective_ratio" in m and m.get("tree/leaves"):
            m[MIXED] = 100.0 * m["effective_ratio"] / m["tree/leaves"]
    for name in _KEPT:
        values = np.array([m[name] for m in metrics if isinstance(m.get(name), int | float)], dtype=np.float64)
        if len(values) >= 4:
            found[name] = [float(np.nanmean(part)) for part in np.array_split(values, 4)]
    return found


def _spent(ledger: Ledger) -> dict[str, float]:
    cost = ledger.cost
    return {
        "tokens_sampled": cost.tokens_sampled,
        "tokens_read": cost.tokens_read,
        "steps": ledger.steps,
        "episodes": ledger.episodes,
        "failures": ledger.failures,
        "agent_seconds": cost.agent_seconds,
        "env_seconds": cost.env_seconds,
        "wall_seconds": ledger.wall_seconds,
    }
