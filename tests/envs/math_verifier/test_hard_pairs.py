"""A table of hard pairs: our verdict is the truth."""

from envs.math_verifier.hard_pairs import PAIRS

from agentenv.envs.math_verifier import Verifier, shared_verifier


def test_the_table_is_large_and_has_no_repetition():
    assert len({(reference, answer) for reference, answer, _, _ in PAIRS}) == len(PAIRS) >= 150
    assert sum(right for _, _, right, _ in PAIRS) >= 50
    assert sum(not right for _, _, right, _ in PAIRS) >= 50


def test_our_verdict_is_the_truth():
    verifier = shared_verifier()
    wrong = [pair for pair in PAIRS if verifier.check(pair[0], pair[1]) is not pair[2]]
    assert wrong == []


def test_every_reference_of_the_table_equals_itself():
    verifier = Verifier(shared_verifier().pool)  # an empty cache
    assert [reference for reference, _, _, _ in PAIRS if not verifier.check(reference, reference)] == []
