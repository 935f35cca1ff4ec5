"""Estimators by name, `agentenv.credit.ESTIMATORS`, with options from the command line."""

import difflib
import functools
from collections.abc import Callable, Sequence

from agentenv.arrays import TreeArrays
from agentenv.credit import ESTIMATORS, Allocator, StepAdvantages
from agentenv.credit.estimators import plain_name

from .annotations import annotations_of
from .command_line import blame, refuse
from .env_choice import parse_options

__all__ = ["TRAINED", "choose_allocator", "choose_estimator", "try_estimator", "weigh_alike"]


_ROLLOUTS = 8
"""Of the tree that settings are tried on: enough for any estimator."""


TRAINED = ("sr_ppo", "closed_loop")
"""Credit that needs a critic, which `agentenv train` has."""


def choose_estimator(
    name: str, options: Sequence[str] = (), *, also: Sequence[str] = ()
) -> Callable[[TreeArrays], StepAdvantages]:
    """Returns the estimator called `name`, with `key=value` options set.

    Args:
        name: of `ESTIMATORS`.
        options: of the estimator.
        also: other names that the command takes, to be told of.

    Raises:
        typer.BadParameter: there is no such estimator, or it does not take an option, or its value.
    """
    plain = plain_name(name)
    if plain not in ESTIMATORS:
        known = sorted([*ESTIMATORS, *also])
        close = difflib.get_close_matches(plain, [*known, *TRAINED], n=1)
        hint = f"Did you mean {close[0]!r}? " if close and close[0] in known else ""
        if not hint and close:
            hint = f"{close[0]} has a critic, which `agentenv train --credit {close[0]}` trains. "
        refuse("--credit", f"no estimator {name!r}. {hint}Known: {', '.join(known)}")
    function = ESTIMATORS[plain]
    known_options = dict(list(annotations_of(function).items())[1:])
    given = parse_options(options, known=known_options, owner=f"{plain}_advantages", argument="--credit-option")
    estimator = functools.partial(function, **given)
    if given:
        try_estimator(estimator, _ROLLOUTS, argument="--credit-option")
    return estimator


def weigh_alike(
    estimator: Callable[[TreeArrays], StepAdvantages], step_weights: str
) -> Callable[[TreeArrays], StepAdvantages]:
    """Returns an estimator that pools with the weights of the loss, where it pools at all and was not told otherwise.

    Raises:
        typer.BadParameter: there are no such weights.
    """
    from agentenv import credit
    from agentenv.credit.weights import pool_with

    with blame("--step-weights", ValueError):
        credit.step_weights(TreeArrays.build([-1, 0], [0.0, 1.0]), step_weights)
    return pool_with(estimator, step_weights)


def choose_allocator(name: str) -> Allocator:
    """Returns the allocator of a name.

    Raises:
        typer.BadParameter: there is none; the message lists the names.
    """
    from agentenv.credit import make_allocator

    with blame("--allocator", ValueError):
        return make_allocator(name)


def choose_predictor(name: str, allocator: str) -> str:
    """Returns the name of a success predictor.

    Raises:
        typer.BadParameter: there is none of this name, or the allocator asks none.
    """
    with blame("--predictor", ValueError):
        if name not in {"text", "hidden"}:
            msg = f"must be 'text' or 'hidden', got {name!r}"
            raise ValueError(msg)
        if name == "hidden" and not allocator.startswith("trace"):
            msg = f"must be 'text' with --allocator {allocator}, which predicts nothing, got {name!r}"
            raise ValueError(msg)
    return name


def try_estimator(
    estimator: Callable[[TreeArrays], StepAdvantages], num_rollouts: int, *, argument: str = "--credit"
) -> None:
    """Runs an estimator on a tree of `num_rollouts` episodes of one step, so that bad settings show at once.

    Raises:
        typer.BadParameter: the estimator refuses its settings, or so few rollouts.
    """
    tree = TreeArrays.build([-1] + [0] * num_rollouts, [0.0] + [float(i % 2) for i in range(num_rollouts)])
    with blame(argument, ValueError, TypeError):
        estimator(tree)
