"""Trees as one table, a row for each node: for pandas, CSV and JSON.

| column | of the step into the node |
|---|---|
| `tree`, `node`, `parent`, `step` | numbers of tree, node and parent (-1 at a root); steps from the root |
| `env_id`, `task_id` | of the tree |
| `rollout`, `attempt` | who came here first |
| `action`, `tools`, `arguments`, `reasoning` | text; names of the tools called; their arguments as JSON; thoughts |
| `observation` | the text that the environment answered with |
| `reward`, `return` | of the step; undiscounted from the root. None from where infrastructure failed |
| `reward_NAME` | components of the reward that the environment reported |
| `terminated`, `truncated`, `failed`, `leaf` | how it ended |
| `succeeded` | at leaves: whether the return exceeds the tree's threshold |
| `trajectories` | how many go through the node |
| `state_signature`, `action_signature` | by which RTMC matches nodes |
| `num_tokens`, `logprob` | sampled tokens, and the sum of their log-probabilities, where known |
| `tokens_sampled`, ..., `snapshot_bytes` | what the step cost |
| `NAME_advantage`, `NAME_value`, `NAME_action_value`, `NAME_count` | of an estimator |
| `NAME` | of numbers of one's own |
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from agentenv.arrays import TreeArrays
from agentenv.credit import StepAdvantages
from agentenv.distribution import install_module
from agentenv.errors import MissingDependencyError
from agentenv.jsonable import json_text
from agentenv.tree import EpisodeTree, Node
from agentenv.types import Action, message_text

from .credited import Credit, CreditedTree, Trees, columns_of, read_credited

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["node_rows", "to_dataframe", "write_csv"]

Row = dict[str, Any]


def node_rows(trees: Trees, **credits: Credit) -> list[Row]:  # noqa: A002  the public word
    """Returns the table as mappings of columns to plain values; all have the same columns.

    Args:
        trees: a trees file, a tree, or several.
        credits: estimators, what they returned, or `[N]` numbers, by the name that their columns begin with.

    Raises:
        TreeFileError, OSError: the file cannot be read.
        ValueError: credit that is not `[N]`, or whose name is a column's.
    """
    credited = read_credited(trees, credits)
    parts = sorted({name for entry in credited for node in entry.tree.nodes for name in _components(node)})
    return [row for entry in credited for row in _tree_rows(entry, parts)]


def to_dataframe(trees: Trees, **credits: Credit) -> "pd.DataFrame":  # noqa: A002  the public word
    """Returns trees as a pandas table, one row per node; the columns are those of this module's table.

        to_dataframe("trees.jsonl", rtmc=rtmc_advantages, mine=[...])

    has `rtmc_advantage`, `rtmc_value`, `rtmc_action_value`, `rtmc_count` and `mine`.

    Args:
        trees: a trees file, a tree, or several.
        credits: estimators, what they returned, or `[N]` numbers, by the name that their columns begin with.

    Raises:
        MissingDependencyError: there is no pandas here.
        TreeFileError, OSError, ValueError: as for `node_rows`.
    """
    try:
        import pandas as pd
    except ImportError as error:
        msg = f"to_dataframe needs pandas: {install_module('pandas')}"
        raise MissingDependencyError(msg) from error
    rows = node_rows(trees, **credits)
    table = pd.DataFrame(columns_of(rows, _column_names(credits)))
    kinds = {"reward": "float64", "return": "float64", "succeeded": "boolean", "num_tokens": "Int64"}
    kinds |= {name: "float64" for name in table.columns if name.startswith("reward_") or name == "logprob"}
    return cast("Any", table).astype(kinds)


def write_csv(rows: Iterable[Mapping[str, Any]], file: IO[str]) -> None:
    """Writes rows of equal columns as CSV with a header: all but numbers in quotes, `None` empty.

    Args:
        rows: e.g. of `node_rows`.
        file: open for text, with `newline=""`.
    """
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writeheader()
        writer.writerow(row)


def _column_names(named: Mapping[str, Credit]) -> list[str]:
    """The columns of a table without rows: those of a tree without steps."""

    def alike(credit: Credit) -> Credit:
        nothing = np.zeros(1)
        of_steps = StepAdvantages(nothing, nothing, nothing, np.zeros(1, dtype=np.int64))
        return credit if callable(credit) else of_steps if isinstance(credit, StepAdvantages) else nothing

    return list(node_rows(EpisodeTree(()), **{name: alike(credit) for name, credit in named.items()})[0])


def _tree_rows(entry: CreditedTree, parts: Iterable[str]) -> Iterator[Row]:
    tree, arrays = entry.tree, TreeArrays.from_trees([entry.tree])
    returns: list[float | None] = [0.0]
    for node in tree.nodes[1:]:
        above = returns[node.parent]
        returns.append(None if above is None or node.reward is None else above + node.reward)
    for i, node in enumerate(tree.nodes):
        value, leaf = returns[i], bool(arrays.is_leaf[i])
        row: Row = {
            "tree": entry.number,
            "node": i,
            "parent": node.parent,
            "step": int(arrays.depths[i]),
            "env_id": tree.env_id,
            "task_id": tree.task_id,
            "rollout": node.rollout,
            "attempt": node.attempt,
            **_action_columns(node.action),
            "observation": "\n".join(message_text(message) for message in node.observation),
            "reward": node.reward,
            "return": value,
            **{f"reward_{name}": _components(node).get(name) for name in parts},
            "terminated": node.terminated,
            "truncated": node.truncated,
            "failed": node.reward is None,
            "leaf": leaf,
            "succeeded": None if not leaf or i == 0 or value is None else value > tree.success_threshold,
            "trajectories": int(arrays.leaf_counts[i]),
            "state_signature": node.state_signature,
            "action_signature": node.action_signature,
            **_token_columns(node.action),
            **asdict(node.cost),
        }
        if taken := row.keys() & entry.credit.keys():
            msg = f"credit must not be named {min(taken)!r}: that is a column of the table"
            raise ValueError(msg)
        yield row | entry.credit_at(i)


def _action_columns(action: Action | None) -> Row:
    calls = () if action is None else action.tool_calls
    return {
        "action": None if action is None else action.content,
        "tools": ", ".join(call.name for call in calls),
        "arguments": json_text([call.arguments for call in calls]) if calls else "",
        "reasoning": "" if action is None else action.reasoning,
    }


def _token_columns(action: Action | None) -> Row:
    ids, logprobs = (None, None) if action is None else (action.token_ids, action.logprobs)
    return {
        "num_tokens": None if ids is None else len(ids),
        "logprob": None if logprobs is None else float(sum(logprobs)),
    }


def _components(node: Node) -> dict[str, float]:
    """The components of a reward, as `info["rewards"]` has them."""
    rewards = node.info.get("rewards")
    named = cast("dict[Any, Any]", rewards).items() if isinstance(rewards, dict) else ()
    return {str(name): float(value) for name, value in named if isinstance(value, int | float)}
