"""What the checker plays: actions drawn at random, given, or taken from trees; and how far they reach."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

from agentenv.env import Env
from agentenv.protocols import StepResult
from agentenv.rows import is_mapping, read_jsonl, shorten
from agentenv.serialize import read_trees
from agentenv.tree import EpisodeTree
from agentenv.types import Action, message_text

__all__ = ["Coverage", "Script", "choose_scripts", "play_script", "read_actions", "read_tree_scripts", "sample_script"]

TEXT = "text"  # how actions without calls are listed
_MOST_PLAYED = 100
_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Script:
    """One episode to play.

    Attributes:
        actions: in order.
        seed: of the reset.
        task: what `reset` is asked for; `None` for what it draws.
    """

    actions: tuple[Any, ...]
    seed: int = 0
    task: Any = None


@dataclass(slots=True)
class Coverage:
    """How often each tool was called, and how often that was a mistake.

    Attributes:
        calls: by tool; actions without a call are `text`.
        mistakes: likewise.
        steps: taken.
    """

    calls: Counter[str] = field(default_factory=Counter[str])
    mistakes: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0

    def add(self, action: Any, result: StepResult) -> None:
        """Counts one step."""
        self.steps += 1
        observation, _, _, _, info = result
        wrong = list(info.get("mistakes", ()))
        names = [call.name for call in Action.parse(action).tool_calls]
        if not names:
            self.calls[TEXT] += 1
            self.mistakes[TEXT] += bool(wrong)
        for position, name in enumerate(names):
            answered = position < len(observation)
            self.calls[name] += answered
            alone = len(names) == 1
            self.mistakes[name] += answered and bool(wrong) and (alone or message_text(observation[position]) in wrong)

    def reached(self) -> set[str]:
        """The tools of which a call was no mistake."""
        return {name for name, calls in self.calls.items() if calls > self.mistakes[name]}

    def lines(self, tools: Iterable[str]) -> list[str]:
        """Says of every tool how far it was reached, e.g. `run_sql: 7 calls, 7 mistakes: not reached`."""
        named = [*tools, *([TEXT] if self.calls[TEXT] else [])]
        ends = {name: "" if name in self.reached() or name == TEXT else ": not reached" for name in named}
        return [
            f"{name}: {_many(self.calls[name], 'call')}, {_many(self.mistakes[name], 'mistake')}{ends[name]}"
            for name in named
        ]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def play_script(env: Env, script: Script, coverage: Coverage) -> int:
    """Plays an episode, counts what it reaches, and returns how many steps it took."""
    env.reset(seed=script.seed, options=None if script.task is None else {"task": script.task})
    taken = 0
    for action in script.actions:
        result = env.step(action)
        coverage.add(action, result)
        taken += 1
        if result[2] or result[3]:
            break
    return taken


def sample_script(env: Env, *, seed: int, num_steps: int) -> Script:
    """Draws random actions, eight times at most, and returns those that reach most: tools first, then steps."""
    tools = {tool["function"]["name"] for tool in env.tools}
    best, most = Script((), seed), (-1, -1)
    for attempt in range(_ATTEMPTS):
        env.action_space.seed(seed + attempt)
        script = Script(tuple(_varied(env, num_steps)), seed)
        coverage, length = Coverage(), 0
        with suppress(Exception), closing(env.spawn()) as other:  # what it raises is for the clauses to report
            length = play_script(other, script, coverage)
        reach = length, len(coverage.reached() & tools)
        if reach > most:
            best, most = script, reach
        if length == num_steps and (reach[1] == len(tools) or attempt >= _ATTEMPTS // 2):
            break
    return best


def _varied(env: Env, num_steps: int) -> list[Any]:
    """Draws actions so that no tool is called again before the others have been, as far as they come up."""
    by_tool: dict[str, list[Any]] = {}
    for action in (env.action_space.sample() for _ in range(8 * num_steps)):
        calls = Action.parse(action).tool_calls
        by_tool.setdefault(calls[0].name if calls else TEXT, []).append(action)
    rounds = zip_longest(*by_tool.values())
    return [action for column in rounds for action in column if action is not None][:num_steps]


def read_actions(source: Any, *, seed: int) -> list[Script]:
    """Returns the episodes that `actions=` means.

    Args:
        source: the actions of one episode; a list of such lists; or the path of a JSONL file with an action a line
            (text, or an assistant message), or an episode a line: a list of actions, or `{"actions", "task", "seed"}`.
        seed: of the episodes that name none.

    Raises:
        ValueError: it has no actions, or an entry is none; the message names it.
    """
    if isinstance(source, str | Path):
        entries = list(read_jsonl(source))
    else:
        entries = [(f"actions[{number}]", entry) for number, entry in enumerate(source)]
    if not entries:
        msg = f"there are no actions in {shorten(source)}"
        raise ValueError(msg)
    if any(_is_episode(entry) for _, entry in entries):
        return [_read_episode(entry, where, seed) for where, entry in entries]
    return [_read_episode([entry for _, entry in entries], "actions", seed)]


def _is_episode(entry: Any) -> bool:
    return isinstance(entry, list | tuple | Script) or (is_mapping(entry) and "actions" in entry)


def _read_episode(entry: Any, where: str, seed: int) -> Script:
    if isinstance(entry, Script):
        return entry
    episode: dict[str, Any] = dict(entry) if is_mapping(entry) else {"actions": entry}
    actions: Any = episode.get("actions")
    if not isinstance(actions, list | tuple) or not actions or set(episode) - {"actions", "task", "seed"}:
        msg = (
            f"{where}: an episode must be a list of actions, or have 'actions', 'task' and 'seed', got {shorten(entry)}"
        )
        raise ValueError(msg)
    listed = list(cast("Sequence[Any]", actions))
    for number, action in enumerate(listed):
        try:
            Action.parse(action)
        except ValueError as error:
            msg = f"{where}, action {number}: {error}"
            raise ValueError(msg) from None
    return Script(tuple(listed), int(episode.get("seed", seed)), episode.get("task"))


def read_tree_scripts(source: Any, *, env_id: str, seed: int) -> list[Script]:
    """Returns the trajectories of trees as episodes to play; their random outcomes need not come again.

    Args:
        source: a file of trees, or trees.
        env_id: of the environment that they must be of.
        seed: of the episodes.

    Raises:
        ValueError: they are of another environment, or there is no action in them.
    """
    trees: Sequence[EpisodeTree] = read_trees(source) if isinstance(source, str | Path) else list(source)
    scripts: list[Script] = []
    for tree in trees:
        if tree.env_id not in {"", env_id}:
            msg = f"trees must be of {env_id!r}, got one of {tree.env_id!r}"
            raise ValueError(msg)
        for leaf in tree.leaves():
            actions = [tree.nodes[node].action for node in tree.path(leaf)[1:]]
            if actions:
                scripts.append(Script(tuple(actions), seed, tree.task))
    if not scripts:
        msg = "there is no action in the trees"
        raise ValueError(msg)
    return scripts


def choose_scripts(env: Env, scripts: Sequence[Script], *, most: int) -> list[Script]:
    """Returns the few episodes that together reach every tool that any of them does.

    Args:
        env: to play them in environments like it.
        scripts: to choose from; the first hundred are tried.
        most: how many at most.
    """
    if len(scripts) <= most:
        return list(scripts)
    reach: list[set[str]] = []
    for script in scripts[:_MOST_PLAYED]:
        coverage = Coverage()
        with suppress(Exception), closing(env.spawn()) as other:
            play_script(other, script, coverage)
        reach.append(coverage.reached())
    chosen, missing = list[int](), set[str]().union(*reach)
    while len(chosen) < most and (missing or not chosen):
        best = max(range(len(reach)), key=lambda i: (len(reach[i] & missing), len(scripts[i].actions)))
        chosen.append(best)
        missing -= reach[best]
    return [scripts[i] for i in dict.fromkeys(chosen)]
