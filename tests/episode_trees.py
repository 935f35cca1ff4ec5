"""A Hypothesis strategy for episode trees with text, exact tokens and rewritten histories."""

from typing import Any

from hypothesis import strategies as st

from agentenv.tree import EpisodeTree
from agentenv.types import Action, ToolCall

__all__ = ["JSON", "episode_trees"]

TEXT = st.text(max_size=8)
IDS = st.lists(st.integers(0, 200_000), max_size=4)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": TEXT}, optional={"name": TEXT}),
    max_size=2,
).map(tuple)
CALLS = st.lists(
    st.builds(ToolCall, st.text(min_size=1, max_size=4), st.dictionaries(TEXT, JSON, max_size=2) | TEXT, TEXT),
    max_size=2,
).map(tuple)


@st.composite
def episode_trees(draw, *, max_nodes=8):
    """Draws a tree, and for each node the full tokens up to its action and the full prompt of those below it.

    Returns:
        The tree; `[N]` token ids up to the end of the action into each node, `()` when unknown; `[N]` prompts of the
        actions from each node, `None` when unknown.
    """
    tree: Any = EpisodeTree(
        draw(MESSAGES),
        task_id=draw(TEXT),
        env_id="Some-v0",
        task=draw(JSON),
        state_signature=draw(TEXT),
        metadata=draw(st.dictionaries(TEXT, JSON, max_size=2)),
    )
    tokens: list[tuple[int, ...]] = [()]
    prompts: list[tuple[int, ...] | None] = [None]
    for _ in range(draw(st.integers(0, max_nodes - 1))):
        open_nodes = [i for i, node in enumerate(tree.nodes) if not node.ended]
        if not open_nodes:
            break
        parent = draw(st.sampled_from(open_nodes))
        prompt = prompts[parent]
        if prompt is None and draw(st.booleans()):
            kept = draw(st.integers(0, len(tokens[parent])) | st.just(len(tokens[parent])))
            prompt = (*tokens[parent][:kept], *draw(IDS))
        ids = draw(st.none() | IDS.map(tuple))
        logprobs = None if ids is None else draw(st.none() | st.tuples(*[FINITE.map(lambda x: -abs(x))] * len(ids)))
        action = Action(draw(TEXT), draw(CALLS), ids, logprobs, prompt, draw(st.sampled_from(["", "stop", "length"])))
        end = draw(st.sampled_from(["", "", "", "terminated", "truncated", "failed"]))
        tree.add(
            parent,
            action,
            draw(MESSAGES),
            reward=None if end == "failed" else draw(FINITE),
            terminated=end == "terminated",
            truncated=end == "truncated",
            state_signature=draw(TEXT),
            action_signature=draw(TEXT),
            info=draw(st.dictionaries(TEXT, JSON, max_size=2)),
        )
        prompts[parent] = prompt
        prompts.append(None)
        tokens.append(())
        for node in tree.children(parent):  # a prompt that becomes known is known to earlier siblings, too
            ids = tree.nodes[node].action.token_ids
            tokens[node] = () if prompt is None or ids is None else (*prompt, *ids)
    return tree, tokens, prompts
