"""The table of pairs in `pairs.jsonl`: our verdict is the truth, whatever the spelling.

Each pair says what decides: mathematics where it can (`3/4 = 0.75`), otherwise a convention, by name.
"""

import json
from pathlib import Path

import pytest

from agentenv.envs.math_verifier import Verifier, shared_verifier

LINES = Path(__file__).with_name("pairs.jsonl").read_bytes().splitlines()
PAIRS = [(pair["reference"], pair["answer"], pair["right"], pair["truth"]) for pair in map(json.loads, LINES)]


def test_the_table_is_large_and_has_no_repetition():
    assert len({(reference, answer) for reference, answer, _, _ in PAIRS}) == len(PAIRS) >= 500
    assert sum(right for _, _, right, _ in PAIRS) >= 200
    assert sum(not right for _, _, right, _ in PAIRS) >= 200
    assert all(truth for *_, truth in PAIRS)


def test_our_verdict_is_the_truth():
    verifier = shared_verifier()
    wrong = [pair for pair in PAIRS if verifier.check(pair[0], pair[1]) is not pair[2]]
    assert wrong == []


def test_every_reference_of_the_table_equals_itself():
    verifier = Verifier(shared_verifier().pool)  # an empty cache
    references = {reference for reference, *_ in PAIRS}
    assert [reference for reference in sorted(references) if not verifier.check(reference, reference)] == []


@pytest.mark.parametrize("form", [r"\boxed{{{}}}", "${}$", "The answer is ${}$.", "  {} ", r"so \boxed{{{}}} it is"])
def test_what_stands_around_an_answer_changes_no_verdict(form):
    verifier = shared_verifier()
    bare = [
        pair for pair in PAIRS if pair[1].strip() and not any(mark in pair[1] for mark in ("$", "boxed", "\n", "."))
    ]
    changed = [pair for pair in bare[::7] if verifier.check(pair[0], form.format(pair[1])) is not pair[2]]
    assert changed == []
