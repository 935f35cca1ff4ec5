"""A table of hard pairs: our verdict, math-verify's own in a fresh process, and the truth are one."""

import json
import subprocess
import sys

import pytest
from envs.math_verifier.hard_pairs import PAIRS

from agentenv.envs.math_verifier import Verifier, quote, shared_verifier

PROGRAM = """
import json, sys
from math_verify import parse, verify
print(json.dumps([bool(verify(parse(gold), parse(answer))) for gold, answer in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def published():
    """Verdicts of the published scorer on every pair: its own program, its defaults, its main thread."""
    pairs = [(quote(reference), quote(answer)) for reference, answer, _, _ in PAIRS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps(pairs), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_the_table_is_large_and_has_no_repetition():
    assert len({(reference, answer) for reference, answer, _, _ in PAIRS}) == len(PAIRS) >= 150
    assert sum(right for _, _, right, _ in PAIRS) >= 50
    assert sum(not right for _, _, right, _ in PAIRS) >= 50


def test_our_verdict_is_the_truth_and_the_published_one(published):
    verifier = shared_verifier()
    ours = [verifier.check(reference, answer) for reference, answer, _, _ in PAIRS]
    wrong = [(*pair, ours[i], published[i]) for i, pair in enumerate(PAIRS) if not ours[i] == published[i] == pair[2]]
    assert wrong == []


def test_every_reference_of_the_table_equals_itself():
    verifier = Verifier(shared_verifier().pool)  # an empty cache
    assert [reference for reference, _, _, _ in PAIRS if not verifier.check(reference, reference)] == []
