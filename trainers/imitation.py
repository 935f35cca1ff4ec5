"""Warm start by imitation: a model learns to write what the assistant wrote in given conversations.

Reinforcement learning cannot begin at zero: an agent that never calls a tool never sees a reward. So a fresh model
first copies scripted play, careful play long enough for the skills to form, then sloppy play, so that it errs often and
in many ways and has something left to learn. Only the tokens that the agent itself would sample are trained, and they
stand in exactly the contexts in which a `TransformersAgent` will see them.

Matrices inside the layers learn by Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"), the
rest by AdamW: on a model this small that takes several times fewer updates than AdamW alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agentenv.agents.chat import ChatFormat
from agentenv.protocols import Context, SteppableEnv
from agentenv.tokens import TokenIds
from agentenv.types import Action, Message, ToolSchema

from .muon import muon_for

__all__ = [
    "BATCH_SIZE",
    "MATRIX_LR",
    "OTHER_LR",
    "Example",
    "Phase",
    "encode_conversation",
    "imitate",
    "play_script",
    "progress_bar",
]

Conversation = Sequence[Message]

BATCH_SIZE = 16
"""Conversations per update."""
MATRIX_LR, OTHER_LR = 0.005, 0.01
"""Learning rates of Muon and of AdamW, for a model 128 wide."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of imitation.

    Attributes:
        name: for the progress bar.
        conversations: what to imitate; drawn in random order, again and again when there are too few.
        updates: how many times to update the model.
    """

    name: str
    conversations: Sequence[Conversation]
    updates: int


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation as a model sees it.

    Attributes:
        token_ids: `[L]` the ids, from the first prompt to the end of the last action.
        sampled: `[L]` whether the agent samples the token; the others it is given.
    """

    token_ids: tuple[int, ...]
    sampled: tuple[bool, ...]


def play_script(
    env: SteppableEnv, actions: Sequence[Action], *, task: Any = None, seed: int | None = None
) -> list[Message]:
    """Plays a script in an environment and returns the conversation, up to the last action.

    What the environment would answer to the last action is not asked for: nothing could be learned from it, and
    verifying an answer takes time.

    Args:
        env: where to play; it is reset.
        actions: what to do, at least one action.
        task: the task, where the environment does not choose it.
        seed: of the reset.

    Raises:
        ValueError: there is no action, or the episode ended before the last one.
    """
    if not actions:
        msg = "actions must hold at least one action, got none"
        raise ValueError(msg)
    observation, _ = env.reset(seed=seed, options=None if task is None else {"task": task})
    conversation = list(observation)
    for number, action in enumerate(actions[:-1]):
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            msg = (
                f"actions must not go on after the end of the episode: it ended with action {number} of {len(actions)}"
            )
            raise ValueError(msg)
        conversation += [action.to_message(), *observation]
    return [*conversation, actions[-1].to_message()]


def encode_conversation(chat: ChatFormat, conversation: Conversation, *, tools: Sequence[ToolSchema] = ()) -> Example:
    """Returns the ids of a conversation exactly as an agent meets them, turn by turn.

    Args:
        chat: the chat format of the agent.
        conversation: messages of which the last is the assistant's.
        tools: the schemas that the agent is shown.

    Raises:
        ValueError: the last message is not the assistant's.
    """
    if not conversation or conversation[-1]["role"] != "assistant":
        msg = f"conversation must end with a message of the assistant, got {conversation[-1:]!r}"
        raise ValueError(msg)
    ids = TokenIds()
    sampled: list[bool] = []
    covered = 0
    for number, message in enumerate(conversation):
        if message["role"] != "assistant":
            continue
        prompt = TokenIds(chat.prompt(Context(tuple(conversation[:number]), tuple(tools), ids, covered)))
        sampled += [False] * (len(prompt) - len(sampled))
        ids = prompt + chat.action_ids(message, tools=tools)
        sampled += [True] * (len(ids) - len(sampled))
        covered = number + 1
    return Example(tuple(ids), tuple(sampled))


