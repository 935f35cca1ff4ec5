"""Trees as trackio's traces: one trace a tree, whose spans are its nodes, so that branches stay branches.

A node is a span of kind `generation` below the span of its parent; the calls of its action are spans of kind `tool`
below it. The messages of a trace are the conversation of the trajectory with the largest return, the first of several.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError
from agentenv.tree import Node
from agentenv.types import Action, Message, message_text

from .credited import Credit, CreditedTree, Trees, read_credited

__all__ = ["log_to_trackio", "trackio_traces"]

Span = dict[str, Any]


def trackio_traces(trees: Trees, **credits: Credit) -> list[dict[str, Any]]:  # noqa: A002  the public word
    """Returns the arguments of `trackio.Trace` for each tree: `messages`, `metadata` and `spans`.

    Args:
        trees: a trees file, a tree, or several.
        credits: estimators, what they returned, or `[N]` numbers; in the metadata of the spans.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        ValueError: credit that is not `[N]`.
    """
    return [_trace(entry) for entry in read_credited(trees, credits)]


def log_to_trackio(
    trees: Trees,
    *,
    project: str,
    name: str | None = None,
    credits: Mapping[str, Credit] | None = None,  # noqa: A002  the public word
) -> int:
    """Logs trees to a project of trackio, as a run of its own with a tree a step; returns how many.

    Args:
        trees: a trees file, a tree, or several.
        project: the project's name; `trackio show --project NAME` shows it.
        name: of the run; trackio draws one without.
        credits: as for `trackio_traces`.

    Raises:
        MissingDependencyError: there is no trackio here.
        TreeFileError, OSError, ValueError: as for `trackio_traces`.
    """
    try:
        logger: Any = import_module("trackio")
    except ImportError as error:
        msg = f"log_to_trackio needs trackio: {install_module('trackio')}"
        raise MissingDependencyError(msg) from error
    traces = trackio_traces(trees, **(credits or {}))
    run = logger.init(project=project, name=name, embed=False, auto_log_gpu=False, auto_log_cpu=False)
    try:
        for step, trace in enumerate(traces):
            run.log({"tree": logger.Trace(**trace)}, step=step)
    finally:
        run.finish()
    return len(traces)


def _trace(entry: CreditedTree) -> dict[str, Any]:
    tree = entry.tree
    returns = {leaf: tree.episode_return(leaf) for leaf in tree.leaves() if leaf}
    known = {leaf: value for leaf, value in returns.items() if value is not None}
    best = max(known, key=lambda leaf: known[leaf]) if known else next(iter(returns), 0)
    wins = [bool(tree.succeeded(leaf)) for leaf in known]
    metadata = {
        "environment": tree.env_id,
        "task_id": tree.task_id,
        "tree": entry.number,
        "trajectories": len(returns),
        "failed": len(returns) - len(known),
        "success": sum(wins) / len(wins) if wins else None,
        "mean_return": sum(known.values()) / len(known) if known else None,
        "shown_leaf": best,
    }
    spans = [_root_span(entry)]
    for index in range(1, len(tree)):
        spans += _spans(entry, index)
    return {"messages": [_message(m) for m in tree.messages(best)], "metadata": metadata, "spans": spans}


def _root_span(entry: CreditedTree) -> Span:
    root = entry.tree.nodes[0]
    return {
        "id": "0",
        "name": entry.tree.task_id or entry.tree.env_id or "tree",
        "kind": "span",
        "output": [_message(message) for message in root.observation],
        "metadata": {"node": 0} | _credit(entry, 0),
    }


def _spans(entry: CreditedTree, index: int) -> list[Span]:
    """The span of a node, and those of its action's calls."""
    node = entry.tree.nodes[index]
    action = node.action or Action()
    failure = node.info.get("failure")
    span: Span = {
        "id": str(index),
        "parent_id": str(node.parent),
        "name": ", ".join(call.name for call in action.tool_calls) or "message",
        "kind": "generation",
        "input": [_message(message) for message in entry.tree.nodes[node.parent].observation],
        "output": _message(action.to_message()),
        "duration_ms": 1000.0 * node.cost.agent_seconds,
        "status": "error" if node.reward is None else "ok",
        "usage": {"prompt_tokens": node.cost.tokens_read, "completion_tokens": node.cost.tokens_sampled},
        "metadata": _about(node, index) | _credit(entry, index),
    }
    if failure is not None:
        span["error"] = str(failure)
    return [span, *_tool_spans(node, action, index)]


def _tool_spans(node: Node, action: Action, index: int) -> list[Span]:
    answers = [message for message in node.observation if message["role"] == "tool"]
    by_id = {message.get("tool_call_id"): message for message in answers if message.get("tool_call_id")}
    spans: list[Span] = []
    for number, call in enumerate(action.tool_calls):
        answer = by_id.get(call.id) or (answers[number] if number < len(answers) else None)
        spans.append(
            {
                "id": f"{index}.{number}",
                "parent_id": str(index),
                "name": call.name,
                "kind": "tool",
                "input": call.arguments,
                "output": None if answer is None else message_text(answer),
                "status": "error" if node.reward is None else "ok",
                **({"duration_ms": 1000.0 * node.cost.env_seconds} if len(action.tool_calls) == 1 else {}),
            }
        )
    return spans


def _about(node: Node, index: int) -> dict[str, Any]:
    about: dict[str, Any] = {"node": index, "rollout": node.rollout, "reward": node.reward}
    about |= {flag: True for flag in ("terminated", "truncated") if getattr(node, flag)}
    return about | ({"attempt": node.attempt} if node.attempt else {})


def _credit(entry: CreditedTree, index: int) -> dict[str, Any]:
    return {"credit": entry.credit_at(index)} if entry.credit else {}


def _message(message: Message) -> dict[str, Any]:
    return dict(message)
