"""Trees with all that is rare, and all that an export must bring back."""

from envs_for_tests import signature

from agentenv import Action, EpisodeTree, ToolCall
from agentenv.tree import Cost, Node
from agentenv.types import Observation, Usage

__all__ = ["odd_tree", "told"]


def told(tree):
    """All that a tree records, its costs and threshold too."""
    return signature(tree), [node.cost for node in tree.nodes], tree.success_threshold


def odd_tree():
    """Parts, halves of surrogate pairs, costs, usage, a broken attempt, numbers beyond 64 bits."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    opening = ({"role": "user", "content": [{"type": "text", "text": "Look \ud83d"}, image]},)
    tree = EpisodeTree(opening, task={"n": 10**30}, metadata={"\udc00": [None]}, success_threshold=2.5)  # pyright: ignore[reportArgumentType]
    calls = (ToolCall("see", {"x": [1, {"y": "\ud800"}]}, "c1"), ToolCall("f", "{broken"))
    action = Action("so \ud800", calls, (1, 2), (-1.0, -0.0), (7,), "stop", "hm", Usage(9, 3, 2), 7)
    cost = Cost(2, 9, 3, 0.25, 0.5, 0.125, 1000)
    answer: Observation = ({"role": "tool", "content": "ok", "name": "see"},)
    tree.append(Node(0, action, answer, None, info={"failure": "x"}, cost=cost))
    tree.append(Node(0, action, (), 3.0, True, info={"rewards": {"a": 3}}, attempt=1, cost=cost))
    return tree
