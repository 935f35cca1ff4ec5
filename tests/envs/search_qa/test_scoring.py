import string

import pytest
from envs.search_qa.hard_pairs import HARD_PAIRS
from hypothesis import given
from hypothesis import strategies as st

from agentenv.envs.search_qa.scoring import (
    exact_match,
    f1_score,
    normalize_answer,
    score_answer,
    sub_match,
    supporting_recall,
)


@pytest.mark.parametrize(("prediction", "answers", "em", "f1", "sub"), HARD_PAIRS)
def test_hard_pairs(prediction, answers, em, f1, sub):
    assert exact_match(prediction, answers) == em
    assert f1_score(prediction, answers) == pytest.approx(float(f1), abs=1e-12)
    assert sub_match(prediction, answers) == sub


def test_there_are_enough_hard_pairs():
    assert len(HARD_PAIRS) >= 100
    assert len({pair[:2] for pair in HARD_PAIRS}) == len(HARD_PAIRS)


@pytest.mark.parametrize(
    ("prediction", "answer", "em", "sub"),
    [
        ("!!!", "!!!", 1, 1),  # the band: the published exact match agrees
        ("The The", "the the", 1, 1),
        ("", "!!!", 0, 0),  # published: 1, 1
        ("a", "The The", 0, 0),  # published: 1, 1
        ("Blondie", "!!!", 0, 0),  # published sub-match: 1, as for every prediction
        ("I saw !!! in 2004", "!!!", 0, 1),
        ("a", "A", 1, 1),
    ],
)
def test_answers_that_normalization_empties(prediction, answer, em, sub):
    assert exact_match(prediction, [answer]) == em
    assert sub_match(prediction, [answer]) == sub


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("yes", "yes", 1),
        ("yes and no", "yes", 0),
        ("yes it is", "yes", 0),
        ("no", "no record", 0),
        ("no", "yes", 0),
        ("noanswer", "unknown", 0),
        ("Obama", "Barack Obama", 2 / 3),
    ],
)
def test_hotpotqa_rule_for_closed_answers(prediction, answer, expected):
    assert f1_score(prediction, [answer], closed=True) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("party", "art", 0),
        ("modern art", "art", 1),
        ("art, he said", "art", 1),
        ("state-of-the-art", "art", 0),
        ("New York City", "York City", 1),
        ("New York City", "New City", 0),
        ("10", "1", 0),
    ],
)
def test_sub_match_of_whole_words(prediction, answer, expected):
    assert sub_match(prediction, [answer], whole_words=True) == expected


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_laws_of_scores(prediction, answers):
    scores = score_answer(prediction, answers)
    assert set(scores) == {"em", "f1", "sub_em"}
    assert scores["em"] <= scores["sub_em"]
    assert 0 <= scores["f1"] <= 1
    assert scores["f1"] <= f1_score(prediction, answers)
    if scores["em"] and normalize_answer(prediction):
        assert scores["f1"] == 1
    assert exact_match(answers[0], answers) == 1
    # A further alias never lowers a score.
    more = score_answer(prediction, [*answers, "another"])
    assert all(more[name] >= scores[name] for name in scores)


@given(st.text())
def test_normalization_is_idempotent_on_ascii_letters(text):
    once = normalize_answer(text)
    assert not set(once) & set(string.punctuation)
    assert once == " ".join(once.split())
    assert not {"a", "an", "the"} & set(once.split())


def test_f1_by_brute_force():
    """Precision and recall written out, over all pairs of short texts of three words."""
    words = ["x", "y", "x y", "x x", "x x y", "y x x", "z", ""]
    for left in words:
        for right in words:
            rest, common = right.split(), 0
            for word in left.split():
                if word in rest:
                    rest.remove(word)
                    common += 1
            expected = 0.0
            if common:
                precision, recall = common / len(left.split()), common / len(right.split())
                expected = 2 * precision * recall / (precision + recall)
            assert f1_score(left, [right]) == pytest.approx(expected)


def test_supporting_recall():
    assert supporting_recall(["a", "b", "c"], ["a", "z"]) == 0.5
    assert supporting_recall([], ["a"]) == 0
    assert supporting_recall(["a"], ["a", "a"]) == 1
    assert supporting_recall(["a"], []) is None


def test_one_text_for_answers_is_refused():
    with pytest.raises(TypeError, match=r"write \[answer\]"):
        exact_match("x", "xyz")
