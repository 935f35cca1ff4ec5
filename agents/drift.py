"""How far what a model saw is from what its chat template would write: tokens, counted over whole episodes."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from difflib import SequenceMatcher

from agentenv.errors import ModelError
from agentenv.tree import EpisodeTree
from agentenv.types import ToolSchema

from .chat import ChatFormat

__all__ = ["Drift", "compare", "measure_drift"]


@dataclass(frozen=True, slots=True)
class Drift:
    """Differences between prompts and the template's own rendering of the same conversations; `a + b` are both.

    Attributes:
        prompts: that were compared.
        different: those of them that differ.
        refused: further ones whose conversation the template cannot write at all.
        tokens: in the prompts that were compared.
        dropped: of those, what the template would not write: earlier reasoning, mostly.
        added: tokens that it would write, and that the model did not see.
    """

    prompts: int = 0
    different: int = 0
    refused: int = 0
    tokens: int = 0
    dropped: int = 0
    added: int = 0

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def measure_drift(trees: Iterable[EpisodeTree], chat: ChatFormat, *, tools: Sequence[ToolSchema] = ()) -> Drift:
    """Compares the last prompt of every episode, which holds all that came before, with the template's rendering.

    Args:
        trees: the trees; prompts whose tokens are unknown are left out.
        chat: the chat format of the model.
        tools: those that the episodes had.
    """
    total = Drift()
    for tree in trees:
        for node in sorted({tree.nodes[leaf].parent for leaf in tree.leaves() if leaf}):
            seen = tree.prompt_token_ids(node)
            if seen is None:
                continue
            try:
                written = chat.render(tree.messages(node), tools=tools)
            except ModelError:
                total += Drift(refused=1)
                continue
            total += compare(seen, written)
    return total


def compare(seen: Sequence[int], written: Sequence[int]) -> Drift:
    """Counts the differences between the prompt that a model saw and the one that its template would write."""
    dropped, added = _differences(seen, written)
    return Drift(1, int(seen != written), 0, len(seen), dropped, added)


def _differences(seen: Sequence[int], written: Sequence[int]) -> tuple[int, int]:
    """Returns how many tokens of `seen` are not in `written`, and the other way around."""
    before, after = _equal_ends(seen, written)
    a, b = (ids[before : len(ids) - after] for ids in (seen, written))
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    same = sum(block.size for block in blocks)
    return len(a) - same, len(b) - same


def _equal_ends(seen: Sequence[int], written: Sequence[int]) -> tuple[int, int]:
    """Returns the lengths of the common beginning, and of the common end of what follows it."""
    short = min(len(seen), len(written))
    before = next((i for i in range(short) if seen[i] != written[i]), short)
    left = short - before
    after = next((i for i in range(left) if seen[-1 - i] != written[-1 - i]), left)
    return before, after
