"""Training on an environment of your own, from nothing, on a CPU: define it, demonstrate it, train, look.

python examples/own_environment.py                     # about two minutes
agentenv trees runs/coins/trees/step_30.jsonl --credit rtmc
"""

import argparse
from functools import partial
from typing import Any

import numpy as np

import agentenv as ae
from agentenv.credit import rtmc_advantages
from agentenv.trainers import Play, TreeConfig, TreeTrainer, warm_start
from agentenv.types import ToolCall


class Coins(ae.ToolEnv):
    """Pay an amount exactly, in as few coins as possible."""

    max_steps = 8

    class Task(ae.Task):
        """What is to be paid, in cents."""

        amount: int

    class State(ae.State):
        """What is left to pay."""

        left: int = 0

    def start(self, task: Task) -> str:
        """Says the amount."""
        self.state.left = task.amount
        return f"Pay {task.amount} cents."

    @ae.tool
    def pay(self, coin: int) -> str:
        """Pay with a coin of 1, 5, 10 or 25 cents."""
        if coin not in {1, 5, 10, 25}:
            return f"There is no coin of {coin} cents."
        self.state.left -= coin
        if self.state.left > 0:
            return f"{self.state.left} left"
        return self.finish("paid", reward=1.0) if self.state.left == 0 else self.finish("too much")


def pay(task: Any, rng: np.random.Generator, *, slips: float) -> list[ToolCall]:
    """Pays greedily; slips now and then, to any coin."""
    left, calls = task.amount, list[ToolCall]()
    while left > 0 and len(calls) < 8:
        coin = next(coin for coin in (25, 10, 5, 1) if coin <= left)
        coin = int(rng.choice([1, 5, 10, 25])) if rng.random() < slips else coin
        calls.append(ToolCall("pay", {"coin": coin}))
        left -= coin
    return calls


ON_A_CPU: dict[str, Any] = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": []}
SIZES: dict[str, Any] = {"num_rollouts": 6, "num_continuations": 2, "max_action_tokens": 24, "learning_rate": 5e-4}


def main() -> None:
    """Trains, and prints success on held-out amounts before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--updates", type=int, default=60, help="of the imitation, per play")
    parser.add_argument("--folder", default="runs/coins")
    args = parser.parse_args()
    amounts = np.random.default_rng(0).permutation(np.arange(1, 100)).tolist()
    tasks = [Coins.Task(amount=amount) for amount in amounts]
    plays = [Play(f"{slips:.0%} slips", partial(pay, slips=slips), args.updates) for slips in (0.0, 0.5)]
    model, tokenizer = warm_start(Coins, plays, tasks=tasks[:70] * 8)
    settings = TreeConfig(
        args.folder,
        max_steps=args.steps,
        per_device_train_batch_size=8,  # tasks, and so trees, per step
        per_device_eval_batch_size=29,
        eval_strategy="steps",
        eval_steps=max(1, args.steps // 3),
        eval_on_start=True,
        save_trees_steps=args.steps,
        save_strategy="no",
        **SIZES,
        **ON_A_CPU,
    )
    train = partial(TreeTrainer, train_tasks=tasks[:70], eval_tasks=tasks[70:], estimator=rtmc_advantages)
    trainer = train(model, settings, env=Coins, processing_class=tokenizer)
    trainer.train()
    found = [log["eval_success"] for log in trainer.state.log_history if "eval_success" in log]
    print(f"success on {len(tasks[70:])} held-out amounts: {found[0]:.2f} before, {found[-1]:.2f} after")
    print(f"look at {args.folder}/curve.png and {args.folder}/trees/")


if __name__ == "__main__":
    main()
