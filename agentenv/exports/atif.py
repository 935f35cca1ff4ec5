"""ATIF 1.8, the Agent Trajectory Interchange Format, with branches: a document for each leaf of a tree, and back.

Every document is a whole trajectory, valid for any reader of ATIF. ATIF has no word for branches, so two of its own
words and one extension say which steps documents share:

- All documents of a tree have one `session_id`; `trajectory_id` is `SESSION/LEAF`.
- A step that an earlier document of the tree has, too, is `is_copied_context`: ATIF's word for what must not be trained
  twice. It has no `metrics` there.
- `extra.agentenv` of a document, version 1: `version`, `tree` (its place in the file), `leaf`, `rollout`, `attempt`,
  `branch` (`{"trajectory_id": ..., "step_id": ...}`: the document that has the copied steps, and the last of them that
  both share; absent where nothing is shared), `return`, `succeeded`; and in the first document of a tree `env_id`,
  `task_id`, `task`, `metadata`, `success_threshold`.
- `extra.agentenv` of a step: `node` and `parent`, and what ATIF has no field for: `reward`, `terminated`, `truncated`,
  `state_signature`, `action_signature`, `info`, `cost`, `finish_reason`, `weight_version`, `credit` by column.

The messages of a root are steps of `system` and `user`; what answers an action is its `observation`. A text that an
agent's chat template rewrote later stands as it was sampled. Costs and usage are in the step that they belong to.
Halves of surrogate pairs, which models write, are U+FFFD; a document that had some has itself as JSON text in `exact`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import agentenv
from agentenv.errors import TreeError
from agentenv.serialize.events import read_node, read_prompt, root_of, tree_event
from agentenv.tree import EpisodeTree, Node
from agentenv.types import Action, Message, message_text

from .credited import Credit, CreditedTree, Trees, read_credited

__all__ = ["SCHEMA", "from_atif", "to_atif"]

SCHEMA = "ATIF-v1.8"

_OURS = "agentenv"
_VERSION = 1

_ROLES = {"system": "system", "assistant": "agent"}
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

Document = dict[str, Any]


def to_atif(trees: Trees, **credits: Credit) -> list[Document]:  # noqa: A002  the public word
    """Returns an ATIF document for each leaf of each tree: JSON values, those of a tree one after the other.

    Args:
        trees: a trees file, a tree, or several.
        credits: estimators, what they returned, or `[N]` numbers; in `extra.agentenv.credit` of the steps.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        ValueError: credit that is not `[N]`.
    """
    return [_readable(document) for entry in read_credited(trees, credits) for document in _documents(entry)]


def from_atif(documents: Iterable[Mapping[str, Any]]) -> list[EpisodeTree]:
    """Rebuilds trees from documents that `to_atif` made, all of a tree, in any order.

    Args:
        documents: as `to_atif` returns them, or as `json.loads` does.

    Raises:
        TreeError: a document is not of ATIF or has no `extra.agentenv`, as those of other agents, which carry no
            rewards; or a step of a tree is missing.
    """
    sessions: dict[str, list[Mapping[str, Any]]] = {}
    for number, document in enumerate(documents):
        if not str(document.get("schema_version", "")).startswith("ATIF-"):
            msg = f"document {number}: schema_version must be ATIF's, got {document.get('schema_version')!r}"
            raise TreeError(msg)
        if _ours(document).get("version") != _VERSION:
            msg = (
                f"document {number}: extra.{_OURS}.version must be {_VERSION}, got {_ours(document).get('version')!r}: "
                "only documents of to_atif have the rewards and branches that a tree needs"
            )
            raise TreeError(msg)
        exact = _ours(document).get("exact")
        whole = document if exact is None else json.loads(exact)
        sessions.setdefault(str(document.get("session_id")), []).append(whole)
    return [_build(name, found) for name, found in sessions.items()]


# ---------------------------------------------------------------------- to ATIF


def _readable(document: Document) -> Document:
    """Returns a document whose texts any parser of JSON reads; where that changes it, it has itself in `exact`."""
    fixed = _fix(document)
    if fixed != document:
        fixed["extra"][_OURS]["exact"] = json.dumps(document)  # text within text: no parser looks into it
    return fixed


def _fix(value: Any) -> Any:
    """Replaces halves of surrogate pairs, which models write and strict parsers refuse, by U+FFFD."""
    match value:
        case str():
            if value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value):
                return value
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_fix(name): _fix(part) for name, part in cast("Document", value).items()}
        case list():
            return [_fix(part) for part in cast("list[Any]", value)]
        case _:
            return value


def _documents(entry: CreditedTree) -> Iterator[Document]:
    tree, session = entry.tree, f"tree-{entry.number}"
    owners: dict[int, Document] = {}  # of each node, where its step is: trajectory and number of the step
    for leaf in tree.leaves():
        name = f"{session}/{leaf}"
        steps: list[Document] = []
        shared: Document | None = None
        for node in tree.path(leaf):
            copied = node in owners
            new = _opening(tree.nodes[0]) if node == 0 else [_step(entry, node, copied=copied)]
            steps += [step | ({"is_copied_context": True} if copied else {}) for step in new]
            shared = owners[node] if copied else shared
            owners.setdefault(node, {"trajectory_id": name, "step_id": len(steps)})
        for number, step in enumerate(steps, 1):
            step["step_id"] = number
        about = _about(entry, leaf) | ({} if shared is None else {"branch": shared})
        totals = {"total_steps": len(steps)} | _totals(tree, leaf)
        yield {
            "schema_version": SCHEMA,
            "session_id": session,
            "trajectory_id": name,
            "agent": {"name": "agentenv", "version": agentenv.__version__},
            "steps": steps,
            "final_metrics": totals,
            "extra": {_OURS: about},
        }


def _about(entry: CreditedTree, leaf: int) -> Document:
    tree, node = entry.tree, entry.tree.nodes[leaf]
    about: Document = {
        "version": _VERSION,
        "tree": entry.number,
        "leaf": leaf,
        "rollout": node.rollout,
        "attempt": node.attempt,
        "return": tree.episode_return(leaf),
        "succeeded": tree.succeeded(leaf) if leaf else None,
    }
    if (prompt := tree.prompt(leaf)) is not None:
        about["prompt_after"] = {"kept": prompt.kept, "token_ids": list(prompt.token_ids)}
    if leaf == tree.leaves()[0]:
        event = tree_event(0, tree)
        about |= {name: event[name] for name in ("env_id", "task_id", "task", "metadata", "success_threshold", "state")}
    return about


def _totals(tree: EpisodeTree, leaf: int) -> Document:
    costs = [tree.nodes[i].cost for i in tree.path(leaf)]
    names = {"prompt": "tokens_read", "completion": "tokens_sampled", "cached": "tokens_cached"}
    sums = {f"total_{name}_tokens": sum(getattr(cost, field) for cost in costs) for name, field in names.items()}
    return sums if any(sums.values()) else {}


def _opening(root: Node) -> list[Document]:
    """The steps of a root's messages; one that says nothing where there is none, for ATIF wants a step."""
    steps: list[Document] = []
    for message in root.observation:
        source = _ROLES.get(message["role"], "user")
        content = _content(message)
        plain = message == {"role": source, "content": content}
        about: Document = {"node": 0} | ({} if plain else {"message": message})
        steps.append({"source": source, "message": content, "extra": {_OURS: about}})
    return steps or [{"source": "system", "message": "", "extra": {_OURS: {"node": 0, "empty": True}}}]


