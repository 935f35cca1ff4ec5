"""Is the loss that is trained the loss that is certified? Tabular problems as environments, a table as the model.

    python benchmarks/trained_loss.py                                  # all problems (about 10 minutes on one core)
    python benchmarks/trained_loss.py --problem sparse --groups 2000   # one, closely
    python benchmarks/trained_loss.py --json trained_loss.json

Each problem of `agentenv.credit.problems` becomes an environment that says its state as one token and takes its action
as one token. The model is a transformers model whose next-token logits are a table of the last token. `TreeTrainer`
grows trees with it (4 full episodes, 4 continuations, per group), and the gradient of TRL's loss, through
`TreeTrainer.compute_loss`, is averaged over generations. Printed is the cosine of its expectation with the exact
gradient of the expected return: 1 means that training goes, on average, exactly uphill. The length of the expectation
is estimated without the sampling noise, by products of different generations, so that few groups do not look biased
(and 1.002 is 1); `error` is the standard error, by jackknife over generations.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import agentenv as ae
from agentenv.arrays import TreeArrays
from agentenv.credit import Allocator, StepAdvantages, TraceAllocator, dr_grpo_advantages, rtmc_advantages
from agentenv.credit.predictor import Prefix
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.tabular import TabularMDP
from agentenv.trainers import TreeConfig, TreeTrainer
from agentenv.tree import Anchor, EpisodeTree

FloatArray = NDArray[np.float64]

_NEVER = -30.0
"""The logit of what is never said."""

_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}<end>{% endif %}"
    "{% endfor %}"
)


class TabularEnv(ae.Env):
    """A `TabularMDP` as an environment: it says `s3`, is told `a1`, and says the state that follows."""

    max_steps = None

    class State(ae.State):
        """Where the episode is."""

        place: int = 0

    def __init__(self, problem: TabularMDP) -> None:
        super().__init__(tasks=[{"id": problem.name}])
        self._problem = problem
        self._moves = np.cumsum(problem.transitions, axis=2)

    def start(self, task: Any) -> str:
        """Says the first state; there is nothing else to do."""
        del task
        return "s0"

    def respond(self, action: ae.Action) -> str:
        """Moves, and says where to."""
        row = self._moves[self.state.place, int(action.content.removeprefix("a"))]
        self.state.place = int(np.searchsorted(row, self.np_random.random() * row[-1], side="right"))
        self.add_reward(float(self._problem.rewards[self.state.place]))
        said = f"s{self.state.place}"
        return self.finish(said) if self._problem.terminal[self.state.place] else said


def table_model(problem: TabularMDP) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Builds a model whose logits after a state's token are the logarithm of the problem's policy there.

    One layer whose output is 0 leaves a one-hot vector of the last token before the head, whose weights `[V, V]` are
    therefore the table; nothing else is trained.
    """
    states, actions = problem.policy.shape
    words = ["<pad>", "<end>", *(f"a{a}" for a in range(actions)), *(f"s{s}" for s in range(states))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"<end>|[as][0-9]+"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.chat_template = _TEMPLATE
    size = len(words) + len(words) % 2
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=2,
            num_hidden_layers=1,
            num_attention_heads=1,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        eye: Any = torch.eye(size)
        model.model.embed_tokens.weight.copy_(eye)
        model.model.norm.weight.fill_(size**-0.5)  # undoes the normalization of a one-hot vector
        table = torch.full((size, size), _NEVER)
        table[1] = 0.0  # after an action the message ends
        first = 2 + actions
        table[1, first:] = _NEVER
        policy = torch.tensor(np.log(np.maximum(problem.policy, np.exp(_NEVER))), dtype=torch.float32)
        table[2:first, first : first + states] = policy.T
        model.lm_head.weight.copy_(table)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "lm_head.weight")
    return model, tokenizer