def imitate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    phases: Sequence[Phase],
    *,
    tools: Sequence[ToolSchema] = (),
    batch_size: int = BATCH_SIZE,
    matrix_lr: float = MATRIX_LR,
    other_lr: float = OTHER_LR,
    seed: int = 0,
    progress: bool = True,
) -> list[float]:
    """Trains a model on conversations by maximum likelihood of the assistant's tokens.

    Each update minimizes `-mean log p(token | what stands before)` over the sampled tokens of a batch of conversations
    of similar length. The learning rates rise over 30 updates, stay for half of all, and then fall in a line to 3 %.

    Args:
        model: changed in place; left in the mode, training or evaluation, in which it came.
        tokenizer: with a chat template.
        phases: what to imitate, in order.
        tools: the schemas that the agent will be shown.
        batch_size: conversations per update.
        matrix_lr: learning rate of Muon, for matrices inside the layers.
        other_lr: learning rate of AdamW, for embeddings and norms.
        seed: of the order of the conversations.
        progress: shows a progress bar.

    Returns:
        The loss of every update, in nats per token.

    Raises:
        ValueError: there is no phase, or one has no conversations.
    """
    total = sum(phase.updates for phase in phases)
    if not total or not all(phase.conversations for phase in phases):
        sizes = [(phase.name, phase.updates, len(phase.conversations)) for phase in phases]
        msg = f"phases must have updates and conversations, got {sizes}"
        raise ValueError(msg)
    chat = ChatFormat(tokenizer)
    rng = np.random.default_rng(seed)
    optimizers = _optimizers(model, matrix_lr, other_lr)
    losses: list[float] = []
    was_training = model.training
    model.train()
    with progress_bar(TextColumn("loss {task.fields[loss]:.2f}"), shown=progress) as bar:
        line = bar.add_task("imitation", total=total, loss=float("nan"))
        for phase in phases:
            examples = [encode_conversation(chat, one, tools=tools) for one in phase.conversations]
            batches = _batches(examples, batch_size, rng)
            for _ in range(phase.updates):
                share = _schedule(len(losses), total)
                losses.append(_update(model, next(batches), optimizers, share))
                recent = float(np.mean(losses[-20:]))
                bar.update(line, advance=1, description=f"imitating {phase.name}", loss=recent)
    model.train(was_training)
    return losses


def progress_bar(*more: ProgressColumn, shown: bool) -> Progress:
    """Returns a bar that says what is done, how much of it and how long it will take; with more columns."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, *more, disable=not shown)


def _schedule(update: int, total: int) -> float:
    return min(1.0, (update + 1) / 30) * min(1.0, max(0.03, 2 * (1 - update / total)))


def _optimizers(model: PreTrainedModel, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    outer = {id(p) for end in ends if end is not None for p in end.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    inner = [p for p in trained if p.ndim == 2 and id(p) not in outer]
    rest = [p for p in trained if p.ndim != 2 or id(p) in outer]
    muon = muon_for(model)(inner, lr=matrix_lr, momentum=0.9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=other_lr, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adamw]


def _length(example: Example) -> int:
    return len(example.token_ids)


def _batches(examples: Sequence[Example], size: int, rng: np.random.Generator) -> Iterator[list[Example]]:
    """Yields batches for ever: the examples in random order, sorted by length within runs of eight batches."""
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order), 8 * size):
            run = sorted((examples[i] for i in order[start : start + 8 * size]), key=_length)
            batches = [run[i : i + size] for i in range(0, len(run), size)]
            for i in rng.permutation(len(batches)):
                yield batches[i]


def _update(
    model: PreTrainedModel, batch: Sequence[Example], optimizers: Sequence[torch.optim.Optimizer], share: float
) -> float:
    """Takes one step down the loss of a batch, at `share` of the peak learning rates, and returns the loss."""
    width = max(map(_length, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    sampled = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, one in enumerate(batch):
        ids[row, : _length(one)] = torch.tensor(one.token_ids)
        sampled[row, : _length(one)] = torch.tensor(one.sampled)
    ids, sampled = ids.to(model.device), sampled.to(model.device)
    # Right padding: no real token looks at it, so no mask is needed.
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1][sampled[:, 1:]]
    loss = torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][sampled[:, 1:]])
    for optimizer in optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()
