"""Numbers that mean nothing are refused by name, rule and value, and whole ones are taken in every type."""

import inspect
import re
from typing import Any

import numpy as np
import pytest

from agentenv import credit
from agentenv.arrays import TreeArrays
from agentenv.credit import (
    HashedPredictor,
    HiddenPredictor,
    allocate_arpo,
    allocate_dynamic,
    allocate_pcl,
    allocate_prefixes,
    allocate_random,
    allocate_roots,
    allocate_uniform,
    allocate_vip,
    effective_ratio,
    max_at_k,
    passk_advantages,
    passk_training_advantages,
    pkpo_advantages,
    reachability_advantages,
    reachable,
)
from agentenv.credit.calibration import calibration_by_depth, calibration_of
from agentenv.credit.checks import check_finite, check_weights, check_whole
from agentenv.credit.predictor import Prefix
from agentenv.credit.problems import PROBLEMS
from agentenv.credit.trace import success_shares

TREE = TreeArrays.build([-1, 0, 1, 0, 3, 0, 0], [0, 0, 1, 0, 0, 0, 1])
HALVES = [0.5, 0.5, 0.25]
V = [0.5, 0.4, 0.1]


def drawn(**options):
    return allocate_random(TREE, np.random.default_rng(0), **options).counts


WHOLE = {
    "uniform anchors": ("anchors", 3, lambda x: allocate_uniform(x, budget=7).counts),
    "uniform budget": ("budget", 7, lambda x: allocate_uniform(3, budget=x).counts),
    "uniform maximum": ("maximum", 2, lambda x: allocate_uniform(3, budget=9, maximum=x).counts),
    "roots maximum": ("maximum", 3, lambda x: allocate_roots(HALVES, budget=9, maximum=x).counts),
    "roots minimum": ("minimum", 2, lambda x: allocate_roots(HALVES, budget=9, minimum=x).counts),
    "prefixes maximum": ("maximum", 2, lambda x: allocate_prefixes(HALVES, budget=9, maximum=x).counts),
    "group_maximum": (
        "group_maximum", 2, lambda x: allocate_prefixes(HALVES, budget=9, groups=[0, 0, 1], group_maximum=x).counts
    ),
    "vip budget": ("budget", 9, lambda x: allocate_vip(HALVES, budget=x).counts),
    "vip minimum": ("minimum", 2, lambda x: allocate_vip(HALVES, budget=9, minimum=x).counts),
    "vip maximum": ("maximum", 3, lambda x: allocate_vip(HALVES, budget=9, maximum=x).counts),
    "pcl prompts": ("prompts", 2, lambda x: allocate_pcl(V, prompts=x, group_size=4).counts),
    "pcl group_size": ("group_size", 2, lambda x: allocate_pcl(V, prompts=2, group_size=x).counts),
    "dynamic group_size": (
        "group_size", 2, lambda x: allocate_dynamic([1, 0], [2, 0], wanted=3, group_size=x, budget=9).counts
    ),
    "dynamic wanted": ("wanted", 3, lambda x: allocate_dynamic([1], [2], wanted=x, group_size=2, budget=9).counts),
    "dynamic budget": ("budget", 9, lambda x: allocate_dynamic([1], [2], wanted=3, group_size=2, budget=x).counts),
    "random nodes": ("nodes", 1, lambda x: drawn(nodes=x)),
    "random continuations": ("continuations", 2, lambda x: drawn(nodes=1, continuations=x)),
    "max_at_k": ("k", 2, lambda x: max_at_k([0, 1, 2, 3], x)),
    "pkpo": ("k", 2, lambda x: pkpo_advantages(TREE, k=x).advantages),
    "passk_training": ("k", 2, lambda x: passk_training_advantages(TREE, k=x).advantages),
    "passk": ("k", 2, lambda x: passk_advantages(TREE, k=x, unbiased=True).advantages),
}  # fmt: skip


FUNCTIONS = {name: getattr(credit, name) for name in credit.__all__ if inspect.isfunction(getattr(credit, name))}
FITTING: dict[str, Any] = {
    "tree": TREE, "estimator": credit.rtmc_advantages, "problem": PROBLEMS["sparse"](), "rng": np.random.default_rng(0),
    "anchors": 2, "entropies": HALVES, "initial": HALVES, "success": HALVES, "outcomes": [1, 0, 1], "budget": 9,
    "successes": [1], "trials": [2], "wanted": 3, "group_size": 2, "prompts": 1, "nodes": 1, "k": 2,
    "rewards": [0, 1, 2, 3], "groups": [0, 0, 1], "edges": [[0, 1]], "share": 0.5,
}  # fmt: skip
NUMBERS = [
    (name, parameter.name)
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters.values()
    if str(parameter.annotation) in {str(kind) for kind in (int, float, int | None, float | None)}
    and not name.startswith("check_")
    and parameter.name not in {"seed", "num_states", "trees"}
]


@pytest.mark.parametrize("wrong", ["x", [1.0]])
@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_what_is_no_number_is_refused_by_name_rule_and_value(name, argument, wrong):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    given = {key: FITTING[key] for key, p in parameters.items() if p.default is p.empty and key in FITTING}
    special = {"reachable": {"success": [1]}, "sr_ppo_advantages": {"success": [HALVES], "outcomes": [1]}}
    given |= special.get(name, {"groups": FITTING["groups"]} if argument == "group_maximum" else {})
    with pytest.raises(ValueError, match=rf"\b{argument} must be .*{re.escape(repr(wrong))}"):
        FUNCTIONS[name](**given | {argument: wrong})


