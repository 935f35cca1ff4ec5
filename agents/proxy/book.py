"""Episodes of programs as trees: every conversation of an episode is a branch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import Any, cast

from agentenv.errors import TreeError
from agentenv.protocols import BranchingEnv, Snapshot, Transition
from agentenv.recording import begin_tree
from agentenv.rollout.environments import EnvPool
from agentenv.rollout.revisit import ToRevisit
from agentenv.serialize import TreeWriter
from agentenv.serialize.events import Key, key_of
from agentenv.signatures import digest
from agentenv.tree import Cost, EpisodeTree, Node, Prompt, relative_prompt
from agentenv.types import Action, Message, Usage

from .calls import Call, keys_of
from .replaying import Replay, record_of
from .requests import tools_key
from .session import Session, SessionLimits

__all__ = ["Book"]


class Book:
    """The episodes of one task: opens their sessions, and makes a tree of them.

    Args:
        pool: lends environments; `None` where rewards come by a call.
        task: passed to the environment's `reset`; without one, anything that names the task.
        seed: of the tree.
        writer: a file that every episode is written to.
        keep_snapshots: keeps the environment's state at every node where an episode can go on.
        metadata: of the tree.
        varying: regular expressions of what its program writes otherwise every time, for replay.

    Attributes:
        tree: the tree, once its first episode has ended.
        start: the environment's first observation; `None` without one.

    Raises:
        InfrastructureError: the environment broke at its reset.
        TaskError: it does not take the task.
    """

    def __init__(
        self,
        pool: EnvPool | None,
        *,
        task: Any = None,
        seed: int = 0,
        writer: TreeWriter | None = None,
        keep_snapshots: bool = True,
        metadata: Mapping[str, Any] | None = None,
        varying: Sequence[str] = (),
    ) -> None:
        self.seed = seed
        self.task = task
        self.tree: EpisodeTree | None = None
        self.start: Transition | None = None
        self._empty: EpisodeTree | None = None
        self._pool = pool
        self._writer = writer
        self._written = -1
        self._keep = keep_snapshots
        self._varying = varying
        self._metadata = {"seed": seed, **(metadata or {})}
        self._numbers = 0
        self._lock = RLock()
        if pool is not None:
            with pool.lend() as env:
                self.start = env.begin(seed=seed, options=None if task is None else {"task": task})
                self._empty = begin_tree(env, self.start, self._metadata)

    @classmethod
    def of(cls, tree: EpisodeTree, pool: EnvPool | None, **options: Any) -> "Book":
        """Goes on with a tree of programs' episodes, e.g. one read from a file."""
        book = cls(pool, task=tree.task, seed=int(tree.metadata.get("seed", 0)), **options)
        book.tree = tree
        book._numbers = tree.num_rollouts
        tree.snapshots.setdefault(0, book._root)
        return book

    @property
    def _root(self) -> Any:
        return ToRevisit() if self._empty is None else self._empty.snapshots[0]

    def take_number(self) -> int:
        """Returns the number of a new rollout."""
        with self._lock:
            known = 0 if self.tree is None else self.tree.num_rollouts
            number = max(self._numbers, known)
            self._numbers = number + 1
            return number

    def open(
        self, *, number: int | None = None, attempt: int = 0, at: int = 0, limits: SessionLimits | None = None
    ) -> Session:
        """Opens a session.

        Args:
            number: of the rollout; the next by default.
            attempt: how often infrastructure had broken it before.
            at: the node to branch at; 0 for an episode from the beginning.
            limits: what ends it from outside.

        Raises:
            TreeError: nothing can be replayed to that node.
            InfrastructureError: the environment broke.
        """
        replay = None
        if at:
            with self._lock:
                self.check_anchor(at)
                tree = cast("EpisodeTree", self.tree)
                record, kept = record_of(tree, at), tree.snapshots.get(at)
            replay = Replay(
                record, seed=self.seed, root=self._root, snapshot=kept, keep=self._keep, varying=self._varying
            )
        lent = ExitStack()
        env: BranchingEnv | None = None
        number = self.take_number() if number is None else number
        if self._pool is not None:
            env = lent.enter_context(self._pool.lend())
            try:
                env.restore(cast("Snapshot", self._root))
            except BaseException as error:
                lent.__exit__(type(error), error, error.__traceback__)
                raise
        given: dict[str, Any] = {"env": env, "lent": lent, "replay": replay, "snapshot": self._root, "keep": self._keep}
        given["first"] = () if self.start is None else self.start.observation
        return Session(seed=self.seed, number=number, attempt=attempt, limits=limits, **given)

    def broken(self, number: int, attempt: int, problem: Exception) -> Session:
        """Returns a session that could not even be opened."""
        session = Session(seed=self.seed, number=number, attempt=attempt)
        session.end("it could not be opened", failure=f"{type(problem).__name__}: {problem}")
        return session

    def check_anchor(self, node: int) -> None:
        """Raises where nothing can go on from a node.

        Raises:
            TreeError: it does not exist, has ended, or is no answer of a model.
        """
        tree = self.tree
        if tree is None or not 0 <= node < len(tree) or tree.nodes[node].ended:
            why = "it has ended" if tree is not None and 0 <= node < len(tree) else "the tree has no such node"
            msg = f"node {node} cannot be an anchor: {why}"
            raise TreeError(msg)
        record_of(tree, node)

    # ------------------------------------------------------------------ recording

    def settle(self, session: Session) -> EpisodeTree:
        """Adds an episode that has ended to the tree, and writes it to the file."""
        with self._lock:
            tree = self._tree_for(session)
            chains = _Grower(tree, session, self.take_number, keep=self._keep).grow()
            if self._writer is not None:
                if self._written < 0:
                    self._written = self._writer.begin_tree(tree)
                for start, nodes in chains:
                    rows = [(tree.nodes[i], tree.prompt(tree.nodes[i].parent)) for i in nodes]
                    self._writer.add_rollout(self._written, start, [rows])
            return tree

    def begun(self) -> EpisodeTree:
        """Returns the tree; before the first episode has ended, its root alone."""
        if self.tree is None:
            tree = self._empty
            if tree is None:
                task = self.task if isinstance(self.task, str) else digest(self.task)
                tree = EpisodeTree((), task_id=task, task=self.task, metadata=self._metadata, snapshot=ToRevisit())
            self.tree = tree
        return self.tree

    def _tree_for(self, session: Session) -> EpisodeTree:
        """The tree; what the program asked first is how it opens, if nothing is in it yet."""
        tree = self.begun()
        if len(tree) == 1 and session.calls:
            tree.set_opening(session.calls[0].request.messages)
        return tree


