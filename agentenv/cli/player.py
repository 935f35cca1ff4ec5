"""A person steps an environment at a terminal, goes back and chooses differently; every step is kept in a tree."""

import difflib
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from agentenv.agents.typed_actions import describe_tool, read_action
from agentenv.errors import EpisodeError, InfrastructureError, ModelError, SnapshotError, TreeError
from agentenv.protocols import Agent, Context, SteppableEnv
from agentenv.rollout import derive_seed, go_back
from agentenv.rollout.outages import failure_of
from agentenv.tokens import TokenIds
from agentenv.tree import EpisodeTree
from agentenv.types import Action
from agentenv.wrappers import RecordTree

from .console import print_messages, say
from .drawing import describe_action, print_tree

__all__ = ["Player"]

_HOW_TO_ACT = """\
Type an action:
  submit 42                    a tool and its arguments in order
  submit answer=42             or by name, quoted as in a shell
  {"name": "submit", "arguments": {"answer": 42}}
  anything else                is sent as text; "> submit" sends text that begins with a tool's name

Or a command:"""


class _Refusal(Exception):
    """What was typed cannot be done; the message says why. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class _Command:
    """One command that begins with a colon."""

    usage: str
    about: str
    run: Callable[[str], None]


class Player:
    """Reads lines, steps the environment, and shows what comes back.

    `run` returns when the input ends or the person quits. The trees stay in `trees`.

    Args:
        env: what to play; closed by `close`.
        console: where to print.
        task: passed to every reset; `None` lets the environment choose.
        seed: of the first episode; the next ones count up.
        agent: acts when `:act` asks for it.

    Attributes:
        trees: one tree per episode begun, in order.
    """

    def __init__(
        self, env: SteppableEnv, console: Console, *, task: Any = None, seed: int = 0, agent: Agent | None = None
    ) -> None:
        self._console = console
        self._options = None if task is None else {"task": task}
        self._seed = seed
        self._agent = agent
        self._envs = [RecordTree(env)]
        self._current = 0
        self._quit = False
        self._commands = {command.usage[1:].split()[0]: command for command in self._list_commands()}
        self.trees: list[EpisodeTree] = []

    def _list_commands(self) -> list[_Command]:
        return [
            _Command(":help", "this text", self._help),
            _Command(":tools", "the tools and their arguments", self._show_tools),
            _Command(":tree", "draw all that was tried so far", self._show_tree),
            _Command(":history", "the conversation up to here", self._history),
            _Command(":act [N]", "let the agent of --agent act, N times or to the end", self._let_act),
            _Command(":undo", "take back the last step", self._undo),
            _Command(":goto NODE", "go to a node of the tree; the next step branches off there", self._goto),
            _Command(":fork", "fork the live environment and go on in the fork", self._fork),
            _Command(":switch N", "go on in another fork; each stays where it is", self._switch),
            _Command(":new [SEED]", "begin another episode", self._new),
            _Command(":quit", "leave (or Ctrl-D)", self._leave),
        ]

    # ------------------------------------------------------------------ the loop

    def start(self) -> None:
        """Begins an episode.

        Raises:
            TaskError: the task has the wrong shape.
        """
        observation, info = self._env.reset(seed=self._seed, options=self._options)
        self.trees.append(self._tree)
        names = ", ".join(tool["function"]["name"] for tool in self._env.tools) or "none"
        head = f"task {info.get('task_id', '')}, seed {self._seed}. Tools: {names}. Type :help for help."
        self._say(Text.assemble((f"{self._env.env_id}  ", "bold"), (head, "dim")))
        print_messages(self._console, observation)

    def start_at(self, tree: EpisodeTree, node: int) -> None:
        """Goes on with a tree that was read from a file, at one of its nodes.

        Raises:
            SnapshotError: the environment does not come there again.
            TreeError: there is no such node.
        """
        go_back(self._env.env, tree, node)
        self._env.tree, self._env.node = tree, node
        self.trees.append(tree)
        self._seed = int(tree.metadata.get("seed") or 0)
        head = f"task {tree.task_id}, node {node} of {len(tree)}. Type :help for help."
        self._say(Text.assemble((f"{self._env.env_id}  ", "bold"), (head, "dim")))
        self._history("")

    def run(self) -> None:
        """Reads and obeys until the input ends or `:quit`."""
        while not self._quit:
            try:
                line = self._ask().strip()
            except EOFError:
                self._console.print()
                return
            if not line:
                continue
            try:
                self._obey(line) if line.startswith((":", "?")) else self._act(line)
            except (_Refusal, TreeError, SnapshotError, EpisodeError) as error:
                self._say(Text(str(error), "yellow"))
            except InfrastructureError as error:
                self._say(Text(f"Infrastructure failed: {error}. This step has no reward; :undo goes back.", "red"))

    def close(self) -> None:
        """Closes the environment and its forks."""
        for env in self._envs:
            env.close()

    def _ask(self) -> str:
        node = f"node {self._env.node}" + (", ended" if self._tree.nodes[self._env.node].ended else "")
        prompt = f"environment {self._current + 1}, {node}> " if len(self._envs) > 1 else f"{node}> "
        if sys.stdin.isatty():
            with suppress(ImportError):
                import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]  line editing for input()
            return input(f"\001\033[1m\002{prompt}\001\033[0m\002" if self._console.color_system else prompt)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        self._say(Text(prompt + line.rstrip("\n")))
        return line

    def _act(self, line: str) -> None:
        try:
            action = read_action(line, self._env.tools)
        except ValueError as error:
            raise _Refusal(str(error)) from None
        self._refuse_at_end()
        self._take(action)

    def _take(self, action: Action) -> None:
        observation, reward, terminated, truncated, info = self._env.step(action)
        print_messages(self._console, observation)
        self._say_reward(reward, info.get("rewards", {}))
        if terminated or truncated:
            why = "The episode ended" if terminated else "A limit ended the episode"
            total, steps = self._tree.episode_return(self._env.node), len(self._tree.path(self._env.node)) - 1
            hint = "(:tree, :undo, :goto NODE, :new, :quit)"
            self._say(
                Text.assemble(
                    (f"{why}: return {total:g} after {steps} step{'s' * (steps != 1)} ", "bold"), (hint, "dim")
                )
            )

    def _obey(self, line: str) -> None:
        word, _, rest = line.removeprefix(":").partition(" ")
        word = "help" if word in {"?", ""} else word
        if word not in self._commands:
            close = difflib.get_close_matches(word, self._commands, n=1)
            hint = (
                f" Did you mean :{close[0]}?" if close else f" There are {', '.join(f':{c}' for c in self._commands)}."
            )
            msg = f"No command :{word}.{hint}"
            raise _Refusal(msg)
        self._commands[word].run(rest.strip())

    # ------------------------------------------------------------------ the commands

    def _help(self, _: str) -> None:
        width = max(len(command.usage) for command in self._commands.values())
        lines = [f"  {command.usage:<{width}}  {command.about}" for command in self._commands.values()]
        self._say(Text("\n".join([_HOW_TO_ACT, *lines])))

    def _show_tools(self, _: str) -> None:
        self._say(Text("\n".join(map(describe_tool, self._env.tools)) or "none: send text"))

    def _show_tree(self, _: str) -> None:
        print_tree(self._console, self._tree, here=self._env.node)

    def _history(self, _: str) -> None:
        for node in self._tree.path(self._env.node):
            self._show_node(node)

    def _goto(self, rest: str) -> None:
        last = len(self._tree) - 1
        if not rest.isdecimal() or int(rest) > last:
            msg = f":goto needs the number of a node from 0 to {last}, got {rest!r}; :tree shows them"
            raise _Refusal(msg)
        if self._tree.nodes[int(rest)].reward is None:
            msg = f"Node {rest} failed, so nothing was kept there: go to node {self._tree.nodes[int(rest)].parent}"
            raise _Refusal(msg)
        if int(rest) not in self._tree.snapshots:
            here = self._env.node
            try:
                go_back(self._env.env, self._tree, int(rest))
            except SnapshotError:
                self._env.goto(here)
                raise
        self._env.goto(int(rest))
        self._show_node(int(rest))

    def _let_act(self, rest: str) -> None:
        if self._agent is None:
            msg = "There is no agent: begin with `agentenv play ... --agent random|URL|FOLDER|module:Class`"
            raise _Refusal(msg)
        if rest and (not rest.isdecimal() or int(rest) < 1):
            msg = f":act takes a number of steps from 1 on, got {rest!r}"
            raise _Refusal(msg)
        self._refuse_at_end()
        steps = int(rest) if rest else math.inf
        while steps > 0 and not self._tree.nodes[self._env.node].ended:
            action = self._ask_agent(self._agent, self._context())
            self._say(Text.assemble(("[assistant] ", "green"), describe_action(action, limit=2000)))
            self._take(action)
            steps -= 1

    def _context(self) -> Context:
        """What the agent sees here: as in a rollout, with the exact tokens of what it said before."""
        node, tree = self._env.node, self._tree
        messages, ids = tuple(tree.messages(node)), TokenIds(tree.token_ids(node))
        covered = len(messages) - len(tree.nodes[node].observation) if ids else 0
        return Context(messages, self._env.tools, ids, covered, derive_seed(self._seed, len(tree), "act"))

    @staticmethod
    def _ask_agent(agent: Agent, context: Context) -> Action:
        """Returns what the agent does here; one that broke has done nothing, so another `:act` asks it again."""
        try:
            return Action.parse(agent.act([context])[0])
        except Exception as error:
            if (failure := failure_of(error, agent)) is None and not isinstance(error, ModelError):
                raise
            msg = f"The agent did not act: {failure or error}"
            raise _Refusal(msg) from error

    def _refuse_at_end(self) -> None:
        if self._tree.nodes[self._env.node].ended:
            msg = "The episode has ended here. Go back with :undo or :goto NODE, or begin another with :new."
            raise _Refusal(msg)

    def _undo(self, _: str) -> None:
        if self._env.node == 0:
            msg = "Nothing to undo: this is the root."
            raise _Refusal(msg)
        self._goto(str(self._tree.nodes[self._env.node].parent))

    def _fork(self, _: str) -> None:
        if self._env.node not in self._tree.snapshots:
            msg = "This step failed, so there is nothing to fork: :undo first"
            raise _Refusal(msg)
        (fork,) = self._env.fork(1)
        self._envs.append(fork)
        before, self._current = self._current, len(self._envs) - 1
        text = f"Environment {self._current + 1} is a fork of {before + 1} at node {fork.node}."
        self._say(Text(f"{text} :switch {before + 1} goes back."))

    def _switch(self, rest: str) -> None:
        if not rest.isdecimal() or not 1 <= int(rest) <= len(self._envs):
            msg = (
                f":switch needs the number of an environment from 1 to {len(self._envs)}, got {rest!r}; :fork makes one"
            )
            raise _Refusal(msg)
        self._current = int(rest) - 1
        self._show_node(self._env.node)

    def _new(self, rest: str) -> None:
        if rest and not rest.isdecimal():
            msg = f":new takes a seed, a whole number, got {rest!r}"
            raise _Refusal(msg)
        for fork in self._envs[1:]:
            fork.close()
        self._envs, self._current = self._envs[:1], 0
        self._seed = int(rest) if rest else self._seed + 1
        self.start()

    def _leave(self, _: str) -> None:
        self._quit = True

    # ------------------------------------------------------------------ showing

    @property
    def _env(self) -> RecordTree:
        return self._envs[self._current]

    @property
    def _tree(self) -> EpisodeTree:
        tree = self._env.tree
        if tree is None:
            msg = "call start() first"
            raise EpisodeError(msg)
        return tree

    def _say(self, text: Text) -> None:
        say(self._console, text)

    def _show_node(self, node: int) -> None:
        entry = self._tree.nodes[node]
        if entry.action is not None:
            self._say(Text.assemble(("[assistant] ", "green"), describe_action(entry.action, limit=2000)))
        print_messages(self._console, entry.observation)

    def _say_reward(self, reward: float, parts: Mapping[str, float]) -> None:
        style = "green" if reward > 0 else "red" if reward < 0 else "dim"
        detail = ", ".join(f"{name} {value:+g}" for name, value in parts.items())
        self._say(Text(f"reward {reward:g}{f' ({detail})' if detail else ''}", style))