@pytest.mark.parametrize("argument", ["size", "rate", "decay", "memory"])
def test_a_predictor_and_an_allocator_take_numbers(argument):
    wrong: dict[str, Any] = {argument: "x"}
    with pytest.raises(ValueError, match=f"^{argument} must be a number, got 'x'$"):
        HashedPredictor(**wrong)
    for name in ("maximum", "group_maximum", "root_maximum"):
        wrong = {name: "x"}
        with pytest.raises(ValueError, match=f"^{name} must be a number, got 'x'$"):
            credit.TraceAllocator(**wrong)


@pytest.mark.parametrize("case", WHOLE)
def test_whole_numbers(case):
    name, fine, call = WHOLE[case]
    for same in (np.int64(fine), np.int32(fine), float(fine), np.float64(fine)):
        np.testing.assert_array_equal(call(same), call(fine))
    for wrong in (fine + 0.5, -1, -0.5, np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=rf"\b{name} must be .*{wrong}"):
            call(wrong)


ASKS = {
    "passk": lambda x: passk_advantages(TREE, threshold=x),
    "passk_training": lambda x: passk_training_advantages(TREE, k=1, threshold=x),
    "reachability": lambda x: reachability_advantages(TREE, threshold=x),
    "success_shares": lambda x: success_shares(TREE, threshold=x),
    "effective_ratio": lambda x: effective_ratio(TREE, threshold=x),
}


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("threshold", [np.nan, np.inf, -np.inf])
def test_thresholds_are_finite(name, threshold):
    with pytest.raises(ValueError, match=f"threshold must be finite, got {threshold}"):
        ASKS[name](threshold)


@pytest.mark.parametrize("predictor", [HashedPredictor(size=64), HiddenPredictor()])
def test_a_predictor_learns_from_weights_that_are_some(predictor):
    prefixes = [Prefix(task=name, hidden=np.arange(3.0) * (name == "a") if name != "c" else None) for name in "abc"]
    for wrong in ([-1, 1, 1], [np.nan, 1, 1], [np.inf, 0, 0]):
        with pytest.raises(ValueError, match=r"weights must be finite and at least 0; weights\[0\] is "):
            predictor.update(prefixes, [0, 1, 1], weights=wrong)
    with pytest.raises(ValueError, match="one length"):
        predictor.update(prefixes, [0, 1, 1], weights=[[1], [1], [1]])
    before = predictor.predict(prefixes)
    predictor.update(prefixes, [0, 1, 1], weights=[0, 0, 0])
    np.testing.assert_array_equal(predictor.predict(prefixes), before)
    predictor.update(prefixes, [0, 1, 1], weights=[0, 0, 1])  # those with a hidden state weigh nothing
    predictor.update(prefixes, [0, 1, 1], weights=[1, 0, 0])
    assert np.isfinite(predictor.predict(prefixes)).all()
    assert (predictor.predict(prefixes) != before).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate_uniform([0.5, 1.5], budget=2), "anchors must be integers, got float64"),
        (lambda: allocate_prefixes([0.5], budget=2, anchors=[1.5]), "anchors must be integers, got float64"),
        (lambda: allocate_prefixes([0.5], budget=2, groups=[1.5], group_maximum=1), "groups must be integers"),
        (lambda: allocate_vip(HALVES, budget=9, minimum=3, maximum=2), r"maximum must be .* \(minimum is 3\), got 2"),
        (lambda: allocate_pcl(V, prompts=1, group_size=2, target=np.nan), r"target must be in \[0, 1\], got nan"),
        (
            lambda: allocate_arpo([1.0], [1.0], np.random.default_rng(0), budget=1, weight=np.nan),
            "weight must be finite",
        ),
        (
            lambda: allocate_dynamic([np.nan, 1, 0], [2, 2, 0], wanted=3, group_size=2, budget=9),
            r"successes must be in \[0, trials\] and of its shape, got \[nan, 1.0, 0.0\]",
        ),
        (lambda: allocate_dynamic([1, 1], [2, np.inf], wanted=3, group_size=2, budget=9), "successes must be in"),
        (lambda: reachable([[0, 1], [1, 2]], [0.3, 0.9, 0.2]), r"success must be \[V\] bool or integers.* got float64"),
        (lambda: reachable([[0, 1]], [1], probabilities=[0.5], floor=np.nan), r"floor must be in \[0, 1\], got nan"),
        (lambda: reachability_advantages(TREE, alive=[0.2] * 7), "alive must be True or False .* entry 0 is 0.2"),
        (lambda: calibration_of([0.5], [0.5], [np.nan]), r"weights must be finite and at least 0; weights\[0\] is nan"),
        (lambda: calibration_by_depth([0.5], [0.5], [1], [-1.0]), "weights must be finite and at least 0"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_checks_themselves():
    assert check_whole("n", np.float32(3), 1) == 3
    with pytest.raises(ValueError, match=r"^n must be at least 2 and a whole number \(why\), got 1$"):
        check_whole("n", 1, 2, why=" (why)")
    check_finite("x", -1.0)
    for minimum, rule in ((-np.inf, "finite"), (0, "at least 0 and finite")):
        with pytest.raises(ValueError, match=f"^x must be {rule}, got nan$"):
            check_finite("x", np.nan, minimum=minimum)
    assert check_weights("w", []).shape == (0,)
    with pytest.raises(ValueError, match=r"^w must be finite and at least 0; w\[3\] is -1.0$"):
        check_weights("w", [[0, 1], [2, -1]])
