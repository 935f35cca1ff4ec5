"""Trees as the page reads them: a row per tree for the list, columns per node for the drawing, details for the panel.

Letters: `N` nodes. Entry `i` of every column belongs to node `i` and the step INTO it.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agentenv.arrays import NO_PARENT, TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.credit.trace import success_shares
from agentenv.stats import episodes
from agentenv.tree import EpisodeTree, Node
from agentenv.types import Action, message_images, message_reasoning, message_text

__all__ = ["Estimator", "chunks_of", "columns_of", "credit_of", "details_of", "encode", "row_of"]

Estimator = Callable[[TreeArrays], StepAdvantages]

_SHORT = 90
_CHUNK = 200_000
"""About how many characters of details travel together."""


def encode(value: object) -> bytes:
    """Returns a value as JSON that every browser reads: numbers that are not finite become text."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).encode()


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in cast("Mapping[Any, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in cast("Sequence[object]", value)]
    return value


def row_of(tree: EpisodeTree) -> dict[str, Any]:
    """Returns what the list of tasks shows of a tree."""
    ended = episodes(tree)
    through = [episode for episode in ended if episode.value is not None]
    question = next((message_text(m) for m in tree.nodes[0].observation if m["role"] == "user"), "")
    return {
        "task": tree.task_id,
        "env": tree.env_id,
        "begins": _short(question, 600),
        "episodes": len(through),
        "successes": sum(episode.succeeded for episode in through),
        "broken": len(ended) - len(through),
        "mean": _number(np.mean([e.value for e in through if e.value is not None])) if through else None,
        "steps": max((episode.steps for episode in ended), default=0),
        "nodes": len(tree),
        "forks": len(_forks(tree)),
    }


def columns_of(tree: EpisodeTree, predicted: NDArray[np.float64] | None = None) -> dict[str, Any]:
    """Returns what the drawing needs of a tree, one list per fact.

    Args:
        tree: the tree.
        predicted: `[N]` predicted success at each node, NaN where nothing was predicted; what an allocator recorded at
            its forks goes before it.
    """
    arrays = tree.arrays()
    shares = np.where(arrays.leaf_counts > 0, success_shares(arrays), np.nan)
    forks = _forks(tree)
    said = np.full(len(tree), np.nan) if predicted is None else predicted.copy()
    for fork in forks:
        if fork.get("predicted") is not None:
            said[fork["node"]] = fork["predicted"]
    ends = [1 if n.terminated else 2 if n.truncated else 3 if n.reward is None else 0 for n in tree.nodes]
    return {
        "parents": [node.parent for node in tree.nodes],
        "rewards": [node.reward for node in tree.nodes],
        "ends": ends,
        "rollouts": [node.rollout for node in tree.nodes],
        "labels": [_label(node) for node in tree.nodes],
        "answers": [_answer(node) for node in tree.nodes],
        "shares": _numbers(shares),
        "predicted": _numbers(said),
        "leaves": arrays.leaf_counts.tolist(),
        "tokens": [len(node.action.token_ids or ()) if node.action else 0 for node in tree.nodes],
        "success": [tree.succeeded(i) if not tree.children(i) and i else None for i in range(len(tree))],
        "forks": forks,
        "threshold": tree.success_threshold,
        "metadata": json.dumps(tree.metadata, default=str, ensure_ascii=False),
    }


def credit_of(trees: Sequence[EpisodeTree], estimator: Estimator) -> list[dict[str, Any]]:
    """Returns the credit of each tree, `A`, `Q`, `V` and `N` per node, computed from all of them together.

    Trees without a step, which estimators refuse, have none, and take it from no other.

    Raises:
        ValueError: the estimator refuses the trees.
    """
    grown = [tree for tree in trees if len(tree) > 1]
    if not grown:
        return [{name: [None] for name in "AQVN"} for _ in trees]
    steps = estimator(TreeArrays.from_trees(grown))
    fields = {"A": steps.advantages, "Q": steps.action_values, "V": steps.values, "N": steps.counts}
    bounds = pairwise([0, *accumulate(len(tree) for tree in grown)])
    parts = iter([{name: _numbers(values[a:b]) for name, values in fields.items()} for a, b in bounds])
    return [next(parts) if len(tree) > 1 else {name: [None] for name in fields} for tree in trees]


def chunks_of(tree: EpisodeTree) -> list[range]:
    """Returns the nodes whose details travel together: as many in a row as make about 200,000 characters."""
    chunks, first, size = list[range](), 0, 0
    for i, node in enumerate(tree.nodes):
        action = node.action or Action()
        size += len(action.content) + len(action.reasoning) + 12 * len(action.token_ids or ()) + 300
        size += sum(len(message_text(message)) for message in node.observation)
        if size >= _CHUNK:
            chunks.append(range(first, i + 1))
            first, size = i + 1, 0
    return chunks + ([range(first, len(tree))] if first < len(tree) else [])


def details_of(tree: EpisodeTree, nodes: range, text_of: Callable[[int], str] | None = None) -> dict[str, Any]:
    """Returns everything that nodes say.

    Args:
        tree: the tree.
        nodes: which of its nodes.
        text_of: a token's text, where a tokenizer is at hand.

    Returns:
        `nodes`, their details in order; and `texts`, the text of each token among them.
    """
    details = [_details(tree.nodes[i]) for i in nodes]
    known = {token for entry in details for token in entry.get("tokens", ())} if text_of else set[int]()
    return {"nodes": details, "texts": {str(token): text_of(token) for token in sorted(known)} if text_of else {}}


def _details(node: Node) -> dict[str, Any]:
    action = node.action or Action()
    info = dict(node.info)
    rewards = info.pop("rewards", None)
    entry: dict[str, Any] = {
        "content": action.content,
        "reasoning": action.reasoning,
        "calls": [{"name": call.name, "arguments": _arguments(call.arguments)} for call in action.tool_calls],
        "finish": action.finish_reason,
        "observation": [_message(message) for message in node.observation],
        "rewards": rewards if isinstance(rewards, Mapping) else {},
        "mistakes": [str(mistake) for mistake in info.pop("mistakes", None) or ()],
        "failure": str(info.pop("failure", "")),
        "info": json.dumps(info, indent=1, ensure_ascii=False, default=str) if info else "",
        "cost": {k: v for k, v in dataclasses.asdict(node.cost).items() if v},
        "state": node.state_signature,
        "signature": node.action_signature,
        "attempt": node.attempt,
        "version": None if action.weight_version is None else str(action.weight_version),
    }
    if action.token_ids:
        entry["tokens"] = [int(token) for token in action.token_ids]
        entry["logprobs"] = None if action.logprobs is None else [_number(p) for p in action.logprobs]
    return entry


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": str(message.get("role", "")), "text": message_text(message)}
    if name := message.get("name"):
        said["name"] = str(name)
    if thought := message_reasoning(message):
        said["reasoning"] = thought
    return said | {"images": message_images(message)}


def _arguments(arguments: Mapping[str, Any] | str) -> str:
    """As text: integers that a browser would round stay exact."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, indent=1, ensure_ascii=False, default=str)


def _forks(tree: EpisodeTree) -> list[dict[str, Any]]:
    """Lists where rollouts went on from the middle of others: node, first step after it, who chose it where known."""
    found: list[dict[str, Any]] = []
    for i, node in enumerate(tree.nodes):
        before = tree.nodes[node.parent] if node.parent > 0 else None
        if before is None or (before.rollout, before.attempt) == (node.rollout, node.attempt):
            continue
        told = {} if node.fork is None else dataclasses.asdict(node.fork)
        found.append({"node": node.parent, "child": i, "rollout": node.rollout, **told})
    return found


def _label(node: Node) -> str:
    """An action on one short line."""
    if node.parent == NO_PARENT:
        return "start"
    action = node.action or Action()
    parts = [_short(action.content, 60)] if action.content.strip() else []
    for call in action.tool_calls:
        raw = call.arguments
        inside = raw if isinstance(raw, str) else ", ".join(_value(v) for v in raw.values())
        parts.append(f"{call.name}({_short(inside, 50)})")
    return _short("; ".join(reversed(parts)), _SHORT) or "(nothing)"


def _value(value: object) -> str:
    return _short(value, 40) if isinstance(value, str) else _short(json.dumps(value, default=str), 40)


def _answer(node: Node) -> str:
    if node.reward is None:
        return _short(str(node.info.get("failure", "infrastructure failed")), _SHORT)
    return _short(" ".join(message_text(message)[:400] for message in node.observation), _SHORT)


def _short(text: str, limit: int) -> str:
    flat = " ".join(text[: 4 * limit].split())
    return flat if len(flat) <= limit and len(text) <= 4 * limit else flat[: limit - 1] + "…"


def _number(value: Any) -> float | None:
    number = float(value)
    return float(f"{number:.5g}") if math.isfinite(number) else None


def _numbers(values: NDArray[Any]) -> list[float | None]:
    return [_number(value) for value in values.tolist()]
