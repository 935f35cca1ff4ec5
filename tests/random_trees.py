"""Random episode trees of few different tokens, so that branches begin alike, some of whose prompts rewrite history."""

from hypothesis import strategies as st

from agentenv import Action, EpisodeTree

__all__ = ["random_trees"]


@st.composite
def random_trees(draw, vocabulary: int = 4, steps: int = 10, rewrites: bool = True, fork: bool = True) -> EpisodeTree:
    """Trees with tokens below `vocabulary`; log-probabilities are made up.

    Args:
        vocabulary: number of different tokens.
        steps: at most so many.
        rewrites: whether prompts may keep only a part of the path.
        fork: whether episodes branch below the root.
    """
    tree = EpisodeTree(({"role": "user", "content": "q"},))
    token = st.integers(0, vocabulary - 1)
    for _ in range(draw(st.integers(1, steps))):
        open_nodes = [i for i, node in enumerate(tree.nodes) if not node.ended]
        if not fork:
            open_nodes = [i for i in open_nodes if i == 0 or not tree.children(i)]
        parent = draw(st.sampled_from(open_nodes))
        prompt = tree.prompt_token_ids(parent)
        if prompt is None:
            path = tree.token_ids(parent)
            keep = draw(st.integers(0, len(path))) if rewrites and draw(st.booleans()) else len(path)
            prompt = (*path[:keep], *draw(st.lists(token, min_size=1, max_size=4)))
        sampled = tuple(draw(st.lists(token, min_size=1, max_size=3)))
        action = Action("x", token_ids=sampled, logprobs=(-1.0,) * len(sampled), prompt_token_ids=prompt)
        ended = draw(st.integers(0, 3)) == 0
        tree.add(parent, action, reward=draw(st.sampled_from([0.0, 1.0])) if ended else 0.0, terminated=ended)
    return tree
