"""The same training twice: TRL's own GRPOTrainer in one of our environments, and TreeTrainer beside it.

python examples/stock_trl.py                                        # a step of a tiny random model: what goes where
python examples/stock_trl.py --model Qwen/Qwen3-0.6B --steps 100    # a model that can learn; wants a GPU
"""

import argparse
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.chat_template_utils import qwen3_chat_template
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from agentenv.credit import rtmc_advantages
from agentenv.envs.math_verifier import MathVerifier
from agentenv.trainers import TreeConfig, TreeTrainer, as_trl_environment, trl_rows
from agentenv.trainers.demo import demo_tasks
from agentenv.trainers.tiny import make_tiny_model

TASKS = demo_tasks(8, seed=0)
ENV = partial(MathVerifier, tasks=TASKS, max_steps=4)


def load(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer; for both trainers the same, from the same weights."""
    if name != "tiny":
        return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    sizes: dict[str, Any] = {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "context_length": 4096}
    model, tokenizer = make_tiny_model([[{"role": "user", "content": "Compute 1 + 2."}]], **sizes)
    tokenizer.chat_template = qwen3_chat_template  # TRL's tool loop wants a template that it knows
    return model, tokenizer


def stock(name: str, shared: dict[str, Any]) -> Any:
    """TRL's tool loop: four episodes of each task, one advantage for all tokens of an episode."""
    model, tokenizer = load(name)
    args = GRPOConfig("runs/stock", num_generations=4, max_completion_length=64, **shared)
    rows = Dataset.from_list(trl_rows(ENV, range(len(TASKS))))
    return GRPOTrainer(
        model=model,
        args=args,
        processing_class=tokenizer,
        train_dataset=rows,
        environment_factory=as_trl_environment(ENV),
    )


def ours(name: str, shared: dict[str, Any]) -> Any:
    """Three episodes of each task and a fourth from mid-episode, and an advantage for every step."""
    model, tokenizer = load(name)
    sizes: dict[str, Any] = {"num_rollouts": 3, "num_continuations": 1, "max_action_tokens": 16}
    sizes |= shared | {"per_device_train_batch_size": 2}  # tasks, not episodes
    args = TreeConfig("runs/trees", **sizes)
    train = partial(TreeTrainer, train_tasks=TASKS, estimator=partial(rtmc_advantages, discount=1.0))
    return train(model, args, env=ENV, processing_class=tokenizer)


def main() -> None:
    """Trains with one and then with the other, and prints what each says of its last step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", metavar="NAME|FOLDER", help="by default one made on the spot")
    parser.add_argument("--steps", type=int, default=1)
    args = parser.parse_args()
    shared: dict[str, Any] = {"max_steps": args.steps, "per_device_train_batch_size": 8, "learning_rate": 1e-6}
    shared |= {"logging_steps": 1, "report_to": [], "save_strategy": "no"}
    if not torch.cuda.is_available():
        shared |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    for title, make in (("GRPOTrainer", stock), ("TreeTrainer", ours)):
        trainer = make(args.model, shared)
        trainer.train()
        last = [log for log in trainer.state.log_history if "loss" in log][-1]
        print(f"{title}: step {trainer.state.global_step}, reward {last['reward']:.2f}, loss {last['loss']:.3g}")


if __name__ == "__main__":
    main()