def random_anchors(trees: Sequence[EpisodeTree], budget: int, rng: np.random.Generator) -> list[Anchor]:
    """Continues from inner nodes drawn at random, whatever came of them."""
    anchors: list[Anchor] = []
    for i, tree in enumerate(trees):
        inner = [node for node in sorted(tree.snapshots) if node]
        if inner:
            nodes, counts = np.unique(rng.choice(inner, size=budget // len(trees)), return_counts=True)
            anchors += [Anchor(i, int(n), int(c)) for n, c in zip(nodes, counts, strict=True)]
    return anchors


class ExactPredictor:
    """Success rates of prefixes from the problem's exact values, so that TRACE's choice is as sharp as it can be."""

    def __init__(self, problem: TabularMDP) -> None:
        self._values = np.clip(problem.values(), 0.0, 1.0)

    def predict(self, prefixes: Sequence[Prefix]) -> FloatArray:
        """Reads the state that a prefix ends with."""
        return self._values[[int(prefix.text.rpartition("s")[2]) for prefix in prefixes]]

    def update(self, prefixes: Sequence[Prefix], targets: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Has nothing to learn."""


def forks_of(problem: TabularMDP) -> dict[str, Allocator | None]:
    """Ways to spend the continuations, by name; none for chains."""
    return {
        "chains": None,
        "random": random_anchors,
        "TRACE": TraceAllocator(ExactPredictor(problem), maximum=8),
        "TRACE unseen": TraceAllocator(ExactPredictor(problem), maximum=8, outcomes="unseen"),
    }


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    problem: str
    forks: str
    estimator: str
    weights: str
    cosine: float
    error: float
    groups: int
    steps_per_group: float


class Harness:
    """A trainer whose model is the table of a problem."""

    def __init__(
        self,
        problem: TabularMDP,
        folder: Path,
        *,
        allocator: Allocator | None,
        groups: int,
        num_rollouts: int = 4,
        num_continuations: int = 4,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        self.problem = problem
        model, tokenizer = table_model(problem)
        args = TreeConfig(
            output_dir=str(folder),
            per_device_train_batch_size=groups,
            gradient_accumulation_steps=1,
            num_rollouts=num_rollouts,
            num_continuations=num_continuations if allocator else 0,
            max_action_tokens=2,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to=[],
            seed=seed,
            **settings,
        )
        self.trainer: Any = TreeTrainer(
            model,
            args,
            env=partial(TabularEnv, problem),
            train_tasks=[None] * groups,
            estimator=self._credit,
            processing_class=tokenizer,
            allocator=allocator or "even",
        )
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = 1
        self.estimator: Callable[[TreeArrays], StepAdvantages] = dr_grpo_advantages

    def _credit(self, arrays: TreeArrays) -> StepAdvantages:
        return self.estimator(arrays)

    def sample(self) -> list[EpisodeTree]:
        """Grows a generation of trees."""
        self.trainer._metrics["train"].clear()
        return self.trainer._grow(list(range(self.trainer.args.per_device_train_batch_size)), "train")

    def gradient(self, trees: list[EpisodeTree]) -> FloatArray:
        """Computes the gradient of TRL's loss on trees, uphill, in the logits of the policy: `[S, A]`."""
        trainer = self.trainer

        def given(*_: object) -> list[EpisodeTree]:
            return trees

        trainer._grow = given
        try:
            batch = trainer._generate_and_score_completions([{"prompt": "", "task": i} for i in range(len(trees))])
        finally:
            del trainer._grow
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, batch).backward()
        states, actions = self.problem.policy.shape
        table = trainer.model.lm_head.weight.grad
        return -table[2 : 2 + actions, 2 + actions : 2 + actions + states].T.double().numpy()


def cosine_of_mean(samples: FloatArray, exact: FloatArray) -> float:
    """Estimates the cosine of the expectation of samples `[B, ...]` with `exact`, without their noise."""
    count, flat = len(samples), samples.reshape(len(samples), -1)
    total = flat.sum(0)
    squared = (total @ total - (flat * flat).sum()) / (count * (count - 1))
    return float(total @ exact.ravel() / count / np.sqrt(max(squared, 1e-300)) / np.linalg.norm(exact))


def cosine_with_error(samples: FloatArray, exact: FloatArray) -> tuple[float, float]:
    """The same, with its standard error by jackknife."""
    left = [cosine_of_mean(np.delete(samples, i, axis=0), exact) for i in range(len(samples))]
    return cosine_of_mean(samples, exact), float(np.std(left) * np.sqrt(len(samples) - 1))


Estimators = dict[str, Callable[[TreeArrays], StepAdvantages]]


def measure(
    name: str,
    *,
    forks: str,
    estimators: Estimators,
    weights: Sequence[str],
    groups: int,
    batch: int = 50,
    seed: int = 0,
) -> list[Result]:
    """Compares the mean trained gradient with the exact one, for estimators and weights on the same trees.

    Args:
        name: of the problem.
        forks: where continuations start, a name of `forks_of`.
        estimators: by name.
        weights: `step_weights` to compare.
        groups: trees in all.
        batch: trees per generation.
        seed: of the sampling.
    """
    problem: TabularMDP = PROBLEMS[name]()
    exact, allocator = problem.gradient(), forks_of(problem)[forks]
    samples: dict[tuple[str, str], list[FloatArray]] = {(e, w): [] for e in estimators for w in weights}
    steps = 0
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(problem, Path(folder), allocator=allocator, groups=batch, seed=seed)
        for number in range(groups // batch):
            harness.trainer.state.global_step = number  # the next seeds
            trees = harness.sample()
            steps += sum(len(tree) - 1 for tree in trees)
            for (estimator, weight), taken in samples.items():
                harness.estimator = estimators[estimator]
                harness.trainer.args.step_weights = weight
                taken.append(harness.gradient(trees))
        harness.trainer.close()
    return [
        Result(name, forks, *key, *cosine_with_error(np.array(taken), exact), len(taken) * batch, steps / groups)
        for key, taken in samples.items()
    ]


ESTIMATORS: Estimators = {"Dr.GRPO": dr_grpo_advantages, "RTMC": partial(rtmc_advantages, discount=1.0)}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", default=["sparse", "long", "irrecoverable", "tree"], choices=PROBLEMS)
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--forks", nargs="+", default=["chains", "random", "TRACE", "TRACE unseen"])
    parser.add_argument("--weights", nargs="+", default=["unique", "counts", "occupancy", "graph"])
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    results: list[Result] = []
    print("problem        forks         estimator  weights    cosine  error  steps per group")
    for problem in options.problem:
        for forks in options.forks:
            weights = options.weights if forks != "chains" else ["occupancy"]
            new = measure(problem, forks=forks, estimators=ESTIMATORS, weights=weights, groups=options.groups)
            for r in new:
                print(
                    f"{r.problem:14} {r.forks:13} {r.estimator:10} {r.weights:10} {r.cosine:6.3f} {r.error:6.3f} "
                    f"{r.steps_per_group:8.1f}",
                    flush=True,
                )
            results += new
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=2))


if __name__ == "__main__":
    main()
