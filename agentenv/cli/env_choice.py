"""Environments as people name them on the command line: a registered id or `module:Class`, and `--option key=value`."""

import difflib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from agentenv.env import Env, choose_task
from agentenv.errors import AgentEnvError, TaskError, UnknownEnvError
from agentenv.registry import env_class, is_module, likely_class
from agentenv.rollout import derive_seed

from .annotations import annotations_of, read_value
from .command_line import blame, mistake_in, refuse
from .sandbox_options import opens_sandboxes, read_sandbox

__all__ = ["EnvChoice", "choose_env", "constructor_options", "parse_options", "parse_task", "sample_tasks"]


@dataclass(frozen=True, slots=True)
class EnvChoice:
    """An environment class and the arguments to make it with.

    Attributes:
        name: as the user wrote it.
        cls: the class.
        options: arguments of the constructor.
        words: the same as words of a command line.
    """

    name: str
    cls: type[Env]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    words: tuple[str, ...] = ()

    def make(self) -> Env:
        """Returns a new environment."""
        return self.cls(**self.options)

    def lists_tasks(self) -> bool:
        """Whether it draws from a list of tasks, and makes none up."""
        with closing(self.make()) as env:
            return len(env.tasks) > 0


def choose_env(name: str, options: Sequence[str] = (), *, argument: str = "ENV_ID") -> EnvChoice:
    """Finds an environment and tries to make it once.

    Args:
        name: as for `agentenv.make`; modules of the current folder count.
        options: `key=value` arguments of the constructor.
        argument: of the command that names the environment, for messages.

    Raises:
        typer.BadParameter: there is no such environment, or it does not take the options.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        cls = env_class(name)
    except Exception as error:  # noqa: BLE001  a module may raise anything
        refuse(argument, _explain(name, error))
    parsed = parse_options(options, known=constructor_options(cls), owner=name)
    choice = EnvChoice(name, cls, parsed, (name, *(word for option in options for word in ("--option", option))))
    with blame("--option" if options else argument, TypeError, ValueError, AgentEnvError, OSError):
        choice.make().close()
    return choice


def _explain(name: str, error: Exception) -> str:
    """Says what is wrong with a name, and where its class may be."""
    if isinstance(error, ModuleNotFoundError) and f"{name.partition(':')[0]}.".startswith(f"{error.name}."):
        return f"{error}: it is looked for in this folder, {Path.cwd()}, and in what is installed"
    if ":" in name or not isinstance(error, UnknownEnvError):
        return mistake_in(name, error)
    module = name.replace("-", "_")
    if (near := likely_class(name)) is not None:
        try:
            env_class(near)
        except Exception as problem:  # noqa: BLE001
            return _explain(near, problem)
        return f"no environment {name!r}. Did you mean {near!r}?"
    if re.fullmatch(r"\w+(\.\w+)*", module) and is_module(module):
        return f"no environment {name!r}: {module} is a module, so its class must be named, '{module}:CLASS'"
    return f"{error}. A class of your own is module:Class"


def constructor_options(cls: type[Env]) -> dict[str, inspect.Parameter]:
    """Returns the named arguments of a class's constructor, those that `**kwargs` passes on to its bases included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(annotations_of(base.__init__).values())[1:]
        for parameter in parameters:
            if parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def parse_options(
    words: Iterable[str], *, known: Mapping[str, inspect.Parameter], owner: str, argument: str = "--option"
) -> dict[str, Any]:
    """Reads `key=value` words; a value is read as its parameter's annotation says, see `read_value`.

    Raises:
        typer.BadParameter: a word without `=`, a key that `owner` does not take, or a value of another type.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            refuse(argument, f"must be key=value, got {word!r}")
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            refuse(argument, f"{owner} has no option {key!r}; {hint}It takes: {', '.join(sorted(known)) or 'none'}")
        annotation = Any if known[key].annotation is inspect.Parameter.empty else known[key].annotation
        try:
            options[key] = read_sandbox(text) if opens_sandboxes(annotation) else read_value(text, annotation)
        except (ValueError, TypeError) as error:
            refuse(argument, f"{key} {error}")
    return options


def parse_task(text: str | None) -> Any:
    """Reads `--task`: index or id of one of the environment's tasks, or one as JSON; `None` where it is not given."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if text.strip()[:1] not in ("", "{", "[", '"'):
            return text
        refuse("--task", f"must be an index, an id or JSON, got {text!r}: {error}")


def sample_tasks(
    choice: EnvChoice, count: int, *, seed: int, exclude: Iterable[str] = (), least: int | None = None
) -> dict[str, Any]:
    """Returns different tasks by id: of the environment's own list, in random order, or drawn by its `sample_task`.

    An environment that knows no tasks, or always the same one, gives that as often as asked: its episodes differ by
    their seeds.

    Args:
        choice: the environment.
        count: how many.
        seed: of the choice.
        exclude: ids of tasks that must not come up.
        least: how many are enough where there are no more; `count` by default.

    Raises:
        TaskError: the environment has fewer tasks than that.
    """
    env = choice.make()
    left_out, tasks, drawn = set(exclude), dict[str, Any](), set[str]()
    try:
        for number, options in enumerate(_resets(env, count, seed)):
            if len(tasks) == count or (number and env.task is None):
                break
            _draw_task(env, derive_seed(seed, number, "task"), options)
            drawn.add(env.task_id)
            if env.task_id not in left_out:
                tasks[env.task_id] = env.task
        if len(drawn) == 1 and not len(env.tasks):
            return {str(number): env.task for number in range(count)}
    finally:
        env.close()
    needed = count if least is None else least
    if len(tasks) < needed:
        msg = f"{choice.name} has only {len(tasks)} different tasks for this, and {needed} are needed: ask for fewer"
        raise TaskError(msg)
    return tasks


def _draw_task(env: Env, seed: int, options: dict[str, Any] | None) -> None:
    """Sets the task as `reset` does, but opens no sandbox: that would be thousands of them for a warm start."""
    if type(env).reset is not Env.reset:  # which may draw its task elsewhere
        env.reset(seed=seed, options=options)
        return
    gymnasium.Env[Any, Any].reset(env, seed=seed)
    env.task = choose_task(env, None if options is None else options["task"])


def _resets(env: Env, count: int, seed: int) -> Iterator[dict[str, Any] | None]:
    """Yields options of `reset` that bring up one task after another."""
    if len(env.tasks):
        for index in np.random.default_rng(seed).permutation(len(env.tasks)):
            yield {"task": int(index)}
    else:
        yield from itertools.repeat(None, 20 * count + 100)