def _step(entry: CreditedTree, index: int, *, copied: bool) -> Document:
    node, action = entry.tree.nodes[index], entry.tree.nodes[index].action or Action()
    about: Document = {"node": index, "parent": node.parent, "rollout": node.rollout, "attempt": node.attempt}
    about |= {"reward": node.reward, "terminated": node.terminated, "truncated": node.truncated}
    about |= {"state": node.state_signature, "action_signature": node.action_signature}
    about |= {"finish_reason": action.finish_reason, "weight_version": action.weight_version}
    about |= {"info": dict(node.info)} if node.info else {}
    about |= {"cost": cost} if (cost := {k: v for k, v in asdict(node.cost).items() if v}) else {}
    about |= {"usage": asdict(action.usage)} if action.usage is not None else {}
    about |= {"credit": entry.credit_at(index)} if entry.credit else {}
    step: Document = {"source": "agent", "message": action.content}
    of_nobody = node.kept_messages is not None
    if of_nobody:
        step["llm_call_count"] = 0
    elif action.reasoning:
        step["reasoning_content"] = action.reasoning
    if action.tool_calls:
        step["tool_calls"] = [_call(call.id, call.name, call.arguments) for call in action.tool_calls]
    if node.observation:
        known = {call.id for call in action.tool_calls}
        step["observation"] = {"results": [_result(message, known) for message in node.observation]}
    if not copied and not of_nobody and (metrics := _metrics(entry.tree, node, action)):
        step["metrics"] = metrics
    return step | {"extra": {_OURS: about}}


def _call(call_id: str, name: str, arguments: Mapping[str, Any] | str) -> Document:
    call: Document = {"tool_call_id": call_id, "function_name": name}
    if isinstance(arguments, str):  # what the model wrote was no JSON object
        return call | {"arguments": {}, "extra": {_OURS: {"arguments": arguments}}}
    return call | {"arguments": dict(arguments)}


