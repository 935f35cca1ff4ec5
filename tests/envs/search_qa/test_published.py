"""Our scorers beside published implementations.

pip install torchmetrics==1.9.0 skyrl-gym==0.4.0
"""

import importlib

import numpy as np
import pytest
from envs.search_qa.hard_pairs import HARD_PAIRS

from agentenv.envs.search_qa.scoring import exact_match, f1_score, normalize_answer, sub_match
from agentenv.envs.search_qa.search_r1 import extract_answer


def cases():
    """The hard pairs, and 2,000 random ones from a small alphabet where many words collide."""
    yield from (pair[:2] for pair in HARD_PAIRS)
    rng = np.random.default_rng(0)
    words = ["the", "a", "An", "new", "New", "york", "1,000", "1000", "it's", "U.S.", "é", "’", "-", "yes", "no.", ""]
    for _ in range(2_000):
        texts = [" ".join(rng.choice(words, rng.integers(0, 5))) for _ in range(3)]
        yield texts[0], tuple(texts[1:])


def comparable():
    """The cases in which something is left of every answer; elsewhere we deviate on purpose."""
    return [(p, a) for p, a in cases() if all(map(normalize_answer, a))]


@pytest.mark.model
def test_squad_in_torchmetrics():
    squad = importlib.import_module("torchmetrics.functional.text").squad
    for prediction, answers in comparable():
        target = {"answers": {"answer_start": [0] * len(answers), "text": list(answers)}, "id": "1"}
        result = squad({"prediction_text": prediction, "id": "1"}, target)
        assert exact_match(prediction, answers) * 100 == float(result["exact_match"]), (prediction, answers)
        assert f1_score(prediction, answers) * 100 == pytest.approx(float(result["f1"]), abs=1e-4)


@pytest.mark.model  # the package brings torch
def test_search_r1_scorer_in_skyrl_gym():
    published = importlib.import_module("skyrl_gym.envs.search.utils")
    for prediction, answers in comparable():
        assert exact_match(prediction, answers) == published.em_check(prediction, list(answers))
        assert sub_match(prediction, answers) == published.subem_check(prediction, list(answers))
    for text in (
        "",
        "<answer>x</answer>",
        "<answer>x</answer> <answer> y\n</answer>",
        "<answer>x",
        "<answer></answer>",
    ):
        assert extract_answer(text) == published.extract_solution(text)  # SkyRL counts from one block on
