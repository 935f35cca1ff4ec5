"""What infrastructure broke: summaries say the most frequent reason, and a run in which nothing was played fails."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from agentenv.errors import InfrastructureError
from agentenv.tree import EpisodeTree

__all__ = ["check_played", "most_frequent", "reasons"]

_LENGTH = 400


def reasons(tree: EpisodeTree, first: int = 0) -> Counter[str]:
    """Counts why attempts failed, in nodes from `first` on."""
    failed = (node for node in tree.nodes[first:] if node.reward is None)
    return Counter(str(node.info.get("failure", "infrastructure failed")) for node in failed)


def most_frequent(found: Counter[str]) -> dict[str, str]:
    """Returns the field `failure` of a summary, the reason that most attempts failed for; none where none failed.

    It is one line; of a long one, such as the traceback of a program, beginning and end.
    """
    if not found:
        return {}
    ((reason, _),) = found.most_common(1)
    line, half = " ".join(reason.split()), _LENGTH // 2
    return {"failure": line if len(line) <= _LENGTH else f"{line[:half]} ... {line[-half:]}"}


def check_played(summary: Mapping[str, Any]) -> None:
    """Fails where no episode went through.

    Raises:
        InfrastructureError: that, with the most frequent reason.
    """
    if not summary["episodes"] and "failure" in summary:
        msg = f"no episode could be played, every attempt failed, most often for this: {summary['failure']}"
        raise InfrastructureError(msg)
