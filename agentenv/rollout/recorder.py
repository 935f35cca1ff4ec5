"""Takes rollouts as they end: into a journal at once, into their trees in the order of their numbers."""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from agentenv.errors import TreeError, TreeFileError
from agentenv.rows import shorten
from agentenv.serialize import Journal, TreeWriter
from agentenv.serialize.events import Key, key_of
from agentenv.tree import Cost, EpisodeTree

from .episode import Attempt, Branch, Step
from .ledger import Ledger

__all__ = ["Recorder", "add_branch"]


class Recorder:
    """Keeps what rollouts did.

    Args:
        writer: the journal; `None` keeps everything in memory alone.
        journal: what the journal held before, for a run that goes on.
    """

    def __init__(self, writer: TreeWriter | None = None, journal: Journal | None = None) -> None:
        self._writer = writer
        self._journal = journal
        self._numbers: WeakKeyDictionary[EpisodeTree, int] = WeakKeyDictionary()
        self._next = 0
        self._ended: list[Branch] = []

    def begin(self, tree: EpisodeTree) -> None:
        """Takes the root of a tree."""
        number, self._next = self._next, self._next + 1
        self._numbers[tree] = number
        known = None if self._journal is None else self._journal.root(number)
        if known is not None and (differences := _differences(known, tree)):
            msg = (
                f"tree {number} of the file to go on with was grown from another {', another '.join(differences)}: go "
                "on with the environment, options and seed that it was begun with, or record to another file"
            )
            raise TreeFileError(msg)
        if known is None and self._writer is not None:
            self._writer.begin_tree(tree)

    def check_begun(self, index: int, tree: EpisodeTree) -> None:
        """Refuses a tree that the journal has no root of, so that its rollouts could not be read.

        Raises:
            TreeError: another rollout began it, or a file.
        """
        if self._writer is not None and tree not in self._numbers:
            msg = (
                f"trees[{index}] was not begun by this Rollout, and {self._writer.path} has no root of it: begin it "
                "here (grow or begin), or leave out record and write it by agentenv.serialize.write_trees"
            )
            raise TreeError(msg)

    def holds(self, tree: EpisodeTree, branch: Branch) -> bool:
        """Whether the journal holds a rollout already; then its attempts are put into the branch.

        Raises:
            TreeFileError: it started from another node there.
        """
        if self._journal is None:
            return False
        number = self._numbers[tree]
        found = self._journal.attempts(number, branch.number)
        if found is None:
            return False
        there, here = self._journal.start(number, branch.number), _key(tree, branch.anchor)
        if there != here:
            msg = (
                f"rollout {branch.number} of tree {number} of the file to go on with was grown from another node: "
                f"(rollout, attempt, step) {there} there, {here} here; ask for the anchors that it was grown from, "
                "or record to another file"
            )
            raise TreeFileError(msg)
        branch.recorded = True
        for number, recorded in enumerate(found):
            steps = [Step(node, prompt) for node, prompt in recorded]
            branch.attempts.append(Attempt(branch.seed, branch.number, number, (), (), 0, steps))
        return True

    def add(self, trees: Sequence[EpisodeTree], branch: Branch, *, known: bool = False) -> None:
        """Takes a rollout that has ended, and writes it to the journal.

        One that saw another prompt at its anchor than those before it is marked as refused, and not written.
        """
        if not known:
            _sign(branch)
        self._ended.append(branch)
        tree = trees[branch.tree]
        prompts = [attempt.steps[0].prompt for attempt in branch.attempts if attempt.steps]
        try:
            tree.restore_prompt(branch.anchor, *(prompt for prompt in prompts if prompt is not None))
        except TreeError as error:
            branch.refused = error
            return
        if self._writer is not None and not known:
            attempts = [[(step.node, step.prompt) for step in attempt.steps] for attempt in branch.attempts]
            self._writer.add_rollout(self._numbers[tree], _key(tree, branch.anchor), attempts)

    def settle(self, trees: Sequence[EpisodeTree]) -> Ledger:
        """Adds what has ended to the trees, by tree and number; returns what those played cost, refused ones too."""
        ended, self._ended = sorted(self._ended, key=lambda branch: (branch.tree, branch.number)), []
        for branch in ended:
            try:
                if branch.refused is None:
                    add_branch(trees[branch.tree], branch)
            except TreeError as error:
                branch.refused = error
        played = [branch for branch in ended if not branch.recorded]
        attempts = [attempt for branch in played for attempt in branch.attempts]
        costs = [step.node.cost for attempt in attempts for step in attempt.steps]
        return Ledger(sum(costs, Cost()), len(costs), len(played), sum(attempt.failed for attempt in attempts))

    def close(self) -> None:
        """Closes the journal."""
        if self._writer is not None:
            self._writer.close()


def _differences(there: EpisodeTree, here: EpisodeTree) -> list[str]:
    """Says what must be equal for a run to go on with a tree, and is not."""
    found: list[str] = []
    if there.env_id != here.env_id:
        found.append(f"environment ({there.env_id!r} there, {here.env_id!r} here)")
    if there.metadata.get("seed") != here.metadata.get("seed"):
        found.append("seed")  # its value here was derived from the run's
    if there.task_id != here.task_id:
        found.append(f"task ({shorten(there.task)} there, {shorten(here.task)} here)")
    elif there.nodes[0].state_signature != here.nodes[0].state_signature:
        found.append("first state of its task, as other options make it")
    return found


def _key(tree: EpisodeTree, node: int) -> Key:
    return key_of(tree, node, len(tree.path(node)) - 1)


def _sign(branch: Branch) -> None:
    """Keeps with the first step of every attempt who chose where it starts."""
    for attempt in branch.attempts:
        if attempt.steps and branch.fork is not None:
            first = attempt.steps[0]
            attempt.steps[0] = replace(first, node=replace(first.node, fork=branch.fork))


def add_branch(tree: EpisodeTree, branch: Branch) -> None:
    """Adds all attempts of a rollout to its tree."""
    for attempt in branch.attempts:
        parent = branch.anchor
        for step in attempt.steps:
            parent = tree.append(replace(step.node, parent=parent), prompt=step.prompt, snapshot=step.snapshot)