def _result(message: Message, known: set[str]) -> Document:
    content, call_id = _content(message), message.get("tool_call_id")
    result: Document = {"content": content} | ({"source_call_id": call_id} if call_id in known else {})
    plain = {"role": "tool", "content": content} | ({} if call_id is None else {"tool_call_id": call_id})
    whole = message == plain and (call_id is None or call_id in known)
    return result if whole else result | {"extra": {_OURS: {"message": message}}}


def _metrics(tree: EpisodeTree, node: Node, action: Action) -> Document:
    prompt, usage = tree.prompt_token_ids(node.parent), action.usage
    found: Document = {
        "prompt_tokens": usage.prompt_tokens if usage else None if prompt is None else len(prompt),
        "completion_tokens": usage.completion_tokens if usage else action.token_ids and len(action.token_ids),
        "cached_tokens": usage.cached_tokens if usage else None,
        "prompt_token_ids": None if prompt is None else list(prompt),
        "completion_token_ids": None if action.token_ids is None else list(action.token_ids),
        "logprobs": None if action.logprobs is None else list(action.logprobs),
    }
    return {name: value for name, value in found.items() if value is not None and value != ()}


def _content(message: Message) -> str | list[Document]:
    content = message["content"]
    if isinstance(content, str):
        return content
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> Document:
    if part.get("type") != "image_url":
        return {"type": "text", "text": message_text([dict(part)])}
    url = str(part["image_url"]["url"])
    kind = next((kind for kind in _IMAGE_TYPES if url.startswith(f"data:{kind};")), None)
    if kind is None:
        return {"type": "text", "text": f"[an image, {url[:80]}]"}
    return {"type": "image", "source": {"media_type": kind, "path": url}}


# ---------------------------------------------------------------------- from ATIF


def _ours(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the extension says, of a document, a step, a call or a result."""
    extra = cast("Mapping[str, Any]", thing.get("extra") or {})
    return extra.get(_OURS) or {}


def _build(session: str, documents: Sequence[Mapping[str, Any]]) -> EpisodeTree:
    steps = [step for document in documents for step in document["steps"] if not step.get("is_copied_context")]
    try:
        first = next((about for about in map(_ours, documents) if "success_threshold" in about), None)
        if first is None:
            msg = "the document that says which task it is (the one that came first) is missing"
            raise TreeError(msg)
        tree = root_of(
            {**first, "observation": [m for s in steps if _ours(s)["node"] == 0 for m in _opening_message(s)]}
        )
        numbered = {_ours(step)["node"]: step for step in steps if _ours(step)["node"]}
        for node in range(1, max(numbered, default=0) + 1):
            if node not in numbered:
                msg = f"there is node {max(numbered)}, but none of the documents owns node {node}"
                raise TreeError(msg)
            _append(tree, numbered[node])
        for about in map(_ours, documents):
            if "prompt_after" in about and (prompt := read_prompt(about["prompt_after"])) is not None:
                tree.restore_prompt(about["leaf"], prompt)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"session {session}: {f'missing {error}' if isinstance(error, KeyError) else error}"
        raise TreeError(msg) from error
    return tree


def _opening_message(step: Mapping[str, Any]) -> list[Any]:
    about = _ours(step)
    if about.get("empty"):
        return []
    return [about.get("message") or {"role": step["source"], "content": step["message"]}]


def _append(tree: EpisodeTree, step: Mapping[str, Any]) -> None:
    about = _ours(step)
    metrics: Mapping[str, Any] = step.get("metrics") or {}
    calls = [
        {"name": c["function_name"], "id": c["tool_call_id"], "arguments": _ours(c).get("arguments", c["arguments"])}
        for c in step.get("tool_calls") or ()
    ]
    action = {"content": step["message"], "reasoning": step.get("reasoning_content") or "", "tool_calls": calls}
    action |= {name: about.get(name) for name in ("weight_version", "usage")}
    action |= {"finish_reason": about.get("finish_reason") or "", "logprobs": metrics.get("logprobs")}
    action |= {"token_ids": metrics.get("completion_token_ids")}
    observed: Mapping[str, Any] = step.get("observation") or {}
    results: list[Mapping[str, Any]] = observed.get("results") or []
    if (seen := metrics.get("prompt_token_ids")) is not None:
        tree.set_prompt(about["parent"], seen)
    event = {**about, "action": action, "observation": [_message(result) for result in results]}
    tree.append(read_node(event, about["parent"]))


def _message(result: Mapping[str, Any]) -> Any:
    found = _ours(result).get("message")
    if found is not None:
        return found
    call_id = result.get("source_call_id")
    return {"role": "tool", "content": result["content"]} | ({} if call_id is None else {"tool_call_id": call_id})
