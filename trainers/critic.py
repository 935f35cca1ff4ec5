"""A critic of tokens: the probability of success before every token, learned from outcomes.

It stands outside the policy: it reads the policy's hidden states, or is a model of its own, and neither is in the
policy's state dict, its optimizer, or what is sent to a sampler.

Letters: `B` rows, `L` tokens, `H` width of hidden states, `A` prefixes that the critic is asked about.
"""

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from agentenv.credit import step_weights
from agentenv.credit.trace import success_shares

from .critic_predictor import CriticPredictor
from .layout import Rows

__all__ = ["Prefixes", "TokenCritic", "outcome_targets", "trained_prefixes"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Prefixes:
    """Prefixes of token rows: what a critic is asked about. Prefix `a` is `token_ids[rows[a], : places[a]]`."""

    token_ids: IntArray  # [B, L]
    rows: IntArray  # [A] in [0, B)
    places: IntArray  # [A] number of tokens of the prefix, in [1, L]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of_tokens(cls, sequences: Sequence[Sequence[int]]) -> "Prefixes":
        """Makes prefixes of token sequences; one that another begins with shares its row."""
        order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
        kept: list[Sequence[int]] = []
        rows = np.zeros(len(sequences), dtype=np.int64)
        for i in reversed(order):  # a sequence stands before all that begin with it
            own = sequences[i]
            if not kept or tuple(kept[-1][: len(own)]) != tuple(own):
                kept.append(own)
            rows[i] = len(kept) - 1
        token_ids = np.zeros((len(kept), max(map(len, kept), default=1)), dtype=np.int64)
        for row, tokens in enumerate(kept):
            token_ids[row, : len(tokens)] = tokens
        return cls(token_ids, rows, np.array([len(own) for own in sequences], dtype=np.int64))


def trained_prefixes(rows: Rows) -> tuple[Prefixes, IntArray]:
    """Lists the prefixes before all trained tokens, ordered by node and then by place, whatever the layout's order.

    Returns:
        The prefixes `[A]` and the node `[A]` that each token belongs to.
    """
    row, place = np.nonzero(rows.trained)
    node = rows.nodes[row, place]
    order = np.lexsort((place, node))
    return Prefixes(rows.token_ids, row[order], place[order]), node[order]


def outcome_targets(rows: Rows, nodes: IntArray, weights: str) -> tuple[FloatArray, FloatArray]:
    """The outcomes `[A]` below trained tokens, and their weights.

    The weights of a tree sum to the number of its rollouts from the root; within it, a token weighs what its step
    does in the loss.
    """
    arrays = rows.arrays
    shares = success_shares(arrays)[nodes]
    own = step_weights(arrays, weights)
    weight, trees = own[nodes], arrays.tree_ids[nodes]
    total = np.bincount(trees, weight, arrays.num_trees)
    rollouts = np.bincount(arrays.tree_ids[arrays.is_root], own[arrays.is_root], arrays.num_trees)
    return np.clip(shares, 0.0, 1.0), weight * (rollouts / np.where(total > 0, total, 1.0))[trees]


class TokenCritic:
    """Estimates the probability of success before every token, by a head on hidden states.

    The head is a layer norm, one hidden layer and a logit that begins at 0, so at a probability of one half. It learns
    from Monte Carlo outcomes at k = 1, without bootstrapping, by the weighted cross-entropy

        L = - sum_a w_a [Y_a log p_a + (1 - Y_a) log(1 - p_a)] / sum_a w_a

    whose minimum is p = P(success | prefix); Y may be a share of successes. Pass@k is computed from p afterwards: from
    single outcomes no unbiased target of Pass@k exists for k above 1. Source: SR-PPO (arXiv 2606.25451), which
    attests a token-level critic regressed on outcomes; the form of head and loss is ours.

    Args:
        model: returns the model whose hidden states are read.
        own: whether that model is the critic's own: it is trained along with the head. Hidden states of a policy are
            read only.
        learning_rate: of AdamW.
        epochs: passes over what it is given to learn, each in `minibatches` updates.
        minibatches: updates per pass.
        batch_size: rows per forward pass.
        hidden: width of the head's hidden layer.
        seed: of the head's weights.
        add_up: sums a tensor over all processes; they must learn at the same time.
        precision: a context in which the model computes.

    Attributes:
        updates: how often it has learned.
    """

    def __init__(
        self,
        model: Callable[[], torch.nn.Module],
        *,
        own: bool = False,
        learning_rate: float = 1e-3,
        epochs: int = 2,
        minibatches: int = 4,
        batch_size: int = 16,
        hidden: int = 64,
        seed: int = 0,
        add_up: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        config: Any = model().config
        width = int(config.get_text_config().hidden_size)
        self._model, self._own, self._device = model, own, next(model().parameters()).device
        self._epochs, self._minibatches, self._batch_size = epochs, minibatches, batch_size
        self._add_up, self._precision = add_up, precision
        self.updates = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = torch.nn.Linear(hidden, 1)
            torch.nn.init.zeros_(last.weight)
            torch.nn.init.zeros_(last.bias)
            norm = torch.nn.LayerNorm(width, elementwise_affine=False)
            self.head = torch.nn.Sequential(norm, torch.nn.Linear(width, hidden), torch.nn.GELU(), last)
        self.head.to(self._device)
        learned = [*self.head.parameters(), *(model().parameters() if own else ())]
        self._parameters = [parameter for parameter in learned if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=learning_rate, weight_decay=0.01)

    def predict(self, prefixes: Prefixes) -> FloatArray:
        """Returns the probability of success `[A]` of each prefix."""
        return self._probabilities(self._read(prefixes))

    def success_after(self, sequences: Sequence[Sequence[int]]) -> FloatArray:
        """Returns the probability of success `[A]` after each sequence of tokens."""
        return self.predict(Prefixes.of_tokens(sequences))

    def learn(
        self, prefixes: Prefixes, targets: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0
    ) -> FloatArray:
        """Learns outcomes, and returns the probabilities `[A]` that it gave *before* it learned them.

        Args:
            prefixes: `[A]`, on this process; may be none.
            targets: `[A]` outcome, or share of successes, below each prefix, in [0, 1].
            weights: `[A]` at least 0.
            seed: of the order.

        Raises:
            ValueError: targets or weights of another length, or out of range.
            FloatingPointError: the loss is not finite; the critic is left as it was before that update.
        """
        target = _numbers("targets", targets, len(prefixes), most=1.0)
        weight = _numbers("weights", np.ones(len(prefixes)) if weights is None else weights, len(prefixes))
        hidden = self._read(prefixes)
        before = self._probabilities(hidden)
        rng = np.random.default_rng(seed)
        wanted, counted = (torch.from_numpy(array).to(self._device, torch.float32) for array in (target, weight))
        for _ in range(self._epochs):
            order = rng.permutation(len(prefixes.token_ids))
            for part in np.array_split(order, self._minibatches):
                self._update(prefixes, None if self._own else hidden, wanted, counted, part)
        self.updates += 1
        return before

    def predictor(self) -> CriticPredictor:
        """Returns what TRACE's allocators ask: this critic at the ends of prefixes."""
        return CriticPredictor(self.success_after)

    def state_dict(self) -> dict[str, Any]:
        """Returns weights, optimizer and counts."""
        own = self._model().state_dict() if self._own else None
        parts = {"head": self.head.state_dict(), "optimizer": self._optimizer.state_dict(), "model": own}
        return copy.deepcopy(parts) | {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the state that `state_dict` gave.

        Raises:
            ValueError: it is that of a critic with a model of its own, and this one has none, or the other way round.
        """
        if (state["model"] is None) is self._own:
            kinds = ("has a model of its own", "reads the policy's hidden states")
            now, then = kinds if self._own else kinds[::-1]
            msg = f"this critic {now}, that of the checkpoint {then}: give the same critic_model"
            raise ValueError(msg)
        if self._own:
            self._model().load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share its tensors
        self.updates = int(state["updates"])

    def _update(
        self,
        prefixes: Prefixes,
        hidden: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        part: IntArray,
    ) -> None:
        """Makes one step on the rows of `part`; with nothing there, the step that other processes ask for."""
        self._optimizer.zero_grad()
        sums = torch.zeros(2, device=self._device)
        chunks = [part] if hidden is not None else np.array_split(part, -(-len(part) // self._batch_size) or 1)
        for chunk in chunks:
            index = np.flatnonzero(np.isin(prefixes.rows, chunk))
            if not len(index):
                continue
            where = torch.from_numpy(index).to(self._device)
            read = self._hidden(prefixes, index) if hidden is None else hidden[where]
            logits = self.head(read).squeeze(1)
            loss = binary_cross_entropy_with_logits(logits, targets[where], weights[where], reduction="sum")
            loss.backward()
            sums += torch.stack([loss.detach(), weights[where].sum()])
        loss_sum, total = self._add_up(sums).tolist()
        if not np.isfinite(loss_sum):
            msg = (
                f"the critic's loss must be finite, got {loss_sum} in its update {self.updates + 1}: training stops; "
                "resume from the last checkpoint with a lower critic_learning_rate"
            )
            raise FloatingPointError(msg)
        if total <= 0:
            return
        for parameter in self._parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self._add_up(gradient) / total
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()

    @torch.no_grad()
    def _probabilities(self, hidden: torch.Tensor) -> FloatArray:
        if not len(hidden):
            return np.zeros(0)
        logits = torch.cat([self.head(part).squeeze(1).double() for part in hidden.split(4096)])
        values = torch.sigmoid(logits).cpu().numpy()
        if not np.isfinite(values).all():
            msg = "the critic's predictions must be finite: the hidden states that it reads, or its weights, are not"
            raise FloatingPointError(msg)
        return values.astype(np.float64)

    @torch.no_grad()
    def _read(self, prefixes: Prefixes) -> torch.Tensor:
        """Returns the hidden states `[A, H]` at the ends of prefixes; rows of like length are read together."""
        wanted = np.zeros(len(prefixes.token_ids), dtype=np.int64)
        np.maximum.at(wanted, prefixes.rows, prefixes.places)
        order = np.argsort(-wanted, kind="stable")
        hidden = torch.zeros(0, device=self._device)
        for start in range(0, len(order), self._batch_size):
            index = np.flatnonzero(np.isin(prefixes.rows, order[start : start + self._batch_size]))
            if not len(index):
                continue
            read = self._hidden(prefixes, index)
            if not len(hidden):
                hidden = read.new_zeros(len(prefixes), read.size(1))
            hidden[torch.from_numpy(index).to(self._device)] = read
        return hidden

    def _hidden(self, prefixes: Prefixes, index: IntArray) -> torch.Tensor:
        """Runs the model on the rows of some prefixes and returns the states at their ends, in float32."""
        rows, where = np.unique(prefixes.rows[index], return_inverse=True)
        ends = prefixes.places[index]
        ids = torch.from_numpy(prefixes.token_ids[rows, : int(ends.max())]).to(self._device)
        model = self._model()
        with _quiet(model), self._precision():
            states = _last_hidden(model, ids)
        return states[torch.from_numpy(where), torch.from_numpy(ends - 1)].float()


def _last_hidden(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Returns the last hidden states `[B, L, H]`. Padding on the right needs no mask: what comes later is not seen."""
    whole: Any = model
    inner: Any = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    backbone: Any = inner.base_model if isinstance(inner, PreTrainedModel) else inner
    if backbone is not inner:
        return backbone(input_ids=ids, use_cache=False).last_hidden_state
    output = inner(input_ids=ids, use_cache=False, output_hidden_states=True)
    return cast("torch.Tensor", output.hidden_states[-1])


@contextmanager
def _quiet(model: torch.nn.Module) -> Generator[None]:
    """Without dropout, and without gradient checkpointing, which some models warn about."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _numbers(name: str, values: ArrayLike, count: int, *, most: float = np.inf) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        msg = f"{name} must have shape [A] = [{count}], one per prefix, got {list(array.shape)}"
        raise ValueError(msg)
    bad = ~((array >= 0) & (array <= most) & np.isfinite(array))
    if bad.any():
        i = int(np.argmax(bad))
        msg = f"{name} must be finite and in [0, {most:g}]; entry {i} is {array[i]}"
        raise ValueError(msg)
    return array