Chain = tuple[Key, list[int]]
"""Key of the node that a rollout starts from, and its nodes."""


@dataclass(slots=True, eq=False)
class _Place:
    """Where a call goes: behind another (or at the root), directly or as the beginning of another conversation."""

    after: Call | None
    kept: int | None = None


@dataclass(slots=True)
class _Grower:
    """Adds one episode to a tree."""

    tree: EpisodeTree
    session: Session
    take_number: Callable[[], int]
    keep: bool
    chains: list[Chain] = field(default_factory=list[Chain])
    ends: dict[int, int] = field(default_factory=dict[int, int])  # last node of a chain: the chain
    told: bool = False  # whether a node says what was replayed

    def grow(self) -> list[Chain]:
        ending, total = self.session.ending, self.session.total()
        failure = ending.failure if ending is not None else ""
        failure = failure or ("" if total is not None else "nobody gave the episode a reward")
        places = self._place()
        inner = {place.after for place in places.values()}
        if not places:
            self._append(self._silent(failure, total or 0.0), self._last_replayed())
        for call, place in places.items():
            parent = self._parent(call, place)
            node = self._node(call, parent, leaf=call not in inner, failure=failure, total=total or 0.0)
            index = self._append(node, parent, call=call)
            if self.keep and not node.ended:
                self.tree.snapshots[index] = call.snapshot or ToRevisit()
        return self.chains

    def _place(self) -> dict[Call, _Place]:
        """Says for every live call where it goes, by time."""
        calls = self.session.calls
        known = [call for call in calls if call.delivered or any(other.before is call for other in calls)]
        places: dict[Call, _Place] = {}
        for i, call in enumerate(known):
            if call.node is None:
                direct = keys_of(self._observation(call.before)) == keys_of(call.rest)
                places[call] = _Place(call.before) if direct else self._branch(call, known[:i])
        return places

    def _branch(self, call: Call, earlier: list[Call]) -> _Place:
        """The beginning of another conversation: at the longest prefix that it shares with one there is."""
        best, most = None, _shared(call.keys, keys_of(self._observation(None)))
        for other in earlier:
            path = (*other.keys, *keys_of([other.action.to_message(), *self._observation(other)]))
            shared = _shared(call.keys, path)
            if shared > max(most, len(other.keys)):
                best, most = other, shared
        return _Place(best, most)

    def _parent(self, call: Call, place: _Place) -> int:
        """Returns the node that a call's action is taken from; begins a conversation where that is needed."""
        parent = 0 if place.after is None else cast("int", place.after.node)
        prompt = call.action.prompt_token_ids
        if place.kept is None and self._fits(parent, prompt):
            return parent
        kept = len(self.tree.messages(parent)) if place.kept is None else place.kept
        new = call.request.messages[kept:]
        tools = tools_key(call.request.tools)
        for child in self.tree.children(parent):
            entry = self.tree.nodes[child]
            same = entry.kept_messages == kept and entry.info.get("tools", "") == tools
            if same and keys_of(entry.observation) == keys_of(new) and self._fits(child, prompt):
                return child
        node = Node(
            parent,
            Action(token_ids=(), logprobs=()),
            new,
            0.0,
            state_signature=digest([tools, kept, list(call.keys)]),
            action_signature="conversation",
            info={"kept_messages": kept, "tools": tools, "session": self.session.name},
        )
        return self._append(node, parent)

    def _fits(self, node: int, prompt: Any) -> bool:
        """Whether an action may be taken from a node: those before saw the same tokens."""
        known = self.tree.prompt(node)
        return known is None or prompt is None or known == relative_prompt(self.tree.token_ids(node), tuple(prompt))

    def _append(self, node: Node, parent: int, *, call: Call | None = None) -> int:
        chain = self.ends.pop(parent, None)
        if chain is None:
            number = self.session.number if not self.chains else self.take_number()
            chain = len(self.chains)
            self.chains.append((key_of(self.tree, parent, len(self.tree.path(parent)) - 1), []))
        else:
            number = self.tree.nodes[parent].rollout
        prompt: Prompt | None = None
        if call is not None and call.action.prompt_token_ids is not None:
            prompt = relative_prompt(self.tree.token_ids(parent), tuple(call.action.prompt_token_ids))
        numbered = replace(node, parent=parent, rollout=number, attempt=self.session.attempt)
        index = self.tree.append(numbered, prompt=prompt)
        self.chains[chain][1].append(index)
        self.ends[index] = chain
        if call is not None:
            call.node = index
        return index

    def _node(self, call: Call, parent: int, *, leaf: bool, failure: str, total: float) -> Node:
        session, steps = self.session, [step.transition for step in call.steps]
        own = sum(step.reward for step in steps)
        elsewhere = total - self._earned(parent) - own if leaf else 0.0
        info: dict[str, Any] = {"session": session.name, "call": call.number}
        info |= {"tools": key} if (key := tools_key(call.request.tools)) else {}
        if call.steps:
            info["executed"] = [step.to_dict() for step in call.steps]
            rewards = [dict(step.info.get("rewards", {})) for step in steps]
            info["rewards"] = {name: sum(r.get(name, 0.0) for r in rewards) for name in {n for r in rewards for n in r}}
            info["mistakes"] = [text for step in steps for text in step.info.get("mistakes", ())]
        if elsewhere:
            info["elsewhere"] = elsewhere
        if session.replay is not None and not self.told:
            self.told = True
            info["replayed"] = [[entry.session, entry.call] for entry in session.replay.answered]
            info["replay"] = session.replay.status()
        if leaf:
            info |= {"ending": session.ending.reason} if session.ending else {}
            info |= {"failure": failure} if failure else {}
        last = call.steps[-1].transition if call.steps else None
        truncated = leaf and (session.truncated or (last is not None and last.truncated))
        return Node(
            parent,
            call.action,
            self._observation(call),
            None if leaf and failure else own + elsewhere,
            leaf and not truncated and not failure,
            truncated and not failure,
            self._signature(call, parent),
            _signature_of(call),
            info,
            cost=_cost(call),
        )

    def _observation(self, call: Call | None) -> tuple[Message, ...]:
        """What came after a call, or at the root: what the program said next, or what the environment answered."""
        if call is None or call.node is not None:
            return self.tree.nodes[0 if call is None else cast("int", call.node)].observation
        follower = next((one for one in self.session.calls if one.before is call), None)
        if follower is not None:
            return follower.rest
        return tuple(message for step in call.steps for message in step.transition.observation)

    def _signature(self, call: Call, parent: int) -> str:
        """The environment's state after a call; without one, the conversation."""
        if self.session.env is None:
            return digest([list(call.keys), keys_of([call.action.to_message()])])
        found = [step.transition.state_signature for step in call.steps]
        return found[-1] if found else self.tree.nodes[parent].state_signature

    def _earned(self, node: int) -> float:
        return sum(self.tree.nodes[i].reward or 0.0 for i in self.tree.path(node))

    def _last_replayed(self) -> int:
        return 0 if self.session.replay is None or not self.session.calls else cast("int", self.session.calls[-1].node)

    def _silent(self, failure: str, total: float) -> Node:
        """The end of an episode in which the model was not asked (any more)."""
        parent = self._last_replayed()
        info = {"session": self.session.name, "ending": self.session.ending.reason if self.session.ending else ""}
        if failure:
            return Node(parent, Action(), (), None, info=info | {"failure": failure})
        truncated = self.session.truncated
        nothing = Action(token_ids=(), logprobs=())
        reward = total - self._earned(parent)
        return Node(parent, nothing, (), reward, not truncated, truncated, info=info)


def _shared(left: tuple[str, ...], right: tuple[str, ...]) -> int:
    """How many keys two conversations share at their beginning."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _signature_of(call: Call) -> str:
    """What the action did: what the environment says of its steps; otherwise its calls, or its text."""
    done = [step.transition.action_signature for step in call.steps]
    if done:
        return done[0] if len(done) == 1 else digest(done)
    made = [[one.name, one.arguments] for one in call.action.tool_calls]
    return digest(made) if made else call.action.content.strip()


def _cost(call: Call) -> Cost:
    action, usage = call.action, call.action.usage or Usage()
    return Cost(
        tokens_sampled=usage.completion_tokens if action.token_ids is None else len(action.token_ids),
        tokens_read=usage.prompt_tokens if action.prompt_token_ids is None else len(action.prompt_token_ids),
        tokens_cached=usage.cached_tokens,
        agent_seconds=call.seconds,
        env_seconds=sum(step.seconds for step in call.steps),
    )
