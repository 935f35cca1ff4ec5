"""Whether a test runner ran no test, read from its output, which an agent's own tests may write."""

import time

import pytest

from agentenv.envs.code_repair.visible_tests import is_of_pytest, ran_none


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("Ran 0 tests in 0.000s\n\nOK\n", True),
        ("Ran 0 tests in 0.000s\n\nNO TESTS RAN\n", True),
        ("Ran 2 tests in 0.000s\n\nOK (skipped=2)\n", True),
        ("Ran 2 tests in 0.000s\n\nFAILED (errors=1, skipped=2, expected failures=1)\n", True),
        ("Ran 2 tests in 0.000s\n\nOK (expected failures=1, skipped=1)\n", False),
        ("Ran 1 test in 0.000s\n\nOK\n", False),
        ("Ran 1 test in 0.000s\n\nFAILED (failures=1)\n", False),
        ("Ran 0 tests in 0.000s\n\nOK\nRan 1 test in 0.000s\n\nOK\n", False),
        ("Ran 1 test in 0.000s\nRan 0 tests in 0.000s\n\nOK\n", True),
        (f"Ran {'1' * 5000} tests in 0.000s\n\nOK\n", False),
        (f"Ran 1 test in 0.000s\n\nOK (skipped={'1' * 5000})\n", False),
        ("=== no tests ran in 0.01s ===", True),
        ("2 skipped in 0.01s", True),
        ("1 passed, 2 skipped in 0.01s", False),
        ("", False),
    ],
)
def test_what_a_runner_says_last_counts(output, wanted):
    assert ran_none(output) is wanted


PIECES = [
    "Ran 1 test in ",
    "Ran 1 tests in \n",
    "Ran 0 tests in 1s\n\n",
    "OK (",
    "OK (skipped=1",
    "FAILED (a)",
    "\n",
    "skipped=1",
    "1 skipped",
    "1 skipped, 1 a",
    "no tests ran",
    "=",
    " ",
    "1",
    "import ",
    "NO TESTS RAN",
    ")",
]


@pytest.mark.parametrize("piece", PIECES)
def test_any_output_is_read_in_time(piece):
    for other in ("", *PIECES):
        pair = piece + other
        half = 100_000
        for text in (pair * (2 * half // len(pair)), piece * (half // len(piece)) + other * (half // len(pair))):
            start = time.process_time()
            ran_none(text)
            is_of_pytest("tests/test_a.py", text.encode())
            assert time.process_time() - start < 1.0, pair
